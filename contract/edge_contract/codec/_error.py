"""The one error of the codec."""

from __future__ import annotations

from edge_contract.errors import InputFault


class CodecError(InputFault):
    """A blob that this decoder cannot, or must not, turn back into bytes."""

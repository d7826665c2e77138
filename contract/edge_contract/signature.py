"""The member ``signature.json`` as bytes: a DSSE envelope, and the targets metadata it carries.

Guards: publisher and device read the same envelope out of the same bytes. Who signed it is for
them to judge.

Source: DSSE v1 (github.com/secure-systems-lab/dsse); ``edgeTargets`` is ours, in base64.
"""

from __future__ import annotations

import base64
import json

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError

from edge_contract.bundle import SIGNATURE_MAX_BYTES
from edge_contract.errors import InputFault

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_TARGETS_FIELD = "edgeTargets"


def write(envelope: Envelope, targets: bytes) -> bytes:
    """The member's bytes; the same for the same envelope and metadata."""
    document = {**envelope.to_dict(), _TARGETS_FIELD: base64.b64encode(targets).decode()}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def read(signature: bytes) -> tuple[Envelope, bytes]:
    """The envelope, and the targets metadata that it carries. Raises InputFault."""
    if len(signature) > SIGNATURE_MAX_BYTES:
        raise InputFault(f"the signature is {len(signature)} bytes")
    try:
        document = json.loads(signature)
        carried = base64.b64decode(document.get(_TARGETS_FIELD, ""), validate=True)
        return Envelope.from_dict(document), carried
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError) as error:
        raise InputFault(f"the signature is not a DSSE envelope: {error}") from error

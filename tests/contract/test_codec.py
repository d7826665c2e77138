"""Whatever goes into the codec comes out of it, and nothing but CodecError stops it."""

from __future__ import annotations

import pytest

from edge_contract.codec import decode, encode


@pytest.mark.parametrize("data", [b"", b"\x00", b"no model", bytes(10_000)])
def test_any_bytes_come_back(data: bytes) -> None:
    assert decode(encode(data), size_max=len(data)) == data

"""A member is cut into chunks that are known by digest before they are believed."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from edge_contract import chunks
from edge_contract.chunks import CHUNK_BYTES
from edge_contract.errors import InputFault, PeerFault
from edge_contract.manifest import File


def entry(data: bytes) -> tuple[File, bytes]:
    index = chunks.index_of(data)
    return File(
        name="model.onnx",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        raw_size=len(data),
        raw_sha256=hashlib.sha256(data).hexdigest(),
        index=hashlib.sha256(index).hexdigest() if index else "",
    ), index


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 7])
def test_the_chunks_of_a_plan_make_up_the_member(size: int) -> None:
    data = bytes(i * 31 % 251 for i in range(size))
    file, index = entry(data)
    pieces = list(chunks.split(data))
    planned = chunks.plan(file, index)
    assert len(pieces) == len(planned) == chunks.chunk_count(size)
    for piece, chunk in zip(pieces, planned, strict=True):
        assert hashlib.sha256(piece).hexdigest() == chunk.sha256
        assert data[chunk.offset : chunk.offset + chunk.size] == piece
        assert len(piece) <= CHUNK_BYTES


def test_a_member_of_one_chunk_needs_no_index() -> None:
    file, index = entry(b"small")
    assert index == b"" == file.index.encode()
    assert chunks.plan(file, b"")[0].sha256 == file.sha256


def test_an_index_that_is_not_the_manifests_is_refused() -> None:
    file, index = entry(bytes(3 * CHUNK_BYTES))
    altered = bytes([index[0] ^ 1]) + index[1:]
    for wrong in (altered, index[:-1], index + bytes(32), b""):
        with pytest.raises(PeerFault):
            chunks.plan(file, wrong)
    with pytest.raises(PeerFault):
        chunks.plan(msgspec.structs.replace(file, index=""), index)


def test_a_member_larger_than_an_index_can_name_is_refused() -> None:
    file, _ = entry(b"")
    huge = msgspec.structs.replace(file, size=chunks.MEMBER_MAX_BYTES + 1, index="0" * 64)
    with pytest.raises(PeerFault):
        chunks.plan(huge, b"")
    with pytest.raises(InputFault):
        chunks.index_of(_Huge())


class _Huge(bytes):
    """Bytes that say they are too many, without being so."""

    def __len__(self) -> int:
        return chunks.MEMBER_MAX_BYTES + 1

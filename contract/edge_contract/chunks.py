"""How a member travels: cut into chunks that are named by their own SHA-256.

Guards: a chunk is never larger than ``CHUNK_BYTES`` and is never believed before its digest
matches one that signed metadata leads to. A member of one chunk is named by the member's own
digest; a larger one by its index, the concatenated digests of its chunks, itself one chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from edge_contract.errors import InputFault, PeerFault
from edge_contract.manifest import File

CHUNK_BYTES = 120 * 1024
"""Under AWS IoT Core's 128 KB a message; see docs/decisions for the measurement of the window."""
DIGEST_BYTES = 32
MEMBER_MAX_BYTES = (CHUNK_BYTES // DIGEST_BYTES) * CHUNK_BYTES
"""What one index chunk can name: 471,859,200 bytes."""


@dataclass(frozen=True)
class Chunk:
    """One piece of a member: where it goes and how to know it."""

    sha256: str
    offset: int
    size: int


def chunk_count(size: int) -> int:
    """Chunks of a member of ``size`` bytes; an empty member is one empty chunk."""
    return max(1, -(-size // CHUNK_BYTES))


def split(data: bytes) -> Iterator[bytes]:
    """The chunks of ``data`` in order."""
    for offset in range(0, max(len(data), 1), CHUNK_BYTES):
        yield data[offset : offset + CHUNK_BYTES]


def index_of(data: bytes) -> bytes:
    """The index of a member of more than one chunk, or b"" for one chunk.

    Raises InputFault when the member is larger than one index can name.
    """
    if len(data) > MEMBER_MAX_BYTES:
        raise InputFault(f"a member of {len(data)} bytes is over the limit of {MEMBER_MAX_BYTES}")
    if len(data) <= CHUNK_BYTES:
        return b""
    return b"".join(hashlib.sha256(chunk).digest() for chunk in split(data))


def plan(file: File, index: bytes) -> tuple[Chunk, ...]:
    """The chunks of ``file``, given its index's bytes (b"" for a member of one chunk).

    Raises PeerFault when the index does not match the manifest in digest or length.
    """
    count = chunk_count(file.size)
    if count == 1:
        return (Chunk(file.sha256, 0, file.size),)
    if file.size > MEMBER_MAX_BYTES or not file.index:
        raise PeerFault(f"{file.name}: {file.size} bytes need an index that the manifest lacks")
    if len(index) != count * DIGEST_BYTES:
        raise PeerFault(
            f"{file.name}: index of {len(index)} bytes, expected {count * DIGEST_BYTES}"
        )
    if hashlib.sha256(index).hexdigest() != file.index:
        raise PeerFault(f"{file.name}: the index's digest is not the one in the manifest")
    return tuple(
        Chunk(
            sha256=index[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES].hex(),
            offset=i * CHUNK_BYTES,
            size=min(CHUNK_BYTES, file.size - i * CHUNK_BYTES),
        )
        for i in range(count)
    )

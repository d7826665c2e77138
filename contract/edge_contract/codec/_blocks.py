"""A large file in blocks of 256 KiB, each packed alone: what a device unpacks in little memory.

The weights of a network are words: sign and exponent repeat, the mantissa is noise. Each block is
therefore split into as many planes as its words have bytes, and each plane is compressed where
that makes it smaller. Where a word begins does not matter, only how long it is.

Guards: no number in a blob makes the decoder hold more than one block and its packed planes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edge_contract.codec._error import CodecError
from edge_contract.codec._stream import LEVEL, Feed, compress, decompress, uvarint

BLOCK_BYTES = 256 * 1024
WIDTH_MAX = 8
# Plain bytes, halves, floats, floats with a protobuf tag in front of each, doubles.
_WIDTHS = (1, 2, 4, 5, 8)
_FAST_LEVEL = 1
# What level 1 cannot shrink to this, level 19 shrinks little further, at 5 MB/s: planes of
# mantissas 1.00 and 1.00, of exponents 0.37 and 0.34 (normal float32 weights).
_WORTH = 0.97


def encode_blocks(data: bytes) -> bytes:
    """``data`` as blocks; the same bytes for the same libzstd."""
    view = np.frombuffer(data, np.uint8)
    blocks = range(0, view.size, BLOCK_BYTES)
    return b"".join(_encode(view[at : at + BLOCK_BYTES]) for at in blocks)


def decode_blocks(feed: Feed, size: int) -> Iterator[bytes]:
    """The file of ``size`` bytes, block by block; holds about four blocks.

    Raises CodecError on anything that ``encode_blocks`` cannot have written.
    """
    for at in range(0, size, BLOCK_BYTES):
        yield _decode(feed, min(BLOCK_BYTES, size - at))
    if not feed.ended:
        raise CodecError("bytes after the last block")


def _encode(block: NDArray[np.uint8]) -> bytes:
    tried = [_planes(block, width) for width in _WIDTHS]
    planes = min(tried, key=lambda planes: sum(fast for _, fast in planes))
    return bytes([len(planes)]) + b"".join(_pack(plane, fast) for plane, fast in planes)


def _planes(block: NDArray[np.uint8], width: int) -> list[tuple[bytes, int]]:
    """Each plane, and about what it takes once packed."""
    planes = [block[start::width].tobytes() for start in range(width)]
    return [(p, min(len(p), len(compress(p, _FAST_LEVEL)) if p else 0)) for p in planes]


def _pack(plane: bytes, fast: int) -> bytes:
    if fast < _WORTH * len(plane):
        packed = compress(plane, LEVEL)
        if len(packed) < len(plane):
            return uvarint(len(packed) << 1 | 1) + packed
    return uvarint(len(plane) << 1) + plane


def _decode(feed: Feed, size: int) -> bytes:
    width = feed.byte()
    if not 1 <= width <= WIDTH_MAX:
        raise CodecError(f"a block of words of {width} bytes")
    block = np.empty(size, np.uint8)
    for start in range(width):
        plane = block[start::width]
        plane[:] = np.frombuffer(_unpack(feed, plane.size), np.uint8)
    return block.tobytes()


def _unpack(feed: Feed, size: int) -> bytes:
    """The ``size`` bytes of a plane; it is never longer packed than plain."""
    number = feed.uvarint(size << 1)
    stored = feed.take(number >> 1)
    if number & 1:
        return decompress(stored, size)
    if len(stored) != size:
        raise CodecError(f"a plane of {len(stored)} bytes, expected {size}")
    return stored

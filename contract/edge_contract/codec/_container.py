"""The blob: a header that says how to read on, and the bytes in the codec that packs smallest.

Guards: the size in the header is checked against the caller's limit before anything is
allocated, and no codec gives a byte more than it; the CRC-32 of the result is checked before the
last block is handed out. The CRC finds faults of this codec and of memory; authenticity is the
manifest's SHA-256, checked by the caller.

All but columns are decoded in blocks, in little memory. So columns, which take several times the
file, are for what only they pack: any small file, and tree ensembles.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from enum import IntEnum

from edge_contract.codec._blocks import decode_blocks, encode_blocks
from edge_contract.codec._columnar import decode_columns, encode_columns
from edge_contract.codec._error import CodecError
from edge_contract.codec._frame import decode_frame
from edge_contract.codec._stream import Feed, compress, uvarint

MAGIC = b"EPCC"
STREAM_MIN_BYTES = 2 << 20
"""Files from here on are packed to be decoded in blocks."""
# Plain zstd at level 19 of a 100 MB file takes a minute. Where the columns take less than half of
# what level 3 takes, it cannot win: 19 saves under half of that (benchmarks/codec.py).
_FAST_LEVEL = 3
_ALWAYS_TRY_MAX_BYTES = 1 << 15
# Where level 3 saves nothing, level 19 saves under 1 % (weights, noise), at 4 MB/s.
_SAVES_NOTHING = 0.99
_STREAM_WINDOW_LOG = 21
_COLUMNS_WORTH = 0.8
"""A large file goes into columns where they take less than this share of the next best."""


class CodecId(IntEnum):
    """What follows the header. The number is on the wire."""

    STORED = 0
    ZSTD = 1
    COLUMNS = 2
    BLOCKS = 3


_VERSION: dict[int, int] = {
    CodecId.STORED: 1,
    CodecId.ZSTD: 1,
    CodecId.COLUMNS: 1,
    CodecId.BLOCKS: 2,
}
"""The oldest version of the format that has the codec: what its blobs say."""
VERSION = max(_VERSION.values())


def encode(data: bytes) -> bytes:
    """``data`` in the smallest of the codecs; any bytes at all, and the same blob each time.

    A file of ``STREAM_MIN_BYTES`` or more can be decoded in little memory, unless it is a tree
    ensemble that columns make a fifth smaller. Equal input gives equal bytes for an equal libzstd.
    ``decode`` is proven to give ``data`` back.
    """
    large = len(data) >= STREAM_MIN_BYTES
    bodies = {CodecId.STORED: data}
    columns = encode_columns(data, forests_only=large)
    if columns is not None and not _gives_back(columns, data):
        columns = None
    if large:
        bodies[CodecId.BLOCKS] = encode_blocks(data)
    elif columns is not None:
        bodies[CodecId.COLUMNS] = columns
    best = min(len(body) for body in (*bodies.values(), *([columns] if columns else [])))
    if data and not _plain_cannot_win(best, data):
        window_log = _STREAM_WINDOW_LOG if large else 0
        bodies[CodecId.ZSTD] = compress(data, window_log=window_log)
    codec = min(bodies, key=lambda codec: (len(bodies[codec]), codec))
    if large and columns and len(columns) < _COLUMNS_WORTH * len(bodies[codec]):
        codec, bodies[CodecId.COLUMNS] = CodecId.COLUMNS, columns
    return _header(codec, data) + bodies[codec]


def decode(blob: bytes, *, size_max: int) -> bytes:
    """The bytes that were encoded; at most ``size_max`` of them.

    Raises CodecError, and nothing else, on anything that ``encode`` cannot have written.
    Allocates a small multiple of the smaller of ``size_max`` and the size in the header.
    """
    return b"".join(decode_pieces([blob], size_max=size_max))


def decode_pieces(pieces: Iterable[bytes], *, size_max: int) -> Iterator[bytes]:
    """The same in pieces, of a blob that comes in pieces; what came may be wrong until the end.

    Holds a few MiB, whatever the size; columns take several times the file. Raises CodecError
    as ``decode``, possibly after it gave some pieces, never after ``size_max`` bytes.
    """
    feed = Feed(pieces)
    # 1. Ours, and of a version that this reader knows.
    if feed.take(4) != MAGIC:
        raise CodecError("not an encoded blob: the magic number is missing")
    version, codec = feed.byte(), feed.byte()
    if not 1 <= version <= VERSION:
        raise CodecError(
            f"blob of codec version {version}, this reader knows 1 to {VERSION}",
            advice="Update edge-pack on this machine.",
        )
    # 2. No larger than the caller allows.
    size = feed.uvarint(1 << 62)
    if size > size_max:
        raise CodecError(f"the blob holds {size} bytes, over the limit of {size_max}")
    expected = int.from_bytes(feed.take(4), "little")
    # 3. The bytes are those that went in. The last piece waits for that.
    crc, waiting = 0, b""
    for piece in _decode_body(version, codec, feed, size):
        if waiting:
            yield waiting
        crc, waiting = zlib.crc32(piece, crc), piece
    if crc != expected:
        raise CodecError("the decoded bytes are damaged: their CRC-32 is not the one written")
    yield waiting


def _header(codec: CodecId, data: bytes) -> bytes:
    head = MAGIC + bytes([_VERSION[codec], codec]) + uvarint(len(data))
    return head + zlib.crc32(data).to_bytes(4, "little")


def _decode_body(version: int, codec: int, feed: Feed, size: int) -> Iterator[bytes]:
    if _VERSION.get(codec) != version:
        raise CodecError(f"unknown codec {codec} of version {version}")
    match CodecId(codec):
        case CodecId.STORED:
            return _stored(feed, size)
        case CodecId.ZSTD:
            return decode_frame(feed, size)
        case CodecId.COLUMNS:
            return iter((decode_columns(b"".join(feed.rest()), 0, size),))
        case CodecId.BLOCKS:
            return decode_blocks(feed, size)


def _stored(feed: Feed, size: int) -> Iterator[bytes]:
    left = size
    for piece in feed.rest():
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise CodecError(f"{size - left} stored bytes, expected {size}")


def _gives_back(columns: bytes, data: bytes) -> bool:
    try:
        return decode_columns(columns, 0, len(data)) == data
    except CodecError:
        return False


def _plain_cannot_win(best: int, data: bytes) -> bool:
    if len(data) <= _ALWAYS_TRY_MAX_BYTES:
        return False
    fast = len(compress(data, _FAST_LEVEL))
    hopeless = len(data) >= STREAM_MIN_BYTES and fast > _SAVES_NOTHING * len(data)
    return hopeless or best * 2 < fast

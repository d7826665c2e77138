"""The blob: a header that says how to read on, and the bytes in the codec that packs smallest.

Guards: the size in the header is checked against the caller's limit before anything is
allocated, and the CRC-32 of the result before it is handed out. The CRC finds faults of this
codec and of memory; authenticity is the manifest's SHA-256, checked by the caller.
"""

from __future__ import annotations

import zlib
from enum import IntEnum

from edge_contract.codec._columnar import decode_columns, encode_columns
from edge_contract.codec._error import CodecError
from edge_contract.codec._stream import Reader, compress, decompress, uvarint

MAGIC = b"EPCC"
VERSION = 1
# Plain zstd at level 19 of a 100 MB file takes a minute. Where the columns take less than half of
# what level 3 takes, it cannot win: 19 saves under half of that (benchmarks/codec.py).
_FAST_LEVEL = 3
_ALWAYS_TRY_MAX_BYTES = 1 << 15


class CodecId(IntEnum):
    """What follows the header. The number is on the wire."""

    STORED = 0
    ZSTD = 1
    COLUMNS = 2


def encode(data: bytes) -> bytes:
    """``data`` in the smallest of the codecs; any bytes at all, and the same blob each time.

    Equal input gives equal bytes for an equal libzstd. ``decode`` is proven to give ``data`` back.
    """
    bodies = {CodecId.STORED: data}
    columns = encode_columns(data)
    if columns is not None and _gives_back(columns, data):
        bodies[CodecId.COLUMNS] = columns
    if data and not _plain_cannot_win(columns, data):
        bodies[CodecId.ZSTD] = compress(data)
    codec = min(bodies, key=lambda codec: (len(bodies[codec]), codec))
    return _header(codec, data) + bodies[codec]


def decode(blob: bytes, *, size_max: int) -> bytes:
    """The bytes that were encoded; at most ``size_max`` of them.

    Raises CodecError, and nothing else, on anything that ``encode`` cannot have written.
    Allocates a small multiple of the smaller of ``size_max`` and the size in the header.
    """
    header = Reader(blob)
    # 1. Ours, and of a version that this reader knows.
    if header.take(min(4, header.left)) != MAGIC:
        raise CodecError("not an encoded blob: the magic number is missing")
    version, codec = header.byte(), header.byte()
    if version != VERSION:
        raise CodecError(
            f"blob of codec version {version}, this reader knows {VERSION}",
            advice="Update edge-pack on this machine.",
        )
    # 2. No larger than the caller allows.
    size = header.uvarint(1 << 62)
    if size > size_max:
        raise CodecError(f"the blob holds {size} bytes, over the limit of {size_max}")
    crc = int.from_bytes(header.take(4), "little")
    data = _decode_body(codec, blob, len(blob) - header.left, size)
    # 3. The bytes are those that went in.
    if zlib.crc32(data) != crc:
        raise CodecError("the decoded bytes are damaged: their CRC-32 is not the one written")
    return data


def _header(codec: CodecId, data: bytes) -> bytes:
    head = MAGIC + bytes([VERSION, codec]) + uvarint(len(data))
    return head + zlib.crc32(data).to_bytes(4, "little")


def _decode_body(codec: int, blob: bytes, pos: int, size: int) -> bytes:
    if codec == CodecId.STORED:
        if len(blob) - pos != size:
            raise CodecError(f"{len(blob) - pos} stored bytes, expected {size}")
        return blob[pos:]
    if codec == CodecId.ZSTD:
        return decompress(blob[pos:], size)
    if codec == CodecId.COLUMNS:
        return decode_columns(blob, pos, size)
    raise CodecError(f"unknown codec {codec}")


def _gives_back(columns: bytes, data: bytes) -> bool:
    try:
        return decode_columns(columns, 0, len(data)) == data
    except CodecError:
        return False


def _plain_cannot_win(columns: bytes | None, data: bytes) -> bool:
    if columns is None or len(data) <= _ALWAYS_TRY_MAX_BYTES:
        return False
    return len(columns) * 2 < len(compress(data, _FAST_LEVEL))

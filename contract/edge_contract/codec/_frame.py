"""A bare zstd frame, unpacked piece by piece (RFC 8878, 3.1.1).

Guards: a frame is handed to libzstd block by block, and a block holds at most 128 KiB once it is
unpacked, so that neither a bomb nor bytes behind the frame get further than one block. Memory is
the frame's window, 8 MiB at most and 2 MiB in what this codec writes, and one block.
"""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from edge_contract.codec._error import CodecError
from edge_contract.codec._stream import Feed, check_frame

_BLOCK_MAX_BYTES = 128 * 1024
_RLE, _RESERVED = 1, 3


def decode_frame(feed: Feed, size: int) -> Iterator[bytes]:
    """Exactly ``size`` bytes out of the one frame that is left in ``feed``.

    Raises CodecError when it is damaged, cut off, longer, or followed by anything.
    """
    # 1. The frame's own header: as the encoder writes it.
    head = feed.take(2)
    check_frame(head, size)
    unpacker = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS).decompressobj()
    # 2. Block by block, never more than is left of the file.
    left = size
    try:
        unpacker.decompress(head)
        for block in _blocks(feed):
            raw = unpacker.decompress(block)
            left -= len(raw)
            if left < 0:
                raise CodecError(f"a stream holds more than the {size} bytes expected")
            if raw:
                yield raw
    except zstandard.ZstdError as error:
        raise CodecError(f"a compressed stream is damaged: {error}") from error
    # 3. Nothing missing, and nothing behind it.
    if left or not unpacker.eof or not feed.ended:
        raise CodecError(f"a compressed stream ends {left} bytes early, or is not the last thing")


def _blocks(feed: Feed) -> Iterator[bytes]:
    """Each block with its header; the last one says so."""
    last = False
    while not last:
        head = feed.take(3)
        number = int.from_bytes(head, "little")
        last, kind, size = bool(number & 1), number >> 1 & 3, number >> 3
        if kind == _RESERVED or size > _BLOCK_MAX_BYTES:
            raise CodecError("a compressed stream has a block that no encoder writes")
        yield head + feed.take(1 if kind == _RLE else size)

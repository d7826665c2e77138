"""Numbers and compressed streams: read within bounds, or refused with CodecError.

A decompressor is told in advance how many bytes must come out, so nothing that a blob says can
make it allocate more. Frames are written in one way only (RFC 8878 without the magic number,
content size, checksum and dictionary), and a frame that says anything else is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import zstandard

from edge_contract.codec._error import CodecError

LEVEL = 19
# Level 19 never asks for a window above 8 MiB (ZSTD_defaultCParameters, windowLog 23).
_WINDOW_LOG_MAX = 23
_WINDOW_LOG_MIN = 10


def uvarint(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Numbers(ABC):
    """Reads numbers from whatever gives bytes in order."""

    @abstractmethod
    def take(self, size: int) -> bytes:
        """The next ``size`` bytes. Raises CodecError when there are fewer."""

    def byte(self) -> int:
        """The next byte as a number."""
        return self.take(1)[0]

    def uvarint(self, most: int) -> int:
        """The next number, at most ``most`` and in its shortest form."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise CodecError("a number of more than 64 bits")
        if value > most or (byte == 0 and shift):
            raise CodecError(f"number {value} is over its bound of {most}, or not in short form")
        return value


class Reader(Numbers):
    """Takes numbers and spans from ``blob``, never past its end."""

    def __init__(self, blob: bytes, pos: int = 0) -> None:
        self._blob = blob
        self._pos = pos

    @property
    def left(self) -> int:
        """Bytes not yet taken."""
        return len(self._blob) - self._pos

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > self.left:
            raise CodecError(f"the blob ends early: {size} bytes expected, {self.left} left")
        self._pos += size
        return self._blob[self._pos - size : self._pos]


class Feed(Numbers):
    """The same over bytes that arrive in pieces; holds one piece and what is asked for."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = memoryview(b"")

    @property
    def ended(self) -> bool:
        """Whether nothing is left."""
        return not self._fill()

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size <= len(self._held):
            return self._cut(size)
        parts, left = [], size
        while left:
            if not self._fill():
                raise CodecError(f"the blob ends early: {size} bytes expected, {left} missing")
            parts.append(self._cut(min(left, len(self._held))))
            left -= len(parts[-1])
        return b"".join(parts)

    def rest(self) -> Iterator[bytes]:
        """What is left, piece by piece."""
        while self._fill():
            yield self._cut(len(self._held))

    def _fill(self) -> bool:
        """Have at least one byte in hand; False at the end."""
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._held = memoryview(piece)
        return True

    def _cut(self, size: int) -> bytes:
        cut, self._held = bytes(self._held[:size]), self._held[size:]
        return cut


def compress(raw: bytes, level: int = LEVEL, *, window_log: int = 0) -> bytes:
    """``raw`` as one bare zstd frame; the same bytes for the same libzstd.

    ``window_log`` bounds what a decoder that streams has to hold; 0: as the level has it.
    """
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(raw),
        window_log=window_log,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(raw)


def check_frame(frame: bytes, size: int) -> None:
    """Refuse a frame whose header is none of ours.

    It may ask for no content size (it would be allocated unseen), no dictionary and no checksum,
    and for no window beyond the encoder's.
    """
    if len(frame) < 2 or frame[0] != 0 or (frame[1] >> 3) + _WINDOW_LOG_MIN > _WINDOW_LOG_MAX:
        raise CodecError("a compressed stream has a header that the encoder never writes")
    if size < 1:
        raise CodecError("a compressed stream for nothing")


def decompress(frame: bytes, size: int) -> bytes:
    """Exactly ``size`` bytes out of a bare frame; allocates ``size`` and the window at most."""
    check_frame(frame, size)
    decompressor = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS)
    # The buffer is what the caller expects; a longer stream fails inside libzstd.
    try:
        raw = decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(f"a compressed stream is damaged: {error}") from error
    if len(raw) != size:
        raise CodecError(f"a stream holds {len(raw)} bytes, expected {size}")
    return raw


def pack(raw: bytes) -> tuple[int, bytes]:
    """``raw`` as it is stored: (length * 2 + compressed?, bytes), compressed only if shorter."""
    if raw:
        packed = compress(raw)
        if len(packed) < len(raw):
            return len(packed) << 1 | 1, packed
    return len(raw) << 1, raw


def unpack(head: int, body: Reader, size: int) -> bytes:
    """The ``size`` bytes that ``pack`` stored in ``body`` under the number ``head``."""
    stored = body.take(head >> 1)
    if head & 1:
        return decompress(stored, size)
    if len(stored) != size:
        raise CodecError(f"a stored stream holds {len(stored)} bytes, expected {size}")
    return stored

"""Cuts a byte stream into packets (MQTT 5.0 §2.1), however the network cut it. Pure.

A packet longer than the limit is refused by its length, before its body is read.
"""

from collections.abc import Iterator

from edge_fleet.broker.errors import ProtocolError, malformed
from edge_fleet.broker.reasons import ReasonCode


class Framer:
    """Holds the bytes of one unfinished packet, never more than `limit_bytes` and a read.

    `feed` is read to its end before the next `feed`.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._wanted_bytes = 0  # what must be there before a look is worth it

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The first byte and the body of each packet that is now complete.

        Raises `ProtocolError` at a length that is malformed or past the limit, after the packets
        before it.
        """
        if self._held_bytes:
            self._chunks.append(data)
            self._held_bytes += len(data)
            if self._held_bytes < self._wanted_bytes:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._held_bytes = 0
        at, end = 0, len(data)
        while end - at >= 2:
            length = data[at + 1]
            body = at + 2
            if length >= 0x80:
                header = _long_length(data, at + 1, end)
                if header is None:
                    break
                length, body = header
            if body + length - at > self._limit_bytes:
                raise ProtocolError(
                    ReasonCode.PACKET_TOO_LARGE,
                    f"a packet of {body + length - at} bytes; the limit is {self._limit_bytes}",
                )
            if body + length > end:
                self._hold(data[at:], body + length - at)
                return
            yield data[at], data[body : body + length]
            at = body + length
        if at < end:
            self._hold(data[at:], 0)

    def _hold(self, rest: bytes, wanted_bytes: int) -> None:
        self._chunks.append(rest)
        self._held_bytes = len(rest)
        self._wanted_bytes = wanted_bytes


def _long_length(data: bytes, at: int, end: int) -> tuple[int, int] | None:
    """The remaining length and where the body starts; None when its own bytes are not all there."""
    length = 0
    for shift in (0, 7, 14, 21):
        if at >= end:
            return None
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise malformed("the remaining length is longer than it needs to be")
            return length, at
    raise malformed("the remaining length has more than four bytes")

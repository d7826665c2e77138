"""A connection for whoever takes thousands of messages a second.

Guards: the same messages and acknowledgements as over paho's own client, for a fifth of the time.
paho reads a packet by three calls of the system, waits for each anew, makes an object of 42 names
for its properties, and writes each acknowledgement by itself after waking its thread. Here what the
socket holds is read at once; of it whole PUBLISH packets of QoS 0 and 1 with no property but an
expiry are taken as they are. Every other packet, and whatever is odd about one, is left to paho.

Three private names of paho are used, ``_create_socket``, ``_in_packet`` and ``_packet_queue``:
nothing public reaches them. The tests run against real brokers and say when they change.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import MessageType, MQTTErrorCode

READ_BYTES = 64 * 1024
ROUNDS_MAX = 100
"""Then paho looks after pings and writes, whatever still comes."""
_LENGTH_BYTES_MAX = 4
_TWO = struct.Struct("!H")
_EXPIRY = struct.Struct("!BL")
_EXPIRY_ID = 2
"""Message Expiry Interval (MQTT 5, 3.3.2.3.3)."""
_PUBACK = struct.Struct("!BBH")


class Publish(NamedTuple):
    """A PUBLISH packet (MQTT 5, 3.3); ``expiry_s`` is None where it names none."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    mid: int
    expiry_s: int | None


def publish_at(data: bytes, at: int) -> tuple[Publish, int] | None:
    """The packet at ``at`` and where it ends; None: not whole, or paho's to read."""
    first = data[at]
    qos = first >> 1 & 3
    if first >> 4 != MessageType.PUBLISH >> 4 or qos > 1:
        return None
    begin, end = _body(data, at + 1)
    if end < begin + 2 or end > len(data):
        return None
    topic_end = begin + 2 + _TWO.unpack_from(data, begin)[0]
    properties_at = topic_end + 2 * qos
    if topic_end == begin + 2 or properties_at >= end:
        return None
    mid = _TWO.unpack_from(data, topic_end)[0] if qos else 0
    payload_at = properties_at + 1 + data[properties_at]
    expiry_s = None
    if payload_at > end or data[properties_at] not in (0, _EXPIRY.size):
        return None
    if data[properties_at]:
        identifier, expiry_s = _EXPIRY.unpack_from(data, properties_at + 1)
        if identifier != _EXPIRY_ID:
            return None
    try:
        topic = data[begin + 2 : topic_end].decode()
    except UnicodeDecodeError:
        return None
    return Publish(topic, data[payload_at:end], qos, bool(first & 1), mid, expiry_s), end


def _body(data: bytes, at: int) -> tuple[int, int]:
    """Where what follows a packet's length begins and ends; (0, 0): that cannot be told."""
    length = 0
    for place, byte in enumerate(data[at : at + _LENGTH_BYTES_MAX]):
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return at + place + 1, at + place + 1 + length
    return 0, 0


class ReadAhead:
    """A connected socket that is read in large pieces; for all else it is that socket.

    paho asks ``pending`` of a TLS socket before it waits, and thus of this one.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._piece = b""
        self._at = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def pending(self) -> int:
        """Bytes that can be read without waiting."""
        below = getattr(self._connection, "pending", None)
        return len(self._piece) - self._at + (below() if below else 0)

    def recv(self, size: int) -> bytes:
        """Up to ``size`` bytes; b"" at the end. Raises as the socket does."""
        if self._at >= len(self._piece):
            self._piece, self._at = b"", 0
            self._piece = self._connection.recv(max(size, READ_BYTES))
        taken = self._piece[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def fill(self) -> None:
        """Read a piece where none is left; an error, or the end, is met again by ``recv``."""
        if self._at >= len(self._piece):
            with contextlib.suppress(OSError):
                self._piece, self._at = self._connection.recv(READ_BYTES), 0

    def publishes(self) -> list[Publish]:
        """Take whole PUBLISH packets from the beginning of what was read already."""
        found = []
        while self._at < len(self._piece) and (next_ := publish_at(self._piece, self._at)):
            found.append(next_[0])
            self._at = next_[1]
        return found


class BulkClient(paho.Client):
    """paho's client over a ``ReadAhead``, with ``manual_ack``; see the module's docstring.

    ``on_publishes`` is told, in the network thread, what was read at once.
    """

    on_publishes: Callable[[list[Publish]], None]

    def _create_socket(self) -> Any:
        return ReadAhead(super()._create_socket())

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Handle what the socket holds."""
        connection: Any = self.socket()
        if connection is not None:
            connection.fill()
        for _ in range(ROUNDS_MAX):
            if connection is not None and self._in_packet["command"] == 0:
                found = connection.publishes()
                if found:
                    self.on_publishes(found)
                    if not connection.pending():
                        break
            code = super().loop_read(max_packets)
            connection = self.socket()
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or connection is None:
                return code
            if not connection.pending():
                break
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def acknowledge(self, mids: Sequence[int]) -> None:
        """PUBACK for each, "success" (MQTT 5, 3.4.2.1), in one write."""
        packets = b"".join(_PUBACK.pack(MessageType.PUBACK, 2, mid) for mid in mids)
        if packets:
            self._packet_queue(MessageType.PUBACK, packets, mids[-1], 1)

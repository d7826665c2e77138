"""An MQTT proxy that has the limits of AWS IoT Core and treats a violation as it does.

From "AWS IoT Core endpoints and quotas" and the developer guide's page on MQTT: 128 KB a payload,
128 bytes a client id, 8 filters a SUBSCRIBE, 50 subscriptions a connection, 7 slashes and 256 bytes
a topic, QoS 0 and 1, no topics below ``$`` but its own, keep alive 30 s to 1200 s, and no
subscription identifiers (not in that list: its CONNACK says so, and it disconnects with 0xA1,
github.com/node-red/node-red/issues/4133). Packets are read by the embedded broker's codec.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Self

from edge_fleet.broker.decode import decode
from edge_fleet.broker.encode import encode
from edge_fleet.broker.framing import Framer
from edge_fleet.broker.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Publish,
    Subscribe,
    Unsubscribe,
)
from edge_fleet.broker.properties import Properties
from edge_fleet.broker.wire import write_varint

PAYLOAD_MAX_BYTES = 128 * 1024
PACKET_MAX_BYTES = 149_504
CLIENT_ID_MAX_BYTES = 128
FILTERS_MAX = 8
SUBSCRIPTIONS_MAX = 50
TOPIC_MAX_BYTES = 256
SLASHES_MAX = 7
INFLIGHT_MAX = 100
SAID = Properties(
    receive_maximum=INFLIGHT_MAX,
    maximum_qos=1,
    maximum_packet_size=PACKET_MAX_BYTES,
    subscription_ids_available=0,
)


class Violation(Exception):
    """Something that AWS IoT Core does not take: MQTT 5 reason and words."""

    def __init__(self, reason: int, what: str) -> None:
        super().__init__(what)
        self.reason = reason


class Limits:
    """What one connection did so far."""

    def __init__(self) -> None:
        self.subscribed: set[str] = set()

    def check(self, packet: Packet) -> None:
        """Raise Violation for what is over a limit."""
        match packet:
            case Connect():
                self._connect(packet)
            case Publish():
                _topic(packet.topic)
                if len(packet.payload) > PAYLOAD_MAX_BYTES:
                    raise Violation(0x95, f"a payload of {len(packet.payload)} bytes")
                if packet.qos > 1:
                    raise Violation(0x9B, "QoS 2")
            case Subscribe():
                self._subscribe(packet)
            case Unsubscribe():
                if len(packet.filters) > FILTERS_MAX:
                    raise Violation(0x97, f"an UNSUBSCRIBE of {len(packet.filters)} filters")
                self.subscribed.difference_update(packet.filters)

    def _connect(self, packet: Connect) -> None:
        if not 1 <= len(packet.client_id.encode()) <= CLIENT_ID_MAX_BYTES:
            raise Violation(0x85, f"a client id of {len(packet.client_id)} characters")
        if packet.keep_alive and not 30 <= packet.keep_alive <= 1200:
            raise Violation(0x82, f"keep alive {packet.keep_alive} s")
        if packet.will:
            _topic(packet.will.topic)
            if packet.will.qos > 1:
                raise Violation(0x9B, "a will of QoS 2")

    def _subscribe(self, packet: Subscribe) -> None:
        if packet.properties.subscription_ids:
            raise Violation(0xA1, "a subscription identifier")
        if len(packet.requests) > FILTERS_MAX:
            raise Violation(0x97, f"a SUBSCRIBE of {len(packet.requests)} filters")
        for request in packet.requests:
            _topic(request.filter)
            if request.qos > 1:
                raise Violation(0x9B, "a subscription of QoS 2")
            self.subscribed.add(request.filter)
        if len(self.subscribed) > SUBSCRIPTIONS_MAX:
            raise Violation(0x97, f"{len(self.subscribed)} subscriptions")


def _topic(topic: str) -> None:
    if topic.count("/") > SLASHES_MAX:
        raise Violation(0x90, f"{topic.count('/')} slashes in {topic}")
    if len(topic.encode()) > TOPIC_MAX_BYTES:
        raise Violation(0x90, f"a topic of {len(topic.encode())} bytes")
    if topic.startswith("$") and not topic.startswith("$aws/"):
        raise Violation(0x90, f"the topic {topic}")


class LimitedBroker:
    """The proxy, before the broker on ``port``; a context manager.

    Attributes:
        violations: what clients did that is not allowed, in words.
        packets: how many came from clients. most_subscribed: subscriptions of one connection.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self.violations: list[str] = []
        self.packets = 0
        self.most_subscribed = 0
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        for connection in (self._server, *self._open):
            _end(connection)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            for side in (near, far):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [near, far]
            threading.Thread(target=self._up, args=(near, far), daemon=True).start()
            threading.Thread(target=self._down, args=(far, near), daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        """From the client, as far as it keeps the limits."""
        limits = Limits()
        with contextlib.suppress(OSError):
            for raw, packet in _packets(near):
                self.packets += 1
                try:
                    limits.check(packet)
                except Violation as violation:
                    self.violations.append(str(violation))
                    connecting = isinstance(packet, Connect)
                    said = (
                        Connack(False, violation.reason)
                        if connecting
                        else Disconnect(violation.reason)
                    )
                    near.sendall(encode(said))
                    break
                self.most_subscribed = max(self.most_subscribed, len(limits.subscribed))
                far.sendall(raw)
        _end(near)
        _end(far)

    def _down(self, far: socket.socket, near: socket.socket) -> None:
        """From the broker; what it says of itself is what AWS IoT Core says."""
        with contextlib.suppress(OSError):
            for raw, packet in _packets(far):
                if isinstance(packet, Connack) and not packet.reason:
                    properties = packet.properties._replace(
                        **{k: v for k, v in SAID._asdict().items() if v not in (None, ())}
                    )
                    raw = encode(packet._replace(properties=properties))  # noqa: PLW2901
                near.sendall(raw)
        _end(near)
        _end(far)


def _packets(side: socket.socket) -> Iterator[tuple[bytes, Packet]]:
    framer = Framer(64 * 1024**2)
    while data := side.recv(64 * 1024):
        for first, body in framer.feed(data):
            yield bytes((first,)) + write_varint(len(body)) + body, decode(first, body)


def _end(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)

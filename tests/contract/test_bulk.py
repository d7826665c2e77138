"""Messages by the thousand: the same as paho reads them, each once, in order, acknowledged."""

from __future__ import annotations

import random
import socket
import struct
import threading
from typing import Any

import pytest
from paho.mqtt import _packet
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_contract import broker_url
from edge_contract.ports.bulk import READ_BYTES, Publish, ReadAhead, publish_at
from edge_contract.ports.mqtt import Link, LinkConfig, Message

TIMEOUT_S = 60


def length_of(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def packet(rng: random.Random) -> bytes:
    """A PUBLISH packet, most of them with what this module reads by itself."""
    properties = Properties(PacketTypes.PUBLISH)
    if rng.random() < 0.5:
        properties.MessageExpiryInterval = rng.randrange(2**32)
    if rng.random() < 0.1:
        properties.ContentType = "text"
    if rng.random() < 0.1:
        properties.PayloadFormatIndicator = 1
    qos = rng.choices((0, 1, 2, 3), (3, 6, 1, 1))[0]
    topic = rng.choice((b"a/b", b"", "größe".encode(), b"t" * 200, b"\xff"))
    body = struct.pack("!H", len(topic)) + topic
    body += struct.pack("!H", rng.randrange(1, 2**16)) if qos else b""
    body += properties.pack() + rng.randbytes(rng.choice((0, 1, 70, 500, 20_000)))
    first = 0x30 | rng.randrange(2) << 3 | qos << 1 | rng.randrange(2)
    return bytes([first]) + length_of(len(body)) + body


def as_paho_reads(data: bytes) -> Publish:
    head = 2
    while data[head - 1] >= 0x80:
        head += 1
    read = _packet.decode_publish(data[0], data[head:], MQTTProtocolVersion.MQTTv5)
    return Publish(
        read.topic.decode(), bytes(read.payload), read.qos, read.retain, read.mid,
        getattr(read.properties, "MessageExpiryInterval", None),
    )  # fmt: skip


def test_what_is_read_is_what_paho_reads_and_the_odd_is_left_to_it() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    taken = 0
    for _ in range(500):
        data, before = packet(rng), rng.randbytes(rng.randrange(3))
        found = publish_at(before + data + b"\x40", len(before))
        if found is not None:
            taken += 1
            assert found == (as_paho_reads(data), len(before) + len(data))
            for end in {*range(1, min(len(data), 30)), len(data) - 1}:
                assert publish_at(data[:end], 0) is None
    assert taken > 100


def test_no_bytes_make_it_fail() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(3_000):
        data = bytearray(packet(rng)[:80] if rng.random() < 0.7 else rng.randbytes(40))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(min(12, len(data)))] = rng.randrange(256)
        found = publish_at(bytes(data), 0)
        assert found is None or found[1] <= len(data)


def test_a_socket_read_ahead_gives_the_same_bytes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ahead = ReadAhead(ours)
        ours.setblocking(False)
        theirs.sendall(b"abc" + bytes(100))
        assert ahead.pending() == 0
        assert ahead.recv(1) == b"a"
        assert (ahead.recv(2), ahead.pending(), len(ahead.recv(4096))) == (b"bc", 100, 100)
        with pytest.raises(BlockingIOError):
            ahead.recv(1)
        ahead.fill()
        theirs.sendall(b"z")
        theirs.shutdown(socket.SHUT_WR)
        assert [ahead.recv(9), ahead.recv(9)] == [b"z", b""]
        assert ahead.fileno() == ours.fileno()


class Counted:
    """What came, to wait for."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._came = threading.Condition()

    def __call__(self, messages: list[Message]) -> None:
        with self._came:
            self.messages += messages
            self._came.notify_all()

    def wait(self, count: int) -> list[Message]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.messages) >= count, TIMEOUT_S), (
                f"{len(self.messages)} of {count} messages came"
            )
            return list(self.messages)


def linked(url: str, name: str, inbox: Counted | None = None, **more: Any) -> Link:
    link = Link(LinkConfig(broker_url.parse(url), name, **more), on_messages=inbox)
    link.start(TIMEOUT_S)
    return link


BULK = {"session_expiry_s": 300, "manual_ack": True, "bulk": True, "receive_maximum": 500}


def test_a_thousand_messages_come_once_in_order_and_those_acknowledged_never_again(
    any_broker: Any,
) -> None:
    first, second = Counted(), Counted()
    link = linked(any_broker.url, "one", first, **BULK)
    link.subscribe(["a/#"]).wait(TIMEOUT_S)
    sender = linked(any_broker.url, "two")
    payloads = [
        bytes([at % 256]) * (READ_BYTES + 7 if at % 250 == 3 else at % 700) for at in range(1_000)
    ]
    sent = [
        sender.publish(
            f"a/{at % 7}", data, qos=1,
            expiry_s=900 if at % 2 else None, content_type="x" if at % 5 == 0 else "",
        )
        for at, data in enumerate(payloads)
    ]  # fmt: skip
    seen = 0
    while seen < len(payloads):
        came = first.wait(seen + 1)[seen:]
        link.acknowledge(came[:-1] if seen + len(came) == len(payloads) else came)
        seen += len(came)
    for ticket in sent:
        ticket.wait(TIMEOUT_S)
    assert [(one.topic, one.payload) for one in first.messages] == [
        (f"a/{at % 7}", data) for at, data in enumerate(payloads)
    ]
    assert {one.expiry_s is None for one in first.messages[1::2]} == {False}
    assert {one.expiry_s for one in first.messages[::2]} == {None}
    sender.publish("a/end", b"end").wait(TIMEOUT_S)
    link.stop()
    link = linked(any_broker.url, "one", second, **BULK)
    again = second.wait(2)
    link.stop()
    sender.stop()
    assert [one.payload for one in again] == [payloads[-1], b"end"]

"""Packets to bytes (MQTT 5.0 §3). Pure. ValueError for a value that no field can hold."""

from collections.abc import Callable
from typing import Any

from edge_fleet.broker.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from edge_fleet.broker.properties import EMPTY, write_properties
from edge_fleet.broker.wire import write_binary, write_text, write_varint


def encode(packet: Packet) -> bytes:
    """The packet as it goes on the wire."""
    return _ENCODERS[type(packet)](packet)


def _frame(first: int, body: bytes) -> bytes:
    return bytes((first,)) + write_varint(len(body)) + body


def publish(packet: Publish) -> bytes:
    """§3.3."""
    topic = packet.topic.encode()
    qos = packet.qos
    first = 0x30 | qos << 1 | packet.retain | packet.dup << 3
    head = len(topic).to_bytes(2) + topic
    if qos:
        head += packet.packet_id.to_bytes(2)
    head += b"\x00" if packet.properties is EMPTY else write_properties(packet.properties)
    size = len(head) + len(packet.payload)
    if size < 0x80:
        return bytes((first, size)) + head + packet.payload
    return b"".join((bytes((first,)), write_varint(size), head, packet.payload))


def _ack(first: int) -> Callable[[Ack], bytes]:
    """§3.4 to §3.7, in the shortest form."""
    success = bytes((first, 2))

    def write(packet: Ack) -> bytes:
        if packet.properties is not EMPTY:
            tail = bytes((packet.reason,)) + write_properties(packet.properties)
            return _frame(first, packet.packet_id.to_bytes(2) + tail)
        if packet.reason:
            return bytes((first, 3)) + packet.packet_id.to_bytes(2) + bytes((packet.reason,))
        return success + packet.packet_id.to_bytes(2)

    return write


def _connect(packet: Connect) -> bytes:
    """§3.1."""
    flags = packet.clean_start << 1
    tail = write_text(packet.client_id)
    if packet.will is not None:
        flags |= 4 | packet.will.qos << 3 | packet.will.retain << 5
        tail += write_properties(packet.will.properties) + write_text(packet.will.topic)
        tail += write_binary(packet.will.payload)
    if packet.username is not None:
        flags |= 0x80
        tail += write_text(packet.username)
    if packet.password is not None:
        flags |= 0x40
        tail += write_binary(packet.password)
    head = b"\x00\x04MQTT\x05" + bytes((flags,)) + packet.keep_alive.to_bytes(2)
    return _frame(0x10, head + write_properties(packet.properties) + tail)


def _connack(packet: Connack) -> bytes:
    """§3.2."""
    head = bytes((packet.session_present, packet.reason))
    return _frame(0x20, head + write_properties(packet.properties))


def _subscribe(packet: Subscribe) -> bytes:
    """§3.8."""
    body = bytearray(packet.packet_id.to_bytes(2) + write_properties(packet.properties))
    for request in packet.requests:
        body += write_text(request.filter)
        options = request.qos | request.no_local << 2 | request.retain_as_published << 3
        body.append(options | request.retain_handling << 4)
    return _frame(0x82, bytes(body))


def _unsubscribe(packet: Unsubscribe) -> bytes:
    """§3.10."""
    head = packet.packet_id.to_bytes(2) + write_properties(packet.properties)
    return _frame(0xA2, head + b"".join(map(write_text, packet.filters)))


def _reasons(first: int) -> Callable[[Suback | Unsuback], bytes]:
    """§3.9 and §3.11."""

    def write(packet: Suback | Unsuback) -> bytes:
        head = packet.packet_id.to_bytes(2) + write_properties(packet.properties)
        return _frame(first, head + bytes(packet.reasons))

    return write


def _closing(first: int) -> Callable[[Disconnect | Auth], bytes]:
    """§3.14 and §3.15."""

    def write(packet: Disconnect | Auth) -> bytes:
        if packet.properties is EMPTY and packet.reason == 0:
            return bytes((first, 0))
        return _frame(first, bytes((packet.reason,)) + write_properties(packet.properties))

    return write


_ENCODERS: dict[type[Packet], Callable[[Any], bytes]] = {
    Connect: _connect,
    Connack: _connack,
    Publish: publish,
    Puback: _ack(0x40),
    Pubrec: _ack(0x50),
    Pubrel: _ack(0x62),
    Pubcomp: _ack(0x70),
    Subscribe: _subscribe,
    Suback: _reasons(0x90),
    Unsubscribe: _unsubscribe,
    Unsuback: _reasons(0xB0),
    Pingreq: lambda _: b"\xc0\x00",
    Pingresp: lambda _: b"\xd0\x00",
    Disconnect: _closing(0xE0),
    Auth: _closing(0xF0),
}

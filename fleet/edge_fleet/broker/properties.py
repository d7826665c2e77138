"""Properties (MQTT 5.0 §2.2.2): one table says identifier, type, bounds and where each may stand.

Pure. Bytes in, a typed frozen `Properties` out; anything else is a `ProtocolError`.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from edge_fleet.broker import wire
from edge_fleet.broker.errors import ProtocolError, malformed, violation
from edge_fleet.broker.reasons import ReasonCode


class PacketType(IntEnum):
    """Control packet types (MQTT 5.0 §2.1.2); WILL is the second property set of CONNECT."""

    WILL = 0
    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class Properties(NamedTuple):
    """Every property of the standard; None or () where a packet has none."""

    payload_format: int | None = None
    message_expiry: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_ids: tuple[int, ...] = ()
    session_expiry: int | None = None
    assigned_client_id: str | None = None
    server_keep_alive: int | None = None
    auth_method: str | None = None
    auth_data: bytes | None = None
    request_problem_info: int | None = None
    will_delay: int | None = None
    request_response_info: int | None = None
    response_info: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_available: int | None = None
    subscription_ids_available: int | None = None
    shared_available: int | None = None


EMPTY = Properties()


class _Type(NamedTuple):
    read: Callable[[bytes, int], tuple[Any, int]]
    write: Callable[[Any], bytes]


_BYTE = _Type(lambda data, at: (data[at], at + 1), lambda value: bytes((value,)))
_TWO = _Type(wire.read_two, lambda value: int(value).to_bytes(2))
_FOUR = _Type(wire.read_four, lambda value: int(value).to_bytes(4))
_VARINT = _Type(wire.read_varint, wire.write_varint)
_TEXT = _Type(wire.read_text, wire.write_text)
_BINARY = _Type(wire.read_binary, wire.write_binary)
_PAIR = _Type(wire.read_pair, wire.write_pair)

_P = PacketType
_MESSAGE = (_P.PUBLISH, _P.WILL)
_OPENING = (_P.CONNECT, _P.CONNACK)
_LIMITS = (_P.CONNECT, _P.CONNACK, _P.DISCONNECT)
_AUTHS = (_P.CONNECT, _P.CONNACK, _P.AUTH)
_ACKS = (_P.CONNACK, _P.PUBACK, _P.PUBREC, _P.PUBREL, _P.PUBCOMP, _P.SUBACK, _P.UNSUBACK)
_CLOSING = (_P.DISCONNECT, _P.AUTH)


class _Spec(NamedTuple):
    identifier: int
    field: str
    type: _Type
    packets: tuple[PacketType, ...]
    low: int | None = None
    high: int | None = None
    repeats: bool = False


# In the order of the fields of `Properties`. MQTT 5.0 §2.2.2.2, table 2-4.
_SPECS = (
    _Spec(0x01, "payload_format", _BYTE, _MESSAGE, 0, 1),
    _Spec(0x02, "message_expiry", _FOUR, _MESSAGE),
    _Spec(0x03, "content_type", _TEXT, _MESSAGE),
    _Spec(0x08, "response_topic", _TEXT, _MESSAGE),
    _Spec(0x09, "correlation_data", _BINARY, _MESSAGE),
    _Spec(0x0B, "subscription_ids", _VARINT, (_P.PUBLISH, _P.SUBSCRIBE), 1, repeats=True),
    _Spec(0x11, "session_expiry", _FOUR, _LIMITS),
    _Spec(0x12, "assigned_client_id", _TEXT, (_P.CONNACK,)),
    _Spec(0x13, "server_keep_alive", _TWO, (_P.CONNACK,)),
    _Spec(0x15, "auth_method", _TEXT, _AUTHS),
    _Spec(0x16, "auth_data", _BINARY, _AUTHS),
    _Spec(0x17, "request_problem_info", _BYTE, (_P.CONNECT,), 0, 1),
    _Spec(0x18, "will_delay", _FOUR, (_P.WILL,)),
    _Spec(0x19, "request_response_info", _BYTE, (_P.CONNECT,), 0, 1),
    _Spec(0x1A, "response_info", _TEXT, (_P.CONNACK,)),
    _Spec(0x1C, "server_reference", _TEXT, (_P.CONNACK, _P.DISCONNECT)),
    _Spec(0x1F, "reason_string", _TEXT, (*_ACKS, *_CLOSING)),
    _Spec(0x21, "receive_maximum", _TWO, _OPENING, 1),
    _Spec(0x22, "topic_alias_maximum", _TWO, _OPENING),
    _Spec(0x23, "topic_alias", _TWO, (_P.PUBLISH,)),
    _Spec(0x24, "maximum_qos", _BYTE, (_P.CONNACK,), 0, 1),
    _Spec(0x25, "retain_available", _BYTE, (_P.CONNACK,), 0, 1),
    _Spec(0x26, "user_properties", _PAIR, tuple(_P), repeats=True),
    _Spec(0x27, "maximum_packet_size", _FOUR, _OPENING, 1),
    _Spec(0x28, "wildcard_available", _BYTE, (_P.CONNACK,), 0, 1),
    _Spec(0x29, "subscription_ids_available", _BYTE, (_P.CONNACK,), 0, 1),
    _Spec(0x2A, "shared_available", _BYTE, (_P.CONNACK,), 0, 1),
)
_BY_ID = {spec.identifier: (index, spec) for index, spec in enumerate(_SPECS)}


def read_properties(data: bytes, at: int, packet: PacketType) -> tuple[Properties, int]:
    """The property set at `at`, and the position after it."""
    length, at = wire.read_varint(data, at)
    if length == 0:
        return EMPTY, at
    end = at + length
    if end > len(data):
        raise malformed(f"properties of {length} bytes announced, {len(data) - at} there")
    values: list[Any] = list(EMPTY)
    while at < end:
        index, spec, at = _read_spec(data, at, packet)
        value, at = spec.type.read(data, at)
        _check_bounds(spec, value)
        if spec.repeats:
            values[index] = (*values[index], value)
        elif values[index] is None:
            values[index] = value
        else:
            raise violation(f"property {spec.field} stands twice in {packet.name}")
    if at != end:
        raise malformed(f"a property runs {at - end} bytes past the end of its set")
    return Properties._make(values), at


def _read_spec(data: bytes, at: int, packet: PacketType) -> tuple[int, _Spec, int]:
    identifier, at = wire.read_varint(data, at)
    found = _BY_ID.get(identifier)
    if found is None:
        raise malformed(f"property 0x{identifier:02x} does not exist")
    index, spec = found
    if packet not in spec.packets:
        raise violation(f"property {spec.field} does not belong in {packet.name}")
    return index, spec, at


def _check_bounds(spec: _Spec, value: Any) -> None:
    if spec.identifier == 0x23 and value == 0:
        raise ProtocolError(ReasonCode.TOPIC_ALIAS_INVALID, "topic alias 0 is not allowed")
    if spec.low is not None and value < spec.low:
        raise violation(f"property {spec.field} is {value}, at least {spec.low} expected")
    if spec.high is not None and value > spec.high:
        raise violation(f"property {spec.field} is {value}, at most {spec.high} expected")


def write_properties(properties: Properties) -> bytes:
    """The property set with its length before it."""
    if properties is EMPTY:
        return b"\x00"
    out = bytearray()
    values: tuple[Any, ...] = properties
    for spec, value in zip(_SPECS, values, strict=True):
        if value is None:
            continue
        for item in value if spec.repeats else (value,):
            out.append(spec.identifier)
            out += spec.type.write(item)
    return wire.write_varint(len(out)) + out

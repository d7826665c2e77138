"""Bytes to packets (MQTT 5.0 §3). Pure: `ProtocolError` is the one error that escapes.

Checks what a packet says about itself; what depends on the session (aliases, packet identifiers,
quotas) is for `connection`.
"""

from collections.abc import Callable

from edge_fleet.broker import wire
from edge_fleet.broker.errors import ProtocolError, UnsupportedVersion, malformed, violation
from edge_fleet.broker.packets import (
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
    Request,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from edge_fleet.broker.properties import EMPTY, PacketType, Properties, read_properties
from edge_fleet.broker.reasons import ReasonCode
from edge_fleet.broker.topics import check_topic

_VERSION = 5


def decode(first: int, body: bytes) -> Packet:
    """The packet whose first byte is `first` and whose rest, after the length, is `body`."""
    try:
        if first & 0xF0 == 0x30:
            return _publish(first, body)
        return _DECODERS[first](body)
    except IndexError:
        raise malformed(f"a packet of type {first >> 4} is cut off") from None
    except KeyError:
        raise malformed(f"a packet cannot start with 0x{first:02x}") from None


def _publish(first: int, body: bytes) -> Publish:
    """§3.3."""
    qos = first >> 1 & 3
    end = 2 + (body[0] << 8 | body[1])
    try:
        topic = body[2:end].decode()
    except UnicodeDecodeError as error:
        raise malformed(f"the topic is not UTF-8: {error.reason}") from error
    packet_id = 0
    at = end
    if qos:
        packet_id = body[at] << 8 | body[at + 1]
        at += 2
        if packet_id == 0 or qos == 3:
            raise malformed(f"a PUBLISH of QoS {qos} with packet identifier {packet_id}")
    elif first & 8:
        raise malformed("a PUBLISH of QoS 0 is marked as a duplicate")
    if body[at] == 0:
        properties = EMPTY
        at += 1
    else:
        properties, at = read_properties(body, at, PacketType.PUBLISH)
        if properties.response_topic is not None:
            check_topic(properties.response_topic)
    if topic:
        check_topic(topic)
    elif properties.topic_alias is None:
        raise violation("a PUBLISH with neither topic nor alias")
    return Publish(topic, body[at:], qos, bool(first & 1), bool(first & 8), packet_id, properties)


def _connect(body: bytes) -> Connect:
    """§3.1."""
    protocol, at = wire.read_text(body, 0)
    level, at = body[at], at + 1
    if (protocol, level) != ("MQTT", _VERSION):
        if protocol in {"MQTT", "MQIsdp"}:
            raise UnsupportedVersion(level)
        raise malformed(f"protocol name {protocol[:16]!r}, expected 'MQTT'")
    flags, at = body[at], at + 1
    if flags & 1:
        raise malformed("the reserved flag of CONNECT is set")
    keep_alive, at = wire.read_two(body, at)
    properties, at = read_properties(body, at, PacketType.CONNECT)
    if properties.auth_data is not None and properties.auth_method is None:
        raise violation("authentication data without a method")
    client_id, at = wire.read_text(body, at)
    will, at = _will(flags, body, at)
    username: str | None = None
    password: bytes | None = None
    if flags & 0x80:
        username, at = wire.read_text(body, at)
    if flags & 0x40:
        password, at = wire.read_binary(body, at)
    _nothing_left(body, at)
    clean_start = bool(flags & 2)
    return Connect(client_id, clean_start, keep_alive, username, password, will, properties)


def _will(flags: int, body: bytes, at: int) -> tuple[Will | None, int]:
    """§3.1.2.5 to §3.1.2.7 and §3.1.3.2 to §3.1.3.4."""
    qos = flags >> 3 & 3
    if qos == 3:
        raise malformed("a will of QoS 3")
    if not flags & 4:
        if flags & 0x38:
            raise malformed("flags of a will without a will")
        return None, at
    properties, at = read_properties(body, at, PacketType.WILL)
    topic, at = wire.read_text(body, at)
    check_topic(topic)
    if properties.response_topic is not None:
        check_topic(properties.response_topic)
    payload, at = wire.read_binary(body, at)
    return Will(topic, payload, qos, bool(flags & 0x20), properties), at


def _connack(body: bytes) -> Connack:
    """§3.2."""
    if body[0] > 1:
        raise malformed("reserved flags of CONNACK are set")
    properties, at = read_properties(body, 2, PacketType.CONNACK)
    _nothing_left(body, at)
    return Connack(bool(body[0]), body[1], properties)


def _ack(kind: PacketType, body: bytes) -> tuple[int, int, Properties]:
    """§3.4 to §3.7: a short form leaves out the properties, or the reason code 0 too."""
    packet_id = _packet_id(body)
    if len(body) == 2:
        return packet_id, 0, EMPTY
    if len(body) == 3:
        return packet_id, body[2], EMPTY
    properties, at = read_properties(body, 3, kind)
    _nothing_left(body, at)
    return packet_id, body[2], properties


def _subscribe(body: bytes) -> Subscribe:
    """§3.8."""
    packet_id = _packet_id(body)
    properties, at = read_properties(body, 2, PacketType.SUBSCRIBE)
    if len(properties.subscription_ids) > 1:
        raise violation("a SUBSCRIBE with more than one subscription identifier")
    requests: list[Request] = []
    while at < len(body):
        topic_filter, at = wire.read_text(body, at)
        requests.append(_request(topic_filter, body[at]))
        at += 1
    if not requests:
        raise violation("a SUBSCRIBE without a filter")
    return Subscribe(packet_id, tuple(requests), properties)


def _request(topic_filter: str, options: int) -> Request:
    """§3.8.3.1."""
    qos, handling = options & 3, options >> 4 & 3
    if options & 0xC0:
        raise malformed("reserved subscription options are set")
    if qos == 3:
        raise malformed("a subscription of QoS 3")
    if handling == 3:
        raise violation("retain handling 3 does not exist")
    return Request(topic_filter, qos, bool(options & 4), bool(options & 8), handling)


def _reasons(kind: PacketType, body: bytes) -> tuple[int, tuple[int, ...], Properties]:
    """§3.9 and §3.11."""
    packet_id = _packet_id(body)
    properties, at = read_properties(body, 2, kind)
    return packet_id, tuple(body[at:]), properties


def _unsubscribe(body: bytes) -> Unsubscribe:
    """§3.10."""
    packet_id = _packet_id(body)
    properties, at = read_properties(body, 2, PacketType.UNSUBSCRIBE)
    filters: list[str] = []
    while at < len(body):
        topic_filter, at = wire.read_text(body, at)
        filters.append(topic_filter)
    if not filters:
        raise violation("an UNSUBSCRIBE without a filter")
    return Unsubscribe(packet_id, tuple(filters), properties)


def _closing(kind: PacketType, body: bytes) -> tuple[int, Properties]:
    """§3.14 and §3.15: an empty body means reason 0."""
    if not body:
        return 0, EMPTY
    if len(body) == 1:
        return body[0], EMPTY
    properties, at = read_properties(body, 1, kind)
    _nothing_left(body, at)
    return body[0], properties


def _packet_id(body: bytes) -> int:
    packet_id = body[0] << 8 | body[1]
    if packet_id == 0:
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "packet identifier 0")
    return packet_id


def _nothing_left(body: bytes, at: int) -> None:
    if at != len(body):
        raise malformed(f"{len(body) - at} bytes after the end of a packet")


def _empty(body: bytes) -> None:
    _nothing_left(body, 0)


def _pingreq(body: bytes) -> Pingreq:
    _empty(body)
    return Pingreq()


def _pingresp(body: bytes) -> Pingresp:
    _empty(body)
    return Pingresp()


# By first byte: the flags of every type but PUBLISH are fixed (§2.1.3).
_DECODERS: dict[int, Callable[[bytes], Packet]] = {
    0x10: _connect,
    0x20: _connack,
    0x40: lambda body: Puback(*_ack(PacketType.PUBACK, body)),
    0x50: lambda body: Pubrec(*_ack(PacketType.PUBREC, body)),
    0x62: lambda body: Pubrel(*_ack(PacketType.PUBREL, body)),
    0x70: lambda body: Pubcomp(*_ack(PacketType.PUBCOMP, body)),
    0x82: _subscribe,
    0x90: lambda body: Suback(*_reasons(PacketType.SUBACK, body)),
    0xA2: _unsubscribe,
    0xB0: lambda body: Unsuback(*_reasons(PacketType.UNSUBACK, body)),
    0xC0: _pingreq,
    0xD0: _pingresp,
    0xE0: lambda body: Disconnect(*_closing(PacketType.DISCONNECT, body)),
    0xF0: lambda body: Auth(*_closing(PacketType.AUTH, body)),
}

"""An application message inside the broker, and one copy of it on its way to one session. Pure."""

import math
from typing import NamedTuple

from edge_fleet.broker.packets import Publish, Will
from edge_fleet.broker.properties import EMPTY, Properties

# What a queued message costs beside its topic and payload, on CPython 3.11 and 64 bits.
OVERHEAD_BYTES = 200


class Message(NamedTuple):
    """What was published. `expires_at` in seconds of the broker's clock; `origin`: a client id."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = EMPTY
    expires_at: float | None = None
    origin: str = ""

    def expired(self, now: float) -> bool:
        """True when the message must no longer be sent on (MQTT 5.0 §3.3.2.3.3)."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def size_bytes(self) -> int:
        """About what it costs to keep."""
        size = OVERHEAD_BYTES + len(self.topic) + len(self.payload)
        if self.properties is not EMPTY:
            size += len(self.properties.correlation_data or b"")
            size += sum(len(name) + len(value) for name, value in self.properties.user_properties)
        return size


class GroupKey(NamedTuple):
    """A shared subscription: its name and its filter (§4.8.2)."""

    name: str
    filter: str


class Delivery(NamedTuple):
    """One copy for one session, as its subscription asked for it."""

    message: Message
    qos: int
    retain: bool = False
    subscription_ids: tuple[int, ...] = ()
    group: GroupKey | None = None


def from_publish(packet: Publish, topic: str, now: float, origin: str) -> Message:
    """The message in a PUBLISH, without what concerns only that hop (alias, expiry as a count)."""
    properties = packet.properties
    if properties is EMPTY:
        return Message(topic, packet.payload, packet.qos, packet.retain, EMPTY, None, origin)
    return Message(
        topic,
        packet.payload,
        packet.qos,
        packet.retain,
        _travelling(properties),
        _deadline(properties, now),
        origin,
    )


def from_will(will: Will, now: float, origin: str) -> Message:
    """The message in a will; its expiry counts from its publication (§3.1.3.2.4)."""
    return Message(
        will.topic,
        will.payload,
        will.qos,
        will.retain,
        _travelling(will.properties),
        _deadline(will.properties, now),
        origin,
    )


def to_publish(delivery: Delivery, packet_id: int, now: float) -> Publish:
    """The PUBLISH of a copy, with what is left of its expiry interval (§3.3.2.3.3)."""
    message = delivery.message
    properties = message.properties
    if delivery.subscription_ids:
        properties = properties._replace(subscription_ids=delivery.subscription_ids)
    if message.expires_at is not None:
        left_s = max(1, math.ceil(message.expires_at - now))
        properties = properties._replace(message_expiry=left_s)
    return Publish(
        message.topic,
        message.payload,
        delivery.qos,
        delivery.retain,
        False,
        packet_id,
        properties,
    )


def _travelling(properties: Properties) -> Properties:
    """The properties that go to the receivers unaltered (§3.3.2.3)."""
    kept = Properties(
        payload_format=properties.payload_format,
        content_type=properties.content_type,
        response_topic=properties.response_topic,
        correlation_data=properties.correlation_data,
        user_properties=properties.user_properties,
    )
    return EMPTY if kept == EMPTY else kept


def _deadline(properties: Properties, now: float) -> float | None:
    expiry_s = properties.message_expiry
    return None if expiry_s is None else now + expiry_s

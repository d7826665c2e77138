"""Control packets as typed, frozen values (MQTT 5.0 §3). Pure.

Named tuples, because one is made per packet and they cost a third of a frozen dataclass.
"""

from typing import NamedTuple

from edge_fleet.broker.properties import EMPTY, Properties


class Will(NamedTuple):
    """What the server publishes when the client vanishes (§3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = EMPTY


class Connect(NamedTuple):
    """§3.1. `keep_alive` in seconds, 0 for none."""

    client_id: str
    clean_start: bool = True
    keep_alive: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = EMPTY


class Connack(NamedTuple):
    """§3.2."""

    session_present: bool
    reason: int
    properties: Properties = EMPTY


class Publish(NamedTuple):
    """§3.3. `packet_id` is 0 for QoS 0; an empty topic means: the alias says which."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = EMPTY


class Puback(NamedTuple):
    """§3.4: answers QoS 1."""

    packet_id: int
    reason: int = 0
    properties: Properties = EMPTY


class Pubrec(NamedTuple):
    """§3.5: QoS 2, received."""

    packet_id: int
    reason: int = 0
    properties: Properties = EMPTY


class Pubrel(NamedTuple):
    """§3.6: QoS 2, released."""

    packet_id: int
    reason: int = 0
    properties: Properties = EMPTY


class Pubcomp(NamedTuple):
    """§3.7: QoS 2, complete."""

    packet_id: int
    reason: int = 0
    properties: Properties = EMPTY


class Request(NamedTuple):
    """One filter of a SUBSCRIBE with its options (§3.8.3.1)."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(NamedTuple):
    """§3.8."""

    packet_id: int
    requests: tuple[Request, ...]
    properties: Properties = EMPTY


class Suback(NamedTuple):
    """§3.9: one reason a filter."""

    packet_id: int
    reasons: tuple[int, ...]
    properties: Properties = EMPTY


class Unsubscribe(NamedTuple):
    """§3.10."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = EMPTY


class Unsuback(NamedTuple):
    """§3.11: one reason a filter."""

    packet_id: int
    reasons: tuple[int, ...]
    properties: Properties = EMPTY


class Pingreq(NamedTuple):
    """§3.12."""


class Pingresp(NamedTuple):
    """§3.13."""


class Disconnect(NamedTuple):
    """§3.14."""

    reason: int = 0
    properties: Properties = EMPTY


class Auth(NamedTuple):
    """§3.15."""

    reason: int = 0
    properties: Properties = EMPTY


Ack = Puback | Pubrec | Pubrel | Pubcomp
Packet = (
    Connect
    | Connack
    | Publish
    | Ack
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)

"""One MQTT 5 connection, as every side of this project makes it.

Guards: MQTT 5 only, so that a refused right or a full quota is said and not swallowed; a
Maximum Packet Size at CONNECT, so that no peer can make this process hold a message that nobody
asked for; every SUBACK and PUBACK reason code is read.

The network runs in paho's own thread. ``on_message`` runs there too and must not block; hand
longer work to another thread.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import InputFault, PeerFault
from edge_contract.ports.bulk import BulkClient, Publish

log = logging.getLogger(__name__)

_properties: Callable[[int], Any] = Properties
"""Paho sets MQTT 5 properties as attributes and declares none of them."""

PACKET_MAX_BYTES = 1024 * 1024
"""Without it 100 MB of junk on one topic took a client to 423 MB; with it, 35 MB."""
KEEPALIVE_S = 30
RECONNECT_MIN_S = 1
MEANWHILE_S = 0.2
"""While waiting for the broker, the caller is asked this often whether to go on."""
RECONNECT_MAX_S = 60
QUICK_S = 10.0
"""A connection that ended sooner did not do well: after a few of them the pauses grow. mosquitto
2.0.11 ends a connection at each message that its rights refuse; paho alone would be back, and
gone again, every second."""
QUICK_FREE = 3
FILTERS_MAX = 8
"""Filters in one SUBSCRIBE (AWS IoT Core's limit)."""
_LOST = "the connection was lost"
NO_MATCHING_SUBSCRIBERS = 0x10
"""Reason code of a PUBACK: accepted, nobody subscribes (MQTT 5, 3.4.2.1). A broker may say it."""


@dataclass(frozen=True)
class Message:
    """A message received, or a last will.

    ``expiry_s``: what its message expiry interval left when it came; None: it has none.
    """

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    response_topic: str = ""
    correlation: bytes = b""
    subscriptions: tuple[int, ...] = ()
    mid: int = 0
    expiry_s: int | None = None


@dataclass(frozen=True)
class LinkConfig:
    """How to connect.

    Attributes:
        session_expiry_s: how long the broker keeps the session; 0 ends it with the connection.
        will, will_delay_s: published by the broker when this side dies.
        manual_ack: QoS 1 messages are acknowledged by ``Link.acknowledge`` only.
        receive_maximum: unacknowledged messages that the broker may send at once.
        bulk: expect thousands of messages a second (``ports.bulk``); with ``manual_ack``.
        quick_ack: acknowledge at TCP level without delay, for questions and answers: brokers
            that leave Nagle's algorithm on (mosquitto's default) otherwise hold each answer back
            for 40 ms (Linux only).
        ca_file, cert_file, key_file: TLS; the system's authorities when ``ca_file`` is "".
    """

    broker: BrokerUrl
    client_id: str
    session_expiry_s: int = 0
    keepalive_s: int = KEEPALIVE_S
    packet_max_bytes: int = PACKET_MAX_BYTES
    receive_maximum: int = 64
    manual_ack: bool = False
    bulk: bool = False
    quick_ack: bool = False
    will: Message | None = None
    will_delay_s: int = 0
    reconnect_min_s: int = RECONNECT_MIN_S
    reconnect_max_s: int = RECONNECT_MAX_S
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


class Ticket:
    """A publish or subscribe under way: ``wait`` returns when the broker said yes.

    ``again``: paho sends it anew after a connection was lost, as it does with QoS 1 and 2.
    """

    def __init__(self, what: str, *, again: bool = True) -> None:
        self.again = again
        self.unheard = False
        """The broker took it, and said that nobody listens (reason 0x10): it keeps nothing."""
        self._what = what
        self._done = threading.Event()
        self._error = ""
        self._callbacks: list[Callable[[bool], None]] = []
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        """The broker answered, for good or ill."""
        return self._done.is_set()

    @property
    def error(self) -> str:
        """The broker's reason for a refusal; "" when it accepted, or did not answer yet."""
        return self._error

    def wait(self, timeout_s: float) -> None:
        """Block until the broker answered. Raises PeerFault when it refused or stayed silent."""
        if not self._done.wait(timeout_s):
            raise PeerFault(
                f"the broker did not acknowledge {self._what} within {timeout_s:g} s",
                advice="Check that it is reachable and not overloaded.",
            )
        if self._error:
            raise PeerFault(
                f"the broker refused {self._what}: {self._error}",
                advice="Check this user's rights on that topic and the broker's limits.",
            )

    def then(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback(accepted)`` in the network thread once the broker answered."""
        with self._lock:
            if not self._done.is_set():
                self._callbacks.append(callback)
                return
        callback(not self._error)

    def settle(self, error: str = "", *, unheard: bool = False) -> None:
        """The broker answered; ``error`` is its reason, or "" for success."""
        with self._lock:
            if self._done.is_set():
                return
            self._error = error
            self.unheard = unheard
            self._done.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(not error)


class Link:
    """A connection that reconnects by itself; see the module's docstring.

    Args:
        on_message: called for each message, in the network thread.
        on_messages: called instead, with those that were read at once.
        on_up: called after each CONNACK with whether the broker kept the session.
        on_down: called with the reason after each loss.
        on_refused: called with the reason of each CONNACK that said no.
    """

    def __init__(
        self,
        config: LinkConfig,
        *,
        on_message: Callable[[Message], None] | None = None,
        on_messages: Callable[[list[Message]], None] | None = None,
        on_up: Callable[[bool], None] | None = None,
        on_down: Callable[[str], None] | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config
        self._on_messages = on_messages
        if on_messages is None and on_message is not None:
            self._on_messages = partial(_each, on_message)
        self._on_up = on_up
        self._on_down = on_down
        self._on_refused = on_refused
        self._up = threading.Event()
        self._answered = threading.Event()
        self._refusal = ""
        self._cause = ""
        self._since_s = 0.0
        self._quick = 0
        self.hold_s = 0.0
        """Stay away at least this long after the next loss; set by ``on_down`` at the latest."""
        self._peer_packet_max_bytes: int | None = None
        self._identifiers = True
        self._offered: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._losses = 0
        self._tickets: dict[tuple[str, int], Ticket] = {}
        self._settled: dict[tuple[str, int], tuple[str, bool]] = {}
        self._client = self._make_client()

    # -- life ------------------------------------------------------------------------------

    def start(
        self, timeout_s: float | None = None, *, meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Begin to connect; with ``timeout_s``, wait for it.

        Args:
            meanwhile: called several times a second while waiting; what it raises ends the wait.

        Raises PeerFault at once when the broker refused, or when none was there in time.
        """
        broker = self.config.broker
        self._client.connect_async(
            broker.host,
            broker.port,
            keepalive=self.config.keepalive_s,
            clean_start=self.config.session_expiry_s == 0,
            properties=self._connect_properties(),
        )
        self._client.loop_start()
        if timeout_s is None:
            return
        try:
            self._await_answer(timeout_s, meanwhile)
        except BaseException:
            self.stop()
            raise
        if not self._up.is_set():
            cause = f": {self._cause}" if self._cause else ""
            self.stop()
            if self._answered.is_set():
                raise PeerFault(
                    f"{broker} refused the connection: {self._refusal}",
                    advice="Check user and password, and that the broker speaks MQTT 5.",
                )
            raise PeerFault(
                f"no connection to {broker} within {timeout_s:g} s{cause}",
                advice="Check the address and that a broker runs there.",
            )

    def _await_answer(self, timeout_s: float, meanwhile: Callable[[], None] | None) -> None:
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if self._answered.wait(left if meanwhile is None else min(left, MEANWHILE_S)):
                return
            if meanwhile is not None:
                meanwhile()

    def stop(self) -> None:
        """Disconnect properly (no last will) and end the network thread."""
        self._client.disconnect()
        # paho's network thread forgets itself as it ends, between loop_stop's check and join too.
        with contextlib.suppress(AttributeError):
            self._client.loop_stop()
        self._up.clear()
        with self._lock:
            tickets, self._tickets = list(self._tickets.values()), {}
        for ticket in tickets:
            ticket.settle("the connection was closed")

    @property
    def up(self) -> bool:
        """Connected at this moment, as far as this side knows."""
        return self._up.is_set()

    @property
    def peer_packet_max_bytes(self) -> int | None:
        """The largest packet that the broker takes, as its CONNACK said; None: no bound named.

        MQTT 5, 3.2.2.3.6: a client that sends a larger one is disconnected.
        """
        return self._peer_packet_max_bytes

    @property
    def identifiers(self) -> bool:
        """Whether the broker knows subscription identifiers, as its CONNACK said.

        MQTT 5, 3.2.2.3.12. AWS IoT Core does not, and ends a connection that uses one (0xA1).
        """
        return self._identifiers

    @property
    def offered(self) -> Mapping[str, Any]:
        """What the last CONNACK said of the broker, as ``MaximumQoS`` (MQTT 5, 3.2.2.3)."""
        return self._offered

    # -- messages --------------------------------------------------------------------------

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        content_type: str = "",
        correlation: bytes = b"",
        response_topic: str = "",
    ) -> Ticket:
        """Send one message. While off line paho keeps one of QoS 1 in memory until connected.

        One of QoS 0 is lost with the connection (MQTT 5, 4.3.1), and its ticket says so.
        """
        properties = _properties(PacketTypes.PUBLISH)
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        if content_type:
            properties.ContentType = content_type
        if correlation:
            properties.CorrelationData = correlation
        if response_topic:
            properties.ResponseTopic = response_topic
        ticket = Ticket(f"a message on {topic}", again=qos > 0)
        losses = self._losses
        info = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        kept = ticket.again and info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS and not kept:
            ticket.settle(paho.error_string(info.rc))
        else:
            self._register("publish", info.mid, ticket, losses)
        return ticket

    def subscribe(
        self,
        filters: Sequence[str],
        *,
        qos: int = 1,
        identifier: int | None = None,
        retain_handling: int = 0,
        no_local: bool = False,
    ) -> Ticket:
        """Subscribe to up to ``FILTERS_MAX`` filters in one packet.

        ``identifier`` comes back with each message of it, where the broker knows ``identifiers``.
        """
        assert 1 <= len(filters) <= FILTERS_MAX
        properties = _properties(PacketTypes.SUBSCRIBE)
        if identifier is not None and self._identifiers:
            properties.SubscriptionIdentifier = identifier
        options = SubscribeOptions(qos=qos, retainHandling=retain_handling, noLocal=no_local)
        ticket = Ticket(f"the subscription to {', '.join(filters)}", again=False)
        losses = self._losses
        code, mid = self._client.subscribe([(f, options) for f in filters], properties=properties)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            ticket.settle(paho.error_string(code))
        else:
            self._register("subscribe", mid, ticket, losses)
        return ticket

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Stop receiving; nobody waits for the answer."""
        self._client.unsubscribe(list(filters))

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Acknowledge QoS 1 messages (with ``manual_ack``); others need none."""
        mids = [message.mid for message in messages if message.qos == 1]
        if isinstance(self._client, BulkClient):
            self._client.acknowledge(mids)
            return
        for mid in mids:
            self._client.ack(mid, 1)

    # -- paho ------------------------------------------------------------------------------

    def _make_client(self) -> paho.Client:
        config = self.config
        _accept_size_refusal()
        client = (BulkClient if config.bulk else paho.Client)(
            CallbackAPIVersion.VERSION2,
            client_id=config.client_id,
            protocol=paho.MQTTv5,
            manual_ack=config.manual_ack,
        )
        client.reconnect_delay_set(config.reconnect_min_s, config.reconnect_max_s)
        client.max_inflight_messages_set(64)
        if config.broker.user:
            client.username_pw_set(config.broker.user, config.broker.password)
        if config.broker.tls:
            client.tls_set_context(tls_context(config))
        if config.will:
            properties = _properties(PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = config.will_delay_s
            client.will_set(
                config.will.topic,
                config.will.payload,
                qos=config.will.qos,
                retain=config.will.retain,
                properties=properties,
            )
        if isinstance(client, BulkClient):
            client.on_publishes = self._taken
        client.on_socket_open = _no_delay
        client.on_connect = self._connected
        client.on_connect_fail = self._unreached
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_publish = self._published
        client.on_subscribe = self._subscribed
        return client

    def _connect_properties(self) -> Any:
        properties = _properties(PacketTypes.CONNECT)
        properties.MaximumPacketSize = self.config.packet_max_bytes
        properties.ReceiveMaximum = self.config.receive_maximum
        if self.config.session_expiry_s:
            properties.SessionExpiryInterval = self.config.session_expiry_s
        return properties

    def _register(self, kind: str, mid: int, ticket: Ticket, losses: int) -> None:
        """``losses``: of connections, before it was sent; one since then may have taken it."""
        with self._lock:
            settled = self._settled.pop((kind, mid), None)
            if settled is None and not ticket.again and losses != self._losses:
                settled = (_LOST, False)
            if settled is None:
                self._tickets[kind, mid] = ticket
        if settled is not None:
            error, unheard = settled
            ticket.settle(error, unheard=unheard)

    def _settle(self, kind: str, mid: int, error: str, *, unheard: bool = False) -> None:
        """The answer may come before ``publish`` returned the message's number to us."""
        with self._lock:
            ticket = self._tickets.pop((kind, mid), None)
            if ticket is None:
                self._settled[kind, mid] = (error, unheard)
        if ticket is not None:
            ticket.settle(error, unheard=unheard)

    def _unreached(self, _client: Any, _user: Any) -> None:
        """Paho calls this where it caught the error, and does not hand it over."""
        self._because(_why(sys.exception()))

    def _because(self, cause: str) -> None:
        """Why there is no connection: said once, not at every attempt."""
        if cause and cause != self._cause:
            log.info("no connection to %s: %s", self.config.broker, cause)
        self._cause = cause

    def _connected(
        self, _client: Any, _user: Any, flags: paho.ConnectFlags, code: ReasonCode, props: Any
    ) -> None:
        if code.is_failure:
            self._refusal = str(code)
            log.warning("%s refused %s: %s", self.config.broker, self.config.client_id, code)
            self._answered.set()
            if self._on_refused:
                self._on_refused(self._refusal)
            return
        self._offered = props.json() if props is not None else {}
        self._peer_packet_max_bytes = getattr(props, "MaximumPacketSize", None)
        self._identifiers = getattr(props, "SubscriptionIdentifierAvailable", 1) != 0
        self._since_s = time.monotonic()
        self._because("")
        self._up.set()
        self._answered.set()
        log.info("connected to %s as %s", self.config.broker, self.config.client_id)
        if self._on_up:
            self._on_up(flags.session_present)

    def _disconnected(
        self, _client: Any, _user: Any, _flags: Any, code: ReasonCode, _props: Any
    ) -> None:
        was_up = self._up.is_set()
        self._up.clear()
        with self._lock:
            self._losses += 1
            lost = [key for key, ticket in self._tickets.items() if not ticket.again]
            tickets = [self._tickets.pop(key) for key in lost]
        for ticket in tickets:
            ticket.settle(_LOST)
        if was_up or self._refusal:
            log.info("disconnected from %s: %s", self.config.broker, code)
        elif code.is_failure:
            self._because("it ended the connection without an answer; one side may expect TLS")
        if self._on_down:
            self._on_down(str(code))
        if was_up:
            self._pace()

    def _pace(self) -> None:
        """The pause before the next attempt; after a refused one paho's own doubling goes on."""
        lasted_s = time.monotonic() - self._since_s
        self._quick = self._quick + 1 if lasted_s < QUICK_S else 0
        low, high = self.config.reconnect_min_s, self.config.reconnect_max_s
        pause_s = min(low * 2 ** min(max(self._quick - QUICK_FREE, 0), 16), high)
        pause_s = max(pause_s, math.ceil(self.hold_s))
        self._client.reconnect_delay_set(pause_s, max(high, pause_s))

    def _received(self, client: paho.Client, _user: Any, message: paho.MQTTMessage) -> None:
        self._hurry(client)
        if self._on_messages is None:
            return
        properties = message.properties
        received = Message(
            topic=message.topic,
            payload=bytes(message.payload),
            qos=message.qos,
            retain=message.retain,
            response_topic=getattr(properties, "ResponseTopic", ""),
            correlation=getattr(properties, "CorrelationData", b""),
            subscriptions=tuple(getattr(properties, "SubscriptionIdentifier", ())),
            mid=message.mid,
            expiry_s=getattr(properties, "MessageExpiryInterval", None),
        )
        self._on_messages([received])

    def _taken(self, found: list[Publish]) -> None:
        """From a ``BulkClient``."""
        if self._on_messages is not None:
            self._on_messages(
                [
                    Message(one.topic, one.payload, one.qos, one.retain,
                            mid=one.mid, expiry_s=one.expiry_s)
                    for one in found
                ]
            )  # fmt: skip

    def _published(self, _client: Any, _user: Any, mid: int, code: ReasonCode, _props: Any) -> None:
        unheard = code.value == NO_MATCHING_SUBSCRIBERS
        self._settle("publish", mid, str(code) if code.is_failure else "", unheard=unheard)

    def _subscribed(
        self, client: paho.Client, _user: Any, mid: int, codes: list[ReasonCode], _props: Any
    ) -> None:
        self._hurry(client)
        failed = [str(code) for code in codes if code.is_failure]
        self._settle("subscribe", mid, failed[0] if failed else "")

    def _hurry(self, client: paho.Client) -> None:
        """The kernel forgets TCP_QUICKACK after a while, so it is set again and again."""
        connection: Any = client.socket()
        if self.config.quick_ack and connection is not None and hasattr(socket, "TCP_QUICKACK"):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _each(on_message: Callable[[Message], None], messages: list[Message]) -> None:
    for message in messages:
        on_message(message)


def tls_context(config: LinkConfig) -> ssl.SSLContext:
    """How to speak TLS. Raises InputFault that names the file that cannot be used.

    A key with a passphrase is refused, not asked for: nobody sits at a device's terminal.
    """
    what = config.ca_file or "the system's authorities"
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
        if config.cert_file:
            what = f"{config.cert_file} with key {config.key_file or 'in it'}"
            context.load_cert_chain(config.cert_file, config.key_file or None, password="")
    except OSError as error:
        raise InputFault(
            f"cannot use {what} for TLS: {_why(error)}",
            advice="Expected PEM files that this user may read, the key without a passphrase.",
        ) from error
    return context


def _why(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    return getattr(error, "strerror", None) or str(error)


def _no_delay(_client: Any, _user: Any, connection: Any) -> None:
    """Small packets go at once: an acknowledgement must not wait for the one before it."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _accept_size_refusal() -> None:
    """Let a PUBACK say 0x95, "Packet too large".

    mosquitto (2.0, ``message_size_limit``) answers so, though MQTT 5 lists that code for CONNACK
    and DISCONNECT only. paho takes it for a protocol error, reconnects, and sends the same
    message again, for ever: every message behind it waits. Its table is the one place to say so.
    """
    packets = getattr(ReasonCode, "names", {}).get(0x95, {}).get("Packet too large")
    if isinstance(packets, list) and PacketTypes.PUBACK not in packets:
        packets.append(PacketTypes.PUBACK)

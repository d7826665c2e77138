"""One network connection: what its packets may say when, and what they cause (MQTT 5.0 §3, §4).

Guards: nothing before CONNECT, keep-alive (§3.1.2.10), rights, topic aliases (§3.3.2.3.4), exactly
once for QoS 2 (§4.3.3). A fault of the peer ends this connection and touches no other.
"""

import logging
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from edge_fleet.broker import encode
from edge_fleet.broker.access import Access, Rights
from edge_fleet.broker.decode import decode
from edge_fleet.broker.engine import Engine
from edge_fleet.broker.errors import ProtocolError, UnsupportedVersion, malformed, violation
from edge_fleet.broker.framing import Framer
from edge_fleet.broker.message import Message, from_publish
from edge_fleet.broker.packets import (
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
from edge_fleet.broker.properties import EMPTY, Properties
from edge_fleet.broker.reasons import ReasonCode
from edge_fleet.broker.router import Subscription
from edge_fleet.broker.session import Session, Timer
from edge_fleet.broker.taps import Direction, Passing
from edge_fleet.broker.topics import is_filter, split_shared

_log = logging.getLogger(__name__)
_FAILURE = 0x80  # reason codes from here on say no (§2.4)


class Link(Protocol):
    """The socket under a connection."""

    @property
    def ready(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class Connection:
    """A peer from its first byte to its last."""

    def __init__(self, engine: Engine, access: Access, link: Link, crowded: bool) -> None:
        self.client_id = ""
        self._engine = engine
        self._config = engine.config
        self._access = access
        self._link = link
        self._crowded = crowded  # over the limit of connections: hears so after its CONNECT
        self._framer = Framer(self._config.max_packet_bytes)
        self._session: Session | None = None
        self._rights: Rights | None = None
        self._aliases: dict[int, str] = {}
        self._max_packet_bytes = 0
        self._open = True
        self._heard_at = engine.clock.now()
        self._silence_s = 0.0
        self._timer: Timer = engine.clock.later(self._config.connect_timeout_s, self._no_connect)
        self._handlers: dict[type[Packet], Callable[[Session, Any], None]] = {
            Publish: self._on_publish,
            Puback: self._on_puback,
            Pubrec: self._on_pubrec,
            Pubrel: self._on_pubrel,
            Pubcomp: self._on_pubcomp,
            Subscribe: self._on_subscribe,
            Unsubscribe: self._on_unsubscribe,
            Pingreq: self._on_pingreq,
            Disconnect: self._on_disconnect,
        }

    # What the shell tells ------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes have come."""
        self._heard_at = self._engine.clock.now()
        try:
            for first, body in self._framer.feed(data):
                if not self._open:
                    return
                if self._session is None and first != 0x10:
                    raise violation("the first packet is no CONNECT")
                packet = decode(first, body)
                if self._session is None:
                    self._on_connect(packet)
                    continue
                handler = self._handlers.get(type(packet))
                if handler is None:
                    raise violation(f"a client may not send {type(packet).__name__} here")
                handler(self._session, packet)
        except ProtocolError as error:
            self._refuse(error)

    def lost(self) -> None:
        """The network connection is gone."""
        self._detach(with_will=True)

    def room(self) -> None:
        """The socket takes bytes again."""
        if self._session is not None:
            self._engine.flush(self._session)

    # What the engine asks (session.Peer) ---------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the socket takes more messages."""
        return self._link.ready

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._link.write(data)

    def close(self, reason: ReasonCode, text: str) -> None:
        """Say why, close, and leave the session (§3.14, §4.13)."""
        if not self._open:
            return
        _log.info("%s is disconnected: %s (0x%02x)", self.client_id or "a peer", text, reason)
        if self._session is not None:
            packet = encode.encode(Disconnect(reason, Properties(reason_string=text)))
            if self._max_packet_bytes and len(packet) > self._max_packet_bytes:
                packet = encode.encode(Disconnect(reason))
            self._link.write(packet)
        self._detach(with_will=True)
        self._link.close()

    # CONNECT -------------------------------------------------------------------------------

    def _on_connect(self, connect: Packet) -> None:
        """§3.1.4."""
        if not isinstance(connect, Connect):
            raise violation("the first packet is no CONNECT")
        given = connect.properties
        if self._crowded:
            raise ProtocolError(ReasonCode.QUOTA_EXCEEDED, "too many connections")
        if given.auth_method is not None:
            raise ProtocolError(
                ReasonCode.BAD_AUTHENTICATION_METHOD, "this broker knows names and passwords only"
            )
        if not self._access.authenticate(connect.username, connect.password):
            raise ProtocolError(ReasonCode.BAD_USER_NAME_OR_PASSWORD, "bad user name or password")
        client_id = connect.client_id or f"auto-{uuid.uuid4().hex}"
        rights = self._access.rights(connect.username, client_id)
        if connect.will is not None and rights and not rights.may_write(connect.will.topic):
            raise ProtocolError(
                ReasonCode.NOT_AUTHORIZED, f"no right to write the will {connect.will.topic}"
            )
        session, present = self._engine.attach(connect, client_id, self)
        self.client_id, self._rights, self._session = client_id, rights, session
        self._max_packet_bytes = given.maximum_packet_size or 0
        keep_alive_s, limited_s = connect.keep_alive, self._config.max_keep_alive_s
        if limited_s and not 0 < keep_alive_s <= limited_s:
            keep_alive_s = limited_s
        self._timer.cancel()
        self._silence_s = keep_alive_s * 1.5
        if keep_alive_s:
            self._timer = self._engine.clock.later(self._silence_s, self._check_alive)
        properties = Properties(
            receive_maximum=self._config.max_inflight,
            maximum_packet_size=self._config.max_packet_bytes,
            topic_alias_maximum=self._config.max_topic_aliases,
            assigned_client_id=None if connect.client_id else client_id,
            server_keep_alive=None if keep_alive_s == connect.keep_alive else keep_alive_s,
        )
        self._link.write(encode.encode(Connack(present, ReasonCode.SUCCESS, properties)))
        _log.info("%s is connected", client_id)
        self._engine.flush(session)

    def _refuse(self, error: ProtocolError) -> None:
        """The peer broke the protocol: say so where there is a way, and close (§4.13.1)."""
        counters = self._engine.counters
        if self._session is not None:
            counters.protocol_errors += 1
            self.close(error.reason, str(error))
            return
        counters.refused += 1
        _log.info("a connection is refused: %s", error)
        if isinstance(error, UnsupportedVersion) and error.level in {3, 4}:
            self._link.write(b"\x20\x02\x00\x01")  # MQTT 3.1.1 §3.2.2.3: unacceptable version
        else:
            self._link.write(encode.encode(Connack(False, error.reason)))
        self._detach(with_will=False)
        self._link.close()

    def _no_connect(self) -> None:
        if self._session is None and self._open:
            self._engine.counters.refused += 1
            _log.info("a peer sent no CONNECT within %s s", self._config.connect_timeout_s)
            self._detach(with_will=False)
            self._link.close()

    def _check_alive(self) -> None:
        """§3.1.2.10: silence of one and a half keep-alive times is the end."""
        if not self._open:
            return
        left_s = self._heard_at + self._silence_s - self._engine.clock.now()
        if left_s <= 0:
            self.close(ReasonCode.KEEP_ALIVE_TIMEOUT, f"silent for {self._silence_s} s")
        else:
            self._timer = self._engine.clock.later(left_s, self._check_alive)

    def _detach(self, with_will: bool) -> None:
        if not self._open:
            return
        self._open = False
        self._timer.cancel()
        if self._session is not None:
            self._engine.detach(self._session, self, with_will)

    # Messages from the client --------------------------------------------------------------

    def _on_publish(self, session: Session, packet: Publish) -> None:
        """§3.3.4 and §4.3."""
        topic = packet.topic
        if packet.properties is not EMPTY:
            topic = self._resolve(packet)
        qos, packet_id = packet.qos, packet.packet_id
        if qos == 2 and packet_id in session.received:
            self._acknowledge(packet, topic, encode.encode(Pubrec(packet_id)))
            return
        if qos == 2 and len(session.received) >= self._config.max_inflight:
            raise ProtocolError(
                ReasonCode.RECEIVE_MAXIMUM_EXCEEDED,
                f"more than {self._config.max_inflight} messages of QoS 2 are under way",
            )
        if self._rights is not None and not self._rights.may_write(topic):
            _log.info("%s has no right to write %s", self.client_id, topic)
            reason: int = ReasonCode.NOT_AUTHORIZED
        else:
            now = self._engine.clock.now()
            reason = self._engine.publish(from_publish(packet, topic, now, self.client_id))
        if qos == 1:
            self._acknowledge(packet, topic, encode.encode(Puback(packet_id, reason)))
        elif qos == 2:
            if reason < _FAILURE:
                session.received.add(packet_id)
                self._engine.sessions_changed |= session.persistent
            self._acknowledge(packet, topic, encode.encode(Pubrec(packet_id, reason)))

    def _acknowledge(self, packet: Publish, topic: str, answer: bytes) -> None:
        """Send PUBACK or PUBREC, unless a tap loses it."""
        taps = self._engine.taps
        if not taps:
            self._link.write(answer)
            return
        message = Message(topic, packet.payload, packet.qos, packet.retain)
        for outcome in taps.outcomes(Passing(Direction.ACK, self.client_id, message)):
            if outcome.delay_s > 0:
                self._engine.clock.later(outcome.delay_s, lambda: self._link.write(answer))
            else:
                self._link.write(answer)

    def _resolve(self, packet: Publish) -> str:
        """The topic, by its alias where there is one (§3.3.2.3.4)."""
        if packet.properties.subscription_ids:
            raise violation("a client may not send a subscription identifier in PUBLISH")
        alias = packet.properties.topic_alias
        if alias is None:
            return packet.topic
        if alias > self._config.max_topic_aliases:
            raise ProtocolError(
                ReasonCode.TOPIC_ALIAS_INVALID,
                f"topic alias {alias}; the limit is {self._config.max_topic_aliases}",
            )
        if packet.topic:
            self._aliases[alias] = packet.topic
            return packet.topic
        known = self._aliases.get(alias)
        if known is None:
            raise violation(f"topic alias {alias} has no topic yet")
        return known

    def _on_pubrel(self, session: Session, packet: Pubrel) -> None:
        """§3.6: the identifier is free again."""
        known = packet.packet_id in session.received
        session.received.discard(packet.packet_id)
        self._engine.sessions_changed |= session.persistent
        reason = ReasonCode.SUCCESS if known else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
        self._link.write(encode.encode(Pubcomp(packet.packet_id, reason)))

    # Answers of the client to our messages -------------------------------------------------

    def _on_puback(self, session: Session, packet: Puback) -> None:
        """§3.4. An unknown identifier changes nothing."""
        session.outbox.acknowledged(packet.packet_id)
        self._moved_on(session)

    def _on_pubrec(self, session: Session, packet: Pubrec) -> None:
        """§3.5."""
        accepted = packet.reason < _FAILURE
        known = session.outbox.received(packet.packet_id, accepted)
        if accepted:
            reason = ReasonCode.SUCCESS if known else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
            self._link.write(encode.encode(Pubrel(packet.packet_id, reason)))
        self._moved_on(session)

    def _on_pubcomp(self, session: Session, packet: Pubcomp) -> None:
        """§3.7."""
        session.outbox.completed(packet.packet_id)
        self._moved_on(session)

    def _moved_on(self, session: Session) -> None:
        if session.expiry_s:
            self._engine.sessions_changed = True
        self._engine.flush(session)

    # The rest ------------------------------------------------------------------------------

    def _on_subscribe(self, session: Session, packet: Subscribe) -> None:
        """§3.8.4: one reason a filter, then the retained messages in the order of the filters."""
        identifier = next(iter(packet.properties.subscription_ids), None)
        reasons: list[int] = []
        retained = []
        for topic_filter, qos, no_local, as_published, handling in packet.requests:
            refusal = self._refusal(session, topic_filter, no_local)
            reasons.append(qos if refusal is None else refusal)
            if refusal is None:
                subscription = Subscription(qos, no_local, as_published, identifier)
                retained += self._engine.subscribe(session, topic_filter, subscription, handling)
        self._link.write(encode.encode(Suback(packet.packet_id, tuple(reasons))))
        for delivery in retained:
            self._engine.deliver(session, delivery)

    def _refusal(self, session: Session, whole: str, no_local: bool) -> ReasonCode | None:
        """Why a filter is not subscribed to; None when it is."""
        share, topic_filter = split_shared(whole)
        if not is_filter(topic_filter):
            return ReasonCode.TOPIC_FILTER_INVALID
        if share is not None and no_local:
            raise violation("no-local on a shared subscription")  # §3.8.3.1
        if self._rights is not None and not self._rights.may_read(topic_filter):
            return ReasonCode.NOT_AUTHORIZED
        if (
            whole not in session.subscriptions
            and len(session.subscriptions) >= self._config.max_subscriptions
        ):
            return ReasonCode.QUOTA_EXCEEDED
        return None

    def _on_unsubscribe(self, session: Session, packet: Unsubscribe) -> None:
        """§3.10.4."""
        reasons = [
            ReasonCode.SUCCESS
            if self._engine.unsubscribe(session, whole)
            else ReasonCode.NO_SUBSCRIPTION_EXISTED
            for whole in packet.filters
        ]
        self._link.write(encode.encode(Unsuback(packet.packet_id, tuple(reasons))))

    def _on_pingreq(self, _session: Session, _packet: Pingreq) -> None:
        """§3.12."""
        self._link.write(encode.encode(Pingresp()))

    def _on_disconnect(self, session: Session, packet: Disconnect) -> None:
        """§3.14.4. Only reason 0 discards the will."""
        expiry_s = packet.properties.session_expiry
        if packet.properties.server_reference is not None:
            raise malformed("a client may not send a server reference")
        if expiry_s is not None:
            if expiry_s and not session.expiry_s:
                raise violation("a session that was to end cannot be prolonged")  # §3.14.2.2.2
            self._engine.sessions_changed |= session.persistent
            session.expiry_s = expiry_s
        _log.info("%s disconnects (0x%02x)", self.client_id, packet.reason)
        self._detach(with_will=packet.reason != ReasonCode.SUCCESS)
        self._link.close()

"""What a connected client says, and what it causes (MQTT 5.0 §3.3 to §3.14, §4).

Guards: rights, topic aliases (§3.3.2.3.4), exactly once for QoS 2 (§4.3.3), Receive Maximum (§4.9).
"""

import logging
from collections.abc import Callable
from typing import Any

from edge_fleet.broker import encode
from edge_fleet.broker.access import Rights
from edge_fleet.broker.engine import Engine
from edge_fleet.broker.errors import ProtocolError, violation
from edge_fleet.broker.message import Message, from_publish
from edge_fleet.broker.packets import (
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
from edge_fleet.broker.properties import EMPTY
from edge_fleet.broker.reasons import ReasonCode
from edge_fleet.broker.router import Subscription
from edge_fleet.broker.session import Session
from edge_fleet.broker.taps import Direction, Passing
from edge_fleet.broker.topics import is_filter, split_shared

_log = logging.getLogger(__name__)
_FAILURE = 0x80  # reason codes from here on say no (§2.4)


class Dialogue:
    """One connection from CONNACK on. `write` sends bytes, `leave` ends it with or without will."""

    def __init__(
        self,
        engine: Engine,
        session: Session,
        rights: Rights | None,
        write: Callable[[bytes], None],
        leave: Callable[[bool], None],
    ) -> None:
        self.session = session
        self._engine = engine
        self._config = engine.config
        self._rights = rights
        self._write = write
        self._leave = leave
        self._aliases: dict[int, str] = {}
        self._handlers: dict[type[Packet], Callable[[Any], None]] = {
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

    def hear(self, packet: Packet) -> None:
        """Act on a packet; ProtocolError when it may not come here."""
        handler = self._handlers.get(type(packet))
        if handler is None:
            raise violation(f"a client may not send {type(packet).__name__} here")
        handler(packet)

    # Messages from the client --------------------------------------------------------------

    def _on_publish(self, packet: Publish) -> None:
        """§3.3.4 and §4.3."""
        topic = packet.topic
        if packet.properties is not EMPTY:
            topic = self._resolve(packet)
        qos, packet_id = packet.qos, packet.packet_id
        if qos == 2 and packet_id in self.session.received:
            self._acknowledge(packet, topic, encode.encode(Pubrec(packet_id)))
            return
        if qos == 2 and len(self.session.received) >= self._config.max_inflight:
            raise ProtocolError(
                ReasonCode.RECEIVE_MAXIMUM_EXCEEDED,
                f"more than {self._config.max_inflight} messages of QoS 2 are under way",
            )
        if self._rights is not None and not self._rights.may_write(topic):
            _log.info("%s has no right to write %s", self.session.client_id, topic)
            reason: int = ReasonCode.NOT_AUTHORIZED
        else:
            now = self._engine.clock.now()
            reason = self._engine.publish(from_publish(packet, topic, now, self.session.client_id))
        if qos == 1:
            self._acknowledge(packet, topic, encode.encode(Puback(packet_id, reason)))
        elif qos == 2:
            if reason < _FAILURE:
                self.session.received.add(packet_id)
                self._engine.sessions_changed |= self.session.persistent
            self._acknowledge(packet, topic, encode.encode(Pubrec(packet_id, reason)))

    def _acknowledge(self, packet: Publish, topic: str, answer: bytes) -> None:
        """Send PUBACK or PUBREC, unless a tap loses it."""
        taps = self._engine.taps
        if not taps:
            self._write(answer)
            return
        message = Message(topic, packet.payload, packet.qos, packet.retain)
        for outcome in taps.outcomes(Passing(Direction.ACK, self.session.client_id, message)):
            if outcome.delay_s > 0:
                self._engine.clock.later(outcome.delay_s, lambda: self._write(answer))
            else:
                self._write(answer)

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

    def _on_pubrel(self, packet: Pubrel) -> None:
        """§3.6: the identifier is free again."""
        known = packet.packet_id in self.session.received
        self.session.received.discard(packet.packet_id)
        self._engine.sessions_changed |= self.session.persistent
        reason = ReasonCode.SUCCESS if known else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
        self._write(encode.encode(Pubcomp(packet.packet_id, reason)))

    # Answers of the client to our messages -------------------------------------------------

    def _on_puback(self, packet: Puback) -> None:
        """§3.4. An unknown identifier changes nothing."""
        self.session.outbox.acknowledged(packet.packet_id)
        self._moved_on()

    def _on_pubrec(self, packet: Pubrec) -> None:
        """§3.5."""
        accepted = packet.reason < _FAILURE
        known = self.session.outbox.received(packet.packet_id, accepted)
        if accepted:
            reason = ReasonCode.SUCCESS if known else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
            self._write(encode.encode(Pubrel(packet.packet_id, reason)))
        self._moved_on()

    def _on_pubcomp(self, packet: Pubcomp) -> None:
        """§3.7."""
        self.session.outbox.completed(packet.packet_id)
        self._moved_on()

    def _moved_on(self) -> None:
        if self.session.expiry_s:
            self._engine.sessions_changed = True
        self._engine.flush(self.session)

    # The rest ------------------------------------------------------------------------------

    def _on_subscribe(self, packet: Subscribe) -> None:
        """§3.8.4: one reason a filter, then the retained messages in the order of the filters."""
        identifier = next(iter(packet.properties.subscription_ids), None)
        reasons: list[int] = []
        retained = []
        for topic_filter, qos, no_local, as_published, handling in packet.requests:
            refusal = self._refusal(topic_filter, no_local)
            reasons.append(qos if refusal is None else refusal)
            if refusal is None:
                subscription = Subscription(qos, no_local, as_published, identifier)
                retained += self._engine.subscribe(
                    self.session, topic_filter, subscription, handling
                )
        self._write(encode.encode(Suback(packet.packet_id, tuple(reasons))))
        for delivery in retained:
            self._engine.deliver(self.session, delivery)

    def _refusal(self, whole: str, no_local: bool) -> ReasonCode | None:
        """Why a filter is not subscribed to; None when it is."""
        share, topic_filter = split_shared(whole)
        if not is_filter(topic_filter):
            return ReasonCode.TOPIC_FILTER_INVALID
        if share is not None and no_local:
            raise violation("no-local on a shared subscription")  # §3.8.3.1
        if self._rights is not None and not self._rights.may_read(topic_filter):
            return ReasonCode.NOT_AUTHORIZED
        if (
            whole not in self.session.subscriptions
            and len(self.session.subscriptions) >= self._config.max_subscriptions
        ):
            return ReasonCode.QUOTA_EXCEEDED
        return None

    def _on_unsubscribe(self, packet: Unsubscribe) -> None:
        """§3.10.4."""
        reasons = [
            ReasonCode.SUCCESS
            if self._engine.unsubscribe(self.session, whole)
            else ReasonCode.NO_SUBSCRIPTION_EXISTED
            for whole in packet.filters
        ]
        self._write(encode.encode(Unsuback(packet.packet_id, tuple(reasons))))

    def _on_pingreq(self, _packet: Pingreq) -> None:
        """§3.12."""
        self._write(encode.encode(Pingresp()))

    def _on_disconnect(self, packet: Disconnect) -> None:
        """§3.14.4. Only reason 0 discards the will."""
        expiry_s = packet.properties.session_expiry
        if packet.properties.server_reference is not None:
            raise violation("a client may not send a server reference")
        if expiry_s is not None:
            if expiry_s and not self.session.expiry_s:
                raise violation("a session that was to end cannot be prolonged")  # §3.14.2.2.2
            self._engine.sessions_changed |= self.session.persistent
            self.session.expiry_s = expiry_s
        _log.info("%s disconnects (0x%02x)", self.session.client_id, packet.reason)
        self._leave(packet.reason != ReasonCode.SUCCESS)

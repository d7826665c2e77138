"""What the broker does with messages and sessions; knows nothing of sockets, and has no clock.

Guards: one connection a client id (MQTT 5.0 §3.1.4), wills (§3.1.2.5), session expiry
(§3.1.2.11.2), retained messages (§3.3.1.3), shared subscriptions (§4.8.2).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge_fleet.broker.config import BrokerConfig
from edge_fleet.broker.errors import ProtocolError
from edge_fleet.broker.message import Delivery, GroupKey, Message, from_will
from edge_fleet.broker.packets import Connect
from edge_fleet.broker.reasons import ReasonCode
from edge_fleet.broker.retained import RetainedStore
from edge_fleet.broker.router import Group, Router, Subscription
from edge_fleet.broker.session import NEVER_EXPIRES, Peer, Session, Timer
from edge_fleet.broker.taps import Direction, Passing, TapChain
from edge_fleet.broker.topics import split_shared

_log = logging.getLogger(__name__)


class Clock(Protocol):
    """The time in seconds, and a call later."""

    def now(self) -> float: ...

    def later(self, delay_s: float, callback: Callable[[], None]) -> Timer: ...


@dataclass
class Counters:
    """What has happened since the start."""

    connects: int = 0
    refused: int = 0
    protocol_errors: int = 0
    messages_in: int = 0
    messages_out: int = 0
    dropped: int = 0


class Engine:
    """Sessions, subscriptions and retained messages of one broker.

    `sessions_changed` and `retained_changed` are set by each change that a restart must not lose.
    """

    def __init__(self, config: BrokerConfig, clock: Clock, taps: TapChain) -> None:
        self.config = config
        self.clock = clock
        self.taps = taps
        self.sessions: dict[str, Session] = {}
        self.router = Router()
        self.retained = RetainedStore(config.max_retained_bytes)
        self.counters = Counters()
        self.sessions_changed = False
        self.retained_changed = False

    # Sessions ------------------------------------------------------------------------------

    def attach(self, connect: Connect, client_id: str, peer: Peer) -> tuple[Session, bool]:
        """The session of a new connection, and whether it was there before (§3.1.2.4).

        Raises `ProtocolError` when there are too many sessions.
        """
        known = self.sessions.get(client_id)
        if known is not None and known.peer is not None:
            known.peer.close(ReasonCode.SESSION_TAKEN_OVER, "the same client id connected again")
            known = self.sessions.get(client_id)
        if known is not None and (connect.clean_start or known.username != connect.username):
            self.end(known)
            known = None
        present = known is not None
        session = known or self._begin(client_id, connect.username)
        session.cancel_timers()
        session.will = connect.will
        session.expiry_s = connect.properties.session_expiry or 0
        session.peer = peer
        session.ends_at = None
        limit = connect.properties.receive_maximum or 65_535
        session.outbox.connected(
            min(limit, self.config.max_inflight), connect.properties.maximum_packet_size or 0
        )
        self.counters.connects += 1
        self.sessions_changed |= session.persistent
        return session, present

    def detach(self, session: Session, peer: Peer, with_will: bool) -> None:
        """The connection is over: will, and expiry or end (§3.1.2.5, §3.1.2.11.2)."""
        if session.peer is not peer:
            return
        session.peer = None
        session.outbox.disconnected()
        if not with_will:
            session.will = None
        if not session.persistent:
            self.end(session)
            return
        self.sessions_changed = True
        if session.will is not None:
            delay_s = session.will.properties.will_delay or 0
            if delay_s == 0:
                self._publish_will(session)
            else:
                self._later(session, delay_s, self._publish_will)
        if session.expiry_s != NEVER_EXPIRES:
            session.ends_at = self.clock.now() + session.expiry_s
            self._later(session, session.expiry_s, self.end)

    def end(self, session: Session) -> None:
        """The session is over: its will goes out, its share of group messages to other members."""
        session.cancel_timers()
        self.sessions.pop(session.client_id, None)
        for whole in session.subscriptions:
            self.router.unsubscribe(session.client_id, *split_shared(whole))
        self._publish_will(session)
        self._redistribute(session.outbox.withdraw())
        self.counters.dropped += session.outbox.dropped
        self.sessions_changed |= session.persistent

    def adopt(self, session: Session) -> None:
        """Take in a session that a restart has kept."""
        self.sessions[session.client_id] = session
        for whole, subscription in session.subscriptions.items():
            self.router.subscribe(session.client_id, *split_shared(whole), subscription)
        if session.ends_at is not None:
            self._later(session, session.ends_at - self.clock.now(), self.end)

    def silence(self) -> None:
        """The broker goes: no session ends and no will is published by that."""
        for session in self.sessions.values():
            session.cancel_timers()
            session.will = None

    def _begin(self, client_id: str, username: str | None) -> Session:
        if len(self.sessions) >= self.config.max_sessions:
            raise ProtocolError(
                ReasonCode.QUOTA_EXCEEDED, f"this broker keeps {self.config.max_sessions} sessions"
            )
        session = Session(client_id, username, self.config.max_queue_bytes)
        self.sessions[client_id] = session
        return session

    def _later(self, session: Session, delay_s: float, do: Callable[[Session], None]) -> None:
        session.timers.append(self.clock.later(delay_s, lambda: do(session)))

    def _publish_will(self, session: Session) -> None:
        will, session.will = session.will, None
        if will is not None:
            _log.info("the will of %s on %s is published", session.client_id, will.topic)
            self.publish(from_will(will, self.clock.now(), session.client_id))

    # Messages ------------------------------------------------------------------------------

    def publish(self, message: Message) -> int:
        """A message from a client goes to all who asked for it; the reason for its PUBACK."""
        self.counters.messages_in += 1
        if not self.taps:
            return self._route(message)
        passing = Passing(Direction.INBOUND, message.origin, message)
        self.taps.run(passing, lambda new: void(self._route(new)), self.clock.later)
        return ReasonCode.SUCCESS

    def _route(self, message: Message) -> int:
        if message.retain:
            if not self.retained.put(message):
                _log.warning("no room to retain %s", message.topic)
                return ReasonCode.QUOTA_EXCEEDED
            self.retained_changed = True
        plan = self.router.plan(message.topic)
        for client_id, copy, own in plan.targets:
            if client_id == message.origin:
                if own is None:
                    continue
                copy = own  # noqa: PLW2901
            session = self.sessions[client_id]
            qos = min(message.qos, copy.qos)
            if qos or session.peer is not None:
                retain = message.retain and copy.retain_as_published
                self.deliver(session, Delivery(message, qos, retain, copy.subscription_ids))
        for group in plan.groups:
            self._to_member(group, message)
        if plan.targets or plan.groups:
            return ReasonCode.SUCCESS
        return ReasonCode.NO_MATCHING_SUBSCRIBERS

    def deliver(self, session: Session, delivery: Delivery) -> None:
        """Queue a copy for a session and send what may be sent."""
        if not self.taps:
            self._enqueue(session, delivery)
            return

        def go(new: Message) -> None:
            if self.sessions.get(session.client_id) is session:
                self._enqueue(session, delivery._replace(message=new))

        passing = Passing(Direction.OUTBOUND, session.client_id, delivery.message)
        self.taps.run(passing, go, self.clock.later)

    def _enqueue(self, session: Session, delivery: Delivery) -> None:
        if not session.outbox.push(delivery) and session.outbox.dropped in {1, 10, 100, 1_000}:
            _log.warning(
                "the queue of %s is full: %d dropped", session.client_id, session.outbox.dropped
            )
        if delivery.qos and session.expiry_s:
            self.sessions_changed = True
        if session.peer is not None:
            self.flush(session)

    def flush(self, session: Session) -> None:
        """Send what the window and the connection allow."""
        peer = session.peer
        if peer is None:
            return
        now = self.clock.now()
        while peer.ready:
            packet = session.outbox.next(now)
            if packet is None:
                return
            self.counters.messages_out += 1
            peer.write(packet)

    # Shared subscriptions ------------------------------------------------------------------

    def _to_member(self, group: Group, message: Message) -> None:
        """To one member: connected ones first, then those whose session waits for them."""
        members = group.in_turn()
        chosen = next((cid for cid in members if self._takes(cid)), None)
        chosen = chosen or next((cid for cid in members if self.sessions[cid].peer), members[0])
        subscription = group.members[chosen]
        qos = min(message.qos, subscription.qos)
        session = self.sessions[chosen]
        if qos == 0 and session.peer is None:
            return
        ids = () if subscription.identifier is None else (subscription.identifier,)
        retain = message.retain and subscription.retain_as_published
        self.deliver(session, Delivery(message, qos, retain, ids, group.key))

    def _takes(self, client_id: str) -> bool:
        peer = self.sessions[client_id].peer
        return peer is not None and peer.ready

    def _redistribute(self, deliveries: list[Delivery]) -> None:
        """Give shared messages to the members that are left (§4.8.2)."""
        for delivery in deliveries:
            group = self.router.group(delivery.group) if delivery.group else None
            if group is None:
                self.counters.dropped += 1
            else:
                self._to_member(group, delivery.message)

    # Subscriptions -------------------------------------------------------------------------

    def subscribe(
        self, session: Session, whole: str, subscription: Subscription, retain_handling: int
    ) -> list[Delivery]:
        """Add a subscription; the retained messages that it asks for (§3.8.3.1, §3.8.4)."""
        group, topic_filter = split_shared(whole)
        new = whole not in session.subscriptions
        session.subscriptions[whole] = subscription
        self.router.subscribe(session.client_id, group, topic_filter, subscription)
        self.sessions_changed |= session.persistent
        if group is not None or retain_handling == 2 or (retain_handling == 1 and not new):
            return []
        ids = () if subscription.identifier is None else (subscription.identifier,)
        return [
            Delivery(message, min(message.qos, subscription.qos), True, ids)
            for message in self.retained.matching(topic_filter, self.clock.now())
            if not (subscription.no_local and message.origin == session.client_id)
        ]

    def unsubscribe(self, session: Session, whole: str) -> bool:
        """Remove a subscription; False when there was none (§3.10)."""
        if session.subscriptions.pop(whole, None) is None:
            return False
        group, topic_filter = split_shared(whole)
        self.router.unsubscribe(session.client_id, group, topic_filter)
        self.sessions_changed |= session.persistent
        if group is not None:
            self._redistribute(session.outbox.withdraw(GroupKey(group, topic_filter)))
        return True


def void(_: object) -> None:
    """Drop a result where a callback has none."""

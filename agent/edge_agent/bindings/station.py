"""One broker as bindings use it: the agent's own, or a local one with a connection of its own.

Guards: what a binding hears came by its own filter; at most ``IN_FLIGHT_MAX`` answers wait for
the broker, and none while it is away; a message is taken in without waiting for anything.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from edge_agent.bindings import filters
from edge_contract.ports.mqtt import Link, Message, Ticket

log = logging.getLogger(__name__)

IN_FLIGHT_MAX = 64
_FIRST_IDENTIFIER = 100


class Station:
    """Subscriptions and answers of one broker.

    Args:
        name: of ``[brokers.NAME]``; "" for the agent's own.
        patterns: topic filters, each once.
        subscribed_before: filters of an earlier run, which this broker may still know.
    """

    def __init__(self, name: str, link: Link, patterns: Sequence[str]) -> None:
        self.name = name
        self.link = link
        self._identifiers = {
            pattern: _FIRST_IDENTIFIER + i for i, pattern in enumerate(dict.fromkeys(patterns))
        }
        self._lock = threading.Lock()
        self._in_flight = 0
        self.refused = ""
        """What the broker last refused since it was connected, and why."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """Its filters."""
        return tuple(self._identifiers)

    def subscribe(self, gone: Sequence[str] = ()) -> None:
        """Ask for what bindings want, and no more for what is ``gone``; at each connect.

        With QoS 0: a broker that kept messages while this side was away would hand over old
        ones as if they were of this moment.
        """
        self.refused = ""
        for i in range(0, len(gone), 8):
            self.link.unsubscribe(gone[i : i + 8])
        for pattern, identifier in self._identifiers.items():
            ticket = self.link.subscribe([pattern], qos=0, identifier=identifier)
            ticket.then(self._watch(f"to subscribe to {pattern}", ticket))

    def of(self, message: Message) -> frozenset[str]:
        """The filters by which this copy of a message came.

        A broker may send one copy a subscription; then each carries its identifier (MQTT 5,
        3.3.4), and each counts for that filter alone.
        """
        known = self.link.identifiers
        return frozenset(
            pattern
            for pattern, identifier in self._identifiers.items()
            if (not known or identifier in message.subscriptions)
            and filters.matches(pattern, message.topic)
        )

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        then: Callable[[bool], None] | None = None,
    ) -> str:
        """Hand a message to the broker; why not, or "". ``then`` hears whether it was taken."""
        if not self.link.up:
            return f"no connection to {self.link.config.broker}"
        with self._lock:
            if self._in_flight >= IN_FLIGHT_MAX:
                return f"{self.link.config.broker} takes no more at this moment"
            self._in_flight += 1
        ticket = self.link.publish(topic, payload, qos=qos, retain=retain)
        watch = self._watch(f"to publish on {topic}", ticket)

        def settled(accepted: bool) -> None:
            with self._lock:
                self._in_flight -= 1
            watch(accepted)
            if then is not None:
                then(accepted)

        ticket.then(settled)
        return ""

    def _watch(self, what: str, ticket: Ticket) -> Callable[[bool], None]:
        def answered(accepted: bool) -> None:
            if not accepted and self.link.up:
                self.refused = f"{self.link.config.broker} refuses {what}: {ticket.error}"
                log.warning("%s", self.refused)

        return answered


def by_filter(wanted: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Binding names by filter, from filters by binding name."""
    found: dict[str, tuple[str, ...]] = {}
    for name, patterns in wanted.items():
        for pattern in patterns:
            found[pattern] = (*found.get(pattern, ()), name)
    return found

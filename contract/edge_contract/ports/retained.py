"""Reading retained messages by topic: a pull from a broker that only knows how to push.

Guards: no wildcard is ever subscribed to (past the broker's queue limit it loses retained
messages without a word); QoS 1 always (at QoS 0 a SUBSCRIBE that meets a backlogged socket stalled
10 of 10 times on mosquitto); nothing is kept that was not asked for, once per asking, and never
more than ``size_max`` bytes of it.

MQTT has no "not found". So each SUBSCRIBE may end with a sentinel: a topic known to be retained.
Brokers answer the filters of one packet in order, hence the sentinel's message, known by the
subscription identifier of its packet, says that the topics before it had their turn. Where a broker
knows no identifiers (AWS IoT Core), sentinels are taken in the order of the askings.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from edge_contract.errors import PeerFault
from edge_contract.ports.mqtt import FILTERS_MAX, MEANWHILE_S, Link, LinkConfig, Message, Ticket

TOPICS_MAX = FILTERS_MAX - 1
"""Topics in one asking: the sentinel takes the last filter."""
SENTINEL = b'{"retained":true}'
TOMBSTONE = b'{"absent":true}'
"""Says "not found" where a reader looks ahead: for brokers that answer in another order."""
SILENCE_S = 2.0
"""After this long without a word the SUBSCRIBE is repeated; doubled at each repetition."""
SILENCES_MAX = 3
RETURNS_MAX = 4
"""A broker that was lost and came back this often during one question is given up."""
ABSENCES = 2
"""A topic is absent when this many sentinels came without it: one may overtake it."""


@dataclass(frozen=True)
class Heard:
    """The message on ``topic``: at most ``size_max + 1`` bytes of it; ``size`` is its real one."""

    topic: str
    payload: bytes
    size: int


@dataclass(frozen=True)
class Probed:
    """The sentinel of asking ``number`` came back."""

    number: int


@dataclass(frozen=True)
class Lost:
    """The connection is gone for now; what was asked will not be answered."""


@dataclass(frozen=True)
class Restored:
    """The connection is there again, without any subscription."""


@dataclass(frozen=True)
class Refused:
    """The broker refused a subscription."""

    reason: str


Answer = Heard | Probed | Lost | Restored | Refused


def _go_on() -> None:
    """Nothing ends the wait before its time."""


class Retained:
    """A connection of its own for reading retained messages. Used as a context manager.

    Args:
        config: how to connect; its session ends with the connection.
        sentinel: a topic that is known to be retained.
        silence_s: how long the first silence of ``get`` may be.
        on_bytes: told the size of each message that comes, asked for or not, before it is handed
            on; in the network's thread.
    """

    def __init__(
        self,
        config: LinkConfig,
        *,
        sentinel: str,
        silence_s: float = SILENCE_S,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self.link = Link(
            replace(config, quick_ack=True),
            on_message=self._received,
            on_up=self._restored,
            on_down=self._lost,
        )
        self._sentinel = sentinel
        self._silence_s = silence_s
        self._on_bytes = on_bytes
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._asked: dict[str, int] = {}
        self._probes: set[int] = set()
        self._number = 0
        self._began = False

    def start(self, timeout_s: float, *, meanwhile: Callable[[], None] = _go_on) -> None:
        """Connect. Raises PeerFault when the broker is not there or refuses.

        Args:
            meanwhile: called every ``MEANWHILE_S`` while waiting; what it raises ends the wait.
        """
        self.link.start(timeout_s, meanwhile=meanwhile)

    def stop(self) -> None:
        """Disconnect."""
        self.link.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- one question at a time, answered whole ---------------------------------------------

    def get(
        self, topics: Sequence[str], *, size_max: int, meanwhile: Callable[[], None] = _go_on
    ) -> dict[str, bytes]:
        """What is retained on up to ``TOPICS_MAX`` topics; those without a message are left out.

        A message over ``size_max`` bytes is cut to ``size_max + 1``, so that it can neither be
        taken for a good one nor fill the memory. ``meanwhile`` as in ``start``.

        Raises PeerFault when the broker refuses, stays silent or goes away.
        """
        found: dict[str, bytes] = {}
        missing = set(topics)
        absences = silences = returns = 0
        own = {self.ask(topics, size_max=size_max)}
        while missing:
            match self._attend(self._silence_s * 2**silences, meanwhile):
                case Heard(topic, payload) if topic in missing:
                    found[topic] = payload
                    missing.discard(topic)
                case Probed(number) if number in own:
                    absences += 1
                    if absences >= ABSENCES:
                        break
                    own.add(self.ask(sorted(missing), size_max=size_max))
                case Refused(reason):
                    self.forget(topics)
                    raise PeerFault(reason, advice="Check this user's rights on the topic.")
                case Restored():
                    returns += 1
                    if returns >= RETURNS_MAX:
                        self.forget(topics)
                        raise silent(sorted(missing)[0])
                    own.add(self.ask(sorted(missing), size_max=size_max))
                case None:
                    silences += 1
                    if silences >= SILENCES_MAX:
                        self.forget(topics)
                        raise silent(sorted(missing)[0])
                    own.add(self.ask(sorted(missing), size_max=size_max))
        self.forget(topics)
        return found

    def _attend(self, timeout_s: float, meanwhile: Callable[[], None]) -> Answer | None:
        """``next``, with the caller asked in between whether to go on."""
        deadline = time.monotonic() + timeout_s
        while True:
            meanwhile()
            left = deadline - time.monotonic()
            answer = self.next(max(0.0, min(MEANWHILE_S, left)))
            if answer is not None or left <= MEANWHILE_S:
                return answer

    # -- the parts, for a window of questions -----------------------------------------------

    def ask(self, topics: Sequence[str], *, size_max: int, probe: bool = True) -> int:
        """Subscribe to ``topics``, and with ``probe`` to the sentinel behind them.

        Returns the asking's number, which ``Probed`` repeats.
        """
        assert 1 <= len(topics) <= (TOPICS_MAX if probe else FILTERS_MAX)
        self._number += 1
        for topic in topics:
            self._asked[topic] = size_max
        filters = list(topics)
        if probe:
            self._probes.add(self._number)
            filters.append(self._sentinel)
        ticket = self.link.subscribe(filters, identifier=self._number)
        ticket.then(lambda accepted: None if accepted else self._refused(ticket))
        return self._number

    def forget(self, topics: Sequence[str]) -> None:
        """Unsubscribe at once: the answers are here, or are not wanted any more."""
        for topic in topics:
            self._asked.pop(topic, None)
        for start in range(0, len(topics), FILTERS_MAX):
            self.link.unsubscribe(topics[start : start + FILTERS_MAX])

    def next(self, timeout_s: float) -> Answer | None:
        """The next answer, or None after ``timeout_s`` of silence."""
        try:
            return self._answers.get(timeout=timeout_s)
        except queue.Empty:
            return None

    # -- in the network thread ---------------------------------------------------------------

    def _received(self, message: Message) -> None:
        if self._on_bytes:
            self._on_bytes(len(message.payload))
        if message.topic == self._sentinel:
            for number in self._probed(message):
                self._probes.discard(number)
                self._answers.put(Probed(number))
            return
        size_max = self._asked.pop(message.topic, None)
        if size_max is not None:
            payload = message.payload
            self._answers.put(Heard(message.topic, payload[: size_max + 1], len(payload)))

    def _probed(self, message: Message) -> set[int]:
        """Which askings the sentinel answers: by its identifier, else the oldest one.

        Without identifiers a broker answers in the order of the askings at best; so one sentinel
        never proves anything (``ABSENCES``).
        """
        if self.link.identifiers:
            return self._probes.intersection(message.subscriptions)
        return {min(self._probes)} if self._probes and message.retain else set()

    def _restored(self, _session_kept: bool) -> None:
        self._probes.clear()  # asked over a connection that is gone
        if self._began:
            self._answers.put(Restored())
        self._began = True

    def _lost(self, _reason: str) -> None:
        self._answers.put(Lost())

    def _refused(self, ticket: Ticket) -> None:
        # A lost connection settles its subscriptions too; `Restored` follows in its time.
        if self.link.up:
            try:
                ticket.wait(0)
            except PeerFault as fault:
                self._answers.put(Refused(fault.what))


def silent(topic: str) -> PeerFault:
    """The error for a broker that says nothing at all, not even the sentinel."""
    return PeerFault(
        f"the broker did not answer for {topic}, nor for what every publication leaves there",
        advice="Publish to this broker with `edge-pack publish` (again, if it lost its state), and"
        " check that this user may read the topic.",
    )

"""Taps that make the broker hostile: lose, double, delay, reorder, corrupt, lie, lose answers.

Each acts on the messages that its `filter`, `direction`, `client_id` and `predicate` choose; of
those it skips the first `skip`, then acts `times` times (None: for ever), each with probability
`chance` drawn from `rng`. `hits` lists what it acted on, for assertions.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_fleet.broker.message import Message
from edge_fleet.broker.taps import Direction, Outcome, Passing
from edge_fleet.broker.topics import matches


@dataclass(kw_only=True)
class Fault:
    """What all faults share: the choice of messages."""

    filter: str = "#"
    direction: Direction = Direction.OUTBOUND
    client_id: str | None = None
    predicate: Callable[[Passing], bool] | None = None
    skip: int = 0
    times: int | None = None
    chance: float = 1.0
    rng: random.Random | None = None
    hits: list[Passing] = field(default_factory=list)
    _seen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.chance < 1.0 and self.rng is None:
            raise ValueError("a fault by chance needs an rng, so that a test can print its seed")

    def __call__(self, passing: Passing) -> Sequence[Outcome] | None:
        """Act on a chosen message, let all others pass."""
        if not self._chosen(passing):
            return None
        self.hits.append(passing)
        return self._act(passing.message)

    def _chosen(self, passing: Passing) -> bool:
        if passing.direction is not self.direction:
            return False
        if self.client_id not in {None, passing.client_id}:
            return False
        if not matches(self.filter, passing.message.topic):
            return False
        if self.predicate is not None and not self.predicate(passing):
            return False
        self._seen += 1
        if self._seen <= self.skip or (self.times is not None and len(self.hits) >= self.times):
            return False
        return self.rng is None or self.rng.random() < self.chance

    def _act(self, message: Message) -> Sequence[Outcome]:
        raise NotImplementedError


@dataclass(kw_only=True)
class Lose(Fault):
    """The message is gone; whoever published it is told that all went well."""

    def _act(self, message: Message) -> Sequence[Outcome]:
        return ()


@dataclass(kw_only=True)
class LoseAck(Fault):
    """The message goes on, its PUBACK or PUBREC does not: the client will send it again."""

    direction: Direction = Direction.ACK

    def _act(self, message: Message) -> Sequence[Outcome]:
        return ()


@dataclass(kw_only=True)
class Double(Fault):
    """The message comes `copies` times more, each as a message of its own without DUP."""

    copies: int = 1

    def _act(self, message: Message) -> Sequence[Outcome]:
        return [Outcome(message)] * (self.copies + 1)


@dataclass(kw_only=True)
class Delay(Fault):
    """The message comes `delay_s` later; those behind it overtake it."""

    delay_s: float = 0.1

    def _act(self, message: Message) -> Sequence[Outcome]:
        return (Outcome(message, self.delay_s),)


@dataclass(kw_only=True)
class Reorder(Fault):
    """The message lets the next `by` of its client pass, for `within_s` at most.

    With an `rng`, between 1 and `by`.
    """

    by: int = 1
    within_s: float = 0.5

    def _act(self, message: Message) -> Sequence[Outcome]:
        by = self.by if self.rng is None else self.rng.randint(1, self.by)
        return (Outcome(message, self.within_s, by),)


@dataclass(kw_only=True)
class Corrupt(Fault):
    """One bit of the payload is turned: of a byte drawn from `rng`, or of the middle one."""

    def _act(self, message: Message) -> Sequence[Outcome]:
        payload = bytearray(message.payload)
        if payload:
            at = self.rng.randrange(len(payload)) if self.rng else len(payload) // 2
            payload[at] ^= 1 << (self.rng.randrange(8) if self.rng else 0)
        return (Outcome(message._replace(payload=bytes(payload))),)


@dataclass(kw_only=True)
class Replace(Fault):
    """The broker lies: the payload is another one, or what `payload` makes of it."""

    payload: bytes | Callable[[Message], bytes] = b""

    def _act(self, message: Message) -> Sequence[Outcome]:
        new = self.payload if isinstance(self.payload, bytes) else self.payload(message)
        return (Outcome(message._replace(payload=new)),)

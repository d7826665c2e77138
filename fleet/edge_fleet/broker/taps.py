"""Where a test may get between the broker and its clients. Pure but for the timer it is given.

A tap sees each message on its way in from a client or out to one, and each acknowledgement of a
message from a client, and says what goes on instead. Ready-made taps: `faults`.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from edge_fleet.broker.message import Message


class Direction(Enum):
    """Which way a message was going."""

    INBOUND = "inbound"  # from a client; the client is told what it would be told without taps
    OUTBOUND = "outbound"  # to a client: queued, live and retained
    ACK = "ack"  # PUBACK or PUBREC back to the client that published the message


class Passing(NamedTuple):
    """A message at a tap."""

    direction: Direction
    client_id: str
    message: Message


class Outcome(NamedTuple):
    """A message that goes on: at once, or after `delay_s`.

    With `overtaken_by` n it goes on as soon as n later messages of the same client and direction
    have passed, `delay_s` at the latest.
    """

    message: Message
    delay_s: float = 0.0
    overtaken_by: int = 0


class Tap(Protocol):
    """None lets the message pass; a sequence, empty or not, replaces it.

    Called in the broker's loop: it must not block.
    """

    def __call__(self, passing: Passing) -> Sequence[Outcome] | None: ...


class Later(Protocol):
    """Calls back after a time, in the broker's loop."""

    def __call__(self, delay_s: float, callback: Callable[[], None]) -> object: ...


class _Held:
    def __init__(self, message: Message, overtaken_by: int, go: Callable[[Message], None]) -> None:
        self.message = message
        self.left = overtaken_by
        self._go: Callable[[Message], None] | None = go

    def release(self) -> None:
        """Go on, once."""
        go, self._go = self._go, None
        if go is not None:
            go(self.message)


class TapChain:
    """Taps in order: what one lets through, the next one sees."""

    def __init__(self, taps: Iterable[Tap] = ()) -> None:
        self._taps = list(taps)
        self._held: dict[tuple[Direction, str], list[_Held]] = {}

    def __bool__(self) -> bool:
        return bool(self._taps or self._held)

    def add(self, tap: Tap) -> None:
        """Append a tap."""
        self._taps.append(tap)

    def remove(self, tap: Tap) -> None:
        """Take a tap out; what it holds back still goes on in its time."""
        self._taps.remove(tap)

    def clear(self) -> None:
        """Take all taps out."""
        self._taps.clear()

    def forget(self) -> None:
        """Lose what is held back: the broker has stopped."""
        self._held.clear()

    def run(self, passing: Passing, go: Callable[[Message], None], later: Later) -> None:
        """Let `passing` through the taps; `go` is called for each message that comes out."""
        lane = (passing.direction, passing.client_id)
        waiting = list(self._held.get(lane, ()))
        for outcome in self.outcomes(passing):
            if outcome.delay_s <= 0 and not outcome.overtaken_by:
                go(outcome.message)
            else:
                self._hold(lane, outcome, go, later)
        for held in waiting:
            held.left -= 1
            if held.left == 0:
                self._let_go(lane, held)

    def outcomes(self, passing: Passing) -> list[Outcome]:
        """What comes out at the end of the chain; delays add up."""
        outcomes = [Outcome(passing.message)]
        for tap in self._taps:
            following: list[Outcome] = []
            for outcome in outcomes:
                said = tap(passing._replace(message=outcome.message))
                if said is None:
                    following.append(outcome)
                    continue
                following += [
                    Outcome(
                        new.message,
                        outcome.delay_s + new.delay_s,
                        max(outcome.overtaken_by, new.overtaken_by),
                    )
                    for new in said
                ]
            outcomes = following
        return outcomes

    def _hold(
        self,
        lane: tuple[Direction, str],
        outcome: Outcome,
        go: Callable[[Message], None],
        later: Later,
    ) -> None:
        held = _Held(outcome.message, outcome.overtaken_by, go)
        self._held.setdefault(lane, []).append(held)
        later(outcome.delay_s, lambda: self._let_go(lane, held))

    def _let_go(self, lane: tuple[Direction, str], held: _Held) -> None:
        lanes = self._held.get(lane, [])
        if held in lanes:
            lanes.remove(held)
            if not lanes:
                del self._held[lane]
            held.release()

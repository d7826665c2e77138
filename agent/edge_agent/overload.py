"""One rule for requests that wait, at every door: who is next, and who is turned away, and why.

Guards: what waits is bounded; what is past its deadline is not computed; a model with many
requests takes no turn from one with few, neither in line nor when the line is full; every request
ends in its work or in a word that it was turned away, once.

Who is turned away. A line that is full gives up what is past its deadline first; then the newest
of the model that takes the most of the line: those who came before keep their place, and learn
nothing new by being sent away late (longest queue drop: Suter, Lakshman, Stiliadis, Choudhury,
1998). A request whose turn would come after its deadline is turned away when it comes, not when it
is too late to ask elsewhere.

Pure; ``edge_agent.desk`` gives it threads and a clock.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from edge_contract.errors import InputFault

WAITING_MAX = 256
WAITING_BYTES_MAX = 32 * 1024**2
VALUES_MAX = 4_000_000
"""Of one request: rows times features. 32 MB as float64."""
RETRY_MAX_S = 60
MODELS_MAX = 256
"""Of so many models is known how long they take: a name is whatever a client wrote."""
_SMOOTH = 8
"""How long a model takes is a moving average over about so many requests."""


class Reason(StrEnum):
    """Why a request was not computed."""

    FULL = "full"
    LATE = "late"
    STOPPING = "stopping"


class Rules(NamedTuple):
    """What a door holds its requests to.

    Attributes:
        waiting_max, waiting_bytes_max: requests that wait, of all models together.
        at_once: requests of one model that are computed at once, by its name.
        at_once_default: of a model that is not named there; 0: as many as there are threads.
        values_max: rows times features of one request.
    """

    waiting_max: int = WAITING_MAX
    waiting_bytes_max: int = WAITING_BYTES_MAX
    at_once: Mapping[str, int] = {}
    at_once_default: int = 0
    values_max: int = VALUES_MAX

    def limit(self, model: str) -> float:
        """Requests of ``model`` that may be computed at once."""
        return self.at_once.get(model, self.at_once_default) or math.inf


class Waiting(NamedTuple):
    """A request in line.

    Attributes:
        work: computes and answers it; must not raise. turned_away: answers that it was not.
        deadline_s: of the monotonic clock; what has not begun by then is not wanted.
        size_bytes: what it holds while it waits.
    """

    model: str
    work: Callable[[], None]
    turned_away: Callable[[Reason], None]
    deadline_s: float = math.inf
    size_bytes: int = 0


class Counts(NamedTuple):
    """Requests since the start, and how many wait and are computed now."""

    begun: int = 0
    full: int = 0
    late: int = 0
    waiting: int = 0
    running: int = 0


Away = list[tuple[Waiting, Reason]]


class Queue:
    """Requests of several models in line for ``threads`` threads. Not thread-safe; no clock.

    Models take turns; requests of one model keep their order.
    """

    def __init__(self, rules: Rules, threads: int = 1) -> None:
        self._rules = rules
        self._threads = threads
        self._lines: dict[str, deque[Waiting]] = {}
        """Only models with requests in line; the first key's turn is next."""
        self._waiting = 0
        self._bytes = 0
        self._running: Counter[str] = Counter()
        self._took_s: dict[str, float] = {}
        self._begun = 0
        self._away: Counter[Reason] = Counter()

    @property
    def size_bytes(self) -> int:
        """What waits holds."""
        return self._bytes

    def __len__(self) -> int:
        return self._waiting

    @property
    def counts(self) -> Counts:
        """At this moment."""
        return Counts(
            self._begun,
            self._away[Reason.FULL],
            self._away[Reason.LATE],
            self._waiting,
            self._running.total(),
        )

    def offer(self, new: Waiting, now_s: float) -> Away:
        """Take ``new`` into the line; who was turned away for it, or ``new`` itself."""
        if now_s + self.wait_s(new.model) > new.deadline_s:
            return self._leave([new], Reason.LATE)
        away = self._drop_late(now_s) if self._full(new) else []
        while self._full(new):
            heaviest = max(self._lines, key=self._weight, default=new.model)
            own = self._weight(new.model) + self._weigh(1, new.size_bytes)
            if self._weight(heaviest) <= own:
                return [*away, *self._leave([new], Reason.FULL)]
            dropped = self._lines[heaviest].pop()
            if not self._lines[heaviest]:
                del self._lines[heaviest]
            self._left(dropped)
            away += self._leave([dropped], Reason.FULL)
        self._lines.setdefault(new.model, deque()).append(new)
        self._waiting += 1
        self._bytes += new.size_bytes
        return away

    def take(self, now_s: float) -> tuple[Waiting | None, Away]:
        """The request whose turn it is, for a thread that is free; and whose time ran out."""
        late: Away = []
        for model in list(self._lines):
            line = self._lines[model]
            if self._running[model] >= self._rules.limit(model):
                continue
            while line:
                first = line.popleft()
                self._left(first)
                if now_s <= first.deadline_s:
                    del self._lines[model]
                    if line:  # behind the others
                        self._lines[model] = line
                    self._running[model] += 1
                    self._begun += 1
                    return first, late
                late += self._leave([first], Reason.LATE)
            del self._lines[model]
        return None, late

    def done(self, model: str, took_s: float) -> None:
        """A request that was taken has ended."""
        self._running[model] -= 1
        if not self._running[model]:
            del self._running[model]
        before = self._took_s.pop(model, took_s)
        if len(self._took_s) >= MODELS_MAX:
            del self._took_s[next(iter(self._took_s))]  # the one that was asked longest ago
        self._took_s[model] = before + (took_s - before) / _SMOOTH

    def clear(self, reason: Reason) -> Away:
        """Turn everybody away."""
        every = [each for line in self._lines.values() for each in line]
        self._lines.clear()
        self._waiting = self._bytes = 0
        return self._leave(every, reason)

    def wait_s(self, model: str) -> float:
        """How long a request of ``model`` that comes now would wait, by what the last ones took."""
        ahead = len(self._lines.get(model, ())) + 1
        total = 0.0
        for other, line in self._lines.items():
            total += min(len(line), ahead) * self._took_s.get(other, 0.0)
        threads = min(self._threads, self._rules.limit(model))
        return total / threads

    def _drop_late(self, now_s: float) -> Away:
        late: list[Waiting] = []
        for model, line in list(self._lines.items()):
            late += [each for each in line if each.deadline_s < now_s]
            kept = deque(each for each in line if each.deadline_s >= now_s)
            if kept:
                self._lines[model] = kept
            else:
                del self._lines[model]
        for each in late:
            self._left(each)
        return self._leave(late, Reason.LATE)

    def _full(self, new: Waiting) -> bool:
        rules = self._rules
        over = self._bytes + new.size_bytes > rules.waiting_bytes_max
        return self._waiting >= rules.waiting_max or (over and self._waiting > 0)

    def _weight(self, model: str) -> float:
        """What share of the line the model takes, by number and by bytes together."""
        line = self._lines.get(model, ())
        return self._weigh(len(line), sum(each.size_bytes for each in line))

    def _weigh(self, count: int, size_bytes: int) -> float:
        return count / self._rules.waiting_max + size_bytes / self._rules.waiting_bytes_max

    def _left(self, who: Waiting) -> None:
        """It is no longer in line."""
        self._waiting -= 1
        self._bytes -= who.size_bytes

    def _leave(self, who: list[Waiting], reason: Reason) -> Away:
        self._away[reason] += len(who)
        return [(each, reason) for each in who]


def check_size(rows: object, values_max: int) -> None:
    """Raise InputFault for a request of more values than one may hold: rows times features.

    Args:
        rows: as ``Model.predict`` takes them; what it does not know is not judged here.
    """
    found = _values(rows)
    if found > values_max:
        raise InputFault(
            f"{found} values in one request, {values_max} are the limit: rows times features",
            advice="Send fewer rows at once, or raise [overload] values_max.",
        )


def _values(rows: Any) -> int:
    if isinstance(rows, np.ndarray):
        return rows.size
    if isinstance(rows, Mapping):
        return sum(each.size if isinstance(each, np.ndarray) else 1 for each in rows.values())
    if isinstance(rows, list | tuple):
        return sum(len(each) if isinstance(each, list | tuple | Mapping) else 1 for each in rows)
    return 0

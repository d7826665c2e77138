"""One binding at work: messages in, rows when they are due. Pure: time and model are handed in.

Guards: each message and each attempt is counted once; a retained message never asks for a
prediction; whoever sends faster than ``at_most`` gets no more predictions for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from edge_agent.bindings.counts import BindingReport
from edge_agent.bindings.join import Join, Moment, Row
from edge_agent.bindings.payloads import Decoded, Reader, Unread
from edge_agent.bindings.settings import Binding
from edge_agent.bindings.sparkplug import Names

_SAID_MAX_CHARS = 500


class Bound:
    """A binding's state.

    Args:
        names: behind Sparkplug's aliases on its broker.
        now_s: monotonic; the first of ``every`` is due that long after it.
    """

    def __init__(self, binding: Binding, names: Names, now_s: float) -> None:
        self.binding = binding
        self._join = Join(binding)
        self._readers = [
            (source.topic, name, Reader(source, names))
            for name, source in binding.inputs.items()
            if source.topic
        ]
        self._every_s, self._at_most_s = binding.every_s, binding.at_most_s
        self.due_s: float | None = now_s + self._every_s if self._every_s else None
        self._ran_s: float | None = None
        self._before: Row | None = None
        self._odd: Counter[str] = Counter()
        self._tally: Counter[str] = Counter()
        self._why = self._last = ""
        self._last_ms = 0

    def take(
        self, message: Decoded, filters: Collection[str], at: Moment, *, retained: bool
    ) -> None:
        """Take what its inputs find in a message that came by ``filters``."""
        self._tally["messages"] += 1
        fresh = False
        for topic, name, reader in self._readers:
            if topic not in filters:
                continue
            try:
                odd = self._join.feeds[name].take(reader.read(message), at, retained=retained)
            except Unread as unread:
                self._odd[unread.count] += 1
                continue
            fresh = True
            self._tally["samples"] += 1
            if odd:
                self._odd[odd] += 1
        if fresh and not retained and not self._every_s and self.due_s is None:
            ran_s = self._ran_s
            wait_s = 0.0 if ran_s is None else ran_s + self._at_most_s
            self.due_s = max(at.monotonic_s, wait_s)

    def unread(self, count: str) -> None:
        """A message was not even looked into."""
        self._tally["messages"] += 1
        self._odd[count] += 1

    def row(self, now_s: float) -> Row:
        """What its inputs say now."""
        return self._join.row(now_s)

    def due(self, now_s: float) -> Row | None:
        """The row to predict on, when it is time for one; then the next time is set."""
        if self.due_s is None or now_s < self.due_s:
            return None
        if self._every_s:
            behind = now_s - self.due_s >= self._every_s
            self.due_s = (now_s if behind else self.due_s) + self._every_s
        else:
            self.due_s = None
        row = self._join.row(now_s)
        if self.binding.on == "change" and not self._join.changed(row, self._before):
            return None
        nothing = not any(age is not None for age in row.ages_s.values())
        if row.missing and (nothing or self.binding.on_missing == "wait"):
            self.wait(", ".join(f"{name} ({why})" for name, why in row.missing.items()))
            return None
        self._ran_s, self._before = now_s, row
        return row

    # -- what came of a row --------------------------------------------------------------------

    def wait(self, why: str) -> None:
        """There is no row, or nobody to answer it."""
        self._tally["waited"] += 1
        self._why = f"waits for {why}"[:_SAID_MAX_CHARS]

    def answered(self, said: str, at_ms: int) -> None:
        """A prediction was made."""
        self._tally["predictions"] += 1
        self._why, self._last, self._last_ms = "", said[:_SAID_MAX_CHARS], at_ms

    def trouble(self, count: str, why: str) -> None:
        """``count`` is one of refused, failed, unsent."""
        self._tally[count] += 1
        self._why = why[:_SAID_MAX_CHARS]

    def published(self) -> None:
        """An answer was handed to the broker."""
        self._tally["published"] += 1

    def report(self, broker: str, *, connected: bool) -> BindingReport:
        """All of it."""
        return BindingReport(
            model=self.binding.model,
            broker=broker,
            connected=connected,
            odd=dict(self._odd),
            why=self._why,
            last=self._last,
            last_ms=self._last_ms,
            **self._tally,
        )

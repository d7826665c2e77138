"""Counts of one version of one model over one period.

Guards: every observed row is counted exactly once, in the period in which it is binned; counts of
two versions never meet, because a window belongs to one; no row outlives its binning.

The hot path appends one tuple; rows are binned together by numpy when ``BULK_ROWS`` of them wait,
or when the window closes. Binning each row by itself costs 84 us, 512 together 0.7 us each.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Sequence
from itertools import chain
from typing import TypeVar

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from edge_agent.inputs import Batch
from edge_agent.telemetry.beside import Beside, Taken
from edge_agent.telemetry.tally import Tallied, Tally
from edge_contract import moments
from edge_contract import profile as profiles
from edge_contract.errors import InputFault
from edge_contract.manifest import Manifest
from edge_contract.profile import Monitor, Profile
from edge_contract.telemetry import ERROR_CODES, LATENCY_BUCKETS

BULK_ROWS = 512
WAITING_MAX_BYTES = 4 * 1024**2

_BOUNDS = np.array(
    [math.isqrt((2**i) * 1_000_000 - 1) + 1 for i in range(1, LATENCY_BUCKETS)], dtype=np.int64
)
"""The least latency in nanoseconds of buckets 1 and up: ns^2 >= 2^i * 10^6."""


class Totals(Struct, frozen=True):
    """Rows since the window's model was loaded, never reset: what a trial is judged by.

    ``slow``: answered rows whose share of their call's time was over the limit.
    """

    answered: int
    refused: int
    failed: int
    slow: int = 0


class Counts(Struct, frozen=True):
    """What one period counted: see ``edge_contract.telemetry.Record``.

    ``errors``: by ``ERROR_CODES``. ``tallied``: of the profile's numbers; None: not asked for.
    """

    rows: int
    refused: int
    failed: int
    cells: NDArray[np.int64]
    latency: NDArray[np.int64]
    errors: tuple[int, ...] = ()
    tallied: Tallied | None = None

    @property
    def empty(self) -> bool:
        """Nothing happened."""
        return not (self.rows or self.refused or self.failed)


_Call = tuple[int, bytes, tuple[tuple[str, ...], ...], Sequence[int], Sequence[float], int, Taken]
"""One answered call, waiting: rows, numbers, categories, labels, scores, latency, and what is kept
of its tensors (``beside``), never the tensors themselves."""

_CODES = {code: place for place, code in enumerate(ERROR_CODES)}
_INPUT, _FAILED = _CODES["input"], _CODES["failed"]
_BESIDE = ("projection", "tensor")
_NOTHING = np.zeros((0, 0))
_T = TypeVar("_T")
_BY_ROW = "dqq"
"""Behind one row's numbers: the score, the label's index, the latency in nanoseconds."""


class Window:
    """Counts what one model answers. Any thread may call any method.

    Args:
        manifest: names the features, in the order of ``Batch.numbers`` and ``categories``.
        profile: the bins; None: only rows and latencies are counted.
        latency_max_ms: what is slower for a row is counted as slow; 0: nothing is.
        tally: work out the moments and runs of numbers, too.
    """

    def __init__(
        self,
        manifest: Manifest,
        profile: Profile | None,
        *,
        latency_max_ms: float = 0.0,
        tally: bool = False,
    ) -> None:
        self._slow_ns = latency_max_ms * 1e6 if latency_max_ms > 0 else math.inf
        numbers = [f.name for f in manifest.features if f.type == "number"]
        texts = [f.name for f in manifest.features if f.type == "category"]
        self._width = len(numbers)
        self._labels = tuple(str(label) for label in manifest.outputs.labels)
        self._profile = profile if profile is not None else Profile(rows=0, monitors=())
        self._beside = Beside(self._profile, numbers)
        self._plan = _plan(self._profile, numbers, texts, self._beside)
        tallied = [self._plan[i] for i in moments.numbers(self._profile)] if tally else []
        self._tally = Tally([monitor for monitor, _, _ in tallied]) if tally else None
        self._tallied = [column for _, _, column in tallied]
        self._bulk = min(BULK_ROWS, max(1, WAITING_MAX_BYTES // (8 * max(self._width, 1))))
        self._pack_row = struct.Struct(f"{self._width}d{_BY_ROW}").pack
        self._rows_waiting: list[bytes] = []
        self._calls_waiting: list[_Call] = []
        self._waiting_in_calls = 0
        """Rows, about: threads that meet may lose some, and these are binned a little later."""
        self._row_type = np.dtype(
            [("numbers", "f8", (self._width,)), ("score", "f8"), ("label", "i8"), ("ns", "i8")]
        )
        self._lock = threading.Lock()
        self._past = Totals(0, 0, 0)
        self._past_latency = np.zeros(LATENCY_BUCKETS, dtype=np.int64)
        self._reset()

    def observe(
        self, batch: Batch, labels: Sequence[int], scores: Sequence[float], latency_ns: int
    ) -> None:
        """Count one answered call: a row or many.

        Args:
            labels, scores: one a row, as ``edge_agent.outputs.Reading`` has them.
        """
        # list.append is atomic: no lock until there is work for numpy, and none is waited for.
        # One row is kept as bytes alone: containers would have the garbage collector walk them.
        values = batch.values
        if values:
            waiting = self._rows_waiting
            waiting.append(self._pack_row(*values, scores[0], labels[0], latency_ns))
            if len(waiting) < self._bulk:
                return
        else:
            taken = self._beside.take(batch.feeds, batch.rows) if self._beside.tensors else ()
            self._calls_waiting.append(
                (batch.rows, batch.numbers, batch.categories, labels, scores, latency_ns, taken)
            )
            self._waiting_in_calls += batch.rows
            if self._waiting_in_calls < self._bulk and len(self._calls_waiting) < self._bulk:
                return
        if self._lock.acquire(blocking=False):
            try:
                self._bin()
            finally:
                self._lock.release()

    def refused(self, rows: int, code: str = "") -> None:
        """Count rows that were turned away for bad input."""
        with self._lock:
            self._refused += rows
            self._errors[_CODES.get(code, _INPUT)] += rows

    def failed(self, rows: int, code: str = "") -> None:
        """Count rows on which the model failed."""
        with self._lock:
            self._failed += rows
            self._errors[_CODES.get(code, _FAILED)] += rows

    @property
    def rows(self) -> int:
        """Rows counted in this period, binned or waiting (a lower bound while others observe)."""
        with self._lock:
            self._bin()
            return self._rows

    @property
    def totals(self) -> Totals:
        """Rows over all periods."""
        with self._lock:
            self._bin()
            return self._sum()

    def close(self) -> Counts:
        """End the period: its counts. What is observed from now on belongs to the next one."""
        with self._lock:
            self._bin()
            counts = self._counts(self._tally.close() if self._tally is not None else None)
            self._past = self._sum()
            self._past_latency = self._past_latency + self._latency
            self._reset()
            return counts

    def peek(self) -> Counts:
        """The period's counts so far."""
        with self._lock:
            self._bin()
            so_far = self._counts(self._tally.peek() if self._tally is not None else None)
            return replace(so_far, cells=so_far.cells.copy(), latency=so_far.latency.copy())

    def _counts(self, tallied: Tallied | None) -> Counts:
        return Counts(
            self._rows,
            self._refused,
            self._failed,
            self._cells,
            self._latency,
            tuple(self._errors),
            tallied,
        )

    def forget(self) -> None:
        """Begin the totals anew with this period."""
        with self._lock:
            self._past = Totals(0, 0, 0)
            self._past_latency = np.zeros(LATENCY_BUCKETS, dtype=np.int64)

    @property
    def latency_p99_ms(self) -> float:
        """Of the calls over all periods: the upper bound of its bucket, at most 1.42 times it."""
        with self._lock:
            self._bin()
            counts = np.cumsum(self._past_latency + self._latency)
        if not counts[-1]:
            return 0.0
        at = int(np.searchsorted(counts, 0.99 * counts[-1]))
        return float(_BOUNDS[min(at, len(_BOUNDS) - 1)]) / 1e6

    def _sum(self) -> Totals:
        past = self._past
        return Totals(
            past.answered + self._rows,
            past.refused + self._refused,
            past.failed + self._failed,
            past.slow + self._slow,
        )

    def _reset(self) -> None:
        self._rows = self._refused = self._failed = self._slow = 0
        self._errors = [0] * len(ERROR_CODES)
        self._cells = np.zeros(self._profile.cells, dtype=np.int64)
        self._latency = np.zeros(LATENCY_BUCKETS, dtype=np.int64)

    def _bin(self) -> None:
        """Count what waits now. The lock is held; other threads may go on appending."""
        if self._rows_waiting:
            self._bin_rows(_take_all(self._rows_waiting))
        if self._calls_waiting:
            self._waiting_in_calls = 0
            self._bin_calls(_take_all(self._calls_waiting))

    def _bin_rows(self, rows: list[bytes]) -> None:
        packed = np.frombuffer(b"".join(rows), dtype=self._row_type)
        numbers = packed["numbers"]
        beside = self._beside.values(numbers, (), ()) if self._beside.columns else _NOTHING
        table = _Table(numbers, [], packed["label"], packed["score"], self._labels, beside)
        self._count(table, len(rows), packed["ns"])
        self._slow += int(np.count_nonzero(packed["ns"] > self._slow_ns))

    def _bin_calls(self, calls: list[_Call]) -> None:
        counts, packed, texts, labels, scores, latencies, kept = zip(*calls, strict=True)
        rows = sum(counts)
        numbers = np.frombuffer(b"".join(packed)).reshape(rows, self._width)
        beside = self._beside.values(numbers, kept, counts) if self._beside.columns else _NOTHING
        table = _Table(
            numbers=numbers,
            texts=[row for some in texts for row in some],
            labels=np.fromiter(chain.from_iterable(labels), np.int64),
            scores=np.fromiter(chain.from_iterable(scores), np.float64),
            names=self._labels,
            beside=beside,
        )
        taken, sizes = np.array(latencies, dtype=np.int64), np.array(counts)
        self._count(table, rows, taken)
        self._slow += int(sizes[taken > sizes * self._slow_ns].sum())

    def _count(self, table: _Table, rows: int, latencies_ns: NDArray[np.int64]) -> None:
        self._rows += rows
        found = np.searchsorted(_BOUNDS, latencies_ns, side="right")
        self._latency += np.bincount(found, minlength=LATENCY_BUCKETS)
        for monitor, cells, column in self._plan:
            self._cells[cells] += table.count(monitor, column)
        if self._tallied and self._tally is not None:
            self._tally.add(table.columns(self._tallied))


class _Table(Struct, frozen=True):
    """Rows of many calls side by side."""

    numbers: NDArray[np.float64]
    texts: list[tuple[str, ...]]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    names: tuple[str, ...]
    beside: NDArray[np.float64]

    def count(self, monitor: Monitor, column: int) -> NDArray[np.int64]:
        """The cells of ``monitor``: of a feature, or of the output where ``column`` is -1."""
        if monitor.kind == "category":
            return profiles.count_categories(monitor, self._text_of(column))
        if monitor.kind == "score":
            return profiles.count_scores(monitor, self.labels, self.scores)
        if monitor.source in _BESIDE:
            values = self.beside[:, column]
        else:
            values = self.scores if column < 0 else self.numbers[:, column]
        return profiles.count_numbers(monitor, values)

    def columns(self, which: Sequence[int]) -> NDArray[np.float64]:
        """Numbers side by side, [rows, columns]; -1: the output."""
        if -1 not in which:
            every = list(which) == list(range(self.numbers.shape[1]))
            return self.numbers if every else self.numbers[:, list(which)]
        return np.column_stack([self.scores if at < 0 else self.numbers[:, at] for at in which])

    def _text_of(self, column: int) -> Sequence[str]:
        if column >= 0:
            return [row[column] for row in self.texts]
        names = self.names
        return [
            names[i] if 0 <= i < len(names) else (str(i) if not names else "")
            for i in self.labels.tolist()
        ]


def _take_all(waiting: list[_T]) -> list[_T]:
    """Empty the list, by one thread, while others append to its end: each step is atomic."""
    taken = waiting[:]
    del waiting[: len(taken)]
    return taken


def _plan(
    profile: Profile, numbers: Sequence[str], texts: Sequence[str], beside: Beside
) -> list[tuple[Monitor, slice, int]]:
    """Each monitor with its place in the count vector and its column; -1: the output."""
    plan: list[tuple[Monitor, slice, int]] = []
    for monitor, start in zip(profile.monitors, profile.offsets(), strict=True):
        if monitor.source in _BESIDE:
            column = beside.columns[monitor.source, monitor.name]
        elif monitor.source == "output":
            column = -1
        else:
            column = _column(monitor, texts if monitor.kind == "category" else numbers)
        plan.append((monitor, slice(start, start + monitor.cells), column))
    return plan


def _column(monitor: Monitor, names: Sequence[str]) -> int:
    if monitor.name not in names:
        raise InputFault(f"the profile monitors {monitor.name!r}, which is no feature of its kind")
    return names.index(monitor.name)

"""A candidate in the shadow of the live version: it runs on a share of requests, unheard.

Guards: a request never waits for the shadow: what it is shown is put into a bounded queue, and what
finds no room is skipped and counted; the shadow's thread has the lowest priority; a candidate that
fails again and again, or does not come back, is ended. Of rows only counts remain.

The thread's nice value is its own (Linux, setpriority(2)); ONNX Runtime runs a session with one
thread in the thread that calls it.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_agent.inputs import Batch
from edge_agent.model import Model
from edge_agent.telemetry.recorder import Instant
from edge_agent.telemetry.window import Window
from edge_contract import aside
from edge_contract.aside import DIFFERENCE_BUCKETS, Shadow
from edge_contract.errors import EdgeError, MachineFault
from edge_contract.telemetry import LATENCY_BUCKETS, latency_bucket, pack_counts

log = logging.getLogger(__name__)

NICE = 19
WAITING_MAX_BYTES = 8 * 1024**2
FAILURES_MAX = 20
"""Calls in a row on which the candidate fails before it is ended."""
STALLS_MAX = 3


class Runner:
    """The thread in which shadows run, begun with the first one. Any thread may call any method.

    Args:
        queue_max: calls that may wait.
    """

    def __init__(self, queue_max: int = 64) -> None:
        self._queue_max = queue_max
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.nice: int | None = None

    def start(self) -> None:
        """Have the thread run."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="edge-shadow", daemon=True)
                self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End after what is under way; whether it did within that time."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return True
        while True:  # what waits is not worth waiting for
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        self._queue.put(None)
        thread.join(timeout_s)
        return not thread.is_alive()

    def offer(self, work: Callable[[], None], size_bytes: int) -> bool:
        """Do ``work`` some time; False where too much waits already. Never blocks."""
        room = min(self._queue_max, max(WAITING_MAX_BYTES // max(size_bytes, 1), 1))
        if self._queue.qsize() >= room:
            return False
        self._queue.put(work)
        return True

    def later(self, work: Callable[[], None]) -> None:
        """Do ``work`` after what waits, whatever waits."""
        self.start()
        self._queue.put(work)

    def _run(self) -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
            self.nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        except (AttributeError, OSError) as error:
            log.warning("the shadow runs at the agent's own priority: %s", error)
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception:  # a bug must be seen, and must not end the thread
                log.exception("unexpected error in the shadow; the agent goes on")


class _Call(NamedTuple):
    """An answered call that the candidate is shown. ``feeds``: tensors, where rows do not do."""

    batch: Batch
    feeds: Mapping[str, NDArray[Any]]
    labels: Sequence[int]
    scores: Sequence[float]
    latency_ns: int


class _Tally(Struct):
    """What was compared in a period."""

    agreed: int
    differed: int
    differences: list[int]
    live_latency: list[int]


def _tally() -> _Tally:
    return _Tally(0, 0, [0] * DIFFERENCE_BUCKETS, [0] * LATENCY_BUCKETS)


class Shade:
    """Compares ``candidate`` with ``live``, which answers. Any thread may call any method.

    Args:
        live: keeps its observer; see ``edge_agent.tap``. candidate: this shade's own.
        share: of the calls, 0 to 1. tolerance: in units, for values to agree.
    """

    def __init__(
        self,
        live: Model,
        candidate: Model,
        runner: Runner,
        *,
        share: float,
        tolerance: float,
        rng: random.Random,
        now: Instant,
    ) -> None:
        self.live = live
        self.candidate = candidate
        self.share = share
        self.ended = ""
        """Why the candidate is shown no more calls."""
        self._runner = runner
        self._tolerance = tolerance
        self._random = rng.random
        self._unit = aside.unit_of(live.profile)
        self._rebuild = _rebuilds(live)
        self._compare = _comparison(live, candidate)
        self._window = Window(candidate.manifest, candidate.profile)
        self._lock = threading.Lock()
        self._counts = _tally()
        self._skipped = 0
        self._skipping = threading.Lock()
        self._began = now
        self._call: _Call | None = None
        self._since_s = math.inf
        self._failures = self._stalls = 0
        candidate.observer = self

    # -- the live version's side: quick ------------------------------------------------------

    def offer(
        self, batch: Batch, labels: Sequence[int], scores: Sequence[float], latency_ns: int
    ) -> None:
        """As ``tap.Watcher.offer``."""
        if self._random() >= self.share or self.ended:
            return
        feeds: Mapping[str, NDArray[Any]] = {}
        if not self._rebuild:
            # The caller may alter its own arrays as soon as it has its answer.
            feeds = {name: np.array(value) for name, value in batch.feeds.items()}
        size = sum(value.nbytes for value in feeds.values()) + len(batch.numbers)
        call = _Call(batch, feeds, labels, scores, latency_ns)
        if not self._runner.offer(functools.partial(self._run, call), size):
            with self._skipping:
                self._skipped += batch.rows

    # -- the shadow's own thread -------------------------------------------------------------

    def _run(self, call: _Call) -> None:
        if self.ended:
            return
        self._call, self._since_s = call, time.monotonic()
        try:
            self.candidate.predict(
                list(_rows_of(self.live, call.batch)) if self._rebuild else call.feeds
            )
        except MachineFault as error:
            self._failures += 1
            if self._failures >= FAILURES_MAX:
                self.end(f"it failed {self._failures} times in a row: {error.what}")
        except EdgeError:
            pass  # counted as refused: it wants other features, or fewer gaps in them
        else:
            self._failures = self._stalls = 0
        finally:
            self._since_s, self._call = math.inf, None

    def observe(
        self, batch: Batch, labels: Sequence[int], scores: Sequence[float], latency_ns: int
    ) -> None:
        """As ``model.Observer.observe``: the candidate answered the call that it was shown."""
        call = self._call
        if call is None or len(call.labels) != len(labels):
            return
        with self._lock:
            self._window.observe(batch, labels, scores, latency_ns)
            counts = self._counts
            counts.live_latency[latency_bucket(call.latency_ns)] += 1
            answers = zip(call.labels, call.scores, labels, scores, strict=True)
            for agree, difference in self._compare(answers, self._unit, self._tolerance):
                counts.agreed += agree is True
                counts.differed += agree is False
                if difference is not None:
                    counts.differences[aside.difference_bucket(difference)] += 1

    def refused(self, rows: int, code: str = "") -> None:
        """As ``model.Observer.refused``."""
        self._window.refused(rows, code)

    def failed(self, rows: int, code: str = "") -> None:
        """As ``model.Observer.failed``."""
        self._window.failed(rows, code)

    # -- from outside ------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """Show the candidate no more calls."""
        if not self.ended:
            self.ended = why
            log.warning("%s: the shadow ended: %s", self.candidate.manifest.version, why)

    def check(self, now_s: float, stall_s: float) -> None:
        """Interrupt a run that takes longer than ``stall_s``; end a candidate that goes on so."""
        if now_s - self._since_s > stall_s:
            self._stalls += 1
            self._since_s = now_s
            self.candidate.interrupt()
            if self._stalls >= STALLS_MAX:
                self.end(f"{self._stalls} runs in a row took longer than {stall_s:g} s")

    def record(self, now: Instant) -> Shadow | None:
        """What was counted since the last record, to be numbered; None for nothing."""
        with self._lock:
            window = self._window.close()
            counts, self._counts = self._counts, _tally()
        with self._skipping:
            skipped, self._skipped = self._skipped, 0
        began, self._began = self._began, now
        if window.empty and not skipped:
            return None
        elapsed_ms = int(1000 * max(now.monotonic_s - began.monotonic_s, 0))
        manifest = self.candidate.manifest
        return Shadow(
            device="",
            boot=0,
            seq=0,
            model=manifest.name,
            version=manifest.version,
            bundle=bytes.fromhex(self.candidate.digest),
            live_version=self.live.manifest.version,
            live_bundle=bytes.fromhex(self.live.digest),
            start_ms=max(now.wall_ms - elapsed_ms, 0),
            end_ms=max(now.wall_ms, 0),
            synchronised=now.synchronised,
            rows=window.rows,
            refused=window.refused,
            failed=window.failed,
            skipped=skipped,
            agreed=counts.agreed,
            differed=counts.differed,
            unit=1.0 if self.live.manifest.outputs.labels else self._unit,
            counts=pack_counts(window.cells),
            latency=pack_counts(window.latency),
            live_latency=pack_counts(counts.live_latency),
            differences=aside.pack_differences(counts.differences),
        )


_Answers = Iterator[tuple[int, float, int, float]]
"""A row each: the live version's label and score, the candidate's."""
_Compared = Iterator[tuple[bool | None, float | None]]
"""A row each: whether they agree, how far they differ in units; None where that says nothing."""


def _comparison(live: Model, candidate: Model) -> Callable[[_Answers, float, float], _Compared]:
    """How answers of the two are compared, by what their manifests say of them."""
    ours, theirs = live.manifest.outputs, candidate.manifest.outputs
    if ours.labels and theirs.labels:
        where = {str(label): at for at, label in enumerate(theirs.labels)}
        same = [where.get(str(label), -2) for label in ours.labels]
        return functools.partial(_compare_labels, same, same == list(range(len(theirs.labels))))
    if ours.value and theirs.value and not (ours.labels or theirs.labels):
        return _compare_values
    return lambda answers, _unit, _tolerance: iter([(None, None)] * len(list(answers)))


def _compare_labels(
    same: Sequence[int], in_order: bool, answers: _Answers, _unit: float, _tolerance: float
) -> _Compared:
    """Scores are compared where both are of one label: of two labels both are of the last one."""
    both = in_order and len(same) == 2
    for label, score, their_label, their_score in answers:
        if not 0 <= label < len(same) or their_label < 0:
            yield None, None
            continue
        agree = same[label] == their_label
        difference = abs(score - their_score) if both or (agree and in_order) else math.nan
        yield agree, None if math.isnan(difference) else difference


def _compare_values(answers: _Answers, unit: float, tolerance: float) -> _Compared:
    for _, value, _, their_value in answers:
        difference = abs(value - their_value) / unit
        yield difference <= tolerance, difference


def _rebuilds(model: Model) -> bool:
    """Whether a row can be made anew of what a batch keeps for counting."""
    manifest = model.manifest
    return bool(manifest.features) and all(
        [all(tensor.features for tensor in manifest.inputs)]
        + [feature.type in ("number", "category") for feature in manifest.features]
    )


def _rows_of(model: Model, batch: Batch) -> Iterator[dict[str, float | str | None]]:
    """The rows by feature name; what was missing is None."""
    features = model.manifest.features
    numbers = [feature.name for feature in features if feature.type == "number"]
    texts = [feature.name for feature in features if feature.type == "category"]
    table = batch.number_rows().tolist() if numbers else [[]] * batch.rows
    categories = batch.categories or ((),) * batch.rows
    for values, words in zip(table, categories, strict=True):
        row: dict[str, float | str | None] = {
            name: None if value != value else value  # noqa: PLR0124 - NaN
            for name, value in zip(numbers, values, strict=True)
        }
        row.update((name, word or None) for name, word in zip(texts, words, strict=True))
        yield row

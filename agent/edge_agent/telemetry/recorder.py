"""Windows become records: by time, by count, and at every swap.

Guards: one record holds one version of one model; sequence numbers rise by one a record within a
boot; a window's length is measured by the monotonic clock, since a device's wall clock jumps when
it first hears the time; a disk that refuses costs records, which are counted, never predictions.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edge_agent.accept import strictest
from edge_agent.live import Live
from edge_agent.model import Model, Observer
from edge_agent.steps import Tell
from edge_agent.telemetry import stale
from edge_agent.telemetry.inspection import FAULT, RESTORED, Inspection
from edge_agent.telemetry.spool import Spool
from edge_agent.telemetry.window import Counts, Totals, Window
from edge_contract import moments, telemetry
from edge_contract.aside import Aside
from edge_contract.errors import EdgeError, InputFault
from edge_contract.profile import Profile
from edge_contract.residuals import Residuals
from edge_contract.telemetry import QUALITY_CODES, Record, Resources, pack_counts

log = logging.getLogger(__name__)

WINDOW_S = 300.0
WINDOW_ROWS = 100_000
LOOK_S = 30.0
"""The input is looked at so often; a look takes a millisecond at 20 features."""
_STALE_CLOCK = QUALITY_CODES.index("stale-clock")


class Instant(NamedTuple):
    """A point in time by both clocks.

    Attributes:
        wall_ms: milliseconds since 1970-01-01 UTC by the device's clock.
        monotonic_s: seconds by a clock that never jumps.
        synchronised: the wall clock is kept by a time service.
    """

    wall_ms: int
    monotonic_s: float
    synchronised: bool = False


class Veil(Protocol):
    """What stands between a window and the spool: ``edge_agent.privacy.Privacy``."""

    def take(
        self, record: Record, cells: NDArray[np.int64], profile: Profile, now: Instant, share: int
    ) -> Record | None:
        """What leaves of it; None: it waits."""

    def flush(self, now: Instant) -> None:
        """Have on disk what waits."""


class _Watch:
    """A model whose calls are counted, and when its period began."""

    def __init__(self, model: Model, began_s: float, latency_max_ms: float) -> None:
        self.model = model
        limit_ms = strictest(latency_max_ms, model.manifest.runtime.latency_ms_max)
        self.window = Window(model.manifest, model.profile, latency_max_ms=limit_ms, tally=True)
        self.reference = Residuals(model.profile or Profile(rows=0, monitors=()))
        self.began_s = began_s
        self.looked_s = began_s
        self.left = False
        self.inspection: Inspection | None = None
        """Of what answers; what is beside meets the same input."""

    def inspect(self) -> None:
        """It answers from now on."""
        self.inspection = Inspection(self.model.manifest.version, self.reference.profile)


class Recorder:
    """Owns the windows of all models on a device. Thread-safe.

    Args:
        boot: this boot's number; sequence numbers start at 0 with each.
        on_record: called after a record was spooled, such as ``Sender.kick``.
        latency_max_ms: slower rows are counted as slow; so are those over the manifest's limit.
        observer: what a model's calls are told to, given its window; the window where it is None.
        veil: what windows go through before they leave; records of other kinds stay then.
        meter: the machine at a moment of the monotonic clock.
        on_quality: is told by model ("": the device) what began and what ended to be wrong with
            the input; never where there is a veil.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        device: str,
        boot: int,
        window_s: float = WINDOW_S,
        window_rows: int = WINDOW_ROWS,
        on_record: Callable[[], None] | None = None,
        latency_max_ms: float = 0.0,
        observer: Callable[[Model, Observer], Observer] | None = None,
        veil: Veil | None = None,
        meter: Callable[[float], Resources] | None = None,
        on_quality: Callable[[str, Tell], None] | None = None,
    ) -> None:
        self._spool = spool
        self._device = device
        self._boot = boot
        self._window_s = window_s
        self._window_rows = window_rows
        self._on_record = on_record
        self._latency_max_ms = latency_max_ms
        self._observer = observer
        self._veil = veil
        self._meter = meter
        self._on_quality = on_quality
        self._clock: stale.ClockSeen | None = None
        self._lock = threading.Lock()
        self._current: dict[str, _Watch] = {}
        self._beside: dict[tuple[str, str], _Watch] = {}
        """By name and digest: loaded beside what answers, and asked by its version."""
        self._leaving: list[_Watch] = []
        self._seq = 0
        self._lost = 0

    @property
    def dropped(self) -> int:
        """Records that were made in this boot or an earlier one and will never arrive."""
        return self._spool.dropped + self._lost

    def swap(
        self, live: Live, model: Model | None, now: Instant, *, keep: bool = False
    ) -> Model | None:
        """Let ``model`` answer under ``live``'s name, its totals counted from its first request on.

        The old version's window ends; requests still with it are counted for it, and recorded
        when the last has returned. With ``keep`` it stays loaded, beside, and is counted on.
        Returns the old model. Raises as ``Live.swap``; then nothing changed.
        """
        if model is not None:
            live.warm(model)  # however long it takes, others record meanwhile
        with self._lock:
            watch, known = None, False
            if model is not None:
                watch = self._beside.get((live.name, model.digest))
                known = watch is not None and watch.model is model
                if watch is None or not known:
                    watch = self._watch(model, now)
            past = self._current.get(live.name)
            old = live.swap(model, on_left=lambda _: _mark_left(past), keep=keep, warm=True)
            if watch is not None and known:
                del self._beside[live.name, watch.model.digest]
                self._close(watch, now)
                watch.window.forget()
            if past is not None:
                del self._current[live.name]
                if keep:
                    self._close(past, now)
                    self._end(past)
                    self._beside[live.name, past.model.digest] = past
                else:
                    self._leaving.append(past)
            if watch is not None:
                watch.inspect()
                self._current[live.name] = watch
            self._close_leaving(now)
            return old

    def put_beside(self, live: Live, model: Model, now: Instant) -> None:
        """Let ``model`` be asked by its version, and count what it answers.

        Raises as ``Live.put_beside``; then nothing changed.
        """
        live.warm(model)
        with self._lock:
            watch = self._watch(model, now)
            live.put_beside(model, warm=True)
            self._beside[live.name, model.digest] = watch

    def take_away(self, live: Live, sha256: str, now: Instant) -> Model | None:
        """Let go of what is beside, its last requests counted; None when nothing has the digest."""
        with self._lock:
            past = self._beside.pop((live.name, sha256), None)
            gone = live.take_away(sha256, on_left=lambda _: _mark_left(past))
            if past is not None:
                self._leaving.append(past)
            self._close_leaving(now)
            return gone

    def tick(self, now: Instant) -> None:
        """End the windows that are due, by their time or their rows."""
        with self._lock:
            self._close_leaving(now)
            self._look_at_clock(now)
            for watch in (*self._current.values(), *self._beside.values()):
                self._look(watch, now)
                due = now.monotonic_s - watch.began_s >= self._window_s
                if due or watch.window.rows >= self._window_rows:
                    self._close(watch, now)

    def flush(self, now: Instant) -> None:
        """End every window now: before a stop."""
        with self._lock:
            for watch in (*self._leaving, *self._current.values(), *self._beside.values()):
                self._close(watch, now)
            if self._veil is not None:
                self._veil.flush(now)

    def add(self, aside: Aside) -> None:
        """Number a record of another kind, and spool it; one that cannot be is counted as lost."""
        with self._lock:
            if self._veil is None:
                self._append(aside)

    def totals(self, name: str) -> Totals:
        """Rows of the current version of model ``name`` since it was put in place."""
        watch = self._current.get(name)
        return watch.window.totals if watch is not None else Totals(0, 0, 0)

    @property
    def quality(self) -> dict[str, tuple[str, ...]]:
        """What is wrong with the input now, a line a kind of fault, by model; "": the device."""
        with self._lock:
            seen = {
                name: watch.inspection.said
                for name, watch in self._current.items()
                if watch.inspection is not None
            }
            clock = (self._clock.wrong,) if self._clock is not None else ()
        return {name: lines for name, lines in {"": clock, **seen}.items() if any(lines)}

    def latency_p99_ms(self, name: str) -> float:
        """Of the current version's calls since it was put in place; see ``Window``."""
        watch = self._current.get(name)
        return watch.window.latency_p99_ms if watch is not None else 0.0

    def _watch(self, model: Model, now: Instant) -> _Watch:
        watch = _Watch(model, now.monotonic_s, self._latency_max_ms)
        found = self._observer
        model.observer = found(model, watch.window) if found is not None else watch.window
        return watch

    def _close_leaving(self, now: Instant) -> None:
        # Who has left is asked before closing: a last request may be counted in between.
        staying = [watch for watch in self._leaving if not watch.left]
        for watch in self._leaving:
            self._close(watch, now)
            if watch not in staying:
                self._end(watch)
        self._leaving = staying

    def _look(self, watch: _Watch, now: Instant) -> None:
        """Tell of faults before the window ends."""
        if watch.inspection is not None and now.monotonic_s - watch.looked_s >= LOOK_S:
            watch.looked_s = now.monotonic_s
            self._tell(watch.model.manifest.name, watch.inspection.look(watch.window.peek()))

    def _end(self, watch: _Watch) -> None:
        """It answers no more."""
        if watch.inspection is not None:
            self._tell(watch.model.manifest.name, watch.inspection.end())
            watch.inspection = None

    def _look_at_clock(self, now: Instant) -> None:
        before = self._clock
        self._clock = seen = stale.clock(
            before, now.wall_ms, now.monotonic_s, synchronised=now.synchronised
        )
        if before is not None and bool(seen.wrong) != bool(before.wrong):
            kind = FAULT if seen.wrong else RESTORED
            self._tell("", [Tell(kind, "", ": ".join(filter(None, ["stale-clock", seen.wrong])))])

    def _tell(self, model: str, told: list[Tell]) -> None:
        for each in told:
            log.warning("%s%s: %s", f"{model}: " if model else "", each.kind, each.detail)
            if self._on_quality is not None and self._veil is None:
                self._on_quality(model, each)

    def _close(self, watch: _Watch, now: Instant) -> None:
        counts = watch.window.close()
        findings = self._inspected(watch, counts)
        elapsed_ms = int(1000 * max(now.monotonic_s - watch.began_s, 0))
        watch.began_s = now.monotonic_s
        if counts.empty and self._veil is None:
            return
        manifest = watch.model.manifest
        record = Record(
            schema=telemetry.SCHEMA,
            device=self._device,
            boot=self._boot,
            seq=0,
            model=manifest.name,
            version=manifest.version,
            bundle=bytes.fromhex(watch.model.digest),
            start_ms=max(now.wall_ms - elapsed_ms, 0),
            end_ms=max(now.wall_ms, 0),
            synchronised=now.synchronised,
            rows=counts.rows,
            refused=counts.refused,
            failed=counts.failed,
            coding=telemetry.CODING_RESIDUALS,
            counts=watch.reference.write(counts.cells, counts.rows),
            latency=pack_counts(counts.latency),
            errors=_without_end(counts.errors),
            moments=_moments(watch.reference.profile, counts),
            quality=findings,
            resources=self._meter(now.monotonic_s) if self._meter is not None else None,
        )
        if self._veil is not None:
            share = len(self._current) + len(self._beside)
            released = self._veil.take(record, counts.cells, watch.reference.profile, now, share)
            if released is None:
                return
            record = released
        self._append(record)

    def _spool_it(self, record: Record | Aside) -> None:
        """Without its counts where it is too large with them. Raises as ``Spool.append``."""
        try:
            self._spool.append(record)
        except InputFault as error:
            if not isinstance(record, Record) or record.coding == telemetry.CODING_NONE:
                raise
            log.warning("a record of %s leaves without counts: %s", record.model, error.what)
            self._spool.append(_narrow(record))

    def _inspected(self, watch: _Watch, counts: Counts) -> tuple[tuple[int, int], ...]:
        """What was wrong in the window, the device's clock first."""
        clock = ((_STALE_CLOCK, 0),) if self._clock is not None and self._clock.wrong else ()
        if watch.inspection is None:
            return clock
        told, findings = watch.inspection.close(counts)
        self._tell(watch.model.manifest.name, told)
        return (*clock, *findings)[: telemetry.FINDINGS_MAX]

    def _append(self, record: Record | Aside) -> None:
        numbered = replace(
            record, device=self._device, boot=self._boot, seq=self._seq, dropped=self.dropped
        )
        self._seq += 1
        try:
            self._spool_it(numbered)
        except EdgeError as error:
            self._lost += 1
            log.warning("a telemetry record of %s is lost: %s", record.model, error.what)
            return
        if self._on_record is not None:
            self._on_record()


def _narrow(record: Record) -> Record:
    """What is left to say of a window whose counts are too many."""
    return replace(record, coding=telemetry.CODING_NONE, counts=b"", moments=b"")


def _without_end(errors: tuple[int, ...]) -> tuple[int, ...]:
    """Without zeros at the end."""
    last = max((at for at, count in enumerate(errors) if count), default=-1)
    return errors[: last + 1]


def _moments(profile: Profile, counts: Counts) -> bytes:
    tallied = counts.tallied
    return b"" if tallied is None else moments.write(profile, counts.cells, tallied.moments())


def _mark_left(watch: _Watch | None) -> None:
    """The last request with a replaced model returned, in whatever thread that was."""
    if watch is not None:
        watch.left = True

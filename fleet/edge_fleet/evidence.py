"""From new windows to evidence and alarms, within the transaction that keeps the windows.

Guards: a window is counted exactly once (only windows that the store just took, or held as
pending, come here, and what they changed is kept with them); windows of one device are counted in
order of (boot, seq); a window whose profile is unknown is left pending, never counted with
another's; one alarm for one crossing.

A monitor that raised an alarm stays latched until a person resolves it, then starts anew. Another
bundle has another detector. Groups of devices count the same windows before the devices do
(``group_evidence``), so that a device's alarm finds the event that it belongs under.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from edge_contract import telemetry
from edge_contract.errors import InputFault
from edge_contract.telemetry import Record
from edge_contract.typed import msgpack_decoder
from edge_fleet import kept, trends
from edge_fleet.drift import edetector
from edge_fleet.drift import explain as explanations
from edge_fleet.drift.budget import MONTH_S, Budget, Part
from edge_fleet.group_evidence import GroupEvidence
from edge_fleet.kept import Batch
from edge_fleet.library import Known, Library
from edge_fleet.store.base import Alarm, Counted, Detector, Fault, Transaction, Window

HISTORY_WINDOWS = 500
"""How far back an alarm looks for its beginning."""
HISTORY_CELLS, HISTORY_LEAST = 8_000_000, 20
"""Less far where there are many features: 8 million cells are 64 MB."""
LIVE_MAX = 20_000
"""Detectors kept in memory: 2.6 KB each for 20 features."""
STREAMS_EVERY_MS = 60_000

Pair = tuple[str, str]
"""(device, bundle)."""


class _Saved(Struct, frozen=True, array_like=True):
    """A detector's state at rest.

    ``log_m``: float32, little-endian. ``latched``: monitor to alarm.
    """

    algorithm: int
    log_m: bytes
    latched: dict[Annotated[int, Meta(ge=0)], int]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(_Saved)


def save_state(log_m: NDArray[np.float32], latched: dict[int, int]) -> bytes:
    """A detector's state as bytes."""
    saved = _Saved(edetector.ALGORITHM, log_m.astype("<f4").tobytes(), latched)
    return _ENCODER.encode(saved)


def load_state(data: bytes, entries: int) -> tuple[NDArray[np.float32], dict[int, int]]:
    """Log M and latched alarms; a state of another algorithm starts anew but stays latched."""
    saved = _DECODER.decode(data)
    log_m = np.frombuffer(saved.log_m, dtype="<f4").astype(np.float32)
    if saved.algorithm != edetector.ALGORITHM or len(log_m) != entries:
        log_m = np.full(entries, edetector.NO_EVIDENCE, dtype=np.float32)
    return log_m, dict(saved.latched)


def load_states(
    states: Sequence[bytes], entries: int
) -> tuple[NDArray[np.float32], list[dict[int, int]]]:
    """``load_state`` of many: log M ``[states, entries]``, and each one's latched alarms."""
    saved = [_DECODER.decode(data) for data in states]
    nothing = np.full(entries, edetector.NO_EVIDENCE, dtype="<f4").tobytes()
    sound = (
        one.log_m if one.algorithm == edetector.ALGORITHM and len(one.log_m) == 4 * entries
        else nothing
        for one in saved
    )  # fmt: skip
    log_m = np.frombuffer(b"".join(sound), dtype="<f4").reshape(len(saved), entries)
    return log_m.astype(np.float32), [one.latched for one in saved]


@dataclass
class _Live:
    """A detector in memory."""

    detector: Detector
    log_m: NDArray[np.float32]
    latched: dict[int, int]
    fresh: bool = False


@dataclass
class Outcome:
    """What counting windows led to."""

    alarms: list[Alarm] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    counted: int = 0


class Evidence:
    """Counts windows. After a transaction that failed, ``forget`` what memory holds."""

    def __init__(
        self, library: Library, budget: Budget, cohort_by: Sequence[str] = (), ordinal: int = 0
    ) -> None:
        self._library = library
        self._ordinal = ordinal
        self._budget = budget
        self._groups = GroupEvidence(budget, cohort_by)
        self._live: OrderedDict[Pair, _Live] = OrderedDict()
        self._streams: dict[Part, int] = {}
        self._streams_ms = -STREAMS_EVERY_MS

    def forget(self) -> None:
        """Drop everything that was not read back from the store."""
        self._live.clear()
        self._groups.forget()
        self._streams_ms = -STREAMS_EVERY_MS

    def count(
        self,
        tx: Transaction,
        windows: Sequence[Window],
        now_ms: int,
        *,
        marked: Collection[str] = (),
    ) -> Outcome:
        """Count ``windows``, each of which is kept and pending in ``tx``.

        ``marked``: bundles whose windows were kept as counted already.
        """
        outcome = Outcome()
        by_bundle: dict[str, list[Window]] = {}
        for window in windows:
            by_bundle.setdefault(window.bundle, []).append(window)
        for bundle, some in by_bundle.items():
            known = self._library.find(tx, bundle)
            if known is None:
                outcome.unknown.add(bundle)
            else:
                if bundle not in marked:
                    tx.mark([window.key for window in some], Counted.YES)
                self._count_bundle(tx, known, some, outcome, now_ms)
        while len(self._live) > LIVE_MAX:
            self._live.popitem(last=False)
        return outcome

    def _count_bundle(
        self, tx: Transaction, known: Known, windows: list[Window], outcome: Outcome, now_ms: int
    ) -> None:
        windows = sorted(windows, key=lambda window: window.key)
        good, records, rows = _counts_of(known, windows, outcome.faults)
        taken = {window.key for window in good}
        tx.mark([window.key for window in windows if window.key not in taken], Counted.REFUSED)
        if not good:
            return
        outcome.counted += len(good)
        trends.count(tx, known, good, records, rows, ordinal=self._ordinal)
        live = self._load(tx, known, good)
        _rearm(tx, known, live.values())
        thresholds = self._thresholds(tx, live.values(), now_ms)
        threshold = thresholds["device"]
        log_e = known.table.log_e(rows) / _noise(records)
        outcome.alarms += self._groups.count(
            tx, known, good, log_e, thresholds=thresholds, now_ms=now_ms
        )
        history = _History(tx, known, self._groups, now_ms)
        for turn in _turns(good):
            ours = [live[good[at].device, known.bundle] for at in turn]
            moved = edetector.advance(np.stack([one.log_m for one in ours]), log_e[turn])
            levels = known.table.levels(moved)
            for at, one, log_m, level in zip(turn, ours, moved, levels, strict=True):
                one.log_m = log_m
                one.detector = _grown(one.detector, good[at], now_ms)
                for monitor in np.flatnonzero(level >= threshold).tolist():
                    if monitor not in one.latched:
                        alarm = history.alarm(one, monitor, good[at], level[monitor], threshold)
                        one.latched[monitor] = alarm.id
                        outcome.alarms.append(alarm)
        self._keep(tx, live.values())

    def _load(self, tx: Transaction, known: Known, windows: Iterable[Window]) -> dict[Pair, _Live]:
        first = {(window.device, window.bundle): window for window in windows}
        missing = [pair for pair in first if pair not in self._live]
        stored = tx.detectors(missing)
        for pair in missing:
            self._live[pair] = _opened(known, stored.get(pair), first[pair])
        for pair in first:
            self._live.move_to_end(pair)
        return {pair: self._live[pair] for pair in first}

    def _thresholds(self, tx: Transaction, live: Iterable[_Live], now_ms: int) -> dict[Part, float]:
        """log A of each scope for what reported within a month, new devices included."""
        if now_ms - self._streams_ms >= STREAMS_EVERY_MS:
            self._streams = streams(tx, now_ms)
            self._streams_ms = now_ms
        new = sum(one.detector.monitors for one in live if one.fresh)
        known = self._streams.get("device", 0)
        return self._budget.log_thresholds({**self._streams, "device": known + new})

    def _keep(self, tx: Transaction, live: Iterable[_Live]) -> None:
        changed = []
        for one in live:
            one.detector = replace(one.detector, state=save_state(one.log_m, one.latched))
            changed.append(one.detector)
            if one.fresh:
                one.fresh = False
                self._streams["device"] = self._streams.get("device", 0) + one.detector.monitors
        tx.put_detectors(changed)


def streams(tx: Transaction, now_ms: int) -> dict[Part, int]:
    """Monitors that counted a window within a month, by scope, and who sent labels."""
    since_ms = now_ms - MONTH_S * 1000
    groups = tx.group_streams(since_ms)
    return {
        "device": tx.streams(since_ms),
        "cohort": groups.get("cohort", 0),
        "fleet": groups.get("fleet", 0),
        "labels": tx.labelling_streams(since_ms),
    }


class _History:
    """Looks back when an alarm is raised; reads a device's windows once for all its monitors.

    Open events, too, are read once a batch: groups raise theirs before the first device does, and
    finding them means going through all open alarms, of which ten thousand may be new.
    """

    def __init__(self, tx: Transaction, known: Known, groups: GroupEvidence, now_ms: int) -> None:
        self._tx = tx
        self._known = known
        self._groups = groups
        self._now_ms = now_ms
        self._read: dict[tuple[str, int, int], Batch] = {}
        self._events: dict[int, list[Alarm]] = {}

    def alarm(
        self, live: _Live, monitor: int, window: Window, level: float, threshold: float
    ) -> Alarm:
        """Keep the alarm of ``monitor``, raised by ``window``."""
        table = self._known.table.monitors[monitor]
        start = int(self._known.table.starts[monitor])
        entry = explanations.telling_entry(table, live.log_m[start : start + len(table.entries)])
        before = self._before(window)
        at = self._known.profile.offsets()[monitor]
        own = before.counts[:, at : at + table.monitor.cells]
        begin = edetector.change_point(own @ table.log_e[:, entry])
        explanation = explanations.explain(
            table,
            entry,
            own[begin:].sum(axis=0),
            self._known.labels,
            self._known.profile.projections,
        )
        alarm = Alarm(
            device=window.device,
            model=self._known.manifest.name,
            version=self._known.manifest.version,
            bundle=window.bundle,
            monitor=monitor,
            source=table.monitor.source,
            feature=table.monitor.name,
            opened_ms=self._now_ms,  # a window may have waited for its profile
            since_ms=before.times_ms[begin][0],
            log_evidence=float(level),
            log_threshold=threshold,
            explanation=explanations.encode(explanation),
        )
        if monitor not in self._events:
            self._events[monitor] = self._tx.open_events(alarm.bundle, monitor)
        parent = self._groups.parent(
            self._tx, alarm, explanation.kind, self._now_ms, self._events[monitor]
        )
        alarm = replace(alarm, parent=parent)
        return replace(alarm, id=self._tx.add_alarm(alarm))

    def _before(self, last: Window) -> Batch:
        """What was counted up to ``last``: windows, and before them the hours and days."""
        if last.key not in self._read:
            limit = max(HISTORY_LEAST, HISTORY_CELLS // max(self._known.profile.cells, 1))
            found = self._tx.history(
                last.device, last.bundle, (last.boot, last.seq), min(limit, HISTORY_WINDOWS)
            )
            self._read[last.key] = kept.batch(self._known, kept.sound(self._known, found))
        return self._read[last.key]


def _counts_of(
    known: Known, windows: Sequence[Window], faults: list[Fault]
) -> tuple[list[Window], list[Record], NDArray[np.int64]]:
    """The windows whose counts fit the profile, decoded, and the counts, ``[windows, cells]``."""
    try:
        records = [telemetry.decode(window.record) for window in windows]
        return list(windows), records, telemetry.counts_of_many(records, known.reference)
    except InputFault:
        pass  # which, and why, is found out one by one
    good: list[Window] = []
    sound: list[Record] = []
    rows: list[NDArray[np.int64]] = []
    for window in windows:
        try:
            record = telemetry.decode(window.record)
            counts = telemetry.counts_of(record, known.reference)
        except InputFault as error:
            faults.append(Fault(window.device, "bad-counts", error.what, window.received_ms))
        else:
            good.append(window)
            sound.append(record)
            rows.append(counts)
    cells = known.profile.cells
    return good, sound, np.stack(rows) if rows else np.zeros((0, cells), dtype=np.int64)


def _noise(records: Sequence[Record]) -> NDArray[np.float64]:
    """How many times larger noise makes a window's variance, ``[windows, 1]``; 1 without noise."""
    return np.array([[telemetry.noise_of(record)] for record in records])


def _turns(windows: Sequence[Window]) -> list[list[int]]:
    """Indices by turn: the first window of each device, then the second of each, ..."""
    seen: dict[str, int] = {}
    turns: list[list[int]] = []
    for at, window in enumerate(windows):
        turn = seen.get(window.device, 0)
        seen[window.device] = turn + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(at)
    return turns


def _opened(known: Known, stored: Detector | None, window: Window) -> _Live:
    if stored is not None:
        log_m, latched = load_state(stored.state, known.table.entries)
        return _Live(stored, log_m, latched)
    detector = Detector(
        device=window.device,
        bundle=window.bundle,
        model=known.manifest.name,
        version=known.manifest.version,
        state=b"",
        monitors=len(known.table.monitors),
    )
    return _Live(detector, known.table.start()[0], {}, fresh=True)


def _rearm(tx: Transaction, known: Known, live: Iterable[_Live]) -> None:
    """Start monitors anew whose alarm was resolved."""
    latched = [one for one in live if one.latched]
    resolved = tx.resolved({alarm for one in latched for alarm in one.latched.values()})
    for one in latched:
        for monitor, alarm in list(one.latched.items()):
            if alarm in resolved:
                start, size = known.table.starts[monitor], known.table.sizes[monitor]
                one.log_m = one.log_m.copy()
                one.log_m[start : start + size] = edetector.NO_EVIDENCE
                del one.latched[monitor]


def _grown(detector: Detector, window: Window, now_ms: int) -> Detector:
    boot, seq = max((detector.boot, detector.seq), (window.boot, window.seq))
    return replace(
        detector,
        windows=detector.windows + 1,
        rows=detector.rows + window.rows,
        boot=boot,
        seq=seq,
        updated_ms=now_ms,
    )

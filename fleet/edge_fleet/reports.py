"""What ``status``, ``devices`` and ``drift`` say, as plain values, from one consistent reading.

Guards: reports only read. A figure that is not known is None, never a guess.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from edge_contract import aside
from edge_contract.errors import InputFault
from edge_fleet import asides, device_reports
from edge_fleet.alarm_disclosure import disclosed
from edge_fleet.device_reports import device_report, instant, reported_of, states_of
from edge_fleet.drift import explain as explanations
from edge_fleet.drift import groups
from edge_fleet.drift.budget import Budget, Part
from edge_fleet.drift.discovery import e_adjusted
from edge_fleet.drift.groups import GroupTable, Pace
from edge_fleet.evidence import load_state, streams
from edge_fleet.library import Library
from edge_fleet.liveness import Liveness, liveness
from edge_fleet.store.base import Alarm, AsideKind, Device, Store, Totals, Transaction
from edge_fleet.views import (
    AlarmReport,
    DeviceReport,
    Drift,
    FaultReport,
    Figures,
    Level,
    Status,
    UnknownBundle,
)

__all__ = [
    "LN10",
    "Budget",
    "accuracy",
    "alarm_report",
    "budget_of",
    "device_report",
    "devices",
    "drift",
    "figures",
    "instant",
    "reported_of",
    "resolve",
    "resolve_within",
    "shadow",
    "states_of",
    "status",
]  # fmt: skip

LN10 = math.log(10)
UNKNOWN_SHOWN = 50
COLLECTOR_LATE_S = 30.0
"""A collector leaves a sign of life every 10 s."""
WINDOW_SLACK = 0.8
"""Windows shorter than this share of the declared length break the promise."""


def budget_of(settings: Mapping[str, str]) -> Budget:
    """The promise that the collector was last started with."""
    default = Budget()
    return Budget(
        float(settings.get("false_alarms_per_month", default.false_alarms_per_month)),
        float(settings.get("window_s", default.window_s)),
    )


def is_collecting(settings: Mapping[str, str], now_ms: int) -> bool:
    """Whether a collector has said lately that it lives."""
    beats = [int(value) for name, value in settings.items() if name.startswith("collector-")]
    return any(now_ms - beat <= COLLECTOR_LATE_S * 1000 for beat in beats)


def status(store: Store, now_ms: int) -> Status:
    """The fleet at a glance."""
    settings = store.settings()
    budget = budget_of(settings)
    with store.reading() as tx:
        devices, totals, watched = tx.devices(), tx.totals(), streams(tx, now_ms)
        unknown = tx.pending_bundles(UNKNOWN_SHOWN)
        faults = sorted(tx.faults(), key=lambda fault: -fault.last_ms)[:UNKNOWN_SHOWN]
    states = [liveness(device, now_ms, budget.window_s) for device in devices]
    lags = [d.lag_ms for d, s in zip(devices, states, strict=True) if s == "online" and d.windows]
    collecting = is_collecting(settings, now_ms)
    dropped = sum(device.dropped for device in devices)
    counted = figures(settings, totals, states, dropped=dropped, now_ms=now_ms)
    return Status(
        **msgspec.structs.asdict(counted),
        lag_s=max(lags) / 1000 if lags else None,
        streams=sum(watched.values()),
        threshold=budget.log_thresholds(watched)["device"] / LN10,
        false_alarms_per_month=budget.false_alarms_per_month,
        window_s=budget.window_s,
        unknown_profiles=tuple(
            UnknownBundle(u.bundle, u.model, u.version, u.windows, u.devices) for u in unknown
        ),
        recent_faults=tuple(
            FaultReport(f.device, f.kind, f.count, instant(f.last_ms) or "", f.detail)
            for f in faults
        ),
        notes=tuple(_notes(devices, budget, collecting)),
    )


def figures(
    settings: Mapping[str, str], totals: Totals, states: Sequence[Liveness], *, dropped: int,
    now_ms: int,
) -> Figures:  # fmt: skip
    """What every view of the whole fleet says. ``states``: of each device."""
    return Figures(
        fleet=settings.get("fleet", ""),
        collecting=is_collecting(settings, now_ms),
        devices=len(states),
        online=states.count("online"),
        silent=states.count("silent"),
        offline=states.count("offline"),
        windows=totals.windows,
        rows=totals.rows,
        pending_windows=totals.pending,
        refused_windows=totals.refused,
        dropped_records=dropped,
        open_alarms=totals.open_alarms,
        faults=totals.faults,
        last_heard=instant(totals.newest_ms),
    )


def devices(store: Store, now_ms: int) -> tuple[DeviceReport, ...]:
    """Every device with its models."""
    return device_reports.every(store, now_ms, budget_of(store.settings()))


def drift(store: Store, now_ms: int, *, closed: bool = False, k: int = 0) -> Drift:
    """Alarms, and the evidence now on each monitor of the newest bundle of devices and groups.

    ``k``: alarms are told from cells of at least so many rows, and no level of fewer
    (``alarm_disclosure``).
    """
    budget, library = budget_of(store.settings()), Library()
    with store.reading() as tx:
        nats = budget.log_thresholds(streams(tx, now_ms))
        thresholds = {scope: value / LN10 for scope, value in nats.items()}
        alarms = tx.alarms(open_only=not closed)
        if k > 1:
            alarms = [disclosed(each, library.find(tx, each.bundle), k) for each in alarms]
        levels = [*_levels(tx, thresholds["device"]), *_group_levels(tx, thresholds, budget)]
    levels = [each for each in _ranked(levels) if each.rows >= k]
    now = {(x.device, x.model, x.version, x.source, x.feature): x for x in levels}
    opened = {alarm.id for alarm in alarms if alarm.resolved_ms is None}
    under = Counter(alarm.parent for alarm in alarms if alarm.id in opened)
    reports = tuple(
        msgspec.structs.replace(
            alarm_report(alarm, now),
            parent=alarm.parent if alarm.parent in opened else None,
            under=under[alarm.id],
        )
        for alarm in alarms
    )
    return Drift(reports, tuple(levels), thresholds["device"], thresholds)


def shadow(store: Store) -> tuple[asides.ShadowReport, ...]:
    """Candidates in the shadow, beside what they were compared with."""
    with store.reading() as tx:
        records = [aside.decode(each.record) for each in tx.asides(AsideKind.SHADOW)]
    return asides.shadows(each for each in records if isinstance(each, aside.Shadow))


def accuracy(store: Store) -> tuple[asides.LabelReport, ...]:
    """What labels say of the versions that answered."""
    with store.reading() as tx:
        records = [aside.decode(each.record) for each in tx.asides(AsideKind.LABELLED)]
        rows = {(each.device, each.bundle): each.rows for each in tx.all_detectors()}
    return asides.labels((each for each in records if isinstance(each, aside.Labelled)), rows)


def resolve(
    store: Store, ids: Iterable[int], now_ms: int, comment: str, *, under: bool = False
) -> list[int]:
    """Close alarms, with ``under`` also those under them; their monitors start anew.

    An alarm that was under a closed one speaks for itself again.

    Raises InputFault, closing none, when one of them is not an open alarm.
    """
    with store.transaction() as tx:
        return resolve_within(tx, ids, now_ms, comment, under=under)


def resolve_within(
    tx: Transaction, ids: Iterable[int], now_ms: int, comment: str, *, under: bool = False
) -> list[int]:
    """The same in the caller's transaction, which an InputFault must end."""
    wanted = sorted(set(ids))
    if under:
        wanted = _with_those_under(tx.alarms(open_only=True), wanted)
    closed = tx.resolve(wanted, now_ms, comment)
    wrong = [str(one) for one in wanted if one not in closed]
    if wrong:
        raise InputFault(
            f"not an open alarm: {', '.join(wrong)}",
            advice="`edge-fleet drift` lists open alarms with their numbers.",
        )
    return closed


def _with_those_under(opened: Iterable[Alarm], ids: Iterable[int]) -> list[int]:
    found = set(ids)
    opened = list(opened)
    for _ in range(2):  # an event of the fleet, of a cohort, a device's alarm
        found |= {alarm.id for alarm in opened if alarm.parent in found}
    return sorted(found)


def _notes(devices: Iterable[Device], budget: Budget, collecting: bool) -> Iterable[str]:
    if not collecting:
        yield "no collector runs: start `edge-fleet serve`"
    windows = [device.window_ms / 1000 for device in devices if device.window_ms > 0]
    if windows and min(windows) < WINDOW_SLACK * budget.window_s:
        yield (
            f"windows as short as {min(windows):.3g} s come, {budget.window_s:g} s were declared:"
            " the promise on false alarms needs `edge-fleet serve --window-s`"
            f" {min(windows):.3g}"
        )
    if any(device.dropped for device in devices):
        yield "devices dropped records from full spools: see `edge-fleet devices`"


def _levels(tx: Transaction, threshold: float) -> Iterable[Level]:
    library = Library()
    newest = {(detector.device, detector.model): detector for detector in tx.all_detectors()}
    for detector in newest.values():
        known = library.find(tx, detector.bundle)
        if known is None:
            continue
        log_m, latched = load_state(detector.state, known.table.entries)
        levels = known.table.levels(np.asarray(log_m))
        for at, monitor in enumerate(known.profile.monitors):
            yield Level(
                device=detector.device,
                model=detector.model,
                version=detector.version,
                source=monitor.source,
                feature=monitor.name,
                evidence=round(max(float(levels[at]) / LN10, 0.0), 3),
                threshold=round(threshold, 3),
                windows=detector.windows,
                rows=detector.rows,
                alarm=latched.get(at),
            )


def _group_levels(
    tx: Transaction, thresholds: Mapping[Part, float], budget: Budget
) -> Iterable[Level]:
    library, pace = Library(), Pace.of(budget.window_s)
    newest = {(group.name, group.model): group for group in tx.all_groups()}
    for group in newest.values():
        known = library.find(tx, group.bundle)
        if known is None:
            continue
        state, latched = groups.load(group.state, GroupTable(known.table, pace))
        levels = known.table.levels(state.log_m)
        for at, monitor in enumerate(known.profile.monitors):
            yield Level(
                device=group.name,
                model=group.model,
                version=group.version,
                source=monitor.source,
                feature=monitor.name,
                evidence=round(max(float(levels[at]) / LN10, 0.0), 3),
                threshold=round(thresholds[group.scope], 3),
                windows=group.windows,
                rows=group.rows,
                alarm=latched.get(at),
                scope=group.scope,
            )


def _ranked(levels: Sequence[Level]) -> list[Level]:
    """Strongest first, each with its q: M after n windows has a mean of n at most."""
    log_e = [level.evidence * LN10 - math.log(max(level.windows, 1)) for level in levels]
    q = e_adjusted(np.array(log_e))
    ranked = [
        msgspec.structs.replace(level, q=float(f"{one:.3g}"))
        for level, one in zip(levels, q.tolist(), strict=True)
    ]
    return sorted(ranked, key=lambda level: (-level.evidence, level.device, level.feature))


def alarm_report(alarm: Alarm, now: Mapping[tuple[str, str, str, str, str], Level]) -> AlarmReport:
    """One alarm; ``now``: levels by device, model, version, source and feature, where known."""
    explanation = explanations.decode(alarm.explanation)
    level = now.get((alarm.device, alarm.model, alarm.version, alarm.source, alarm.feature))
    return AlarmReport(
        id=alarm.id,
        device=alarm.device,
        model=alarm.model,
        version=alarm.version,
        source=alarm.source,
        feature=alarm.feature,
        kind=explanation.kind,
        what=explanation.text,
        since=instant(alarm.since_ms) or "",
        opened=instant(alarm.opened_ms) or "",
        evidence=round(alarm.log_evidence / LN10, 3),
        threshold=round(alarm.log_threshold / LN10, 3),
        evidence_now=level.evidence if level else None,
        q_now=level.q if level else None,
        rows=explanation.rows,
        cells=explanation.cells,
        resolved=instant(alarm.resolved_ms),
        comment=alarm.comment,
        scope=alarm.scope,
        parent=alarm.parent,
        members=explanation.members,
        moved=explanation.moved,
        devices=explanation.devices,
        bars=explanation.bars,
    )

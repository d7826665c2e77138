"""What the drift page shows of one version: when, in which features, and on which devices.

Guards: an answer costs the hours that it covers, not the devices that were counted in them;
distances are shown beside what chance alone makes of so many rows; nothing is shown of fewer than
``disclosure.K`` rows, and histograms are of merged cells of at least so many.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy import special

from edge_contract.errors import InputFault
from edge_contract.profile import Monitor
from edge_fleet import disclosure, trends
from edge_fleet.api.changing import Absent
from edge_fleet.drift import explain as explanations
from edge_fleet.drift import oneshot, promises
from edge_fleet.drift.budget import Budget
from edge_fleet.drift.explain import CellChange
from edge_fleet.evidence import load_states, streams
from edge_fleet.library import Known, Library
from edge_fleet.reports import LN10, instant
from edge_fleet.store.base import Transaction

STEPS_MAX = 168
FEATURES_MAX = 60
MONITORS_MAX = 2000
"""Monitors that are looked at for those: of a wider profile the first ones."""
HOURS_MAX = trends.KEEP_HOURS
LABELS_SHOWN = 64
BARS_MAX = 128
Floats = NDArray[np.float64]


class FeatureDrift(Struct, frozen=True):
    """One monitor's row of the map.

    Attributes:
        distance: Jensen-Shannon distance from the reference a step, 0 to 1; None for too few rows.
        shift: what of it is beyond chance (two standard deviations above its mean).
        alarms: open alarms on it, of devices and groups.
    """

    source: str
    feature: str
    distance: tuple[float | None, ...]
    shift: tuple[float | None, ...]
    most: float
    alarms: int


class DriftMap(Struct, frozen=True):
    """Feature by time, the features that moved most first.

    Attributes:
        starts: when each step began. step_ms: its length. rows: in each step, over all devices.
        monitors: of the profile; ``features`` holds the first of them by ``most``.
        promise: which false alarms are to be expected, in words. threshold: log10, of a device.
        rows_min: steps of fewer rows are blank.
    """

    bundle: str
    model: str
    version: str
    since_ms: int
    step_ms: int
    starts: tuple[str, ...]
    rows: tuple[int, ...]
    monitors: int
    features: tuple[FeatureDrift, ...]
    rows_min: int
    promise: str
    threshold: float


class Histogram(Struct, frozen=True):
    """One monitor before and after: shares of rows, cell by cell in order of values.

    Attributes:
        what: how it differs, in words, as alarms say it. rows: of the period.
        distance, chance: Jensen-Shannon, and its mean where nothing changed.
        psi, wasserstein: see ``changes.Change``. merged: cells of fewer than ``k`` rows stand for
            those around them. left_off: cells that are not shown.
    """

    bundle: str
    model: str
    version: str
    source: str
    feature: str
    kind: str
    since: str
    until: str
    rows: int
    what: str
    distance: float
    chance: float
    psi: float
    wasserstein: float | None
    median_before: float | None
    median_after: float | None
    k: int
    merged: bool
    bars: tuple[CellChange, ...]
    left_off: int


class Contributor(Struct, frozen=True):
    """One device's evidence, log10; ``share``: of all devices' together. ``alarm``: its open one.

    ``feature``: where the evidence is strongest.
    """

    device: str
    source: str
    feature: str
    evidence: float
    share: float
    rows: int
    windows: int
    alarm: int | None


class Contributors(Struct, frozen=True):
    """Which devices hold the evidence, the strongest first; ``above``: how many are alarms."""

    bundle: str
    model: str
    version: str
    devices: int
    above: int
    threshold: float
    items: tuple[Contributor, ...]


def known_of(tx: Transaction, bundle: str) -> Known:
    """The bundle with its profile. Raises Absent."""
    known = Library().find(tx, bundle)
    if known is None:
        raise Absent(
            f"the profile of bundle {bundle} is not known",
            advice="Publish it, or hand it over: `edge-fleet fetch FILE`.",
        )
    return known


def span(now_ms: int, hours: int, steps_max: int = STEPS_MAX) -> tuple[int, int, int]:
    """(begin, length of a step, steps) of the last ``hours``, the hour that runs included."""
    step = math.ceil(hours / steps_max)
    steps = math.ceil(hours / step)
    end = now_ms // trends.HOUR_MS * trends.HOUR_MS + trends.HOUR_MS
    return end - steps * step * trends.HOUR_MS, step * trends.HOUR_MS, steps


def drift_map(
    tx: Transaction, known: Known, now_ms: int, budget: Budget, *, hours: int
) -> DriftMap:
    """The map of the last ``hours`` (1 to ``HOURS_MAX``), in at most ``STEPS_MAX`` steps."""
    since_ms, step_ms, many = span(now_ms, hours)
    starts = [since_ms + at * step_ms for at in range(many)]
    found = trends.between(tx, known, since_ms, since_ms + many * step_ms)
    steps = trends.steps(found, starts, step_ms, known)
    counts = np.stack([step.counts for step in steps])
    alarmed: dict[tuple[str, str], int] = {}
    for alarm in tx.alarms(open_only=True):
        if alarm.bundle == known.bundle:
            key = alarm.source, alarm.feature
            alarmed[key] = alarmed.get(key, 0) + 1
    rows = [
        _feature(monitor, own, alarmed.get((monitor.source, monitor.name), 0))
        for monitor, own in _own(known, counts)
    ]
    rows.sort(key=lambda row: (-row.alarms, -row.most))
    watched = streams(tx, now_ms)
    return DriftMap(
        bundle=known.bundle,
        model=known.manifest.name,
        version=known.manifest.version,
        since_ms=since_ms,
        step_ms=step_ms,
        starts=tuple(instant(start) or "" for start in starts),
        rows=tuple(step.rows for step in steps),
        monitors=len(known.profile.monitors),
        features=tuple(rows[:FEATURES_MAX]),
        rows_min=disclosure.K,
        promise=promises.false_alarms(budget, sum(watched.values())),
        threshold=round(budget.log_thresholds(watched)["device"] / LN10, 3),
    )


def _own(known: Known, counts: NDArray[np.int64]) -> list[tuple[Monitor, NDArray[np.int64]]]:
    pairs = zip(known.profile.monitors, known.profile.offsets(), strict=True)
    return [(m, counts[:, at : at + m.cells]) for m, at in list(pairs)[:MONITORS_MAX]]


def _feature(monitor: Monitor, counts: NDArray[np.int64], alarms: int) -> FeatureDrift:
    distance, shift = distances(monitor, counts)
    some = counts.sum(axis=1) >= disclosure.K
    return FeatureDrift(
        source=monitor.source,
        feature=monitor.name,
        distance=_told(distance, some),
        shift=_told(shift, some),
        most=round(float(shift[some].max(initial=0.0)), 4),
        alarms=alarms,
    )


def _told(values: Floats, some: NDArray[np.bool_]) -> tuple[float | None, ...]:
    pairs = zip(values.tolist(), some.tolist(), strict=True)
    return tuple(round(value, 3) if fits else None for value, fits in pairs)


def distances(monitor: Monitor, counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Jensen-Shannon distance of each of ``counts [steps, cells]``, and what is beyond chance.

    Beyond: more than two standard deviations above the mean that the divergence has while nothing
    changes. The design effect makes rows fewer; simulated (tests), not proven.
    """
    samples = oneshot.cells(monitor, counts)
    distance = oneshot.jensen_shannon(samples)
    mean, deviation = chance(samples)
    beyond = distance**2 - mean - 2 * deviation
    return distance, np.sqrt(np.maximum(beyond, 0.0))


def chance(samples: oneshot.Samples) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the Jensen-Shannon divergence (bits) while nothing changes.

    A cell that expects L of n rows and holds k adds h(L, k) / n bits, h = (L log2(2L / (L + k)) +
    k log2(2k / (L + k))) / 2. Its moments over a Poisson k are tabulated, so they hold for cells
    that expect less than a row, where chi-square (8 ln 2 n times the divergence) is far off.
    """
    before, _ = samples.shares
    many = max(float(samples.reference.sum()), 1.0)
    n = np.maximum(samples.window.sum(axis=-1) / samples.design_effect, 1e-9)
    own = 1 + n * samples.design_effect / many  # the reference is a sample too
    cells = max(int(np.count_nonzero(before)), 1)
    grid, means, variances = _moments()
    expected = np.log(np.maximum(n[..., None] * before, 1e-12))
    mean = np.interp(expected, grid, means, left=0.0).sum(axis=-1) * (cells - 1) / cells
    variance = np.interp(expected, grid, variances, left=0.0).sum(axis=-1)
    return mean / n * own, np.sqrt(variance) / n * own


@cache
def _moments() -> tuple[Floats, Floats, Floats]:
    """Logarithm of L, and mean and variance of h(L, k) for a Poisson k of mean L."""
    grid = np.linspace(math.log(1e-4), math.log(200.0), 120)
    expected, k = np.exp(grid)[:, None], np.arange(500.0)
    middle = (expected + k) / 2
    bits = (special.rel_entr(expected, middle) + special.rel_entr(k, middle)) / (2 * math.log(2))
    share = np.exp(k * grid[:, None] - expected - special.gammaln(k + 1))
    mean = (share * bits).sum(axis=1)
    return grid, mean, (share * bits**2).sum(axis=1) - mean**2


def _at(known: Known, source: str, feature: str) -> int:
    """Which monitor. Raises Absent."""
    for at, monitor in enumerate(known.profile.monitors):
        if (monitor.source, monitor.name) == (source, feature):
            return at
    raise Absent(f"{known.manifest.name} {known.manifest.version} monitors no {source} {feature!r}")


def histogram(
    tx: Transaction, known: Known, *, source: str, feature: str, since_ms: int, until_ms: int
) -> Histogram:
    """One monitor over all devices in the hours that began in [since, until).

    Raises Absent for a monitor that is none, InputFault for a period that is none.
    """
    if not 0 < until_ms - since_ms <= HOURS_MAX * trends.HOUR_MS:
        raise InputFault("the period is empty, or longer than hours are kept")
    at = _at(known, source, feature)
    monitor, start = known.profile.monitors[at], known.profile.offsets()[at]
    hours = trends.between(tx, known, since_ms, until_ms)
    whole = trends.added(list(hours.values())) if hours else trends.empty(known)
    counts = whole.counts[start : start + monitor.cells]
    told = disclosure.safe_counts(monitor, counts, disclosure.K)
    samples = oneshot.cells(monitor, told)
    mean, _ = chance(samples)
    ordered = monitor.kind in ("quantile", "lattice")
    bars = _bars(monitor, samples, known.labels)
    reference = np.asarray(monitor.counts, dtype=np.int64)
    rows = int(told.sum())
    return Histogram(
        bundle=known.bundle,
        model=known.manifest.name,
        version=known.manifest.version,
        source=source,
        feature=feature,
        kind=monitor.kind,
        since=instant(since_ms) or "",
        until=instant(until_ms) or "",
        rows=rows,
        what=_what(known, at, told) if rows else "",
        distance=round(float(oneshot.jensen_shannon(samples)), 4),
        chance=round(math.sqrt(float(mean)), 4) if rows else 0.0,
        psi=round(float(oneshot.population_stability(samples)), 4),
        wasserstein=float(oneshot.wasserstein(monitor, told)) if ordered and rows else None,
        median_before=explanations.median_of(monitor, reference) if ordered else None,
        median_after=explanations.median_of(monitor, told) if ordered else None,
        k=disclosure.K,
        merged=bool((told != counts).any()),
        bars=bars[:BARS_MAX],
        left_off=max(len(bars) - BARS_MAX, 0),
    )


def _what(known: Known, at: int, counts: NDArray[np.int64]) -> str:
    """As an alarm would say it; where nothing speaks for a change, that."""
    table = known.table.monitors[at]
    if not table.entries:
        return ""
    evidence = (counts @ table.log_e).astype(np.float32)
    if float(evidence.max()) <= 0:
        return "nothing in these rows speaks for a change"
    entry = explanations.telling_entry(table, evidence)
    return explanations.explain(table, entry, counts, known.labels, known.profile.projections).text


def _bars(
    monitor: Monitor, samples: oneshot.Samples, labels: tuple[str, ...]
) -> tuple[CellChange, ...]:
    """Cells in order; of a score of many labels the labels, those with most rows first."""
    before, after = samples.shares
    if monitor.kind == "score" and monitor.labels > 3:
        bins = len(monitor.edges) - 1
        sums = [side[: monitor.regular].reshape(-1, bins).sum(axis=1) for side in (before, after)]
        order = np.argsort(-np.maximum(*sums), kind="stable")[:LABELS_SHOWN].tolist()
        names = [explanations.label_name(label, labels) for label in range(monitor.labels)]
        return tuple(_bar(names[i], float(sums[0][i]), float(sums[1][i])) for i in order)
    names = explanations.cell_names(monitor, labels)
    return tuple(
        _bar(names[i], float(before[i]), float(after[i]))
        for i in range(monitor.cells)
        if i < monitor.regular or before[i] or after[i]
    )


def _bar(name: str, before: float, after: float) -> CellChange:
    return CellChange(name, round(before, 5), round(after, 5))


def contributors(
    tx: Transaction, known: Known, now_ms: int, budget: Budget, *, source: str, feature: str,
    limit: int,
) -> Contributors:  # fmt: skip
    """Devices by their evidence on one monitor; without one, each by its strongest."""
    held = tx.held_of(known.bundle)
    nats = budget.log_thresholds(streams(tx, now_ms))["device"]
    log_m, latched = load_states([one.state for one in held], known.table.entries)
    at = _at(known, source, feature) if feature else None
    chosen, which = _strongest(known, log_m, at)
    evidence = np.maximum(chosen / LN10, 0.0)
    total = float(evidence.sum()) or 1.0
    order = np.argsort(-evidence, kind="stable")[:limit].tolist()
    monitors = known.profile.monitors
    items = [
        Contributor(
            held[i].device, monitors[which[i]].source, monitors[which[i]].name,
            round(float(evidence[i]), 3), round(float(evidence[i]) / total, 4), held[i].rows,
            held[i].windows, latched[i].get(int(which[i])),
        )
        for i in order
        if monitors
    ]  # fmt: skip
    return Contributors(
        bundle=known.bundle,
        model=known.manifest.name,
        version=known.manifest.version,
        devices=len(held),
        above=int((chosen >= nats).sum()),
        threshold=round(nats / LN10, 3),
        items=tuple(items),
    )


def _strongest(
    known: Known, log_m: NDArray[np.float32], at: int | None
) -> tuple[Floats, NDArray[np.int64]]:
    """Level and monitor of each device: monitor ``at``, or the one with the most evidence."""
    table, devices = known.table, len(log_m)
    best, which = np.full(devices, -np.inf), np.zeros(devices, dtype=np.int64)
    for monitor in range(len(table.monitors)) if at is None else (at,):
        size = int(table.sizes[monitor])
        if not size:
            continue
        own = log_m[:, int(table.starts[monitor]) :][:, :size].astype(np.float64)
        level = np.log(np.exp(own).sum(axis=1) / size)
        which = np.where(level > best, monitor, which)
        best = np.maximum(level, best)
    return best, which

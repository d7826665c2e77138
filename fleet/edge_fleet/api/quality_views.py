"""How good one version has been over time: estimated without labels, and by labels that came.

Guards: each point keeps its interval, its method and why it was refused; what no method can see
stands beside them; a point is of the hours it names and of no other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract import aside
from edge_contract.profile import Monitor
from edge_fleet import estimating, trends
from edge_fleet.api.drift_views import span
from edge_fleet.library import Known
from edge_fleet.quality import cbpe, late
from edge_fleet.quality.estimates import BLIND, Estimate
from edge_fleet.reports import instant
from edge_fleet.store.base import AsideKind, Transaction

STEPS_MAX = 28
Arrived = list[tuple[int, NDArray[np.int64]]]


class QualityPoint(Struct, frozen=True):
    """One step: rows with a score, labels that came in it, and the estimates of each method."""

    start: str
    rows: int
    labels: int
    estimates: tuple[Estimate, ...]


class QualityHistory(Struct, frozen=True):
    """One version over time.

    Attributes:
        calibration: whose word the estimates from scores take.
        build: figures of the build on its own labelled rows, for comparison.
        blind: what each method cannot see. why_not: why there is nothing to estimate from.
    """

    bundle: str
    model: str
    version: str
    since: str
    until: str
    calibration: str
    build: dict[str, float]
    points: tuple[QualityPoint, ...]
    blind: dict[str, str]
    why_not: str


def history(tx: Transaction, known: Known, now_ms: int, *, hours: int) -> QualityHistory:
    """The last ``hours`` in at most ``STEPS_MAX`` steps."""
    since_ms, step_ms, many = span(now_ms, hours, STEPS_MAX)
    starts = [since_ms + at * step_ms for at in range(many)]
    at = estimating.scores_at(known)
    points: tuple[QualityPoint, ...] = ()
    whose, why_not = "nobody", "the model says no labels: `edge-fleet accuracy` knows its errors"
    if at is not None:
        monitor, start = known.profile.monitors[at], known.profile.offsets()[at]
        arrived = _labels(tx, known, monitor)
        answers = _together([counts for _, counts in arrived], monitor)
        calibration, whose = estimating.calibration_of(monitor, answers)
        found = trends.between(tx, known, since_ms, since_ms + many * step_ms)
        steps = trends.steps(found, starts, step_ms, known)
        points = tuple(
            _point(
                monitor, step.counts[start : start + monitor.cells], calibration, begin,
                [counts for ms, counts in arrived if begin <= ms < begin + step_ms],
            )
            for begin, step in zip(starts, steps, strict=True)
        )  # fmt: skip
        why_not = "" if any(p.rows or p.labels for p in points) else "no row came in this time"
    return QualityHistory(
        bundle=known.bundle,
        model=known.manifest.name,
        version=known.manifest.version,
        since=instant(since_ms) or "",
        until=instant(since_ms + many * step_ms) or "",
        calibration=whose,
        build={m.name: m.bundle for m in known.manifest.metrics if not m.slice},
        points=points,
        blind=BLIND,
        why_not=why_not,
    )


def _point(
    monitor: Monitor, counts: NDArray[np.int64], calibration: cbpe.Calibration, start_ms: int,
    labels: Sequence[NDArray[np.int64]],
) -> QualityPoint:  # fmt: skip
    rng = np.random.default_rng(estimating.SEED)
    answers = _together(labels, monitor)
    estimates: list[Estimate] = []
    rows, came = int(counts[: monitor.regular].sum()), int(answers.sum())
    if rows:
        estimates += cbpe.estimate(monitor, counts, calibration, rng)
    if came:
        estimates += late.estimate(answers)
    return QualityPoint(instant(start_ms) or "", rows, came, tuple(estimates))


def _labels(tx: Transaction, known: Known, monitor: Monitor) -> Arrived:
    """Answers that labels came for, with the time at which they did: ``[2, labels, bins]``."""
    bins, found = len(monitor.edges) - 1, []
    for seen in tx.asides(AsideKind.LABELLED):
        if seen.bundle != known.bundle:
            continue
        record = aside.decode(seen.record)
        if not isinstance(record, aside.Labelled) or record.kind != "label":
            continue
        if (record.labels, record.bins) == (monitor.labels, bins):
            found.append((seen.received_ms, aside.counts_of(record)))
    return found


def _together(counts: Sequence[NDArray[np.int64]], monitor: Monitor) -> NDArray[np.int64]:
    shape = (2, monitor.labels, len(monitor.edges) - 1)
    return np.asarray(sum(counts, np.zeros(shape, dtype=np.int64)))

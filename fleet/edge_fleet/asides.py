"""What candidates in the shadow and labels that came later say, summed over the fleet. Pure.

Guards: a shadow is compared with the live version that it ran beside, and with no other; a share
without rows is None, never a guess; an interval says how little is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract import aside
from edge_contract.aside import DIFFERENCE_BUCKETS, Labelled, Shadow
from edge_contract.telemetry import LATENCY_BUCKETS, unpack_counts
from edge_fleet.quality.intervals import clopper_pearson

LEVEL = 0.95


class Share(Struct, frozen=True):
    """A share with its exact interval (Clopper and Pearson), for the rows of one look."""

    share: float
    low: float
    high: float


class ShadowReport(Struct, frozen=True):
    """A candidate beside one live version, over all devices that tried it.

    Attributes:
        rows: answered by both. compared: of them, those that could be.
        agreement: share of the compared rows with the same label, or close values.
        difference_p50, difference_p99: the bucket's upper bound (factor 2), in ``unit``s; None
            where no scores or values could be compared. The last bucket has no upper bound: 1024.
        latency_p50_ms to live_p99_ms: of calls, upper bounds of their buckets (factor 1.42).
    """

    model: str
    live_version: str
    version: str
    bundle: str
    devices: int
    rows: int
    compared: int
    agreed: int
    agreement: Share | None
    refused: int
    failed: int
    skipped: int
    unit: float
    difference_p50: float | None
    difference_p99: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    live_p50_ms: float | None
    live_p99_ms: float | None


class LabelReport(Struct, frozen=True):
    """Labels that came for the answers of one version, over all devices.

    Attributes:
        labelled: answers with a label. answered: rows that came home; None where not known.
        coverage: labelled among answered. accuracy: right among labelled; None for values.
        error_p50, error_p90: absolute errors of values, upper bounds of their buckets (factor 2).
        too_low: share of values that were below the truth.
    """

    model: str
    version: str
    bundle: str
    kind: str
    devices: int
    labelled: int
    answered: int | None
    coverage: float | None
    right: int
    accuracy: Share | None
    error_p50: float | None
    error_p90: float | None
    too_low: float | None
    repeated: int
    contradicted: int
    late: int
    unknown: int
    refused: int


def share_of(some: int, rows: int) -> Share | None:
    """``some`` of ``rows`` with an interval; None without rows."""
    if not rows:
        return None
    low, high = clopper_pearson(np.array(float(some)), np.array(float(rows)), LEVEL)
    return Share(some / rows, float(low), float(high))


def shadows(records: Iterable[Shadow]) -> tuple[ShadowReport, ...]:
    """A report a pair of live version and candidate, by model and version."""
    pairs: dict[tuple[str, bytes, bytes], list[Shadow]] = {}
    for record in records:
        key = (record.model, record.live_bundle, record.bundle)
        pairs.setdefault(key, []).append(record)
    found = [_shadow(some) for some in pairs.values()]
    return tuple(sorted(found, key=lambda each: (each.model, each.live_version, each.version)))


def _shadow(some: list[Shadow]) -> ShadowReport:
    last = some[-1]
    agreed = sum(each.agreed for each in some)
    compared = agreed + sum(each.differed for each in some)
    differences = sum(map(aside.differences_of, some), np.zeros(DIFFERENCE_BUCKETS, np.int64))
    own, live = (
        sum((unpack_counts(data, LATENCY_BUCKETS) for data in column),
            np.zeros(LATENCY_BUCKETS, np.int64))
        for column in ([each.latency for each in some], [each.live_latency for each in some])
    )  # fmt: skip
    return ShadowReport(
        model=last.model,
        live_version=last.live_version,
        version=last.version,
        bundle=last.bundle.hex(),
        devices=len({each.device for each in some}),
        rows=sum(each.rows for each in some),
        compared=compared,
        agreed=agreed,
        agreement=share_of(agreed, compared),
        refused=sum(each.refused for each in some),
        failed=sum(each.failed for each in some),
        skipped=sum(each.skipped for each in some),
        unit=last.unit,
        difference_p50=_quantile(differences, 0.5, _units),
        difference_p99=_quantile(differences, 0.99, _units),
        latency_p50_ms=_quantile(own, 0.5, _latency_bound_ms),
        latency_p99_ms=_quantile(own, 0.99, _latency_bound_ms),
        live_p50_ms=_quantile(live, 0.5, _latency_bound_ms),
        live_p99_ms=_quantile(live, 0.99, _latency_bound_ms),
    )


def labels(
    records: Iterable[Labelled], answered: Mapping[tuple[str, str], int]
) -> tuple[LabelReport, ...]:
    """A report a version, by model and version.

    Args:
        answered: rows that came home, by device and bundle in hex.
    """
    bundles: dict[tuple[bytes, str], list[Labelled]] = {}
    for record in records:
        bundles.setdefault((record.bundle, record.kind), []).append(record)
    found = [_labelled(some, answered) for some in bundles.values()]
    return tuple(sorted(found, key=lambda each: (each.model, each.version)))


def _labelled(some: list[Labelled], answered: Mapping[tuple[str, str], int]) -> LabelReport:
    last, devices = some[-1], {each.device for each in some}
    bundle = last.bundle.hex()
    counts = [aside.counts_of(each) for each in some]
    labelled = sum(int(each.sum()) for each in counts)
    right = sum(int(each[1].sum()) for each in counts) if last.kind == "label" else 0
    rows = [answered[device, bundle] for device in devices if (device, bundle) in answered]
    known = sum(rows) if len(rows) == len(devices) else None
    errors = np.zeros((2, DIFFERENCE_BUCKETS), np.int64)
    for each in counts if last.kind == "value" else ():
        errors += each[0]

    def bound(bucket: int) -> float:
        return last.unit * _units(bucket)

    return LabelReport(
        model=last.model,
        version=last.version,
        bundle=bundle,
        kind=last.kind,
        devices=len(devices),
        labelled=labelled,
        answered=known,
        coverage=min(labelled / known, 1.0) if known else None,
        right=right,
        accuracy=share_of(right, labelled) if last.kind == "label" else None,
        error_p50=_quantile(errors.sum(axis=0), 0.5, bound),
        error_p90=_quantile(errors.sum(axis=0), 0.9, bound),
        too_low=int(errors[0].sum()) / labelled if last.kind == "value" and labelled else None,
        repeated=sum(each.repeated for each in some),
        contradicted=sum(each.contradicted for each in some),
        late=sum(each.late for each in some),
        unknown=sum(each.unknown for each in some),
        refused=sum(each.refused for each in some),
    )


def _quantile(counts: NDArray[np.int64], at: float, bound: Callable[[int], float]) -> float | None:
    """The upper bound of the bucket in which the share ``at`` of the counts is reached."""
    if not counts.sum():
        return None
    return bound(int(np.searchsorted(np.cumsum(counts), at * counts.sum())))


def _units(bucket: int) -> float:
    """A figure also for the last, open bucket: JSON has no infinity."""
    found = aside.difference_bound(bucket)
    return found if math.isfinite(found) else 2 * aside.difference_bound(bucket - 1)


def _latency_bound_ms(bucket: int) -> float:
    return float(2 ** ((bucket + 1) / 2) / 1000)

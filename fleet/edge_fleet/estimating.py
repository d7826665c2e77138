"""How good each version still is: read from the store, estimated in every way that is possible.

Guards: reports only read; each figure keeps its method's name and its blind spot; nothing is added
up over versions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract import aside
from edge_contract.errors import InputFault
from edge_contract.profile import Monitor
from edge_fleet import error_watch, kept
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import streams
from edge_fleet.library import Known, Library
from edge_fleet.quality import cbpe, estimates, late, raking, reference_file, values
from edge_fleet.quality.estimates import Estimate
from edge_fleet.reports import LN10, budget_of, instant
from edge_fleet.store.base import AsideKind, Store, Transaction

SEED = 26
"""The intervals are drawn; the same counts give the same ones."""


class Errors(Struct, frozen=True):
    """Bets on a risen error rate, over the labels in the order in which they came.

    They are the collector's, whose alarms stand in ``edge-fleet drift``.

    Attributes:
        watched: the error rate that is no alarm: the upper end of the build's own interval.
        evidence, threshold: log10, as of drift alarms. risen: the threshold was reached once.
    """

    watched: float
    evidence: float
    threshold: float
    risen: bool


class VersionQuality(Struct, frozen=True):
    """One version of one model over all devices.

    Attributes:
        rows: answered in the period. labelled: of all its answers, how many got a label.
        calibration: whose word the estimate from scores takes.
        estimates: figure by figure. errors: None without labels or a metric of the build.
    """

    model: str
    version: str
    bundle: str
    since: str
    rows: int
    labelled: int
    calibration: str
    estimates: tuple[Estimate, ...]
    errors: Errors | None


@dataclass(frozen=True)
class _Labels:
    """Label records of one bundle in the order of arrival: ``[records, 2, labels, bins]``."""

    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Held:
    """Labelled reference rows that the server holds, and what one version answered to them.

    ``rows``, ``answers``: CSV, see ``quality.reference_file``; ``target``: the truth's column.
    """

    rows: bytes
    answers: bytes
    target: str


def qualities(
    store: Store, now_ms: int, *, period_ms: int, model: str = "", version: str = "",
    held: Held | None = None,
) -> tuple[VersionQuality, ...]:  # fmt: skip
    """Every version that answered in the last ``period_ms`` and says labels; () for none.

    Of values those that have late labels.

    ``held``: of the one version that is left; then values are estimated too. Raises InputFault when
    several are, or when its files cannot be read.
    """
    budget = budget_of(store.settings())
    with store.reading() as tx:
        return read(
            tx, now_ms, budget, period_ms=period_ms, model=model, version=version, held=held
        )


def read(
    tx: Transaction, now_ms: int, budget: Budget, *, period_ms: int, model: str,
    version: str = "", held: Held | None = None,
) -> tuple[VersionQuality, ...]:  # fmt: skip
    """As ``qualities``, within a reading."""
    library, since_ms = Library(), now_ms - period_ms
    labelled, found = _labelled(tx, "label"), []
    of_values = _labelled(tx, "value")
    for bundle in sorted({d.bundle for d in tx.all_detectors() if model in ("", d.model)}):
        known = library.find(tx, bundle)
        if known is None or version not in ("", known.manifest.version):
            continue
        at = scores_at(known)
        if at is None and held is None and bundle not in of_values:
            continue
        counts = np.zeros(known.profile.cells, dtype=np.int64)
        for some in kept.batches(tx, known, since_ms):
            counts += some.counts.sum(axis=0)
        if counts.any():
            found.append((known, at, counts))
    if held is not None and len(found) > 1:
        named = ", ".join(f"{k.manifest.name} {k.manifest.version}" for k, *_ in found)
        raise InputFault(
            f"the reference rows were answered by one version, and {named} answered devices",
            advice="Say which: --model, --version",
        )
    return tuple(
        _version(
            known=known, at=at, counts=counts,
            labelled=(of_values if at is None else labelled).get(known.bundle, ()),
            since_ms=since_ms, errors=_errors(tx, known, budget, now_ms), held=held,
        )
        for known, at, counts in found
    )  # fmt: skip


def of_enough(found: VersionQuality, k: int) -> VersionQuality:
    """The same to hand out: no count of fewer than ``k`` rows, no figure that rests on fewer."""
    few = 0 < found.labelled < k
    return msgspec.structs.replace(
        found,
        rows=found.rows if found.rows >= k else 0,
        labelled=0 if few else found.labelled,
        calibration="few labels" if few else found.calibration,
        estimates=tuple(estimates.of_enough(each, k) for each in found.estimates),
        errors=None if few else found.errors,
    )


def scores_at(known: Known) -> int | None:
    """Which monitor counts labels and scores."""
    kinds = [monitor.kind for monitor in known.profile.monitors]
    return kinds.index("score") if "score" in kinds else None


def _labelled(
    tx: Transaction, kind: Literal["label", "value"]
) -> dict[str, list[tuple[int, aside.Labelled]]]:
    """Records of labels of one kind by bundle, each with the time of its arrival."""
    found: dict[str, list[tuple[int, aside.Labelled]]] = {}
    for seen in tx.asides(AsideKind.LABELLED):
        record = aside.decode(seen.record)
        if isinstance(record, aside.Labelled) and record.kind == kind:
            found.setdefault(seen.bundle, []).append((seen.received_ms, record))
    return found


def _fitting(monitor: Monitor, records: Sequence[tuple[int, aside.Labelled]]) -> _Labels:
    """Those in the monitor's own bins, by arrival; a device that counts otherwise is left out."""
    bins = len(monitor.edges) - 1
    fit = [each for each in records if (each[1].labels, each[1].bins) == (monitor.labels, bins)]
    fit.sort(key=lambda each: (each[0], each[1].device, each[1].boot, each[1].seq))
    counts = [aside.counts_of(record) for _, record in fit]
    empty = np.zeros((0, 2, monitor.labels, bins), dtype=np.int64)
    return _Labels(np.stack(counts) if counts else empty)


def _errors_of(known: Known, records: Sequence[tuple[int, aside.Labelled]]) -> NDArray[np.int64]:
    """Errors of values ``[2, buckets]``; a device that counts in another unit is left out."""
    unit = aside.unit_of(known.profile)
    fit = [aside.counts_of(record)[0] for _, record in records if math.isclose(record.unit, unit)]
    return np.sum(fit, axis=0) if fit else np.zeros((2, aside.DIFFERENCE_BUCKETS), dtype=np.int64)


def _version(
    *, known: Known, at: int | None, counts: NDArray[np.int64],
    labelled: Sequence[tuple[int, aside.Labelled]], since_ms: int, errors: Errors | None,
    held: Held | None,
) -> VersionQuality:  # fmt: skip
    rng = np.random.default_rng(SEED)
    figures: list[Estimate] = []
    answers, whose = np.zeros(1, dtype=np.int64), "nobody: it says no labels"
    if at is not None:
        monitor = known.profile.monitors[at]
        answers = _fitting(monitor, labelled).counts.sum(axis=0)
        calibration, whose = calibration_of(monitor, answers)
        own = _own(known, at, counts)
        figures += [*cbpe.estimate(monitor, own, calibration, rng), *late.estimate(answers)]
    elif labelled:
        answers = _errors_of(known, labelled)
        figures += values.estimate(answers, aside.unit_of(known.profile))
    if held is not None:
        figures += _raked(known, counts, held, rng)
    return VersionQuality(
        model=known.manifest.name,
        version=known.manifest.version,
        bundle=known.bundle,
        since=instant(since_ms) or "",
        rows=int(_own(known, 0 if at is None else at, counts).sum()),
        labelled=int(answers.sum()),
        calibration=whose,
        estimates=tuple(figures),
        errors=errors,
    )


def calibration_of(monitor: Monitor, answers: NDArray[np.int64]) -> tuple[cbpe.Calibration, str]:
    """Whose word a score is taken at: late labels', the build's own rows', or the score's."""
    if monitor.labels == 2:
        found = cbpe.from_answers(monitor, answers)
        if found.measured:
            return found, f"{answers.sum()} late labels"
    built = monitor.labelled_counts()
    if built is not None:
        found = cbpe.from_labelled(monitor, built)
        if found.measured:
            return found, f"{built.sum()} labelled rows of the build"
    return cbpe.from_scores(monitor), "the scores' own word"


def _own(known: Known, at: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The counts of one monitor, ``[cells of it]``."""
    start = known.profile.offsets()[at]
    return counts[start : start + known.profile.monitors[at].cells]


def _raked(
    known: Known, counts: NDArray[np.int64], held: Held, rng: np.random.Generator
) -> tuple[Estimate, ...]:
    """From the labelled rows of old, weighted to look like what the devices counted."""
    found = reference_file.read(held.rows, held.answers, known.profile, known.labels, held.target)
    margins = [_own(known, at, counts) for at in found.monitors]
    return raking.estimate(found.labelled, raking.rake(found.cells, margins), rng)


def _errors(tx: Transaction, known: Known, budget: Budget, now_ms: int) -> Errors | None:
    """The bets that the collector placed (``error_watch``); None before the first label."""
    detector = error_watch.detector_of(known.manifest)
    placed = tx.label_evidence([known.bundle]).get(known.bundle)
    if detector is None or placed is None:
        return None
    threshold = budget.log_thresholds(streams(tx, now_ms))["labels"]
    level = float(detector.level(error_watch.load(placed.state, detector))[0])
    return Errors(
        watched=detector.rate,
        evidence=round(max(level / LN10, 0.0), 3),
        threshold=round(threshold / LN10, 3),
        risen=placed.risen,
    )

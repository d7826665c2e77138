"""Has a version's error rate risen? Bets on late labels as they come, and an alarm of its own kind.

Guards: a record of labels is bet on once, in the transaction that keeps it; one alarm for one
crossing, and anew after a person resolved it; false alarms have their share of the fleet's promise
(``drift.budget``). A version without a stated accuracy is not watched: there is nothing to hold it
to.

The rate that is no alarm is the upper end of the build's own interval, so that the sampling error
of the rows kept back is never found. Drift alarms are about inputs and answers; this one is the
only one that sees answers turn wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_contract import aside
from edge_contract.manifest import Manifest
from edge_fleet.drift import edetector
from edge_fleet.drift import explain as explanations
from edge_fleet.drift.budget import MONTH_S, Budget
from edge_fleet.drift.explain import CellChange, Explanation
from edge_fleet.drift.groups import EVERY_DEVICE
from edge_fleet.library import Known, Library
from edge_fleet.quality.betting import BETS, ErrorDetector
from edge_fleet.store.base import Alarm, AsideKind, AsideSeen, Transaction
from edge_fleet.store.firings import LabelEvidence

SOURCE, FEATURE, KIND = "labels", "error rate", "errors-up"
NO_MONITOR = -1


def detector_of(manifest: Manifest) -> ErrorDetector | None:
    """Bets against the accuracy that the build measured; None where it measured none."""
    for metric in manifest.metrics:
        if metric.name == "accuracy" and not metric.slice:
            least = metric.bundle if metric.low is None else metric.low
            return ErrorDetector(min(max(1.0 - least, 1e-4), 1.0 - 1e-4))
    return None


def save(state: NDArray[np.float32]) -> bytes:
    """Log M of each bet as bytes."""
    return state.astype("<f4").tobytes()


def load(data: bytes, detector: ErrorDetector) -> NDArray[np.float32]:
    """Back from bytes; a state of other bets starts anew."""
    found = np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(1, -1)
    return found if found.shape == (1, len(BETS)) else detector.start()


def counted(seen: AsideSeen) -> tuple[int, int]:
    """(wrong, labels) of a record; (0, 0) of values."""
    record = aside.decode(seen.record)
    if not isinstance(record, aside.Labelled) or record.kind != "label":
        return 0, 0
    wrong, right = aside.counts_of(record).sum(axis=(1, 2)).tolist()
    return wrong, wrong + right


def version_of(seen: AsideSeen) -> tuple[str, str]:
    """(model, version) of a record."""
    record = aside.decode(seen.record)
    return record.model, record.version


class ErrorWatch:
    """Bets on records of labels; what it remembers is read from the store each time."""

    def __init__(self, library: Library, budget: Budget) -> None:
        self._library = library
        self._budget = budget

    def count(self, tx: Transaction, fresh: Sequence[AsideSeen], now_ms: int) -> list[Alarm]:
        """Bet on records that ``tx`` just took; the alarms that they raised."""
        by_bundle: dict[str, list[AsideSeen]] = {}
        for seen in fresh:
            if seen.kind is AsideKind.LABELLED:
                by_bundle.setdefault(seen.bundle, []).append(seen)
        raised = []
        for bundle, records in by_bundle.items():
            known = self._library.find(tx, bundle)
            detector = detector_of(known.manifest) if known else None
            if known is not None and detector is not None:
                raised += self._bet(tx, known, detector, records, now_ms)
        return raised

    def _bet(
        self, tx: Transaction, known: Known, detector: ErrorDetector,
        records: Sequence[AsideSeen], now_ms: int,
    ) -> list[Alarm]:  # fmt: skip
        before = tx.label_evidence([known.bundle]).get(known.bundle)
        if before is None:  # the first ones, or kept before anybody bet
            records = _of_bundle(tx, known.bundle)
            before = LabelEvidence(known.bundle, save(detector.start()))
        state, alarm = load(before.state, detector), before.alarm
        if alarm is not None and tx.resolved([alarm]):
            state, alarm = detector.start(), None
        streams = tx.labelling_streams(now_ms - MONTH_S * 1000)
        threshold = self._budget.log_thresholds({"labels": streams})["labels"]
        raised, wrong, rows = [], before.wrong, before.rows
        for seen in records:
            some, labels = counted(seen)
            state = detector.advance(state, np.array([float(some)]), np.array([float(labels)]))
            wrong, rows = wrong + some, rows + labels
            level = float(detector.level(state)[0])
            if alarm is None and level >= threshold:
                found = _alarm(
                    tx, known, detector, seen, level=level, threshold=threshold, now_ms=now_ms
                )
                alarm = found.id
                raised.append(found)
        after = replace(
            before, state=save(state), wrong=wrong, rows=rows, alarm=alarm,
            risen=before.risen or bool(raised), updated_ms=now_ms,
        )  # fmt: skip
        tx.put_label_evidence([after])
        return raised


def _of_bundle(tx: Transaction, bundle: str) -> list[AsideSeen]:
    """Every record of labels of one version in the order of arrival."""
    found = [seen for seen in tx.asides(AsideKind.LABELLED) if seen.bundle == bundle]
    return sorted(found, key=lambda seen: (seen.received_ms, seen.device, seen.boot, seen.seq))


def _alarm(
    tx: Transaction, known: Known, detector: ErrorDetector, last: AsideSeen, *, level: float,
    threshold: float, now_ms: int,
) -> Alarm:  # fmt: skip
    """Keep the alarm that ``last`` raised, with when it began and what came since."""
    order = [seen for seen in _of_bundle(tx, known.bundle) if seen.received_ms <= last.received_ms]
    counts = np.array([counted(seen) for seen in order], dtype=np.float64)
    log_e = detector.log_e(counts[:, 0], counts[:, 1])
    began = edetector.change_point(log_e[:, int(np.argmax(log_e.sum(axis=0)))])
    wrong, rows = counts[began:].sum(axis=0).astype(int).tolist()
    share = wrong / max(rows, 1)
    said = Explanation(
        kind=KIND,
        text=f"{100 * share:.3g} % of {rows} labels say wrong, at most"
        f" {100 * detector.rate:.3g} % were in the build",
        rows=rows,
        cells=(
            CellChange("wrong", detector.rate, share),
            CellChange("right", 1 - detector.rate, 1 - share),
        ),
    )
    alarm = Alarm(
        device=EVERY_DEVICE,
        model=known.manifest.name,
        version=known.manifest.version,
        bundle=known.bundle,
        monitor=NO_MONITOR,
        source=SOURCE,
        feature=FEATURE,
        opened_ms=now_ms,  # a record may have waited for its profile
        since_ms=order[began].received_ms,
        log_evidence=level,
        log_threshold=threshold,
        explanation=explanations.encode(said),
        scope="fleet",
    )
    return replace(alarm, id=tx.add_alarm(alarm))

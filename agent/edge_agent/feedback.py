"""Labels that come later become counts: per version, predicted label, score bin and correctness.

Guards: a label counts once, also when it is sent twice, by two ways, or again after a restart: the
mark is on disk before the count leaves; a second, different label changes nothing and is counted
as a contradiction; nothing is kept of a label but counts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent import predictions
from edge_agent.predictions import Answer, Answers, Bundle
from edge_agent.telemetry.recorder import Instant
from edge_contract import aside
from edge_contract.aside import DIFFERENCE_BUCKETS, Aside, Labelled
from edge_contract.errors import EdgeError, InputFault
from edge_contract.messages import Label, LabelsTaken
from edge_contract.telemetry import pack_counts

log = logging.getLogger(__name__)

SAVE_S = 300.0
SAID_MAX = 3


class Records(Protocol):
    """Where records go: ``telemetry.Recorder``."""

    def add(self, record: Aside) -> None:
        """Number the record and spool it."""


class Learner(Protocol):
    """Who else hears of labels that count: ``calibrating.Calibrating``."""

    def count(self, answer: Answer, truth: float) -> None:
        """A label counted for the first time."""

    def save(self) -> None:
        """The marks are on disk."""


class _Period:
    """What came for one version since its last record."""

    def __init__(self, bundle: Bundle, now: Instant) -> None:
        self.bundle = bundle
        self.began = now
        shape = (2, len(bundle.labels), bundle.bins)
        self.counts: NDArray[np.int64] = np.zeros(
            shape if bundle.kind == "label" else (1, 2, DIFFERENCE_BUCKETS), dtype=np.int64
        )
        self.tally = dict.fromkeys(("repeated", "contradicted", "late", "unknown", "refused"), 0)

    def count(self, answer: Answer, truth: float) -> None:
        """One answer and its label."""
        if self.bundle.kind == "value":
            error = answer.score - truth
            bucket = aside.difference_bucket(abs(error) / self.bundle.unit)
            self.counts[0, int(error >= 0), bucket] += 1
            return
        if not 0 <= answer.label < len(self.bundle.labels):
            return
        edges, bins = self.bundle.edges, self.bundle.bins
        at = int(np.searchsorted(edges, answer.score, side="right")) - 1 if edges else 0
        self.counts[int(answer.label == truth), answer.label, min(max(at, 0), bins - 1)] += 1

    def record(self, now: Instant) -> Labelled:
        """To be numbered."""
        bundle, (_, labels, bins) = self.bundle, self.counts.shape
        elapsed_ms = int(1000 * max(now.monotonic_s - self.began.monotonic_s, 0))
        return Labelled(
            device="",
            boot=0,
            seq=0,
            model=bundle.model,
            version=bundle.version,
            bundle=bytes.fromhex(bundle.sha256),
            start_ms=max(now.wall_ms - elapsed_ms, 0),
            end_ms=max(now.wall_ms, 0),
            synchronised=now.synchronised,
            kind=bundle.kind,
            labels=labels,
            bins=bins,
            unit=bundle.unit,
            counts=pack_counts(self.counts.reshape(-1)),
            **self.tally,
        )


class Feedback:
    """Takes labels. Any thread may call any method.

    Args:
        answers: what they can be for.
        records: where counts go, every ``window_s`` in which a label came.
        now: this moment by both clocks.
        aliases: the model whose answers an ensemble gives, by the ensemble's name.
        learner: hears of each label that counts.
    """

    def __init__(
        self,
        answers: Answers,
        records: Records,
        now: Callable[[], Instant],
        *,
        window_s: float,
        aliases: Mapping[str, str] | None = None,
        learner: Learner | None = None,
    ) -> None:
        self._answers = answers
        self._records = records
        self._now = now
        self._window_s = window_s
        self._aliases = dict(aliases or {})
        self._learner = learner
        self._lock = threading.Lock()
        self._periods: dict[str, _Period] = {}
        self._saved_s = now().monotonic_s
        self._heard = False

    def give(self, model: str, labels: Iterable[Label]) -> LabelsTaken:
        """Count labels for answers that ``model`` gave, "" for any; what became of them."""
        model = self._aliases.get(model, model)
        tally = dict.fromkeys(LabelsTaken.__struct_fields__[:-1], 0)
        said: list[str] = []
        with self._lock:
            for label in labels:
                kind, why = self._take(model, label)
                tally[kind] += 1
                if why and len(said) < SAID_MAX:
                    said.append(why)
        return LabelsTaken(**tally, said=tuple(said))

    def tick(self, now: Instant) -> None:
        """Pass on what is due; now and then have the answers on disk."""
        with self._lock:
            due = [
                period
                for period in self._periods.values()
                if now.monotonic_s - period.began.monotonic_s >= self._window_s
            ]
            if due:
                self._pass_on(due, now)
            elif self._heard and now.monotonic_s - self._saved_s >= SAVE_S:
                self._save(now)

    def flush(self, now: Instant) -> None:
        """Before a stop: pass on everything, and have the answers on disk."""
        with self._lock:
            self._pass_on(list(self._periods.values()), now)
            self._save(now)

    # -- with the lock held ------------------------------------------------------------------

    def _take(self, model: str, label: Label) -> tuple[str, str]:
        """What became of a label, and in words why it does not count."""
        self._heard = True
        which = predictions.parse_id(label.id)
        found = self._answers.find(which) if which is not None else "unknown"
        if isinstance(found, str) or model not in ("", found.bundle.model):
            kind = found if isinstance(found, str) else "unknown"
            newest = self._answers.newest(model)
            if newest is not None:
                self._period(newest).tally[kind] += 1
            return kind, ""
        period = self._period(found.bundle)
        truth = predictions.truth_of(found.bundle, label.label)
        if truth is None:
            period.tally["refused"] += 1
            return "refused", _why(found.bundle, label.label)
        if found.truth is not None or not self._answers.mark(found, truth):
            again = "repeated" if found.truth in (truth, None) else "contradicted"
            period.tally[again] += 1
            return again, ""
        period.count(found, truth)
        if self._learner is not None:
            self._learner.count(found, truth)
        return "counted", ""

    def _period(self, bundle: Bundle) -> _Period:
        period = self._periods.get(bundle.sha256)
        if period is None:
            period = self._periods[bundle.sha256] = _Period(bundle, self._now())
        return period

    def _pass_on(self, due: list[_Period], now: Instant) -> None:
        """Marks first: a label that counted at home must never count again."""
        if not due or not self._save(now):
            return
        for period in due:
            del self._periods[period.bundle.sha256]
            self._records.add(period.record(now))

    def _save(self, now: Instant) -> bool:
        self._saved_s = now.monotonic_s
        try:
            self._answers.save()
        except EdgeError as error:
            log.warning("labels are held back: %s", error.what)
            return False
        if self._learner is not None:
            self._learner.save()
        return True


def _why(bundle: Bundle, label: object) -> str:
    if bundle.kind == "value":
        return f"{str(label)[:80]!r} is no finite number"
    known = ", ".join(bundle.labels[:20])
    return f"{str(label)[:80]!r} is no label of {bundle.model} {bundle.version}: {known}"


def given(model: str, feedback: Feedback | None, labels: Iterable[Label]) -> LabelsTaken:
    """As ``Feedback.give``. Raises InputFault where the agent takes no labels."""
    if feedback is None:
        raise InputFault(
            "this agent takes no labels", advice="Set keep in [feedback] of agent.toml above 0."
        )
    return feedback.give(model, labels)

"""One form of the model, ready to be sealed, with what it costs against the original model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runtime import Session
from edge_contract import bundle as bundles
from edge_contract.errors import BuildFault
from edge_contract.manifest import MODEL_FILE, File, Task
from edge_pack import graphs, parity
from edge_pack.answers import Answers
from edge_pack.compress.forms import Form
from edge_pack.compress.modes import Mode, Parameters
from edge_pack.parity import Budget, Comparison

Ask = Callable[[Session], Answers]
Member = tuple[bytes, File, bytes]


def encode(form: Form) -> Member:
    """The model's bytes, the member's entry in the manifest, and its bytes on the wire."""
    raw = graphs.serialise(form.proto)
    return raw, *bundles.encode_member(MODEL_FILE, raw)


@dataclass(frozen=True)
class Metric:
    """The task's leading metric on the rows whose true answer is known.

    ``drop``: by how much it is less than the original's; negative where it is more.
    """

    name: str
    value: float
    drop: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a form answers, and what that costs against the original model.

    ``metric``: None where the true answers are not known.
    """

    answers: Answers
    comparison: Comparison
    metric: Metric | None = None

    def within(self, budget: Budget, max_drop: float | None) -> bool:
        """Whether parity holds, and the metric where there is one."""
        fell = self.metric.drop if self.metric is not None and max_drop is not None else None
        return self.comparison.within(budget) and (fell is None or fell <= (max_drop or 0.0))


@dataclass(frozen=True, kw_only=True)
class Candidate(Cost):
    """One form of the model, encoded.

    Attributes:
        changed: tensors, layers or nodes that are other than in float32.
        file, stored: the bundle's member: its entry and its bytes on the wire.
    """

    mode: Mode
    changed: int
    parameters: Parameters
    proto: Any
    raw: bytes
    file: File
    stored: bytes

    @property
    def session(self) -> Session:
        """The model, loaded anew: candidates do not hold a session each."""
        return Session(self.raw)


@dataclass(frozen=True)
class Judge:
    """Compares forms with the original model.

    Attributes:
        ask: a loaded model's answers to the rows that ``original`` answered.
        truth: label indices or values of the first of those rows, NaN unknown; None without.
    """

    ask: Ask
    original: Answers
    task: Task
    truth: NDArray[np.float64] | None = None

    def cost(self, raw: bytes) -> Cost:
        """What a model answers.

        Raises InputFault when the runtime cannot load it, BuildFault when its answers have
        another form than the original's.
        """
        answers = self.ask(Session(raw))
        comparison = parity.compare(self.original, answers)
        return Cost(answers=answers, comparison=comparison, metric=self._metric(answers))

    def candidate(self, form: Form, member: Member | None = None) -> Candidate:
        """The form with its bytes on the wire and its cost; raises as ``cost``.

        Args:
            member: what ``encode`` made of the form, where that was done already.
        """
        raw, file, stored = member or encode(form)
        cost = self.cost(raw)
        return Candidate(
            mode=form.mode,
            changed=form.changed,
            parameters=form.parameters,
            proto=form.proto,
            raw=raw,
            file=file,
            stored=stored,
            answers=cost.answers,
            comparison=cost.comparison,
            metric=cost.metric,
        )

    def _metric(self, answers: Answers) -> Metric | None:
        if self.truth is None:
            return None
        rows = np.flatnonzero(np.isfinite(self.truth))
        if not rows.size:
            return None
        return leading(self.task, self.original.take(rows), answers.take(rows), self.truth[rows])


def leading(
    task: Task, original: Answers, answers: Answers, truth: NDArray[np.float64]
) -> Metric | None:
    """Accuracy of labels, or R2 of values: both are 1 at best, so that a drop is a share."""
    if original.labels is not None and answers.labels is not None:
        before, after = (float(np.mean(a.labels == truth)) for a in (original, answers))
        return Metric("accuracy", after, before - after)
    if task != "regression" or original.values is None or answers.values is None:
        return None
    spread = float(np.var(truth))
    if spread <= 0:
        return None
    before, after = (
        1 - float(np.mean((values[:, 0] - truth) ** 2)) / spread
        for values in (original.values, answers.values)
    )
    return Metric("r2", after, before - after)


def refusal(
    found: Candidate, budget: Budget, max_drop: float | None, given: int, hint: str
) -> BuildFault:
    """What to say when a candidate is beyond the budget."""
    if found.comparison.within(budget) and found.metric is not None and max_drop is not None:
        return BuildFault(
            f"{found.mode} costs {found.metric.drop:.3%} of {found.metric.name}, "
            f"budget {max_drop:.3%}",
            advice="--max-metric-drop widens the budget; --force seals the bundle anyway and "
            "says so in its manifest.",
        )
    return parity.refusal(found.comparison, budget, given, hint)

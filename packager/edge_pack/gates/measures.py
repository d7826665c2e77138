"""The quality figures that each task has. Pure.

Guards: a figure is scikit-learn's where scikit-learn has it; its resamples agree with what
scikit-learn says of the resampled rows. A figure that the rows do not define (a recall without
positives, an area under the curve of one label) is None and never 0.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_contract.manifest import Task
from edge_pack.gates import of_labels, of_scores, of_values
from edge_pack.gates.case import Case
from edge_pack.gates.resample import Floats, Resamples


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes:
        greater: whether more is better. span: the least and the greatest it can be.
        figure: of a case; None where the rows do not define it.
        replicas: of each resample of the case, NaN where it is not defined.
        pivot: its interval is the basic one. paired: two models' replicas belong together.
        scored: it needs probabilities.
    """

    name: str
    figure: Callable[[Case], float | None]
    replicas: Callable[[Case, Resamples], Floats]
    greater: bool = True
    span: tuple[float, float] = (0.0, 1.0)
    pivot: bool = False
    paired: bool = True
    scored: bool = False

    def of(self, case: Case) -> float | None:
        """The figure, or None where the rows do not define it."""
        if self.scored and case.scores is None:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of what comes out as NaN
            found = self.figure(case)
        return None if found is None or not math.isfinite(found) else float(found)

    def resampled(self, case: Case, resamples: Resamples) -> Floats:
        """The figure of every resample of a case that defines it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.replicas(case, resamples)

    def short(self, figure: float, digits: int = 5) -> float:
        """Rounded to that many decimals, or significant digits where the span is open: what
        float32 answers keep of their mean when a processor or a thread adds them up otherwise."""
        if math.isfinite(self.span[1]):
            return 0.0 + round(figure, digits)
        return float(f"{figure:.{digits}g}")


_INF = math.inf
_LABELS = (
    Measure("accuracy", of_labels.accuracy, of_labels.accuracy_replicas),
    Measure("balanced_accuracy", of_labels.balanced, of_labels.balanced_replicas),
    Measure(
        "precision",
        of_labels.of_labels("precision_score"),
        of_labels.ratio_replicas(lambda r, s, t: (r, s)),
    ),
    Measure(
        "recall",
        of_labels.of_labels("recall_score"),
        of_labels.ratio_replicas(lambda r, s, t: (r, t)),
    ),
    Measure(
        "f1",
        of_labels.of_labels("f1_score"),
        of_labels.ratio_replicas(lambda r, s, t: (2 * r, s + t)),
    ),
)
_SCORES = (
    Measure("roc_auc", of_scores.auc, of_scores.auc_replicas, scored=True),
    Measure(
        "log_loss", of_scores.mean_of(of_scores.losses), of_scores.mean_replicas(of_scores.losses),
        greater=False, span=(0.0, _INF), scored=True,
    ),
    Measure(
        "brier", of_scores.mean_of(of_scores.brier_terms),
        of_scores.mean_replicas(of_scores.brier_terms),
        greater=False, span=(0.0, 2.0), scored=True,
    ),
    Measure(
        "calibration_error", of_scores.calibration, of_scores.calibration_replicas,
        greater=False, pivot=True, scored=True,
    ),
)  # fmt: skip
_VALUES = (
    Measure(
        "rmse", of_values.of_values("root_mean_squared_error"), of_values.rmse_replicas,
        greater=False, span=(0.0, _INF),
    ),
    Measure(
        "mae", of_values.of_values("mean_absolute_error"), of_values.mae_replicas,
        greater=False, span=(0.0, _INF),
    ),
    Measure("r2", of_values.r2, of_values.r2_replicas, span=(-_INF, 1.0)),
    Measure(
        "median_ae", of_values.of_values("median_absolute_error"), of_values.median_replicas,
        greater=False, span=(0.0, _INF), paired=False,
    ),
)  # fmt: skip
_BY_TASK: dict[str, tuple[Measure, ...]] = {
    "classification": _LABELS + _SCORES,
    "outliers": _LABELS,
    "regression": _VALUES,
}


def _flagged(case: Case) -> float | None:
    assert case.said is not None
    return float(np.mean(case.said == 1))


def _flagged_replicas(case: Case, resamples: Resamples) -> Floats:
    assert case.said is not None
    flagged = resamples.sums((case.said == 1).astype(np.float64))
    return np.asarray(flagged / resamples.sums(np.ones(len(case.said))))


FLAGGED = Measure("flagged_share", _flagged, _flagged_replicas, greater=False)
"""Share of rows that a model of outliers flags: needs no truth."""
SILHOUETTE = Measure(
    "silhouette",
    lambda case: None if case.value is None else float(case.value.mean()),
    of_values.mean_replicas,
    span=(-1.0, 1.0),
)
"""Of a case whose values are the rows' silhouettes (``clusters.silhouettes``): needs no truth."""


LEADING: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "precision", "recall", "roc_auc"),
    "outliers": ("precision", "recall"),
    "regression": ("rmse", "mae"),
}
"""What is told of every slice: a manifest travels with each bundle, so it holds no more."""


def names(task: Task) -> tuple[str, ...]:
    """Every figure that a task can have, with truth and without."""
    free = {"outliers": (FLAGGED,), "clustering": (SILHOUETTE,)}.get(task, ())
    return tuple(measure.name for measure in (*measures(task), *free))


def measures(task: Task) -> tuple[Measure, ...]:
    """The figures that a task has against the truth, in order; () where it has none."""
    return _BY_TASK.get(task, ())

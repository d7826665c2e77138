"""A scikit-learn estimator as it was handed in: ``subject.Original`` for it.

Guards: the original sees the rows as its training did (names, float64, text as text); it is
never asked through anything of ours that could share a mistake with the bundle.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault, InputFault
from edge_contract.manifest import Label, Task
from edge_pack.answers import Answers, label_indices
from edge_pack.extras import need
from edge_pack.intake import Rows
from edge_pack.steps import reads_one_text


@dataclass(frozen=True)
class EstimatorOriginal:
    """A fitted estimator with its task and labels.

    Attributes:
        named: rows go in as a data frame with the columns' names, else as an array.
        probabilities: the estimator gives a probability a label.
    """

    model: Any
    task: Task
    labels: tuple[Label, ...]
    named: bool
    probabilities: bool

    def answer(self, rows: Rows) -> Answers:
        """Predictions for raw rows.

        Raises InputFault when the estimator refuses the rows, naming the columns with missing
        values where those are the reason.
        """
        given = self._given(rows)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                predicted = np.asarray(self.model.predict(given))
                scores = None
                if self.probabilities:
                    scores = np.asarray(self.model.predict_proba(given), dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise _refusal(rows, error) from error
        if self.task in ("regression", "tensors"):
            return Answers(values=predicted.astype(np.float64).reshape(rows.count, -1))
        self._check(predicted, scores, rows.count)
        return Answers(label_indices(predicted, self.labels), scores)

    def _check(self, predicted: NDArray[Any], scores: NDArray[Any] | None, rows: int) -> None:
        """One label a row, and a probability for each label."""
        if predicted.size != rows:
            raise BuildFault(
                f"{type(self.model).__name__} predicts {predicted.size // rows} labels a row",
                advice="Train one classifier for each label and build one bundle for each.",
            )
        if scores is not None and scores.shape[1:] != (len(self.labels),):
            raise InputFault(
                f"the original model gives {scores.shape[-1]} probabilities a row for "
                f"{len(self.labels)} labels",
                advice="Train it on rows of at least two classes.",
            )

    def timed(self, rows: Rows) -> Callable[[], object]:
        """A call that predicts the rows, made ready, as often as it is called."""
        given = self._given(rows)
        predict = self.model.predict_proba if self.probabilities else self.model.predict

        def call() -> object:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return predict(given)

        return call

    def _given(self, rows: Rows) -> Any:
        if reads_one_text(self.model):
            return next(iter(rows.columns.values())).tolist()
        if not self.named:
            return rows.matrix()
        pandas = need("pandas", "asking the original model")
        return pandas.DataFrame(
            {
                name: pandas.Series(_nan_for_none(column), dtype=object)
                if column.dtype.kind == "O"
                else column
                for name, column in rows.columns.items()
            }
        )


def of_estimator(model: Any, rows: Rows, *, text: bool) -> EstimatorOriginal:
    """The original of an estimator. ``rows``: as given; ``text``: some of its columns are text.

    Raises BuildFault when it predicts nothing that a bundle can carry.
    """
    base = need("sklearn.base", "asking the original model")
    named = text or getattr(model, "feature_names_in_", None) is not None
    kind = _kind(base, model)
    if kind == "classifier":
        classes = model.classes_
        if isinstance(classes, list):
            raise BuildFault(
                f"{type(model).__name__} predicts {len(classes)} labels a row",
                advice="Train one classifier for each label and build one bundle for each.",
            )
        labels = tuple(np.asarray(classes).tolist())
        return EstimatorOriginal(
            model, "classification", labels, named, hasattr(model, "predict_proba")
        )
    if kind == "outlier_detector":
        return EstimatorOriginal(model, "outliers", (-1, 1), named, probabilities=False)
    if kind == "clusterer":
        last = model.steps[-1][1] if hasattr(model, "steps") else model
        count = _clusters(last)
        if not count:
            raise BuildFault(
                f"{type(last).__name__} has no fixed number of clusters to package",
                advice="Use KMeans or MiniBatchKMeans.",
            )
        return EstimatorOriginal(
            model, "clustering", tuple(range(count)), named, probabilities=False
        )
    if kind == "regressor":
        single = EstimatorOriginal(model, "regression", (), named, probabilities=False)
        first = single.answer(rows.take(np.arange(min(rows.count, 1)))).values
        several = first is not None and first.shape[1] > 1
        return replace(single, task="tensors") if several else single
    raise BuildFault(
        f"{type(model).__name__} is no classifier, regressor, clustering or outlier model",
        advice="Package the pipeline that ends in the model, not a step of it.",
    )


def _clusters(model: Any) -> int:
    """How many labels a fitted clustering can give, 0 when that is not known."""
    labels = getattr(model, "subcluster_labels_", None)
    if labels is not None:
        return int(np.max(labels)) + 1
    centres = getattr(model, "cluster_centers_", None)
    if centres is not None:
        return len(centres)
    return int(getattr(model, "n_clusters", 0) or getattr(model, "n_components", 0))


def _kind(base: Any, model: Any) -> str:
    """The estimator's type; ``is_clusterer`` is younger than our oldest scikit-learn."""
    for kind in ("classifier", "regressor", "clusterer", "outlier_detector"):
        asks = getattr(base, f"is_{kind}", None)
        if asks(model) if asks else getattr(model, "_estimator_type", "") == kind:
            return kind
    mixture = hasattr(model, "predict") and hasattr(model, "predict_proba")
    return "clusterer" if mixture and not hasattr(model, "classes_") else ""


def _nan_for_none(column: NDArray[Any]) -> list[Any]:
    return [np.nan if item is None else item for item in column.tolist()]


def _refusal(rows: Rows, error: Exception) -> InputFault:
    said = str(error).strip().splitlines()[0][:300]
    holes = [
        (name, rows.row_number(int(np.flatnonzero(bad)[0])), int(bad.sum()))
        for name, column in rows.columns.items()
        if (bad := missing(column)).any()
    ]
    if holes and ("NaN" in str(error) or "missing" in str(error)):
        listed = "; ".join(f"{name!r} in {n} rows, first row {row}" for name, row, n in holes[:5])
        return InputFault(
            f"values are missing and the original model refuses rows with missing values: {listed}",
            advice="Fill them in, drop those rows, or put SimpleImputer before the model.",
        )
    return InputFault(
        f"the original model refuses the rows: {said}",
        advice="Give rows as the model was trained on.",
    )


def missing(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows of a float64 or text column are missing."""
    if column.dtype.kind == "O":
        return np.array([item is None for item in column.tolist()], dtype=bool)
    return np.asarray(np.isnan(column))

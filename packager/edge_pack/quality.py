"""Metrics of the original and of the bundle against the true answers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.manifest import Label, Metric, Task
from edge_pack.answers import Answers, label_indices
from edge_pack.tables import Table

_EPSILON = 1e-15


def metrics(
    task: Task, original: Answers, bundle: Answers, truth: NDArray[np.float64]
) -> tuple[Metric, ...]:
    """Accuracy and log loss of a classifier; RMSE, MAE and R2 of a regression.

    Args:
        truth: [rows], label indices (-1: a label the model does not know) or values; NaN and
            rows without truth are left out.
    """
    known = np.isfinite(truth)
    rows = np.flatnonzero(known)
    if not rows.size:
        return ()
    measures = _MEASURES.get(task, ())
    found = []
    for name, measure in measures:
        before = measure(original.take(rows), truth[rows])
        after = measure(bundle.take(rows), truth[rows])
        if before is not None and after is not None:
            found.append(Metric(name=name, original=_short(before), bundle=_short(after)))
    return tuple(found)


def read_truth(
    table: Table, target: str, task: Task, labels: Sequence[Label]
) -> NDArray[np.float64]:
    """The target column as label indices or values.

    Raises InputFault when not one of its values is a label of the model.
    """
    if task == "regression":
        return table.numbers(target)
    if task != "classification":
        return np.full(table.rows, np.nan)
    if all(isinstance(label, str) for label in labels):
        cells = table.texts(target)
        indices = label_indices(cells, labels).astype(np.float64)
        indices[[item is None for item in cells.tolist()]] = np.nan
    else:
        values = table.numbers(target)
        indices = label_indices(values, [_number(label) for label in labels]).astype(np.float64)
        indices[np.isnan(values)] = np.nan
    if not (indices >= 0).any():
        raise InputFault(
            f"column {target!r} holds none of the model's labels "
            f"({', '.join(map(str, list(labels)[:8]))})",
            advice="Name the column with the true labels in --target.",
        )
    return indices


def _number(label: Label) -> float:
    return float(label) if not isinstance(label, str) else float("nan")


def _accuracy(answers: Answers, truth: NDArray[np.float64]) -> float | None:
    return None if answers.labels is None else float(np.mean(answers.labels == truth))


def _log_loss(answers: Answers, truth: NDArray[np.float64]) -> float | None:
    if answers.scores is None:
        return None
    rows = np.flatnonzero(truth >= 0)
    picked = answers.scores[rows, truth[rows].astype(np.int64)]
    return 0.0 - float(np.log(np.clip(picked, _EPSILON, 1.0)).mean())


def _rmse(answers: Answers, truth: NDArray[np.float64]) -> float | None:
    return float(np.sqrt(np.mean(_errors(answers, truth) ** 2)))


def _mae(answers: Answers, truth: NDArray[np.float64]) -> float | None:
    return float(np.mean(np.abs(_errors(answers, truth))))


def _r2(answers: Answers, truth: NDArray[np.float64]) -> float | None:
    total = float(np.sum((truth - truth.mean()) ** 2))
    if total == 0:
        return None
    return 1.0 - float(np.sum(_errors(answers, truth) ** 2)) / total


def _errors(answers: Answers, truth: NDArray[np.float64]) -> NDArray[np.float64]:
    assert answers.values is not None
    return np.asarray(answers.values[:, 0] - truth)


_Measure = Callable[[Answers, NDArray[Any]], float | None]
_MEASURES: dict[str, tuple[tuple[str, _Measure], ...]] = {
    "classification": (("accuracy", _accuracy), ("log_loss", _log_loss)),
    "regression": (("rmse", _rmse), ("mae", _mae), ("r2", _r2)),
}


def _short(figure: float) -> float:
    return float(f"{figure:.5g}")

"""The column with the true answers, as label indices or values. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.manifest import Label, Task
from edge_pack.answers import label_indices
from edge_pack.tables import Table


def read(table: Table, target: str, task: Task, labels: Sequence[Label]) -> NDArray[np.float64]:
    """The truth of every row.

    Returns float64 [rows], NaN where it is missing: values of a regression; of a classification
    the label's index, -1 for one that the model does not know; of outliers 1 for an outlier and
    0 for none (the column says -1 and 1, or 1 and 0); NaN for tasks that have no truth.

    Raises InputFault when the column holds no label of the model, or not what outliers need.
    """
    if task == "regression":
        return table.numbers(target)
    if task == "outliers":
        return _outliers(table, target)
    if task != "classification":
        return np.full(table.rows, np.nan)
    if all(isinstance(label, str) for label in labels):
        cells = table.texts(target)
        indices = label_indices(cells, labels).astype(np.float64)
        indices[[item is None for item in cells.tolist()]] = np.nan
    else:
        values = _numbers(table, target, labels)
        indices = label_indices(values, [_number(label) for label in labels]).astype(np.float64)
        indices[np.isnan(values)] = np.nan
    if not (indices >= 0).any():
        raise InputFault(
            f"column {target!r} holds none of the model's labels "
            f"({', '.join(map(str, list(labels)[:8]))})",
            advice="Name the column with the true labels in --target.",
        )
    return indices


def _numbers(table: Table, target: str, labels: Sequence[Label]) -> NDArray[np.float64]:
    try:
        return table.numbers(target)
    except InputFault as error:
        known = ", ".join(map(str, list(labels)[:8]))
        raise InputFault(
            f"the target {error.what}; the model's labels are {known}",
            advice="Write the true answers as the model was trained on them.",
        ) from error


def _number(label: Label) -> float:
    return float(label) if not isinstance(label, str) else float("nan")


def _outliers(table: Table, target: str) -> NDArray[np.float64]:
    values = table.numbers(target) if table.is_numeric(target) else np.array([np.inf])
    there = set(values[~np.isnan(values)].tolist())
    if there <= {-1.0, 1.0} and -1.0 in there:
        return np.where(np.isnan(values), np.nan, (values < 0).astype(np.float64))
    if there <= {0.0, 1.0} and 0.0 in there:
        return values
    raise InputFault(
        f"column {target!r} does not say which rows are outliers",
        advice="It takes -1 for an outlier and 1 for none, or 1 (true) and 0 (false).",
    )

"""One table of every model that is read as trees; and a model with its steps as one forest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_pack.frameworks import estimators
from edge_pack.intake import Column, Rows
from edge_pack.trees import read_sklearn
from edge_pack.trees.fold import fold
from edge_pack.trees.form import Forest
from edge_pack.trees.prefix import prefix_of
from edge_pack.trees.read_sklearn import Reader

READERS: dict[str, Reader] = {**read_sklearn.READERS, **estimators.READERS}
"""Package and class, such as ``sklearn.RandomForestClassifier``, to its reader."""


def reader_of(model: Any) -> Reader | None:
    """The reader of a fitted model, by its class or the nearest that it derives from."""
    for kind in type(model).__mro__:
        found = READERS.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
        if found is not None:
            return found
    return None


def read(model: Any) -> Forest | None:
    """A fitted model of trees as a forest; None for any other, or one that is not only trees."""
    reader = reader_of(model)
    return reader(model) if reader is not None else None


def read_folded(model: Any, columns: Sequence[Column], rows: Rows, *, named: bool) -> Forest | None:
    """A model of trees with the steps before it as a forest over raw columns.

    Args:
        model: a fitted estimator, a pipeline, or a search that holds the best of them.
        columns: the raw columns in the model's order. rows: given rows.
        named: the model reads the columns by name.

    Returns None where it does not end in trees, or a step before them does not fold.
    """
    if hasattr(model, "best_estimator_"):
        return read_folded(model.best_estimator_, columns, rows, named=named)
    if not hasattr(model, "steps"):
        return read(model)
    last = model.steps[-1][1]
    if hasattr(last, "steps") or hasattr(last, "best_estimator_"):
        return None
    forest = read(last)
    if forest is None or len(model.steps) == 1:
        return forest
    prefix = prefix_of(model[:-1], columns, rows, width=forest.width, named=named)
    return fold(forest, prefix, rows) if prefix is not None else None

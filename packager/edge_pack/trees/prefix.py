"""Fitted steps before a model of trees, asked about raw rows.

Guards: the steps see rows as the original hands them on (names, float64, text as text); they are
never re-implemented here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.extras import need
from edge_pack.intake import Column, Rows
from edge_pack.trees.form import Floats
from edge_pack.trees.trace import Origin, trace


@dataclass(frozen=True)
class Prefix:
    """The fitted steps before the trees.

    Attributes:
        transform: a data frame or an array of raw rows -> float64 [rows, columns].
        origins: of each column behind the steps.
        columns: the raw columns. typical: a value of each that the steps take.
        named: the steps read columns by name.
    """

    transform: Callable[[Any], Any]
    origins: tuple[Origin, ...]
    columns: tuple[Column, ...]
    typical: tuple[Any, ...]
    named: bool

    def ask(self, given: dict[int, NDArray[Any]]) -> Floats:
        """What the steps make of rows that differ in some raw columns and are typical else."""
        count = len(next(iter(given.values())))
        filled = [
            given[i] if i in given else constant(self.typical[i], count)
            for i in range(len(self.columns))
        ]
        if self.named:
            pandas = need("pandas", "folding steps into trees")
            names = [column.name for column in self.columns]
            rows: Any = pandas.DataFrame(dict(zip(names, filled, strict=True)), columns=names)
        else:
            rows = np.column_stack(filled)
        config = need("sklearn", "folding steps into trees").config_context
        with warnings.catch_warnings(), np.errstate(all="ignore"), config(assume_finite=True):
            warnings.simplefilter("ignore")
            found = self.transform(rows)
        dense = found.toarray() if hasattr(found, "toarray") else found
        return np.asarray(dense, dtype=np.float64)


def constant(value: Any, count: int) -> NDArray[Any]:
    return np.full(count, value, dtype=object if isinstance(value, str) else np.float64)


def prefix_of(
    steps: Any, columns: Sequence[Column], rows: Rows, *, width: int, named: bool
) -> Prefix | None:
    """The steps as a ``Prefix``; None when they mix columns.

    Args:
        steps: a fitted transformer. width: how many columns the trees take.
    """
    origins = trace(steps, [Origin(i) for i in range(len(columns))])
    if origins is None or len(origins) != width:
        return None
    typical = tuple(_typical(rows.columns[column.name], column) for column in columns)
    return Prefix(steps.transform, origins, tuple(columns), typical, named)


def _typical(values: NDArray[Any], column: Column) -> Any:
    """A value from the middle of the column, else one that the steps know."""
    if column.text:
        seen = sorted({value for value in values.tolist() if value})
        return seen[0] if seen else (column.known[0] if column.known else "")
    present = np.sort(values[np.isfinite(values)])
    return float(present[len(present) // 2]) if len(present) else 0.0

"""How well a clustering model's labels divide the rows: the silhouette of each row. Pure.

The silhouette (Rousseeuw 1987) is taken in the rows' own numbers, as
``sklearn.metrics.silhouette_score(rows, labels)`` is; text and rows with a missing number are
left out. It needs all pairs of rows, so that of many rows an even spread is taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_pack.gates.case import Case, Ints, peer
from edge_pack.intake import Rows

ROWS_MAX = 2000
"""4 million distances: about a fifth of a second and 32 MB."""


def points(rows: Rows) -> tuple[Ints, NDArray[np.float64]]:
    """Positions of the rows to be looked at, and their numbers [positions, columns]."""
    numbers = [column for column in rows.columns.values() if column.dtype.kind == "f"]
    if not numbers:
        return np.empty(0, dtype=np.int64), np.empty((0, 0))
    matrix = np.column_stack(numbers).astype(np.float64)
    whole = np.flatnonzero(np.isfinite(matrix).all(axis=1))
    if len(whole) > ROWS_MAX:
        whole = whole[np.linspace(0, len(whole) - 1, ROWS_MAX).astype(np.int64)]
    return whole, matrix[whole]


def silhouettes(matrix: NDArray[np.float64], labels: Ints) -> Case | None:
    """The silhouette of each point; None with fewer than two clusters, or as many as points."""
    if not 2 <= len(np.unique(labels)) < len(labels):
        return None
    return Case(value=np.asarray(peer("silhouette_samples")(matrix, labels), dtype=np.float64))

"""Rows beside the given ones that a device may well send: the parity gate sees them too.

Combinations of values that never stood in one row, every feature at both ends of its range, and
a category nobody has seen. Every number is one that the data holds, so probes keep the features'
offsets and resolution. Pure: the same rows give the same probes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.intake import Rows

MIXED_MAX = 256
EXTREMES_MAX = 128
UNSEEN = "edge-pack-unseen"


def draw(rows: Rows) -> Rows:
    """Probes for table rows: up to 256 mixed ones and two for each of the first 64 features.

    Whole tensors get none: nothing is known of which values go together in them.
    """
    if not rows.columns or rows.count < 2:
        return Rows(0, {}, {})
    rng = np.random.default_rng(0)
    mixed = min(MIXED_MAX, rows.count)
    base = rng.integers(0, rows.count, size=mixed)
    names = list(rows.columns)
    ends = [name for name in names if rows.columns[name].dtype.kind == "f"][: EXTREMES_MAX // 2]
    anchor = rng.integers(0, rows.count, size=2 * len(ends))
    columns: dict[str, NDArray[Any]] = {}
    for name in names:
        column = rows.columns[name]
        swapped = np.where(
            rng.random(mixed) < 0.25, column[rng.integers(0, rows.count, size=mixed)], column[base]
        )
        extreme = column[anchor]
        if name in ends and np.isfinite(column).any():
            at = 2 * ends.index(name)
            extreme[at], extreme[at + 1] = np.nanmin(column), np.nanmax(column)
        columns[name] = np.concatenate([swapped.astype(column.dtype), extreme])
    return Rows(mixed + len(anchor), columns, {})


def unseen(rows: Rows) -> Rows:
    """One row for each text column, with a category that nobody has seen."""
    texts = [name for name, column in rows.columns.items() if column.dtype.kind == "O"]
    base = np.zeros(len(texts), dtype=np.int64)
    columns = {name: column[base] for name, column in rows.columns.items()}
    for row, name in enumerate(texts):
        columns[name][row] = UNSEEN
    return Rows(len(texts), columns, {})


def join(first: Rows, second: Rows) -> Rows:
    """The rows of both."""
    if not second.count:
        return first
    return Rows(
        first.count + second.count,
        {n: np.concatenate([c, second.columns[n]]) for n, c in first.columns.items()},
        first.tensors,
    )

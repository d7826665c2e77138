"""Columns that alone give the target away: often written after the answer was known. Pure.

A column leaks when a small tree on it alone, fitted on every other row, gives 99 % balanced
accuracy on the rest; of a regression, when its rank order is the target's (Spearman 0.9999).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.extras import need
from edge_pack.intake import Rows
from edge_pack.originals import missing

LEAK_ACCURACY = 0.99
LEAK_RANKS = 0.9999
LEAK_ROWS = 20_000
LEAK_COLUMNS = 1000
LEAK_ROWS_MIN = 40
"""Below this a column fits by chance: 20 rows to learn on and 20 to tell."""


def find(rows: Rows, target: NDArray[Any], *, continuous: bool) -> tuple[list[str], list[str]]:
    """Columns that equal the target where they have a value, and others that give it away.

    Args:
        target: [rows], float64 or text with None where missing.
        continuous: it is a regression's.
    """
    known = np.flatnonzero(~missing(target))
    if len(known) > LEAK_ROWS:
        known = known[np.linspace(0, len(known) - 1, LEAK_ROWS).astype(np.int64)]
    if len(known) < LEAK_ROWS_MIN:
        return [], []
    truth = target[known]
    equal, telling = [], []
    for name, column in list(rows.columns.items())[:LEAK_COLUMNS]:
        part = column[known]
        if _same(part, truth):
            equal.append(name)
        elif _ranks_alike(part, truth) if continuous else _tells(part, truth):
            telling.append(name)
    return equal, telling


def _same(column: NDArray[Any], truth: NDArray[Any]) -> bool:
    if column.dtype.kind != truth.dtype.kind:
        return False
    there = ~missing(column)
    return there.sum() > len(there) / 2 and bool((column[there] == truth[there]).all())


def _ranks_alike(column: NDArray[Any], truth: NDArray[Any]) -> bool:
    if column.dtype.kind != "f":
        return False
    there = np.isfinite(column)
    if there.sum() < LEAK_ROWS_MIN or np.ptp(column[there]) == 0 or np.ptp(truth[there]) == 0:
        return False
    ranks = need("scipy.stats", "checking the data").rankdata
    return bool(abs(np.corrcoef(ranks(column[there]), ranks(truth[there]))[0, 1]) >= LEAK_RANKS)


def _tells(column: NDArray[Any], truth: NDArray[Any]) -> bool:
    """Whether every other row of the column says what the target is in the rest."""
    learn, check = slice(0, None, 2), slice(1, None, 2)
    counts = Counter(truth[check].tolist())
    if len(counts) < 2 or min(counts.values()) < 5:
        return False
    if column.dtype.kind == "f":
        tree = need("sklearn.tree", "checking the data").DecisionTreeClassifier(
            max_leaf_nodes=4 * len(counts), random_state=0
        )
        plain = np.where(np.isnan(column), np.inf, column)
        limit = np.finfo(np.float32).max
        matrix = np.clip(plain, -limit, limit)[:, None]
        said = tree.fit(matrix[learn], _labels(truth[learn])).predict(matrix[check])
        right = said == _labels(truth[check])
    else:
        usual: dict[object, Counter[object]] = {}
        for item, answer in zip(column[learn].tolist(), truth[learn].tolist(), strict=True):
            usual.setdefault(item, Counter())[answer] += 1
        learned = {item: max(seen, key=lambda one: seen[one]) for item, seen in usual.items()}
        pairs = zip(column[check].tolist(), truth[check].tolist(), strict=True)
        right = np.array([learned.get(item, ...) == answer for item, answer in pairs])
    labels = _labels(truth[check])
    shares = [float(right[labels == label].mean()) for label in np.unique(labels)]
    return float(np.mean(shares)) >= LEAK_ACCURACY


def _labels(truth: NDArray[Any]) -> NDArray[Any]:
    return truth.astype(str) if truth.dtype.kind == "O" else truth

"""Counting rows into a profile's cells without numpy: by ``bisect``, a value at a time.

Guards: the same cells as ``profile.count_numbers``, ``count_categories`` and ``count_scores``, to
the row; a port of the profile to a device without numpy begins here, and tests of the quick
way end here. Five to ten times slower than numpy in bulk (benchmarks/records.py).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from edge_contract.profile import Monitor

_SLACK = 1e-6


def number_cell(monitor: Monitor) -> Callable[[float], int]:
    """What says in which cell of a quantile or lattice a value falls."""
    return _quantile(monitor) if monitor.kind == "quantile" else _lattice(monitor)


def _quantile(monitor: Monitor) -> Callable[[float], int]:
    edges, regular, last = monitor.edges, monitor.regular, monitor.edges[-1]
    first = edges[0]

    def cell(value: float) -> int:
        if first <= value < last:
            return bisect_right(edges, value) - 1
        if value == last:
            return regular - 1
        return _special(regular, value, low=value < first)

    return cell


def _lattice(monitor: Monitor) -> Callable[[float], int]:
    edges, regular = monitor.edges, monitor.regular
    low = edges[0] - _slack(edges[0])
    high = edges[-1] + _slack(edges[-1])

    def cell(value: float) -> int:
        if not low <= value <= high:
            return _special(regular, value, low=value < low)
        above = min(max(bisect_left(edges, value), 1), regular - 1) if regular > 1 else 0
        below = max(above - 1, 0)
        near = below if value - edges[below] <= edges[above] - value else above
        return near if abs(value - edges[near]) <= _slack(edges[near]) else regular + 2

    return cell


def _special(regular: int, value: float, *, low: bool) -> int:
    """under, over, off, missing, infinite."""
    if math.isnan(value):
        return regular + 3
    if math.isinf(value):
        return regular + 4
    return regular if low else regular + 1


def _slack(edge: float) -> float:
    return _SLACK * max(1.0, abs(edge))


def category_cell(monitor: Monitor) -> Callable[[str | None], int]:
    """What says in which cell of a category a value falls; None and "" are missing."""
    regular = monitor.regular
    where = {name: cell for cell, name in enumerate(monitor.categories)}
    where |= dict.fromkeys(monitor.others, regular)

    def cell(value: str | None) -> int:
        return where.get(value, regular + 1) if value else regular + 2

    return cell


def score_cell(monitor: Monitor) -> Callable[[int, float], int]:
    """What says in which cell a predicted label (its index) with its score falls."""
    edges, bins, labels = monitor.edges, len(monitor.edges) - 1, monitor.labels

    def cell(label: int, score: float) -> int:
        if not 0 <= label < labels or (bins > 1 and not math.isfinite(score)):
            return monitor.regular
        column = 0 if bins == 1 else min(max(bisect_right(edges, score) - 1, 0), bins - 1)
        return label * bins + column

    return cell


def count(monitor: Monitor, cells: Sequence[int]) -> list[int]:
    """How many rows fell into each cell of the monitor."""
    counts = [0] * monitor.cells
    for cell in cells:
        counts[cell] += 1
    return counts

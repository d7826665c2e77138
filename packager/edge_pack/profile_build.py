"""The reference profile: fixed bins of every feature and of the predictions, with their counts.

Guards: rows are counted by ``edge_contract.profile``, the very functions that a device counts
with; an edge lies between two values that occurred, never on one, so that float32 rounding on
the way in moves no row to another cell. Pure: the same rows give the same profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edge_contract import profile as profiles
from edge_contract.manifest import Feature, Outputs, Task
from edge_contract.profile import (
    BINS_MAX,
    CATEGORIES_MAX,
    LATTICE_MAX,
    SCORE_BINS,
    Kind,
    Monitor,
    Profile,
)
from edge_pack import design_effect
from edge_pack.answers import Answers
from edge_pack.intake import Rows

Source = Literal["feature", "output"]
PREDICTION = "prediction"
_SLACK = 1e-6
"""Relative room beyond the least and greatest value: eight times float32's rounding."""


def build(
    features: Sequence[Feature],
    rows: Rows,
    answers: Answers,
    original: Answers,
    *,
    task: Task,
    outputs: Outputs,
    order: NDArray[np.int64] | None,
) -> Profile:
    """The profile of the reference rows and the bundle's answers to them.

    Args:
        answers: the bundle's, which are counted. original: the original's, which place the edges:
            in float64 they are the same on every processor.
        order: positions of the rows in order of time; None: they have none.
    """
    monitors = []
    for feature in features:
        column = rows.columns[feature.name]
        if feature.type == "text":
            continue  # counting words of free text would send home what people wrote
        if feature.type == "category":
            monitors.append(_categories(feature.name, column, feature.categories, order))
        else:
            monitors.append(_numbers(feature.name, column, "feature", order))
    if rows.columns:
        monitors += _predictions(answers, original, task, outputs, order)
    return Profile(rows=rows.count, time_ordered=order is not None, monitors=tuple(monitors))


def _numbers(
    name: str, values: NDArray[np.float64], source: Source, order: NDArray[np.int64] | None
) -> Monitor:
    finite = values[np.isfinite(values)]
    distinct = np.unique(finite)
    kind: Kind
    edges: tuple[float, ...]
    if distinct.size <= LATTICE_MAX:
        kind, edges = "lattice", tuple(float(value) for value in distinct) or (0.0,)
    else:
        kind, edges = "quantile", quantile_edges(finite)
    monitor = Monitor(
        name=name,
        kind=kind,
        source=source,
        edges=edges,
        counts=(),
        mean=_digits(finite.mean()) if finite.size else 0.0,
        std=_digits(finite.std()) if finite.size else 0.0,
    )
    effect = 1.0
    if order is not None:
        cells = _cells_of(monitor, values)[order]
        effect = design_effect.estimate(cells, ordered=True)
    return replace(monitor, counts=_counted(monitor, values), design_effect=effect)


def _counted(monitor: Monitor, values: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(profiles.count_numbers(monitor, values).tolist())


def _digits(figure: float) -> float:
    """Twelve of them: how a sum is added up, processor by processor, changes the last ones."""
    return float(f"{figure:.12g}")


def quantile_edges(finite: NDArray[np.float64]) -> tuple[float, ...]:
    """At most 33 edges of bins with about equal numbers of rows, each between two values."""
    distinct, counts = np.unique(finite, return_counts=True)
    below = np.cumsum(counts)
    wanted = np.arange(1, BINS_MAX) * (len(finite) / BINS_MAX)
    # The cut goes behind the distinct value whose cumulative count is nearest to the quantile.
    after = np.searchsorted(below, wanted)
    before = np.maximum(after - 1, 0)
    nearer = np.where(wanted - below[before] < below[after] - wanted, before, after)
    cuts = np.unique(nearer[(nearer >= 0) & (nearer < len(distinct) - 1)])
    inner = [short_between(float(distinct[i]), float(distinct[i + 1])) for i in cuts]
    low, high = float(distinct[0]), float(distinct[-1])
    return (_digits(low - _room(low)), *inner, _digits(high + _room(high)))


def _room(value: float) -> float:
    return _SLACK * max(abs(value), 1e-30)


def short_between(low: float, high: float) -> float:
    """The number with fewest digits in the middle half between two different ones."""
    quarter = (high - low) / 4
    middle = low + 2 * quarter
    for digits in range(1, 17):
        rounded = float(f"{middle:.{digits}g}")
        if low + quarter <= rounded <= high - quarter:
            return rounded
    return middle


def _cells_of(monitor: Monitor, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The cell of each value, asked of the counting function once a distinct value."""
    distinct, where = np.unique(values, return_inverse=True)
    cells = [
        int(np.argmax(profiles.count_numbers(monitor, distinct[i : i + 1])))
        for i in range(len(distinct))
    ]
    return np.array(cells)[where]


def _categories(
    name: str, values: NDArray[np.object_], known: Sequence[str], order: NDArray[np.int64] | None
) -> Monitor:
    """The most frequent categories by themselves, ties by name; the other known ones together."""
    items = values.tolist()
    frequency = dict.fromkeys(known, 0)
    for item in items:
        if item is not None:
            frequency[item] = frequency.get(item, 0) + 1
    ranked = sorted(frequency, key=lambda category: (-frequency[category], category))
    listed = sorted(ranked[:CATEGORIES_MAX])
    others = sorted(ranked[CATEGORIES_MAX:])
    monitor = Monitor(
        name=name, kind="category", categories=tuple(listed), others=tuple(others), counts=()
    )
    counts = profiles.count_categories(monitor, items)
    effect = 1.0
    if order is not None:
        where = {item: i for i, item in enumerate(sorted(set(items), key=str))}
        cells = np.array([where[items[i]] for i in order.tolist()])
        effect = design_effect.estimate(cells, ordered=False)
    return replace(monitor, counts=tuple(counts.tolist()), design_effect=effect)


def _predictions(
    answers: Answers,
    original: Answers,
    task: Task,
    outputs: Outputs,
    order: NDArray[np.int64] | None,
) -> list[Monitor]:
    if answers.labels is not None:
        return [_scores(answers, answers.labels, outputs, order)]
    if task == "regression" and answers.values is not None:
        assert original.values is not None
        values = answers.values[:, 0]
        monitor = _numbers(PREDICTION, original.values[:, 0], "output", order)
        if monitor.kind == "lattice" and not np.allclose(values, original.values[:, 0], rtol=1e-6):
            monitor = _numbers(PREDICTION, values, "output", order)  # few rows, compressed
        return [replace(monitor, counts=_counted(monitor, values))]
    return []


def _scores(
    answers: Answers, labels: NDArray[np.int64], outputs: Outputs, order: NDArray[np.int64] | None
) -> Monitor:
    """Predicted labels by score; one bin a label where the model gives no scores."""
    edges: tuple[float, ...]
    if answers.scores is None:
        edges, scores = (0.0, 1.0), np.full(len(labels), np.nan)
    else:
        edges = score_edges(outputs.threshold)
        two = answers.scores.shape[1] == 2
        column = np.ones_like(labels) if two else np.maximum(labels, 0)
        scores = answers.scores[np.arange(len(labels)), column]
    monitor = Monitor(
        name=PREDICTION,
        kind="score",
        source="output",
        edges=edges,
        labels=len(outputs.labels),
        counts=(),
    )
    counts = profiles.count_scores(monitor, labels, scores)
    effect = 1.0
    if order is not None:
        effect = design_effect.estimate(labels[order], ordered=False)
    return replace(monitor, counts=tuple(counts.tolist()), design_effect=effect)


def score_edges(threshold: float | None) -> tuple[float, ...]:
    """17 even edges over [0, 1], the inner one nearest to the threshold moved onto it."""
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    if threshold is not None and 0 < threshold < 1:
        edges[1 + int(np.argmin(np.abs(edges[1:-1] - threshold)))] = threshold
    return tuple(edges.tolist())

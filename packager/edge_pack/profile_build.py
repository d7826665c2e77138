"""The reference profile: fixed bins of every feature and of the predictions, with their counts.

Guards: rows are counted by ``edge_contract.profile``, the very functions that a device counts
with; an edge lies between two values that occurred, never on one, so that float32 rounding on
the way in moves no row to another cell. Pure: the same rows give the same profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edge_contract import profile as profiles
from edge_contract import tensor_figures
from edge_contract.manifest import Feature, Outputs, Task, Tensor
from edge_contract.profile import (
    BINS_MAX,
    CATEGORIES_MAX,
    ERROR_QUANTILES,
    LABELLED_CELLS_MAX,
    LATTICE_MAX,
    SCORE_BINS,
    Errors,
    Kind,
    Monitor,
    Profile,
    Source,
)
from edge_contract.projection import Projection
from edge_pack import cycles, design_effect, directions
from edge_pack.answers import Answers
from edge_pack.intake import Rows

PREDICTION = "prediction"
ROWS_A_BIN = 8
_SLACK = 1e-6
"""Relative room beyond the least and greatest value: eight times float32's rounding."""


@dataclass(frozen=True)
class Order:
    """When the reference rows were taken.

    Attributes:
        positions: of the rows, from the earliest to the latest.
        seconds: since 1970-01-01 UTC, one a row; None: the order is known, the hours are not.
    """

    positions: NDArray[np.int64]
    seconds: NDArray[np.float64] | None = None


def build(
    features: Sequence[Feature],
    rows: Rows,
    answers: Answers,
    original: Answers,
    *,
    task: Task,
    outputs: Outputs,
    order: Order | None = None,
    truth: NDArray[np.float64] | None = None,
    tensors: Sequence[Tensor] = (),
) -> Profile:
    """The profile of the reference rows and the bundle's answers to them.

    Args:
        answers: the bundle's, which are counted. original: the original's, which place the edges:
            in float64 they are the same on every processor.
        order: None: the rows have none in time.
        truth: of each row, as ``gates.truth.read`` gives it; None: nobody knows it.
        tensors: those that are passed whole, a row along the first axis of each.
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
    monitors += _predictions(answers, original, task, outputs, order=order, truth=truth)
    looked_at: list[tensor_figures.Tensor] = []
    found: list[tuple[Projection, NDArray[np.float64]] | None] = []
    positions = None if order is None else order.positions
    for tensor in tensors:
        if tensor.dtype != "string":
            array = np.asarray(rows.tensors[tensor.name]).astype(tensor.dtype)
            one, figures = _tensor(tensor.name, array)
            looked_at.append(one)
            monitors += [
                _numbers(name, column, "tensor", order)
                for name, column in zip(one.names, figures.T, strict=True)
            ]
            found.append(directions.of_tensor(tensor.name, array, positions))
    numbers = {f.name: rows.columns[f.name] for f in features if f.type == "number"}
    found.insert(0, directions.of_features(numbers, positions))
    projections = [one for one in found if one is not None]
    for projection, values in projections:
        monitors += _directions(projection, values, order)
    return Profile(
        rows=rows.count,
        time_ordered=order is not None,
        monitors=tuple(monitors),
        projections=tuple(projection for projection, _ in projections),
        tensors=tuple(looked_at),
    )


def _tensor(
    name: str, array: NDArray[np.generic]
) -> tuple[tensor_figures.Tensor, NDArray[np.float64]]:
    """What is counted of a tensor, and its figures ``[rows, figures]``."""
    parts = list(directions.samples(array))
    tops = [float(part[np.isfinite(part)].max(initial=-np.inf)) for part in parts]
    top = max(tops, default=0.0)
    one = tensor_figures.Tensor(name=name, top=top if np.isfinite(top) else 0.0)
    return one, np.concatenate([tensor_figures.figures(part, one.top) for part in parts])


def _directions(
    projection: Projection, values: NDArray[np.float64], order: Order | None
) -> list[Monitor]:
    """A monitor for each direction, of the rows that it was not fitted to."""
    positions = None if order is None else order.positions
    _, counted = directions.halves(len(values), positions)
    found = []
    for name, column in zip(projection.names, values.T, strict=True):
        held_out = column[counted]
        finite = held_out[np.isfinite(held_out)]
        mean, std = moments(finite)
        monitor = Monitor(
            name=name,
            kind="quantile",
            source="projection",
            edges=quantile_edges(finite, directions.BINS),
            counts=(),
            mean=_rounded(mean, std),
            std=_rounded(std, std),
        )
        effect = 1.0
        if order is not None:
            cells = _cells_of(monitor, column)[order.positions]
            effect = design_effect.estimate(cells, ordered=True)
        found.append(replace(monitor, counts=_counted(monitor, held_out), design_effect=effect))
    return found


def _numbers(
    name: str, values: NDArray[np.float64], source: Source, order: Order | None
) -> Monitor:
    finite = values[np.isfinite(values)]
    distinct = np.unique(finite)
    mean, std = moments(finite)
    kind: Kind
    edges: tuple[float, ...]
    if distinct.size <= LATTICE_MAX:
        kind, edges = "lattice", tuple(float(value) for value in distinct) or (0.0,)
    else:
        kind, edges = "quantile", quantile_edges(finite, bins_for(finite.size))
    monitor = Monitor(
        name=name,
        kind=kind,
        source=source,
        edges=edges,
        counts=(),
        mean=mean,
        std=std,
    )
    counts = _counted(monitor, values)
    if order is None:
        return replace(monitor, counts=counts)
    inner = order.positions
    hours: tuple[float, ...] = ()
    weekdays: tuple[float, ...] = ()
    if order.seconds is not None:
        hours = cycles.hours(values, order.seconds)
        weekdays = cycles.weekdays(values, order.seconds)
    return replace(
        monitor,
        counts=counts,
        design_effect=design_effect.estimate(_cells_of(monitor, values)[inner], ordered=True),
        longest_run=cycles.longest_run(values[inner]),
        hours=hours,
        weekdays=weekdays,
    )


def moments(finite: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation, 0 without values; finite, whatever the values' size."""
    if not finite.size:
        return 0.0, 0.0
    with np.errstate(over="ignore"):
        mean, std = float(finite.mean()), float(finite.std())
    if not (np.isfinite(mean) and np.isfinite(std)):
        largest = float(np.abs(finite).max())
        mean = float((finite / largest).mean()) * largest
        std = float((finite / largest).std()) * largest
    return _digits(mean), _digits(std)


def _counted(monitor: Monitor, values: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(profiles.count_numbers(monitor, values).tolist())


def _digits(figure: float) -> float:
    """Twelve of them: how a sum is added up, processor by processor, changes the last ones."""
    return float(f"{figure:.12g}")


def bins_for(rows: int) -> int:
    """How many quantile bins so many reference rows fill, 4 to 32.

    A detector looks at a polynomial only where enough bins hold five rows
    (``components.GROUP_ROWS_MIN``): 100 rows in 32 bins would show it no mean at all.
    """
    return min(max(rows // ROWS_A_BIN, 4), BINS_MAX)


def quantile_edges(finite: NDArray[np.float64], bins: int = BINS_MAX) -> tuple[float, ...]:
    """Edges of at most ``bins`` bins of about equal numbers of rows, each between two values."""
    distinct, counts = np.unique(finite, return_counts=True)
    below = np.cumsum(counts)
    wanted = np.arange(1, bins) * (len(finite) / bins)
    # The cut goes behind the distinct value whose cumulative count is nearest to the quantile.
    after = np.searchsorted(below, wanted)
    before = np.maximum(after - 1, 0)
    nearer = np.where(wanted - below[before] < below[after] - wanted, before, after)
    cuts = np.unique(nearer[(nearer >= 0) & (nearer < len(distinct) - 1)])
    inner = [short_between(float(distinct[i]), float(distinct[i + 1])) for i in cuts]
    low, high = float(distinct[0]), float(distinct[-1])
    ends = (_digits(low - _room(low)), _digits(high + _room(high)))
    # Between neighbours in float64 there is no number: two such cuts may be one.
    return tuple(sorted({*ends, *inner}))


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
    """The cell of each value, by the counting function: cells follow in order of value."""
    distinct, where = np.unique(values, return_inverse=True)
    if monitor.kind == "lattice":  # few values, and those between them are counted apart
        asked = (profiles.count_numbers(monitor, distinct[[i]]) for i in range(len(distinct)))
        return np.array([int(np.argmax(counts)) for counts in asked])[where]
    counts = profiles.count_numbers(monitor, distinct)
    regular = monitor.regular
    under, over, missing, infinite = (regular + at for at in (0, 1, 3, 4))
    lowest, highest = int(np.isneginf(distinct).sum()), int(np.isposinf(distinct).sum())
    order = [infinite, under, *range(regular), over, infinite, missing]
    times = [lowest, counts[under], *counts[:regular], counts[over], highest, counts[missing]]
    return np.repeat(order, times)[where]


def _categories(
    name: str, values: NDArray[np.object_], known: Sequence[str], order: Order | None
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
        cells = np.array([where[items[i]] for i in order.positions.tolist()])
        effect = design_effect.estimate(cells, ordered=False)
    return replace(monitor, counts=tuple(counts.tolist()), design_effect=effect)


def _predictions(
    answers: Answers,
    original: Answers,
    task: Task,
    outputs: Outputs,
    *,
    order: Order | None,
    truth: NDArray[np.float64] | None,
) -> list[Monitor]:
    if answers.labels is not None:
        known = truth if task == "classification" else None
        return [_scores(answers, answers.labels, outputs, order, known)]
    if task == "regression" and answers.values is not None:
        assert original.values is not None
        values = answers.values[:, 0]
        monitor = _numbers(PREDICTION, original.values[:, 0], "output", order)
        if monitor.kind == "lattice" and not np.allclose(values, original.values[:, 0], rtol=1e-6):
            monitor = _numbers(PREDICTION, values, "output", order)  # few rows, compressed
        errors = None if truth is None else errors_of(original.values[:, 0] - truth)
        return [replace(monitor, counts=_counted(monitor, values), errors=errors)]
    return []


def errors_of(errors: NDArray[np.float64]) -> Errors | None:
    """Moments and quantiles of a regression's errors, NaN where the truth is not known."""
    known = errors[np.isfinite(errors)]
    if not len(known):
        return None
    (mean, std), (size, _) = moments(known), moments(np.abs(known))
    low, lower, middle, upper, high = (
        _rounded(each, size) for each in np.quantile(known, ERROR_QUANTILES).tolist()
    )
    return Errors(
        rows=len(known),
        mean=_rounded(mean, size),
        std=_rounded(std, size),
        absolute=_rounded(size, size),
        quantiles=(low, lower, middle, upper, high),
    )


def _rounded(figure: float, size: float) -> float:
    """Four digits, and none far below ``size``: processors add up in their own ways.

    The mean of a regression's errors on the rows it was fitted to is 0 but for that.
    """
    return 0.0 if abs(figure) <= 1e-9 * size else float(f"{figure:.4g}")


def _scores(
    answers: Answers,
    labels: NDArray[np.int64],
    outputs: Outputs,
    order: Order | None,
    truth: NDArray[np.float64] | None,
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
    monitor = replace(monitor, counts=tuple(counts.tolist()))
    if truth is not None:
        monitor = replace(monitor, labelled=_labelled(monitor, labels, scores, truth))
    if order is not None:
        effect = design_effect.estimate(labels[order.positions], ordered=False)
        monitor = replace(monitor, design_effect=effect)
    return monitor


def _labelled(
    monitor: Monitor,
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    truth: NDArray[np.float64],
) -> tuple[int, ...]:
    """Rows by true label and cell, of those whose true label the model knows."""
    if monitor.labels * monitor.regular > LABELLED_CELLS_MAX:
        return ()
    cells = profiles.score_cells(monitor, labels, scores)
    known = np.isfinite(truth) & (truth >= 0) & (cells < monitor.regular)
    if not known.any():
        return ()
    at = truth[known].astype(np.int64) * monitor.regular + cells[known]
    return tuple(np.bincount(at, minlength=monitor.labels * monitor.regular).tolist())


def score_edges(threshold: float | None) -> tuple[float, ...]:
    """33 even edges over [0, 1], the inner one nearest to the threshold moved onto it."""
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    if threshold is not None and 0 < threshold < 1:
        edges[1 + int(np.argmin(np.abs(edges[1:-1] - threshold)))] = threshold
    return tuple(edges.tolist())

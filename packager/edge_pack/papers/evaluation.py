"""The counts behind the report's charts: confusion, calibration, residuals, differences. Pure.

Guards: counts and bin edges only, never a row; bounded whatever the model, so that the file
beside a bundle stays small.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract.manifest import Label, Task
from edge_pack.answers import Answers

LABELS_MAX = 30
"""Of more labels the most frequent are kept and the rest counted together."""
CALIBRATION_BINS = 10
RESIDUAL_BINS = 24
GRID = 16
DIFFERENCE_DECADES = tuple(range(-9, 1))
"""Differences from 1e-9, under which float64 sums differ by their order alone, to 1."""
_DIGITS = 6

Floats = NDArray[np.float64]


class Confusion(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """``counts[true][predicted]`` in the order of ``labels``, the last one ``OTHER`` if ``others``.

    Attributes:
        others: labels counted together in the last row and column.
        unknown: rows whose true label the model never declared; in no cell.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    others: int = 0
    unknown: int = 0


class Calibration(Struct, frozen=True, kw_only=True):
    """How often a probability comes true, in equal bins of [0, 1].

    Attributes:
        label: whose probability it is (the last of two labels), "" for that of the predicted one.
        counts: rows a bin. said: mean probability in it. came: share of rows where it came true.
    """

    label: str
    counts: tuple[int, ...]
    said: tuple[float, ...]
    came: tuple[float, ...]


class Histogram(Struct, frozen=True, kw_only=True):
    """``counts[i]`` values in [edges[i], edges[i + 1]), the last bin closed."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Scatter(Struct, frozen=True, kw_only=True):
    """``counts[y][x]``: rows in a grid of true values (x) and predicted ones (y), equal edges."""

    edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]


class Evaluation(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the bundle answered to the rows of the build.

    Attributes:
        rows: rows whose truth is known. residuals: predicted minus true value.
        differences: rows by the largest difference to the original's answer: first those
            without any, then under 1e-9, then a decade each. compared: rows in it.
    """

    rows: int = 0
    confusion: Confusion | None = None
    calibration: Calibration | None = None
    residuals: Histogram | None = None
    scatter: Scatter | None = None
    compared: int = 0
    differences: tuple[int, ...] = ()


def evaluate(
    task: Task,
    labels: tuple[Label, ...],
    answers: Answers,
    truth: Floats | None,
    differences: Floats | None = None,
) -> Evaluation:
    """The counts of the bundle's answers.

    Args:
        truth: [rows], label indices (-1: unknown to the model) or values, NaN where not known;
            None where there is none.
        differences: [any], to the original's answer, one a row.
    """
    compared = () if differences is None else _decades(differences)
    found = Evaluation(compared=sum(compared), differences=compared)
    if truth is None or not np.isfinite(truth).any():
        return found
    rows = np.flatnonzero(np.isfinite(truth))
    known, answers = truth[rows], answers.take(rows)
    parts: dict[str, Any] = {}
    if task == "classification" and answers.labels is not None:
        true = known.astype(np.int64)
        parts["confusion"] = _confusion(labels, true, answers.labels)
        if answers.scores is not None and len(labels) > 1:
            parts["calibration"] = _calibration(labels, true, answers.scores)
    elif task == "regression" and answers.values is not None:
        parts["residuals"] = _histogram(answers.values[:, 0] - known)
        parts["scatter"] = _scatter(known, answers.values[:, 0])
    return Evaluation(
        rows=len(rows), compared=found.compared, differences=found.differences, **parts
    )


def _decades(differences: Floats) -> tuple[int, ...]:
    """Rows without a difference, under 1e-9, a decade each up to 1, and 1 or more."""
    edges = np.array([0.0, np.nextafter(0.0, 1.0), *(10.0**d for d in DIFFERENCE_DECADES), np.inf])
    finite = np.where(np.isfinite(differences), differences, np.finfo(np.float64).max)
    return tuple(np.histogram(finite, edges)[0].tolist())


def _confusion(
    labels: tuple[Label, ...], true: NDArray[np.int64], said: NDArray[np.int64]
) -> Confusion:
    both = (true >= 0) & (said >= 0)
    names = [str(label) for label in labels]
    where, others = np.arange(len(labels)), 0
    if len(labels) > LABELS_MAX:
        often = np.bincount(true[both], minlength=len(labels))
        kept = np.sort(np.argsort(-often, kind="stable")[: LABELS_MAX - 1])
        others = len(labels) - len(kept)
        where = np.full(len(labels), len(kept))
        where[kept] = np.arange(len(kept))
        names = [*(names[i] for i in kept.tolist()), f"{others} others"]
    size = len(names)
    cells = where[true[both]] * size + where[said[both]]
    counts = np.bincount(cells, minlength=size * size).reshape(size, size)
    return Confusion(
        labels=tuple(names),
        counts=tuple(tuple(row) for row in counts.tolist()),
        others=others,
        unknown=int(np.count_nonzero(~both)),
    )


def _calibration(labels: tuple[Label, ...], true: NDArray[np.int64], scores: Floats) -> Calibration:
    if len(labels) == 2:
        said, came, label = scores[:, 1], true == 1, str(labels[1])
    else:
        top = scores.argmax(axis=1)
        said, came, label = scores[np.arange(len(top)), top], true == top, ""
    cells = np.clip((said * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    counts = np.bincount(cells, minlength=CALIBRATION_BINS)
    least = np.maximum(counts, 1)
    return Calibration(
        label=label,
        counts=tuple(counts.tolist()),
        said=_rounded(np.bincount(cells, said, CALIBRATION_BINS) / least),
        came=_rounded(np.bincount(cells, came, CALIBRATION_BINS) / least),
    )


def _histogram(values: Floats) -> Histogram:
    low, high = float(values.min()), float(values.max())
    edges = _edges(low, high, RESIDUAL_BINS)
    return Histogram(edges=_rounded(edges), counts=tuple(np.histogram(values, edges)[0].tolist()))


def _scatter(true: Floats, said: Floats) -> Scatter:
    both = np.concatenate([true, said])
    edges = _edges(float(both.min()), float(both.max()), GRID)
    counts = np.histogram2d(said, true, bins=(edges, edges))[0].astype(np.int64)
    return Scatter(edges=_rounded(edges), counts=tuple(tuple(row) for row in counts.tolist()))


def _edges(low: float, high: float, bins: int) -> Floats:
    """Equal bins that hold both ends, also where all values are one."""
    slack = 0.5 * max(abs(low), 1.0) if low == high else 0.0
    return np.linspace(low - slack, high + slack, bins + 1)


def _rounded(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values.tolist())

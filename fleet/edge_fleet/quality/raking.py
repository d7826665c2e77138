"""Quality from labelled rows of old, weighted until they look like what the devices counted.

Guards: the weights reproduce every margin that was counted, or the estimate says which part of the
window no reference row is like; few rows that carry all the weight are no grounds, and the estimate
is refused.

Raking, or iterative proportional fitting: Deming and Stephan, Annals of Mathematical Statistics 11,
1940; Deville, Särndal and Sautory, JASA 88, 1993. Effective rows: Kish, "Survey Sampling", 1965,
(sum w)^2 / sum w^2. Pure; the labelled rows stay where they are, on the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fleet.quality import figures
from edge_fleet.quality.estimates import BLIND, Estimate, refuse

Floats = NDArray[np.float64]

EFFECTIVE_ROWS_MIN = 100.0
UNCOVERED_MAX = 0.05
"""More of the window than this that no reference row is like: no estimate."""
ROUNDS_MAX = 100
CONVERGED = 1e-4
"""The largest difference that a margin's share may keep."""
REPLICATES = 200
CELL_ROWS = 5.0
"""A cell's share is fitted only as far as so many rows of noise let it: see ``smoothed``."""


@dataclass(frozen=True)
class Raked:
    """Weights of the reference rows.

    Attributes:
        weights: ``[rows]``, sum 1. effective_rows: Kish's.
        uncovered: the largest share over all monitors of window rows in cells that no reference row
            is in. residual: the largest difference that a fitted share still has.
    """

    weights: Floats
    effective_rows: float
    uncovered: float
    residual: float

    @property
    def refusal(self) -> str:
        """Why nothing can be said; "" when it can."""
        if self.uncovered > UNCOVERED_MAX:
            return (
                f"{100 * self.uncovered:.3g} % of the rows are like no labelled reference row,"
                f" at most {100 * UNCOVERED_MAX:g} % may be"
            )
        if self.effective_rows < EFFECTIVE_ROWS_MIN:
            return (
                f"the labelled reference rows that resemble the window are worth"
                f" {self.effective_rows:.0f} rows, at least {EFFECTIVE_ROWS_MIN:.0f} are needed"
            )
        return ""


def rake(cells: NDArray[np.int64], counts: Sequence[NDArray[np.int64]]) -> Raked:
    """Weights under which the reference rows have the margins of ``counts``.

    Args:
        cells: ``[rows, monitors]``: the cell of each reference row in each monitor.
        counts: for each monitor what the devices counted, ``[cells of that monitor]``.
    """
    rows = len(cells)
    weights = np.full(rows, 1.0 / max(rows, 1))
    targets, uncovered = [], 0.0
    for at, counted in enumerate(counts):
        known = np.bincount(cells[:, at], minlength=len(counted))
        total = float(counted.sum())
        if total:
            uncovered = max(uncovered, float(counted[known == 0].sum()) / total)
        targets.append(smoothed(counted, known))
    residual = 0.0
    for _ in range(ROUNDS_MAX):
        residual = 0.0
        for at, target in enumerate(targets):
            now = np.bincount(cells[:, at], weights=weights, minlength=len(target))
            residual = max(residual, float(np.abs(now - target).max(initial=0.0)))
            factor = np.divide(target, now, out=np.ones(len(now)), where=now > 0)
            weights = weights * factor[cells[:, at]]
        if residual < CONVERGED:
            break
    total = float(weights.sum())
    weights = weights / total if total > 0 else weights
    square = float(weights @ weights)
    return Raked(weights, 1.0 / square if square > 0 else 0.0, uncovered, residual)


def smoothed(counted: NDArray[np.int64], known: NDArray[np.int64]) -> Floats:
    """The share to fit in each cell, over cells that a reference row is in; sum 1.

    ``CELL_ROWS`` rows of the reference's own shares, spread over all cells, are added: a handful
    of rows is noise, and weights that follow noise only lose effective rows.
    """
    held = np.where(known > 0, counted, 0).astype(np.float64)
    reference = known / max(float(known.sum()), 1.0)
    mixed = held + CELL_ROWS * reference
    return np.asarray(mixed / max(float(mixed.sum()), 1e-300))


@dataclass(frozen=True)
class Labelled:
    """The labelled reference rows as the model answered them; arrays ``[rows]``.

    ``true``, ``predicted``: indices of labels, or the values of a regression (``labels`` is 0).
    ``score``: of the last label, where there are two and the model gives scores; else None.
    """

    true: Floats
    predicted: Floats
    labels: int = 0
    score: Floats | None = None


def estimate(
    labelled: Labelled, raked: Raked, rng: np.random.Generator, level: float = 0.95
) -> tuple[Estimate, ...]:
    """The figures of the weighted rows with intervals, or why not.

    The interval is the Bayesian bootstrap's (Rubin 1981) over the reference rows, weights held:
    somewhat too wide, since raking takes away part of what it varies.
    """
    found = _figures(labelled, raked.weights)
    if raked.refusal:
        return tuple(refuse(name, "raked", raked.refusal, raked.effective_rows) for name in found)
    some = raked.weights > 0
    draws = rng.standard_exponential((REPLICATES, len(raked.weights))) * raked.weights
    drawn = _figures(labelled, draws)
    result = []
    for name, value in found.items():
        usable = drawn[name][~np.isnan(drawn[name])]
        if np.isnan(value) or not len(usable) or not some.any():
            result.append(refuse(name, "raked", "no row for it", raked.effective_rows))
            continue
        low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2]).tolist()
        result.append(
            Estimate(
                figure=name, method="raked", value=float(value), low=low, high=high, level=level,
                rows=raked.effective_rows, blind=BLIND["raked"],
            )
        )  # fmt: skip
    return tuple(result)


def _figures(labelled: Labelled, weights: Floats) -> dict[str, Floats]:
    if not labelled.labels:
        return figures.of_errors(labelled.predicted - labelled.true, weights)
    k = labelled.labels
    cell = labelled.true.astype(np.int64) * k + labelled.predicted.astype(np.int64)
    into = np.zeros((len(cell), k * k))
    into[np.arange(len(cell)), cell] = 1.0
    found = figures.of_confusion((weights @ into).reshape(*weights.shape[:-1], k, k))
    if labelled.score is not None and k == 2:
        found["auc"] = figures.weighted_auc(labelled.score, labelled.true == 1, weights)
    return found

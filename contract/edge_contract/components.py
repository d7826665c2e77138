"""What a drift detector looks at: a few standardised directions over a monitor's cells.

Guards: every component has mean 0 and variance 1 under the smoothed reference, so that one
tolerance and one family of bets fit all of them. The packager's calibration, the fleet's detectors
and both sides' reports look at the same directions, so this is their one home.

Ordered cells (numbers, scores) get up to four orthonormal polynomials of the cumulative mid-rank:
the components of Neyman's smooth test (Neyman 1937; Rayner, Best, Thas, "Smooth Tests of Goodness
of Fit", 2009, chapter 5). With all components they add up to Pearson's chi-square; the first four
mean location, spread, skew and shape, and waste no power on the rest. Cells that are not ordered
values (missing, infinite, out of range, a category, a predicted label) each get a share: the
standardised indicator.

Smoothing: half a row a group for the polynomials (Jeffreys), one row in and one row out for a
share (Laplace), so that a cell that the reference never saw has a small probability and not none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from edge_contract.profile import Monitor

Floats = NDArray[np.float64]

DEGREES = ("mean", "spread", "skew", "shape")
GROUP_ROWS_MIN = 5
"""A degree needs another group with this many reference rows (Cochran's rule for chi-square)."""
DOWN_SHARE_MIN = 0.05
"""A share is watched for vanishing only when the reference held at least this much of it."""


@dataclass(frozen=True)
class Component:
    """One standardised direction.

    Attributes:
        name: ``mean``, ``spread``, ``skew``, ``shape``; or of a share the special cell's name
            (``missing``, ...), ``category`` or ``label``.
        degree: 1 to 4 for a polynomial; 0 for a share.
        index: which category or label the share is of; -1 otherwise.
        values: phi in every cell of the monitor, shape ``[cells]``.
        active: cells that are rows of this component's test; a row elsewhere changes nothing
            (a missing value says nothing about the mean of the others).
        share: reference probability of the share; 1 for a polynomial.
    """

    name: str
    degree: int
    index: int
    values: Floats
    active: NDArray[np.bool_]
    share: float = 1.0

    @property
    def signs(self) -> tuple[Literal[1, -1], ...]:
        """Directions worth a bet."""
        return (1, -1) if self.degree or self.share >= DOWN_SHARE_MIN else (1,)


def groups_of(monitor: Monitor) -> NDArray[np.int64]:
    """For each cell its place in the order of values, or -1 where there is none.

    A value under or over the reference's range ranks with the outermost cell. The cells of a
    score rank by score, whatever the label.
    """
    groups = np.full(monitor.cells, -1, dtype=np.int64)
    regular = monitor.regular
    match monitor.kind:
        case "quantile" | "lattice":
            groups[:regular] = np.arange(regular)
            groups[regular] = 0
            groups[regular + 1] = regular - 1
        case "score":
            groups[:regular] = np.arange(regular) % (len(monitor.edges) - 1)
        case "category":
            pass
    return groups


def group_probabilities(monitor: Monitor) -> Floats:
    """Smoothed reference probability of each group, given that a row is in one; ``[groups]``."""
    groups = groups_of(monitor)
    ordered = groups >= 0
    if not ordered.any():
        return np.zeros(0)
    counts = np.asarray(monitor.counts, dtype=np.float64)
    rows = np.bincount(groups[ordered], weights=counts[ordered])
    smoothed = rows + 0.5
    return np.asarray(smoothed / smoothed.sum())


def polynomials(probabilities: Floats, degree: int) -> Floats:
    """Polynomials of degree 1 to ``degree`` in the mid-rank, orthonormal under ``probabilities``.

    Returns ``[groups, degree]``; a positive first coordinate means larger values.
    """
    ranks = np.cumsum(probabilities) - probabilities / 2
    basis = legendre.legvander(2 * ranks - 1, degree)
    _, triangle = np.linalg.qr(np.sqrt(probabilities)[:, None] * basis)
    signs = np.sign(np.diag(triangle))
    values = np.linalg.solve(triangle.T, basis.T).T * signs
    return np.asarray(values[:, 1:])


def components_of(monitor: Monitor) -> tuple[Component, ...]:
    """The components of ``monitor``: polynomials first, then shares."""
    return (*_polynomial_components(monitor), *_share_components(monitor))


def _polynomial_components(monitor: Monitor) -> list[Component]:
    groups = groups_of(monitor)
    ordered = groups >= 0
    if not ordered.any():
        return []
    counts = np.asarray(monitor.counts, dtype=np.float64)
    filled = np.bincount(groups[ordered], weights=counts[ordered]) >= GROUP_ROWS_MIN
    degree = min(len(DEGREES), int(filled.sum()) - 1)
    if monitor.components:
        degree = min(degree, sum(name in DEGREES for name in monitor.components))
    if degree < 1:
        return []
    by_group = polynomials(group_probabilities(monitor), degree)
    found = []
    for k in range(degree):
        values = np.zeros(monitor.cells)
        values[ordered] = by_group[groups[ordered], k]
        found.append(Component(DEGREES[k], k + 1, -1, values, ordered))
    return found


def _share_components(monitor: Monitor) -> list[Component]:
    regular = monitor.regular
    found = []
    if monitor.kind == "category":
        found += [_share(monitor, "category", i, [i]) for i in range(regular)]
    if monitor.kind == "score" and monitor.labels > 1:
        bins = regular // monitor.labels
        for label in range(monitor.labels):
            cells = list(range(label * bins, (label + 1) * bins))
            found.append(_share(monitor, "label", label, cells))
    for at, name in enumerate(monitor.specials):
        if not (monitor.kind == "quantile" and name == "off"):
            found.append(_share(monitor, name, -1, [regular + at]))
    return found


def _share(monitor: Monitor, name: str, index: int, cells: list[int]) -> Component:
    counts = np.asarray(monitor.counts, dtype=np.float64)
    inside = np.zeros(monitor.cells)
    inside[cells] = 1.0
    share = float((counts @ inside + 1) / (counts.sum() + 2))
    values = (inside - share) / np.sqrt(share * (1 - share))
    return Component(name, 0, index, values, np.ones(monitor.cells, dtype=np.bool_), share)

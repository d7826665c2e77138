"""How many times fewer independent rows a time-ordered reference holds than it counts.

A sensor's neighbouring readings resemble each other, so counts over a window vary more than those
of independent rows. The design effect (Kish 1965, "Survey Sampling") is that variance ratio; here
it is estimated by non-overlapping batch means (Flegal & Jones 2010, "Batch means and spectral
variance estimators in Markov chain Monte Carlo", Ann. Statist. 38:2): for a component phi of the
cells with mean 0 and variance 1 over the reference,

    d = b * var(means of phi over blocks of b successive rows)

taken at block lengths near n^(1/3), n^(1/2) and n^(2/3), because a daily cycle shows only in long
blocks; the largest is kept. Components are the first orthonormal polynomials over the cells in
order (Neyman's), or for categories each cell's indicator. An estimate that chance explains, less
than three standard errors sqrt(2 / (blocks - 1)) above 1, counts as 1.

Pure. A heuristic, checked by simulation, not a proof.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COMPONENTS = 4
BLOCKS_MIN = 8
ROWS_MIN = 64


def estimate(cells: NDArray[np.int64], *, ordered: bool) -> float:
    """The design effect of one monitor, at least 1.

    Args:
        cells: the cell of each row, in order of time.
        ordered: neighbouring cells are neighbouring values; False for categories.
    """
    rows = len(cells)
    if rows < ROWS_MIN:
        return 1.0
    present, where = np.unique(cells, return_inverse=True)
    if len(present) < 2:
        return 1.0
    share = np.bincount(where) / rows
    components = polynomials(share) if ordered else _indicators(share)
    series = components[where]
    largest = 1.0
    for exponent in (1 / 3, 1 / 2, 2 / 3):
        length = max(2, round(rows**exponent))
        blocks = rows // length
        if blocks < BLOCKS_MIN:
            continue
        means = series[: blocks * length].reshape(blocks, length, -1).mean(axis=1)
        effects = length * means.var(axis=0, ddof=1)
        chance = 1 + 3 * np.sqrt(2 / (blocks - 1))
        largest = max(largest, *(float(d) for d in effects if d > chance), 1.0)
    return float(f"{largest:.4g}")


def polynomials(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal polynomials of degree 1 to 4 in the cells' mid-ranks, [cells, components].

    Args:
        share: the cells' shares of the rows, all above 0.
    """
    ranks = np.cumsum(share) - share / 2
    degree = min(COMPONENTS, len(share) - 1)
    powers = np.vander(2 * ranks - 1, degree + 1, increasing=True)
    weight = np.sqrt(share)[:, None]
    basis, _ = np.linalg.qr(powers * weight)
    found: NDArray[np.float64] = (basis / weight)[:, 1:]
    return found


def _indicators(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each cell's indicator, standardised to mean 0 and variance 1, [cells, cells]."""
    return (np.eye(len(share)) - share) / np.sqrt(share * (1 - share))

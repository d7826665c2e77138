"""How many times fewer independent rows a time-ordered reference holds than it counts.

A sensor's neighbouring readings resemble each other, so counts over a window vary more than those
of independent rows. The design effect (Kish 1965, "Survey Sampling") is that variance ratio; here
it is estimated by non-overlapping batch means (Flegal & Jones 2010, "Batch means and spectral
variance estimators in Markov chain Monte Carlo", Ann. Statist. 38:2): for a component phi of the
cells with mean 0 and variance 1 over the reference,

    d = b * var(means of phi over blocks of b successive rows)

taken at every block length 2, 4, 8, ... that leaves 16 blocks, because a device's window may be of
any of these lengths: a slow drift shows in long blocks, a daily cycle in blocks of half a day. The
largest is kept. Components are the first orthonormal polynomials over the cells in order
(Neyman's), or for categories each cell's indicator. An estimate that chance explains counts as
1: blocks - 1 times the estimate is chi-squared for independent rows, whose quantile at 3.5
standard deviations is taken from Wilson & Hilferty (1931, PNAS 17:684).

Pure. A heuristic, checked by simulation, not a proof.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_contract.components import polynomials

COMPONENTS = 4
BLOCKS_MIN = 16
ROWS_MIN = 64
_DEVIATIONS = 3.5


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
    components = (
        polynomials(share, min(COMPONENTS, len(share) - 1)) if ordered else _indicators(share)
    )
    series = components[where]
    largest, length = 1.0, 2
    while rows // length >= BLOCKS_MIN:
        blocks = rows // length
        means = series[: blocks * length].reshape(blocks, length, -1).mean(axis=1)
        effects = length * means.var(axis=0, ddof=1)
        chance = _by_chance(blocks - 1)
        largest = max(largest, *(float(d) for d in effects if d > chance), 1.0)
        length *= 2
    return float(f"{largest:.4g}")


def _by_chance(degrees: int) -> float:
    """What a variance ratio of independent rows stays under but for once in 4,000 times."""
    spread = 2 / (9 * degrees)
    return float((1 - spread + _DEVIATIONS * np.sqrt(spread)) ** 3)


def _indicators(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each cell's indicator, standardised to mean 0 and variance 1, [cells, cells]."""
    return (np.eye(len(share)) - share) / np.sqrt(share * (1 - share))

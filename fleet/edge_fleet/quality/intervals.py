"""Intervals of a share, such as accuracy or an error rate.

Guards: an interval says what it promises. Wilson's and Clopper-Pearson's hold for one look at a
number of rows fixed before; the confidence sequence holds at every look at once, for ever, so it
is the one for a figure that a screen shows again and again.

All take right (or wrong) rows and all rows as arrays of one shape and answer with two arrays
``low, high``; without rows the interval is 0 to 1.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Interval = tuple[Floats, Floats]

_BISECTIONS = 50


def wilson(some: Floats, rows: Floats, level: float = 0.95) -> Interval:
    """Wilson's score interval: its coverage is ``level`` on the average over shares.

    Source: Wilson, JASA 22, 1927. For weighted rows ``rows`` is the effective sample size.
    """
    some, rows = np.asarray(some, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    n = np.where(rows > 0, rows, 1.0)
    share = some / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    none = rows <= 0
    low, high = np.where(none, 0.0, middle - half), np.where(none, 1.0, middle + half)
    # Rounding leaves 1e-17 where the formula is 0 or 1.
    return np.where(some <= 0, 0.0, np.maximum(low, 0)), np.where(some >= rows, 1.0, high)


def clopper_pearson(some: Floats, rows: Floats, level: float = 0.95) -> Interval:
    """The exact interval: its coverage is ``level`` or more for every share.

    Source: Clopper and Pearson, Biometrika 26, 1934.
    """
    some, rows = np.asarray(some, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    tail = (1 - level) / 2
    others = rows - some
    low = special.betaincinv(np.maximum(some, 1e-300), others + 1, tail)
    high = special.betaincinv(some + 1, np.maximum(others, 1e-300), 1 - tail)
    return np.where(some <= 0, 0.0, low), np.where(others <= 0, 1.0, high)


def confidence_sequence(some: Floats, rows: Floats, level: float = 0.95) -> Interval:
    """The share lies within at every number of rows at once, with probability ``level``.

    A gambler whose bets are mixed over all shares has B(s + 1/2, f + 1/2) / B(1/2, 1/2) /
    (p^s (1 - p)^f) after s right and f wrong rows: a martingale for the true p, which exceeds
    1 / (1 - level) ever with probability 1 - level at most (Ville 1939). The interval holds the
    shares that it has not ruled out (Robbins 1970). Rows must be independent.
    """
    some, rows = np.asarray(some, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    others = rows - some
    wealth = special.betaln(some + 0.5, others + 0.5) - special.betaln(0.5, 0.5)
    limit = wealth + np.log(1 - level)
    peak = np.where(rows > 0, some / np.maximum(rows, 1e-300), 0.5)

    def end(edge: float) -> Floats:
        """Between the likeliest share and ``edge`` the likelihood falls."""
        inside, outside = peak.copy(), np.full_like(peak, edge)
        for _ in range(_BISECTIONS):
            middle = (inside + outside) / 2
            kept = special.xlogy(some, middle) + special.xlog1py(others, -middle) >= limit
            inside, outside = np.where(kept, middle, inside), np.where(kept, outside, middle)
        return outside

    low = np.where(some <= 0, 0.0, end(0.0))
    return low, np.where(others <= 0, 1.0, end(1.0))

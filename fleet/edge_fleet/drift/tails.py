"""Probabilities of the far ends of distributions, which a ranking over thousands of tests needs.

Guards: a p-value of one in a million is right within a tenth, so that a ranked list at a
stated false discovery rate means something; nothing here is looked up by simulation, which could
not see so far out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

_BISECTIONS = 60
_DIGITS_LEFT = 1e-6
_NEAR_MEAN = 1e-3
"""Below this the saddlepoint formula is 0 / 0; its limit takes over."""


def chi_square(statistic: Floats, degrees: Floats | int, moved: Floats | float = 0.0) -> Floats:
    """P(X >= statistic) of a chi-square with ``degrees`` > 0 and noncentrality ``moved`` >= 0.

    Far out a noncentral one is taken by its saddlepoint, which is closed: 1 less a probability
    near 1 has no digits left there.
    """
    statistic = np.maximum(np.asarray(statistic, dtype=np.float64), 0.0)
    moved = np.asarray(moved, dtype=np.float64)
    shifted = 1.0 - special.chndtr(statistic, degrees, moved)
    far = ~(shifted > _DIGITS_LEFT)
    shifted = np.where(far, _noncentral(statistic, np.asarray(degrees, np.float64), moved), shifted)
    return np.asarray(np.where(moved > 0, shifted, special.chdtrc(degrees, statistic)))


def _noncentral(statistic: Floats, degrees: Floats, moved: Floats) -> Floats:
    x = np.maximum(statistic, 1e-12)
    left = (degrees + np.sqrt(degrees**2 + 4 * x * moved)) / (2 * x)
    at = (1 - left) / 2
    generating = moved * at / left - degrees / 2 * np.log(left)
    variance = 2 * degrees / left**2 + 4 * moved / left**3
    limit = 0.5 - 8 * (degrees + 3 * moved) / (
        6 * np.sqrt(2 * np.pi) * (2 * (degrees + 2 * moved)) ** 1.5
    )
    return _lugannani_rice(at, x, generating, variance, limit)


def weighted_chi_squares(statistic: Floats, weights: Floats) -> Floats:
    """P(sum of weights[i] * chi-square(1) >= statistic), by the saddlepoint.

    Source: Kuonen, "Saddlepoint approximations for distributions of quadratic forms in normal
    variables", Biometrika 86, 1999; the tail formula is Lugannani and Rice's. Its relative error
    stays within a tenth however far out.

    Args:
        statistic: any shape, >= 0.
        weights: ``[k]``, >= 0; all 0: nothing can vary, and every p is 1.
    """
    statistic = np.asarray(statistic, dtype=np.float64)
    weights = weights[weights > weights.max(initial=0.0) * 1e-12]
    if not len(weights):
        return np.ones(statistic.shape)
    scale = float(weights.max())
    ratio = weights / scale
    wanted = np.maximum(statistic.ravel() / scale, 1e-12)
    at = _saddlepoint(wanted, ratio)
    left = 1.0 - 2.0 * at[:, None] * ratio
    generating = -0.5 * np.log(left).sum(axis=1)
    variance = 2.0 * ((ratio / left) ** 2).sum(axis=1)
    third = 8.0 * float((ratio**3).sum())
    limit = 0.5 - third / (6.0 * np.sqrt(2 * np.pi) * (2.0 * float((ratio**2).sum())) ** 1.5)
    tail = _lugannani_rice(at, wanted, generating, variance, np.asarray(limit))
    return tail.reshape(statistic.shape)


def _lugannani_rice(
    at: Floats, wanted: Floats, generating: Floats, variance: Floats, limit: Floats
) -> Floats:
    """The tail from the saddlepoint ``at``; ``limit`` is its value at the mean."""
    w = np.sign(at) * np.sqrt(np.maximum(2.0 * (at * wanted - generating), 0.0))
    v = at * np.sqrt(variance)
    near = np.abs(w) < _NEAR_MEAN
    safe_w, safe_v = np.where(near, 1.0, w), np.where(near, 1.0, v)
    tail = np.where(near, limit, special.ndtr(-(w + np.log(safe_v / safe_w) / safe_w)))
    return np.asarray(np.clip(tail, 0.0, 1.0))


def _saddlepoint(wanted: Floats, ratio: Floats) -> Floats:
    """Where the derivative of the cumulant generating function is ``wanted``, by bisection."""
    low = np.minimum(-len(ratio) / (2.0 * wanted) - 1.0, -1.0) * 2
    high = np.full_like(wanted, 0.5)  # the function has its pole here: the largest ratio is 1
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        slope = (ratio / (1.0 - 2.0 * middle[:, None] * ratio)).sum(axis=1)
        below = slope < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(low)


def at_least(successes: Floats, failures: Floats, chance: Floats) -> Floats:
    """P(X >= successes) of a binomial, by the incomplete beta function; real counts allowed.

    Counts that were divided by a design effect are not whole; the beta function does not mind.
    """
    some = np.asarray(successes) > 0
    counted = np.where(some, successes, 1.0)
    tail = special.betainc(counted, np.asarray(failures) + 1.0, chance)
    return np.asarray(np.where(some, tail, 1.0))

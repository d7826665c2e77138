"""Where a test's answer changes, found exactly: between two neighbouring float64 values.

A predicate of one number that turns once, from false to true, turns between two neighbours; they
are found by halving the float64 values themselves, 64 times, without a formula of ours that
could be off by a rounding.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_pack.trees.form import LEQ, LT, Floats, Forest, Ints

Predicate = Callable[[Floats], NDArray[np.bool_]]


def ordinal(values: Floats) -> Ints:
    """Each float64's place among all of them: neighbours differ by one, -0.0 and 0.0 by none."""
    bits = np.asarray(values, dtype=np.float64).view(np.int64)
    return np.where(bits < 0, np.iinfo(np.int64).min - bits, bits)


def value(places: Ints) -> Floats:
    """The float64 at each place; the reverse of ``ordinal``."""
    bits = np.where(places < 0, np.iinfo(np.int64).min - places, places)
    return np.asarray(bits.astype(np.int64).view(np.float64))


def bisect(turned: Predicate, low: Floats, high: Floats) -> Floats:
    """The least value in (low, high] for which a predicate that turns once is true.

    Args:
        turned: bool for each of an array of values, false up to some value and true from it on.
        low, high: where each search begins and ends; ``high`` is taken to be true.
    """
    below, above = ordinal(low), ordinal(high)
    while (above > below + 1).any():
        # Half of each first: the two may be further apart than an int64 can say.
        middle = np.where(
            above > below + 1, (below >> 1) + (above >> 1) + (below & above & 1), above
        )
        found = turned(value(middle))
        below = np.where(found | (middle == above), below, middle)
        above = np.where(found, middle, above)
    return value(above)


def least(turned: Predicate, low: float, high: float) -> float:
    """The least float64 from ``low`` on for which ``turned`` is true; infinity if none is."""
    if bool(turned(np.array([low]))[0]):
        return low
    if not bool(turned(np.array([high]))[0]):
        return float("inf")
    return float(bisect(turned, np.array([low]), np.array([high]))[0])


def as_float64(forest: Forest) -> Forest:
    """The same forest with tests ``x <= cut`` of raw float64 values only.

    Where the original rounds to float32 first, the cut becomes the last float64 that rounds to a
    value on its near side; so every raw value falls as it does there.
    """
    cut = _closed(forest)
    if forest.compares == "float32":
        near = _float32_below(cut)
        with np.errstate(over="ignore"):
            beyond = np.nextafter(near, np.float32(np.inf)).astype(np.float64)
            # Above the largest float32 comes infinity: what rounds to it is refused on the way.
            beyond = np.where(np.isinf(beyond), 2.0**128, beyond)
            middle = near.astype(np.float64) / 2 + beyond / 2
            stays = middle.astype(np.float32) <= near
        cut = np.where(stays, middle, np.nextafter(middle, -np.inf))
        cut = np.where(near == np.inf, np.inf, np.where(near == -np.inf, -np.inf, cut))
    asks = (forest.test == LEQ) | (forest.test == LT)
    cut = np.where(asks, cut, 0.0) + 0.0  # no -0.0: equal forests give equal bytes
    test = np.where(forest.test == LT, LEQ, forest.test)
    return replace(forest, cut=cut, test=test, compares="float64")


def _closed(forest: Forest) -> Floats:
    """``x < cut`` as ``x <= cut``: the cut is the float64 before it."""
    return np.where(forest.test == LT, np.nextafter(forest.cut, -np.inf), forest.cut)


def _float32_below(cut: Floats) -> NDArray[np.float32]:
    """The last float32 that is not above each cut."""
    with np.errstate(over="ignore"):
        near = cut.astype(np.float32)
        over = near.astype(np.float64) > cut
        return np.where(over, np.nextafter(near, np.float32(-np.inf)), near)

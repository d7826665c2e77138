"""A regression's mean absolute error from labels that came late, which are counted by size.

Guards: an interval that holds at every look, since labels trickle in and the figure is read again
and again; it is wider by what counting by size may hide.

Devices count |error| in buckets of a factor 2 (``edge_contract.aside``). Within a bucket the errors
are taken to lie as a power law that its neighbours have: the mean is then within 2 % for normal,
Laplace and Student's t errors, within 5 % where errors end in a wall, as uniform ones do
(``tests/fleet/quality/test_labelled_values.py``). The interval is the asymptotic confidence
sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Annals of Statistics 52 (6), 2024,
theorem 2.2, narrowest at ``NARROWEST`` labels. Pure.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_contract import aside
from edge_fleet.quality.estimates import BLIND, Estimate, refuse

Floats = NDArray[np.float64]

LABELS_MIN = 100
"""Fewer do not follow the limit law that the interval is of."""
NARROWEST = 1_000
BINNING = 0.05
"""Share of the figure by which the interval is wider, for what the buckets hide."""
SLOPE_MAX = 4.0
"""A steeper power law than that is noise of few rows."""


def estimate(counts: NDArray[np.int64], unit: float, level: float = 0.95) -> tuple[Estimate, ...]:
    """The mean absolute error of ``[2, buckets]`` errors (too low, not too low), or why not.

    Args:
        unit: what the buckets are in, in the unit of the model's answers.
    """
    by_size = counts.sum(axis=0)
    rows = int(by_size.sum())
    if rows < LABELS_MIN:
        why = f"{rows} labels came, at least {LABELS_MIN} are needed"
        return (refuse("mae", "labels", why, float(rows)),)
    if by_size[-1]:
        why = f"{by_size[-1]} errors are larger than any that is counted by its size"
        return (refuse("mae", "labels", why, float(rows)),)
    first, second = moments(by_size)
    mean = float(by_size @ first) / rows
    spread = math.sqrt(max(float(by_size @ second) / rows - mean**2, 0.0))
    half = spread * half_width(rows, level) + BINNING * mean
    return (
        Estimate(
            figure="mae", method="labels", value=unit * mean, low=unit * max(mean - half, 0.0),
            high=unit * (mean + half), level=level, rows=float(rows), blind=BLIND["labels"],
        ),
    )  # fmt: skip


def half_width(rows: int, level: float) -> float:
    """Half of the interval, in standard deviations, after so many rows; holds at all of them."""
    alpha = 1 - level
    tuned = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / NARROWEST
    reach = rows * tuned + 1
    return math.sqrt(2 * reach / (rows**2 * tuned) * math.log(math.sqrt(reach) / alpha))


def moments(by_size: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Mean of x and of x^2 in each bucket ``[buckets]``, in units, under its power law."""
    upper = np.array([aside.difference_bound(at) for at in range(len(by_size))])
    lower = upper / 2
    lower[-1] = upper[-2]  # the open end, which nobody may be in
    slope = slopes(by_size)
    return lower * _power(slope + 1) / _power(slope), lower**2 * _power(slope + 2) / _power(slope)


def slopes(by_size: NDArray[np.int64]) -> Floats:
    """The exponent s of x^s in each bucket: rows of neighbours stand as 2^(s + 1).

    A count of its own is added to each, so that a neighbour without rows makes no steep law.
    """
    some = np.log2(by_size.astype(np.float64) + 0.5)
    return np.asarray(np.clip(np.gradient(some) - 1, -SLOPE_MAX, SLOPE_MAX))


def _power(s: Floats) -> Floats:
    """The integral of x^s from 1 to 2."""
    flat = np.abs(s + 1) < 1e-9
    safe = np.where(flat, 1.0, s + 1)
    return np.where(flat, math.log(2), (2**safe - 1) / safe)

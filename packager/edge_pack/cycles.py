"""What the order in time says of a monitor: stuck values, hours of the day, days of the week.

Guards: a cycle is said to be there only where repeated days (or weeks) show it beyond chance, and
chance is reckoned for readings that resemble their neighbours. Each day is one block with a mean
an hour, and the hours are compared within days by a repeated-measures analysis of variance with
Greenhouse and Geisser's correction (Greenhouse & Geisser 1959, "On methods in the analysis of
profile data", Psychometrika 24:95): days are independent of each other where hours are not. Weeks
likewise, with a mean a day. Pure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_pack.extras import need

Floats = NDArray[np.float64]

HOUR_S = 3600
DAY_S = 24 * HOUR_S
DAYS_MIN = 8
WEEKS_MIN = 8
"""Whole days (or weeks): fewer say nothing of a cycle that they all would share."""
LARGEST = 1e100
"""A larger number's square is none: no reading, and no part of a cycle."""
CHANCE_MAX = 1e-4
EFFECT_MIN = 0.1
"""Deviation of the hours' means, in standard deviations of the values: less is no cycle to know."""
_MONDAY_S = 4 * DAY_S
"""1970-01-01 was a Thursday: the first Monday came four days later."""


def longest_run(values: Floats) -> int:
    """Most equal finite values in a row; ``values`` are in order of time."""
    if not len(values):
        return 0
    changes = np.flatnonzero((values[1:] != values[:-1]) | ~np.isfinite(values[1:]))
    ends = np.append(changes, len(values) - 1)
    starts = np.append(0, changes + 1)
    lengths = (ends - starts + 1)[np.isfinite(values[starts])]
    return int(lengths.max(initial=0))


def hours(values: Floats, seconds: Floats) -> tuple[float, ...]:
    """Mean by hour of the day in UTC, 24 figures; () where the values show no daily cycle.

    Args:
        seconds: since 1970-01-01 UTC, one a value, in any order.
    """
    return _cycle(values, np.floor(seconds / HOUR_S).astype(np.int64), 24, DAYS_MIN)


def weekdays(values: Floats, seconds: Floats) -> tuple[float, ...]:
    """Mean by day of the week, Monday first, 7 figures; () where there is no weekly cycle."""
    days = np.floor((seconds - _MONDAY_S) / DAY_S).astype(np.int64)
    return _cycle(values, days, 7, WEEKS_MIN)


def _cycle(values: Floats, slots: NDArray[np.int64], levels: int, least: int) -> tuple[float, ...]:
    """Means by slot modulo ``levels``, where whole rounds of them show that they differ."""
    finite = np.isfinite(values) & (np.abs(values) < LARGEST)
    values, slots = values[finite], slots[finite]
    if len(values) < levels * least:
        return ()
    slots = slots - slots.min() // levels * levels
    length = int(slots.max()) // levels + 1
    if length > len(values):  # mostly gaps: no round could be whole in most of them
        rounds, where = np.unique(slots // levels, return_inverse=True)
        slots, length = where * levels + slots % levels, len(rounds)
    counts = np.bincount(slots, minlength=length * levels)
    sums = np.bincount(slots, values, minlength=length * levels)
    table = (sums / np.maximum(counts, 1)).reshape(length, levels)
    whole = table[(counts.reshape(length, levels) > 0).all(axis=1)]
    if len(whole) < least:
        return ()
    means = whole.mean(axis=0)
    if means.std() < EFFECT_MIN * values.std() or chance(whole) > CHANCE_MAX:
        return ()
    return tuple(float(f"{mean:.6g}") for mean in means)


def chance(table: Floats) -> float:
    """How likely such a difference of the columns' means is where there is none.

    Args:
        table: ``[blocks, levels]``: blocks independent of each other, levels within one not.
    """
    blocks, levels = table.shape
    inner = table - table.mean(axis=1, keepdims=True)
    means = inner.mean(axis=0)
    rest = inner - means
    noise = float((rest**2).sum())
    if noise <= 1e-24 * float((table**2).sum()):
        return 0.0 if float((means**2).sum()) > 0 else 1.0
    between, within = levels - 1, (blocks - 1) * (levels - 1)
    ratio = blocks * float((means**2).sum()) / between / (noise / within)
    covariance = rest.T @ rest
    epsilon = float(np.trace(covariance) ** 2 / (between * (covariance**2).sum()))
    tail = need("scipy.stats", "looking for daily cycles").f.sf
    return float(tail(ratio, epsilon * between, epsilon * within))

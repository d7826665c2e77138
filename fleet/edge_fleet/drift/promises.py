"""What the drift detector promises, in words: how often it is wrong, and what it finds when. Pure.

Guards: a figure that was not reckoned is not said; what is never found is said to be never found.
"""

from __future__ import annotations

import math

from edge_contract.profile import Monitor, Power
from edge_fleet.drift.budget import Budget

RATE = 60.0
"""Rows an hour that a sentence is for where the build was told none."""


def false_alarms(budget: Budget, streams: int) -> str:
    """``At most 1 false alarm in 30 days over the whole fleet is to be expected ...``."""
    most = budget.false_alarms_per_month
    return (
        f"At most {most:g} false alarm{'' if most == 1 else 's'} in 30 days over the whole fleet"
        f" {'is' if most == 1 else 'are'} to be expected while nothing changes, however often it"
        f" is looked at: {streams} monitors are watched in windows of {budget.window_s:g} s."
    )


def finds(monitor: Monitor, power: Power | None) -> str:
    """``finds a shift of 0.25 sigma in 12 h, of 1 sigma in 40 min at 60 rows an hour``; or ""."""
    if power is None or not monitor.rows_needed:
        return ""
    rate = power.rows_per_hour or RATE
    parts = [
        f"{shift:g} sigma {_within(rows / rate if rows else math.inf)}"
        for shift, rows in zip(power.shifts, monitor.rows_needed, strict=False)
    ]
    return f"finds a shift of {', of '.join(parts)} at {rate:g} rows an hour"


def _within(hours: float) -> str:
    return "never" if math.isinf(hours) else f"in {duration(hours)}"


def duration(hours: float) -> str:
    """``40 min``, ``12 h``, ``3 d``; finite."""
    if hours < 1:
        return f"{max(math.ceil(hours * 60), 1)} min"
    return f"{hours:.2g} h" if hours < 72 else f"{hours / 24:.3g} d"

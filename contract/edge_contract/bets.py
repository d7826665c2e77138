"""The bets of a drift detector: what one row in a cell is worth as evidence.

A bet on component phi in direction s is worth, for a row in cell i,

    e(i) = 1 + lambda (s phi(i) - eps),     0 < lambda < 1 / -min(s phi - eps)

so that E[e] <= 1 as long as E[s phi] <= eps. Guards: eps is never below four standard errors of
the reference, because a test for ever would in the end detect the reference's own sampling error.
Counts of rows that resemble their neighbours are divided by the monitor's design effect. The fleet
bets (``edge_fleet.drift.edetector``); the packager works out, with the same table, what the bets
will find (the power table in the profile). Pure.

Source: Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential change
detection", New England Journal of Statistics in Data Science 2 (2), 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_contract.components import Component, Floats, components_of
from edge_contract.profile import Monitor

MINIMUM_EFFECT = 0.05
"""Tolerance in standard deviations: smaller shifts nobody wants to hear of."""
TOLERANCE_FACTOR = 4.0
"""The reference's own error is 1 / sqrt(rows) a component; four of them are never exceeded."""
SHARE_TOLERANCE = 0.005
"""A share may always move by half a percent of the rows."""
POLYNOMIAL_BETS = (0.05, 0.15, 0.5)
SHARE_BETS = (0.05, 0.4)
"""Bets as fractions of the largest lambda; for a share, the fraction of rows that moved to it."""


@dataclass(frozen=True)
class Entry:
    """One bet: on which component, in which direction, how much."""

    component: int
    sign: int
    lambda_: float


@dataclass(frozen=True)
class MonitorTable:
    """The bets on one monitor. ``log_e``: ``[cells, entries]``, divided by the design effect."""

    monitor: Monitor
    components: tuple[Component, ...]
    entries: tuple[Entry, ...]
    log_e: Floats


def tolerance(monitor: Monitor, minimum_effect: float = MINIMUM_EFFECT) -> float:
    """eps of the polynomials, in standard deviations: 4 / sqrt(independent rows) or more.

    The build may have asked for more (``Monitor.tolerance``).
    """
    rows = max(sum(monitor.counts) / monitor.design_effect, 1.0)
    return max(minimum_effect, TOLERANCE_FACTOR / float(np.sqrt(rows)), monitor.tolerance)


def component_tolerance(component: Component, eps: float) -> float:
    """eps of one component: for a share at least what half a percent of the rows moves it."""
    if component.degree:
        return eps
    spread = float(np.sqrt(component.share * (1 - component.share)))
    return max(eps, SHARE_TOLERANCE / spread)


def monitor_table(monitor: Monitor, eps: float | None = None) -> MonitorTable:
    """The table of bets on ``monitor`` with tolerance ``eps`` (default: ``tolerance``)."""
    eps = tolerance(monitor) if eps is None else eps
    components = components_of(monitor)
    entries: list[Entry] = []
    columns: list[Floats] = []
    for at, component in enumerate(components):
        margin = component_tolerance(component, eps)
        for sign in component.signs:
            gain = sign * component.values - margin
            if gain[component.active].max() <= 0:
                continue
            largest = -1.0 / gain[component.active].min()
            for fraction in POLYNOMIAL_BETS if component.degree else SHARE_BETS:
                entries.append(Entry(at, sign, fraction * largest))
                bet = np.log1p(np.where(component.active, fraction * largest * gain, 0.0))
                columns.append(bet / monitor.design_effect)
    log_e = np.stack(columns, axis=1) if columns else np.zeros((monitor.cells, 0))
    return MonitorTable(monitor, components, tuple(entries), log_e)

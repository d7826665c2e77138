"""The e-detector: evidence against "this device's data look like the reference".

Guards: the promise that, while nothing changed, the mean time to an alarm at threshold A is at
least A windows, at every sample size, for ever, looked at after each window.

A bet on component phi in direction s is worth, for a row in cell i,

    e(i) = 1 + lambda (s phi(i) - eps),     0 < lambda < 1 / -min(s phi - eps)

so that E[e] <= 1 as long as E[s phi] <= eps: the null hypothesis is "no component moved by more
than eps", not "nothing moved at all", because a test for ever would in the end detect the
reference's own sampling error. eps is therefore never below 4 / sqrt(reference rows).
Over a window, log e = counts @ log(e): linear in the counts, so merging devices or windows is
addition. Evidence runs through the Shiryaev-Roberts recursion M <- (M + 1) e, and a monitor's M is
the mean over its bets, components and directions, again an e-detector: M at window n has mean at
most n, hence P(alarm within n windows) <= n / A by Doob's inequality.

Source: Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential change
detection", New England Journal of Statistics in Data Science 2 (2), 2023.

Rows of one device are not independent. Counts are divided by the monitor's design effect, which
makes each e its own root: still E <= 1 (Jensen) when the rows are independent; for dependent rows
a heuristic, simulated and not proven.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_contract.bets import MonitorTable, component_tolerance, monitor_table, tolerance
from edge_contract.components import Floats
from edge_contract.profile import Profile

__all__ = [
    "ALGORITHM",
    "LOG_MAX",
    "LOG_MIN",
    "NO_EVIDENCE",
    "DriftTable",
    "MonitorTable",
    "advance",
    "change_point",
    "component_tolerance",
    "monitor_table",
    "tolerance",
]

ALGORITHM = 1
"""Raised whenever entries or their order change: evidence of another algorithm starts anew."""
LOG_MAX = 60.0
"""Evidence is cut here (a smaller M keeps the promise), so that it can fall when drift ends."""
LOG_MIN = -60.0
NO_EVIDENCE = LOG_MIN


class DriftTable:
    """The bets on all monitors of a profile, as a few stacked matrices.

    Monitors with tables of one shape are multiplied at once. Entries of all monitors stand one
    after the other: monitor m owns ``entries[starts[m] : starts[m] + sizes[m]]``.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.monitors = tuple(monitor_table(monitor) for monitor in profile.monitors)
        self.sizes = np.array([len(table.entries) for table in self.monitors], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)
        self.entries = int(self.sizes.sum())

    @cached_property
    def _groups(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64], Floats]]:
        """For each shape: the monitors' cells ``[m, cells]``, entries ``[m, entries]``, tables."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for at, table in enumerate(self.monitors):
            by_shape.setdefault(table.log_e.shape, []).append(at)
        offsets = self.profile.offsets()
        groups = []
        for (cells, entries), members in by_shape.items():
            cell = np.array([offsets[m] + np.arange(cells) for m in members])
            entry = np.array([self.starts[m] + np.arange(entries) for m in members])
            groups.append((cell, entry, np.stack([self.monitors[m].log_e for m in members])))
        return groups

    def log_e(self, counts: NDArray[np.int64]) -> Floats:
        """Log evidence of windows: counts ``[windows, cells]`` to ``[windows, entries]``."""
        out = np.empty((len(counts), self.entries))
        for cell, entry, table in self._groups:
            taken = counts[:, cell].astype(np.float64).swapaxes(0, 1)
            out[:, entry] = np.matmul(taken, table).swapaxes(0, 1)
        return out

    def start(self, streams: int = 1) -> NDArray[np.float32]:
        """Log M of ``streams`` devices that showed nothing yet: ``[streams, entries]``."""
        return np.full((streams, self.entries), NO_EVIDENCE, dtype=np.float32)

    def levels(self, state: NDArray[np.float32]) -> Floats:
        """Log M of each monitor, the mean over its bets: ``[..., entries]`` to ``[..., m]``."""
        levels = np.full((*state.shape[:-1], len(self.monitors)), NO_EVIDENCE)
        some = self.sizes > 0
        if some.any():
            m = np.exp(state.astype(np.float64))
            sums = np.add.reduceat(m, self.starts[some], axis=-1)
            levels[..., some] = np.log(sums / self.sizes[some])
        return levels


def advance(state: NDArray[np.float32], log_e: Floats) -> NDArray[np.float32]:
    """M <- (M + 1) e in log space, for one window; both ``[..., entries]``."""
    # log1p(exp()), a quarter of logaddexp's time, is exact here: within LOG_MAX nothing overflows.
    after = np.log1p(np.exp(state.astype(np.float64))) + log_e
    return np.clip(after, LOG_MIN, LOG_MAX).astype(np.float32)


def change_point(log_e: Floats) -> int:
    """The window at which a change most likely began: the maximum-likelihood start.

    ``log_e`` is ``[windows]``, one bet's evidence in order of time; the result maximises the sum
    from there to the end.
    """
    from_here = np.cumsum(log_e[::-1])[::-1]
    return int(np.argmax(from_here))

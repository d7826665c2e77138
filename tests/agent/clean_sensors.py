"""Sensors as they are when nothing is wrong, and a profile of them: for tests of the checks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_agent.telemetry.quality import Changed, Quality
from edge_agent.telemetry.tally import Tally
from edge_contract import profile as profiles
from edge_contract.moments import numbers
from edge_contract.profile import LATTICE_MAX, Monitor, Profile
from edge_pack import design_effect, profile_build

NAMES = (
    "iid", "ar", "daily", "daily_ar", "count", "sparse", "rounded", "lognormal", "gappy", "flag",
)  # fmt: skip
ROWS_PER_DAY = 1_440


def values(
    rows: int, rng: np.random.Generator, *, start: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Columns by name: white noise, AR(1) of .9, a daily cycle, both, a Poisson count, zero
    but for 5 %, a slow room in steps of a tenth, a heavy tail, one with gaps, a rare flag."""
    at = np.arange(start, start + rows)
    cycle = np.sin(2 * np.pi * at / ROWS_PER_DAY)
    return {
        "iid": rng.normal(10, 2, rows),
        "ar": 50 + ar(rows, 0.9, rng),
        "daily": 20 + 3 * cycle + rng.normal(0, 0.3, rows),
        "daily_ar": 100 + 5 * cycle + ar(rows, 0.9, rng),
        "count": rng.poisson(3.0, rows).astype(float),
        "sparse": np.where(rng.random(rows) < 0.05, rng.normal(4, 1, rows), 0.0),
        "rounded": np.round(21 + 3 * cycle + 0.3 * ar(rows, 0.99, rng), 1),
        "lognormal": rng.lognormal(0, 1, rows),
        "gappy": np.where(rng.random(rows) < 0.02, np.nan, rng.normal(0, 1, rows)),
        "flag": (rng.random(rows) < 0.01).astype(float),
    }


def ar(rows: int, rho: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """An AR(1) series of unit variance."""
    from scipy import signal

    noise = rng.normal(0, np.sqrt(1 - rho * rho), rows)
    noise[0] = rng.normal()
    return np.asarray(signal.lfilter([1.0], [1.0, -rho], noise))


def profile_of(columns: dict[str, NDArray[np.float64]], *, ordered: bool) -> Profile:
    """As the packager makes one, of rows in order of time or declared to have none."""
    monitors = [_monitor(name, column, ordered=ordered) for name, column in columns.items()]
    rows = len(next(iter(columns.values())))
    return Profile(rows=rows, time_ordered=ordered, monitors=tuple(monitors))


def _monitor(name: str, column: NDArray[np.float64], *, ordered: bool) -> Monitor:
    finite = column[np.isfinite(column)]
    distinct = np.unique(finite)
    lattice = len(distinct) <= LATTICE_MAX
    edges = tuple(distinct.tolist()) if lattice else profile_build.quantile_edges(finite)
    plain = Monitor(name=name, kind="lattice" if lattice else "quantile", edges=edges, counts=())
    cells = np.searchsorted(edges, column)
    change = np.flatnonzero(column[1:] != column[:-1])
    runs = np.diff(np.concatenate([[-1], change, [len(column) - 1]]))
    return Monitor(
        name=name,
        kind=plain.kind,
        edges=edges,
        counts=tuple(profiles.count_numbers(plain, column).tolist()),
        mean=float(finite.mean()),
        std=float(finite.std()),
        design_effect=design_effect.estimate(cells, ordered=True) if ordered else 1.0,
        longest_run=int(runs.max()) if ordered else 0,
    )


class Device:
    """Bins rows as a window does, and asks the checks at the end of each window."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.quality = Quality(profile)
        self.tally = Tally([profile.monitors[i] for i in numbers(profile)])

    def window(self, columns: dict[str, NDArray[np.float64]]) -> Changed:
        table = np.column_stack([columns[monitor.name] for monitor in self.profile.monitors])
        cells = np.concatenate([
            self.count(monitor, table[:, i]) for i, monitor in enumerate(self.profile.monitors)
        ])  # fmt: skip
        self.tally.add(table)
        self.quality.begin()
        return self.quality.close(len(table), cells, self.tally.close())

    @staticmethod
    def count(monitor: Monitor, column: NDArray[np.float64]) -> NDArray[np.int64]:
        return profiles.count_numbers(monitor, column)

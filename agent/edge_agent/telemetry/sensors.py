"""Numbers whose sensor is ill: one value for too long, no spread, error values, another unit.

Guards: what a healthy sensor of the reference did is never called ill; one cause has one name: a
column that is full of error values is not called stuck, too.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_agent.telemetry.conditions import CODE, EVIDENCE, Finding, Key, effect
from edge_agent.telemetry.tally import SENTINELS, Tallied
from edge_contract.moments import numbers
from edge_contract.profile import Monitor, Profile

SENTINEL_P0, SENTINEL_P1 = 1e-5, 0.005
"""Share of rows with one error value far beyond the reference: healthy sensors, and ill ones."""
_HIT = math.log(SENTINEL_P1 / SENTINEL_P0)
_MISS = math.log((1 - SENTINEL_P1) / (1 - SENTINEL_P0))
_SENTINEL_MOST = 1.2 * EVIDENCE
"""The sum rises no further, so that a thousand good rows end it."""
RUN_TIMES, RUN_MIN, RUN_UNORDERED_MIN = 4, 30, 1_000
FLAT_SHARE, FLAT_MIN, FLAT_UNORDERED_MIN, FLAT_INDEPENDENT = 0.01, 100, 1_000, 20
"""Flat: under a hundredth of the reference's spread in at least 20 independent rows, 100 in all."""
UNIT_ROWS, UNIT_FAR, UNIT_NEAR, UNIT_SPREAD = 5, 3.0, 0.15, 2.0
"""Another unit: most values are out of range; what it makes of the reference's mean is 3 standard
deviations away from that, and the window's mean within one (of the other unit) and within 15 % of
the way of it; the spread is at most twice that of the other unit, and at least half of it where the
window has 20 independent rows."""

UNITS: tuple[tuple[str, float, float], ...] = (
    ("Fahrenheit for Celsius", 1.8, 32.0),
    ("Celsius for Fahrenheit", 1 / 1.8, -32 / 1.8),
    ("kelvin for Celsius", 1.0, 273.15),
    ("Celsius for kelvin", 1.0, -273.15),
    *(
        pair
        for name, back, factor in (
            ("a thousand times too much", "a thousandth", 1000.0),
            ("a hundred times too much", "a hundredth", 100.0),
            ("ten times too much", "a tenth", 10.0),
            ("seconds for minutes", "minutes for seconds", 60.0),
            ("km/h for m/s", "m/s for km/h", 3.6),
            ("km/h for mph", "mph for km/h", 1.609344),
            ("feet for metres", "metres for feet", 1 / 0.3048),
            ("centimetres for inches", "inches for centimetres", 2.54),
            ("pounds for kilograms", "kilograms for pounds", 1 / 0.45359237),
            ("psi for bar", "bar for psi", 14.503774),
            ("degrees for radians", "radians for degrees", 180 / math.pi),
            ("m/s2 for g", "g for m/s2", 9.80665),
        )
        for pair in ((name, factor, 0.0), (back, 1 / factor, 0.0))
    ),
)
"""What came for what was expected: x becomes factor x + offset."""


class Sensors:
    """Checks the numbers among a model's features."""

    def __init__(self, profile: Profile) -> None:
        every = numbers(profile)
        self._profile = profile
        self._offsets = profile.offsets()
        self._columns = [
            (column, i) for column, i in enumerate(every) if profile.monitors[i].source == "feature"
        ]
        self._limits = [run_limit(profile, profile.monitors[i]) for i in every]
        self._sums = np.zeros((len(every), len(SENTINELS)))
        self._open: set[Key] = set()

    def judge(
        self, rows: int, cells: NDArray[np.int64], tallied: Tallied, *, last: bool
    ) -> tuple[list[Finding], list[Key], dict[int, int]]:
        """What begins, what ends, and by monitor the rows out of range that have a name here.

        Args:
            rows, cells, tallied: of the period so far; ``last``: of all of it.
        """
        begun: list[Finding] = []
        ended: list[Key] = []
        named: dict[int, int] = {}
        for column, i in self._columns:
            monitor = self._profile.monitors[i]
            at = self._offsets[i] + monitor.regular
            beyond = int(cells[at] + cells[at + 1])
            sentinel, hits = self._sentinel(column, rows, beyond, tallied, last=last)
            unit = "" if sentinel else self._unit(column, monitor, beyond, tallied)
            asked = {
                "sentinel": sentinel,
                "unit": unit,
                "stuck": "" if sentinel else self._stuck(column, tallied),
                "flat": "" if sentinel else self._flat(column, monitor, tallied),
            }
            for name, said in asked.items():
                self._turn((CODE[name], i), said, begun, ended, last=last)
            named[i] = rows if (CODE["unit"], i) in self._open else hits
        return begun, ended, named

    def _turn(
        self, key: Key, said: str | None, begun: list[Finding], ended: list[Key], *, last: bool
    ) -> None:
        """Open or close a condition. None: it cannot be told, all stays; "": it does not hold."""
        if said and key not in self._open:
            self._open.add(key)
            begun.append(Finding(*key, said))
        elif said == "" and last and key in self._open:
            self._open.discard(key)
            ended.append(key)

    def _sentinel(
        self, column: int, rows: int, beyond: int, tallied: Tallied, *, last: bool
    ) -> tuple[str, int]:
        """What is said, and the rows with that value.

        They count where at least half of what is out of range is one such value: a sensor that
        drifts passes them by.
        """
        hits = tallied.sentinels[column]
        most = int(hits.max())
        sums = self._sums[column]
        if not most and not sums.any():
            return "", 0
        counted = hits if 2 * most >= beyond else np.zeros_like(hits)
        now = np.clip(sums + counted * _HIT + (rows - counted) * _MISS, 0.0, _SENTINEL_MOST)
        if last:
            self._sums[column] = now
        if now.max() <= EVIDENCE:
            return "", int(counted.max())
        where = int(np.argmax(now))
        return f"{SENTINELS[where]:g} in {counted[where]} of {rows} rows", int(counted[where])

    def _stuck(self, column: int, tallied: Tallied) -> str:
        run = int(tallied.run[column])
        limit = self._limits[column]
        return f"one value for {run} rows" if limit and run >= limit else ""

    def _flat(self, column: int, monitor: Monitor, tallied: Tallied) -> str | None:
        """Not where one value may well fill the window, nor where the window is short."""
        count, std = int(tallied.count[column]), float(tallied.std[column])
        rows_as_one = effect(self._profile, monitor)
        least = FLAT_UNORDERED_MIN
        if self._profile.time_ordered:
            least = max(FLAT_MIN, math.ceil(FLAT_INDEPENDENT * rows_as_one))
        if count < least or not monitor.std:
            return None
        independent = count / rows_as_one
        if independent * -math.log(min(_largest(monitor), 1 - 1e-12)) < EVIDENCE:
            return None
        run = int(tallied.run[column])
        if std >= FLAT_SHARE * monitor.std or run >= count:
            return ""
        return f"{std / monitor.std:.1%} of the usual spread in {count} rows"

    def _unit(self, column: int, monitor: Monitor, beyond: int, tallied: Tallied) -> str | None:
        count = int(tallied.count[column])
        if count < UNIT_ROWS or not monitor.std:
            return None
        if 2 * beyond < count:
            return ""
        mean, std = float(tallied.mean[column]), float(tallied.std[column])
        whole = count / effect(self._profile, monitor) >= FLAT_INDEPENDENT
        best = (1.0, "")
        for name, factor, offset in UNITS:
            expected, spread = factor * monitor.mean + offset, factor * monitor.std
            away = abs(expected - monitor.mean)
            fits = std <= UNIT_SPREAD * spread and (std >= spread / UNIT_SPREAD or not whole)
            near = min(spread, UNIT_NEAR * away)
            if fits and away > UNIT_FAR * monitor.std and abs(mean - expected) <= best[0] * near:
                best = (abs(mean - expected) / near, f"as if {name}")
        return best[1]


def run_limit(profile: Profile, monitor: Monitor) -> int:
    """So many equal values in a row are stuck; 0: it cannot be told.

    Four times the longest run of the reference in order of time, where that is known.
    """
    if not profile.rows:
        return 0
    if profile.time_ordered and monitor.longest_run:
        return max(RUN_MIN, RUN_TIMES * monitor.longest_run)
    share = _largest(monitor)
    if share > 0.99:
        return 0  # it is one value nearly always
    chance = EVIDENCE / -math.log(max(share, 1e-3))
    return max(RUN_UNORDERED_MIN, math.ceil(effect(profile, monitor) * chance))


def _largest(monitor: Monitor) -> float:
    """Share of the fullest cell, and so at least that of the most frequent value."""
    total = sum(monitor.counts)
    return max(monitor.counts[: monitor.regular], default=0) / total if total else 1.0

"""Mean, spread, longest run and error values of many number columns at once.

Guards: a pass over a bulk of rows costs a few numpy calls, however many columns there are; nothing
here looks at a row by itself, and no row is kept: of the last one its values, to go on counting how
long each has been the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract.moments import RUN_MAX, Moments
from edge_contract.profile import Monitor

SENTINELS = (
    -2147483648.0, -99999.0, -32768.0, -9999.0, -999.9, -999.0, -273.15, -127.0, -99.0, -1.0,
    0.0, 85.0, 99.0, 127.0, 255.0, 999.0, 999.9, 1023.0, 4095.0, 9999.0, 32767.0, 65535.0,
    99999.0, 2147483647.0, 4294967295.0,
)  # fmt: skip
"""What sensors and their drivers say instead of a value: ends of 8 to 32 bits and of 10- and 12-bit
converters, nines, absolute zero; 85 is what a DS18B20 holds at power-on (its data sheet), -127 what
common drivers return when it does not answer. Ascending."""
_TABLE = np.array(SENTINELS)
_ROUNDING = 1e-6
"""Relative: eight times float32's."""


class Tallied(Struct, frozen=True):
    """Of each column.

    Attributes:
        count: of finite values. mean, std: of those, 0 where there are none; the std divides by
            their number.
        run: most equal values in a row so far, counted on from earlier periods.
        now: how many equal values the period ended with.
        sentinels: [column, place in ``SENTINELS``]: values far beyond the reference.
    """

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    run: NDArray[np.int64]
    now: NDArray[np.int64]
    sentinels: NDArray[np.int64]

    def moments(self) -> tuple[Moments | None, ...]:
        """As a record holds them; None for a column without a finite value."""
        found = zip(self.count.tolist(), self.mean, self.std, self.run.tolist(), strict=True)
        return tuple(
            Moments(float(mean), float(std), run) if count else None
            for count, mean, std, run in found
        )


class Tally:
    """Counts on, bulk by bulk. Not thread-safe: its owner holds a lock.

    Args:
        monitors: of kind quantile or lattice, one a column.
    """

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        columns = len(monitors)
        self._center = np.array([each.mean for each in monitors], dtype=np.float64)
        spread = np.array([each.std for each in monitors], dtype=np.float64)
        first = np.array([each.edges[0] for each in monitors], dtype=np.float64)
        last = np.array([each.edges[-1] for each in monitors], dtype=np.float64)
        self._low, self._high = first - spread, last + spread
        self._last = np.full(columns, np.nan)
        self._now = np.zeros(columns, dtype=np.int64)
        self._begin()

    def _begin(self) -> None:
        columns = len(self._center)
        self._count = np.zeros(columns, dtype=np.int64)
        self._sum = np.zeros(columns)
        self._squares = np.zeros(columns)
        self._run = self._now.copy()
        self._sentinels = np.zeros((columns, len(SENTINELS)), dtype=np.int64)

    def add(self, values: NDArray[np.float64]) -> None:
        """Count rows, [rows, columns], in the order in which they came."""
        if not values.size:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            away = values - self._center
            finite = np.isfinite(away)
            whole = finite.all()
            if not whole:
                away = np.where(finite, away, 0.0)
            self._count += len(values) if whole else np.count_nonzero(finite, axis=0)
            self._sum += away.sum(axis=0)
            self._squares += np.einsum("ij,ij->j", away, away)
            beyond = finite & ((values < self._low) | (values > self._high))
        self._add_runs(values, None if whole else finite)
        if beyond.any():
            self._add_sentinels(values, beyond)

    def _add_runs(self, values: NDArray[np.float64], finite: NDArray[np.bool_] | None) -> None:
        """``finite``: None where all are. What is missing or infinite is no value that stays."""
        same = np.empty(values.shape, dtype=np.bool_)
        same[0] = values[0] == self._last
        np.equal(values[1:], values[:-1], out=same[1:])
        self._last = values[-1].copy()
        if not same.any():
            self._now = np.where(np.isfinite(self._last), 1, 0)
            np.maximum(self._run, np.isfinite(values).any(axis=0), out=self._run)
            return
        # Of each row: how far back the value began; before the first change it goes on from before.
        at = np.arange(1, len(values) + 1)[:, None]
        began = np.maximum.accumulate(np.where(same, 0, at), axis=0)
        length = np.where(began, at - began + 1, at + self._now)
        np.minimum(length, RUN_MAX, out=length)
        if finite is not None:
            length[~finite] = 0
        np.maximum(self._run, length.max(axis=0), out=self._run)
        self._now = length[-1]

    def _add_sentinels(self, values: NDArray[np.float64], beyond: NDArray[np.bool_]) -> None:
        columns = np.nonzero(beyond)[1]
        found = values[beyond]
        slack = _ROUNDING * np.maximum(np.abs(found), 1.0)
        place = np.minimum(np.searchsorted(_TABLE, found - slack), len(_TABLE) - 1)
        hit = np.abs(_TABLE[place] - found) <= slack
        np.add.at(self._sentinels, (columns[hit], place[hit]), 1)

    def peek(self) -> Tallied:
        """Of the period so far."""
        count = np.maximum(self._count, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            away = self._sum / count
            variance = np.maximum(self._squares / count - away * away, 0.0)
        return Tallied(
            count=self._count.copy(),
            mean=self._center + away,
            std=np.sqrt(variance),
            run=self._run.copy(),
            now=self._now.copy(),
            sentinels=self._sentinels.copy(),
        )

    def close(self) -> Tallied:
        """End the period. Runs go on into the next one."""
        seen = self.peek()
        self._begin()
        return seen

"""The decimal grid that a column's values lie on, found piece by piece. Pure."""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

DECIMALS_MAX = 9
EXACT_MAX = 2**53


class Grid:
    """The greatest step of which all values are whole multiples apart, on a decimal grid.

    The order and the pieces in which values come make no difference.
    """

    def __init__(self) -> None:
        self._decimals = 0
        self._anchor: int | None = None
        self._largest = 0
        self._step = 0
        self._none = False

    def add(self, finite: NDArray[Any]) -> None:
        """More values, all finite."""
        if self._none or not finite.size:
            return
        while True:
            scale = 10.0**self._decimals
            grid = np.rint(finite * scale)
            largest = max(self._largest, float(np.abs(grid).max()))
            if largest > EXACT_MAX:
                self._none = True
                return
            if bool((grid / scale == finite).all()):
                break
            if self._decimals == DECIMALS_MAX:
                self._none = True
                return
            self._finer()
        self._largest = int(largest)
        self._count(grid.astype(np.int64))

    def _finer(self) -> None:
        self._decimals += 1
        self._anchor = None if self._anchor is None else self._anchor * 10
        self._step *= 10
        self._largest *= 10

    def _count(self, grid: NDArray[np.int64]) -> None:
        if self._anchor is None:
            self._anchor = int(grid[0])
        away = np.abs(grid - self._anchor)
        if self._step:
            away = away % self._step
        away = np.unique(away[away > 0])
        if away.size:
            self._step = gcd(self._step, int(np.gcd.reduce(away)))

    @property
    def step(self) -> float | None:
        """None when the values have more than nine decimals, fewer than two differ, or they are
        too large for a decimal grid to mean anything in float64."""
        if self._none or not self._step:
            return None
        return float(self._step / 10**self._decimals)

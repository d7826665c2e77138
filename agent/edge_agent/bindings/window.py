"""A bounded run of samples in order of time. Pure.

Guards: memory has a bound; a sample that is older than the newest never goes in, so that what is
computed over time is computed over time that goes forward.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FIRST = 64


class Window:
    """The newest samples: at most ``samples`` of them, not older than ``seconds``.

    Args:
        seconds: 0: of any age.
    """

    def __init__(self, samples: int, seconds: float = 0.0) -> None:
        self._samples = samples
        self._seconds = seconds
        room = min(_FIRST, 2 * samples)
        self._times = np.empty(room)
        self._values = np.empty(room)
        self._begin = self._end = 0

    def __len__(self) -> int:
        return self._end - self._begin

    @property
    def newest_s(self) -> float | None:
        """Time of the newest sample."""
        return float(self._times[self._end - 1]) if len(self) else None

    def add(self, time_s: float, value: float) -> bool:
        """Take a sample; whether it was: not when it is older than the newest."""
        if len(self) and time_s < self._times[self._end - 1]:
            return False
        if self._end == len(self._times):
            self._make_room()
        self._times[self._end] = time_s
        self._values[self._end] = value
        self._end += 1
        self._begin = max(self._begin, self._end - self._samples)
        return True

    def view(self, now_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times and values of what is in the window now; older samples are forgotten."""
        if self._seconds:
            times = self._times[self._begin : self._end]
            first = int(np.searchsorted(times, now_s - self._seconds, side="right"))
            self._begin += first
        span = slice(self._begin, self._end)
        return self._times[span], self._values[span]

    def clear(self) -> None:
        """Forget all."""
        self._begin = self._end = 0

    def _make_room(self) -> None:
        """Move what is there to the front; into twice the room where it fills more than half."""
        held = len(self)
        room = len(self._times)
        if 2 * held > room:
            room = min(2 * room, 2 * self._samples)
        times, values = np.empty(room), np.empty(room)
        times[:held] = self._times[self._begin : self._end]
        values[:held] = self._values[self._begin : self._end]
        self._times, self._values = times, values
        self._begin, self._end = 0, held

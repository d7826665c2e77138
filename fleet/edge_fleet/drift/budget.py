"""The promise "at most N false alarms a fleet-month", as a threshold.

One stream is one monitor on one device. While nothing changes, a stream's chance of an alarm
within n windows is at most n / A (see ``edetector``). So S streams of W windows a month raise at
most S W / A false alarms a month in the mean, and

    A = S W / N

keeps the promise. It is a bound on the mean over the whole fleet and needs no independence between
streams. 1,000 devices with 20 monitors and hourly windows: S = 20,000, W = 720, N = 1 gives
A = 14.4 million. Ten times as many devices cost a device only log 10 = 2.3 nats more evidence, some
ten more windows' worth of a weak shift and nothing to speak of for a strong one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

MONTH_S = 30 * 24 * 3600


@dataclass(frozen=True)
class Budget:
    """What was promised.

    Attributes:
        false_alarms_per_month: N, over the whole fleet; above 0.
        window_s: length of a telemetry window on the devices, in seconds; above 0.
    """

    false_alarms_per_month: float = 1.0
    window_s: float = 300.0

    @property
    def windows_per_month(self) -> float:
        """W: windows that a stream closes in 30 days."""
        return MONTH_S / self.window_s

    def log_threshold(self, streams: int) -> float:
        """log A for ``streams`` streams (devices x monitors); at least 0."""
        budget = max(streams, 1) * self.windows_per_month / self.false_alarms_per_month
        return max(log(budget), 0.0)

"""The promise "at most N false alarms a fleet-month", as a threshold.

One stream is one monitor on one device. While nothing changes, a stream's chance of an alarm
within n windows is at most n / A (see ``edetector``). So S streams of W windows a month raise at
most S W / A false alarms a month in the mean, and

    A = S W / N

keeps the promise. It is a bound on the mean over the whole fleet and needs no independence between
streams. 1,000 devices with 20 monitors and hourly windows: S = 20,000, W = 720, N = 1 gives
A = 14.4 million. Ten times as many devices cost a device only log 10 = 2.3 nats more evidence, some
ten more windows' worth of a weak shift and nothing to speak of for a strong one.

N is split over the scopes: two fifths to devices, a quarter to cohorts, a quarter to the fleet, a
tenth to error rates by late labels (``error_watch``; a stream is a device whose labels come). What
a part without streams does not need goes to devices. Few streams watch many devices, so a quarter
for one is plenty: of 20 monitors over the whole fleet, A is 57,600 instead of 36 million.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Literal

MONTH_S = 30 * 24 * 3600

Scope = Literal["device", "cohort", "fleet"]
"""What an alarm is about: one device, devices of one label, all devices."""
Part = Literal["device", "cohort", "fleet", "labels"]
"""What has a share of N: the scopes, and error rates."""
SHARES: Mapping[Part, float] = {"device": 0.4, "cohort": 0.25, "fleet": 0.25, "labels": 0.1}


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

    def log_threshold(self, streams: int, share: float = 1.0) -> float:
        """log A for ``streams`` streams (devices x monitors) with a share of N; at least 0."""
        budget = max(streams, 1) * self.windows_per_month / (self.false_alarms_per_month * share)
        return max(log(budget), 0.0)

    def log_thresholds(self, streams: Mapping[Part, int]) -> dict[Part, float]:
        """log A of each part; ``streams``: of each part, 0 or absent for one that is not."""
        shares = {scope: share for scope, share in SHARES.items() if streams.get(scope)}
        shares["device"] = 1.0 - sum(shares.values()) + shares.get("device", 0.0)
        return {
            scope: self.log_threshold(streams.get(scope, 0), shares.get(scope, share))
            for scope, share in SHARES.items()
        }

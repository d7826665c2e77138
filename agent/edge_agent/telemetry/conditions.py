"""What a condition of the input is, and what the checks of it share. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from edge_contract.profile import Monitor, Profile
from edge_contract.telemetry import QUALITY_CODES

EVIDENCE = 25.0
"""h: e^25 is 7 * 10^10; a fleet of 1,000 devices with 20 features has 2 * 10^9 windows of five
minutes a year."""
EFFECT_MAX, RANGE_EFFECT_MAX = 10.0, 50.0
"""Rows depend on each other, so many count as one. The design effect is measured on values, and how
long a gap lasts has little to do with it: so it is taken up to 10, and up to 50 for values beyond
the reference, which a slow sensor keeps for a while. Where the reference has no order, these are
assumed. (1,000 windows of ten healthy sensors of every kind raise nothing then.)"""

CODE = {name: code for code, name in enumerate(QUALITY_CODES)}

Key = tuple[int, int]
"""Code and monitor."""


class Finding(NamedTuple):
    """A condition of one monitor.

    Attributes:
        code: a number of ``QUALITY_CODES``. monitor: place in the profile. said: more, in words.
    """

    code: int
    monitor: int
    said: str = ""

    @property
    def key(self) -> Key:
        """What it is told apart by."""
        return self.code, self.monitor


def effect(profile: Profile, monitor: Monitor, most: float = math.inf) -> float:
    """How many rows of the monitor count as one; ``most`` is also what is assumed without order."""
    if profile.time_ordered:
        return min(monitor.design_effect, most)
    return min(RANGE_EFFECT_MAX, most)

"""What a condition of the input is, and what the checks of it share. Pure."""

from __future__ import annotations

from typing import NamedTuple

from edge_contract.profile import Monitor, Profile
from edge_contract.telemetry import QUALITY_CODES

EVIDENCE = 25.0
"""h: e^25 is 7 * 10^10; a fleet of 1,000 devices with 20 features has 2 * 10^9 windows of five
minutes a year."""
UNORDERED_EFFECT = 10.0
"""Rows depend on each other. Where the reference has no order in time, so much is assumed."""

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


def effect(profile: Profile, monitor: Monitor) -> float:
    """How many rows of the monitor count as one."""
    return monitor.design_effect if profile.time_ordered else UNORDERED_EFFECT

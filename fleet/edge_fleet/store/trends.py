"""What all devices of a bundle counted together, hour by hour: their part of the port.

Guards: an hour is added to in the transaction that counts its windows, so each window is in it
once; each collector adds to rows of its own, so that none waits for another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


@dataclass(frozen=True)
class Trend:
    """One hour of one bundle, as one collector counted it.

    Attributes:
        hour_ms: when it began, by the time at which windows came. ordinal: of the collector.
        hour: see ``edge_fleet.trends``.
    """

    bundle: str
    hour_ms: int
    ordinal: int
    hour: bytes = field(repr=False)


class Held(NamedTuple):
    """A device's detector: what it counted, and its evidence (see ``edge_fleet.evidence``)."""

    device: str
    windows: int
    rows: int
    state: bytes


class TrendsPort(Protocol):
    """This part of ``base.Transaction``."""

    def trend(self, bundle: str, hour_ms: int, ordinal: int) -> Trend | None:
        """One hour, where anything was counted in it."""
        ...

    def put_trend(self, trend: Trend) -> None:
        """Keep an hour, new or grown."""
        ...

    def forget_trends(self, bundle: str, ordinal: int, before_ms: int) -> None:
        """Drop a collector's hours of a bundle that began before."""
        ...

    def trends(self, bundle: str, since_ms: int, until_ms: int) -> list[Trend]:
        """Hours that began in [since, until), oldest first."""
        ...

    def held_of(self, bundle: str) -> list[Held]:
        """The evidence on every device of a bundle, by name."""
        ...

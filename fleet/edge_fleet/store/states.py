"""What a device's state is held against: its part of the port.

Guards: how far a device's clock is off is kept of messages that came as they were sent, never of
one that the broker had kept; a release that a channel once named stays known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edge_fleet.store.base import EventSeen


SERVER_BOOT = -1
"""The boot of events that the server tells; a device's is never below 0."""


@dataclass(frozen=True)
class ClockSeen:
    """A device's clock at ``at_ms`` by the server's: ahead of it by ``ahead_ms``."""

    device: str
    ahead_ms: int
    at_ms: int


@dataclass(frozen=True)
class NamedRelease:
    """A version that a channel of the fleet names; ``digest``: of its bundle, in hex."""

    model: str
    version: str
    digest: str
    channel: str
    first_ms: int


class StatesPort(Protocol):
    """This part of ``base.Transaction``."""

    def note_clock(self, seen: ClockSeen) -> None:
        """Keep how a device's clock was, in place of what was kept before."""
        ...

    def clocks(self, devices: Sequence[str] | None = None) -> dict[str, ClockSeen]:
        """How the clocks of these devices were; None: of all."""
        ...

    def add_releases(self, releases: Sequence[NamedRelease]) -> None:
        """Keep releases not kept before."""
        ...

    def tell(self, events: Sequence[EventSeen]) -> list[EventSeen]:
        """Keep what the server itself says of devices, where it did not yet; return these.

        Such an event has ``SERVER_BOOT``, and says nothing of when a device was heard of.
        """
        ...

    def releases(self) -> list[NamedRelease]:
        """Every release that a channel ever named, the first one first."""
        ...

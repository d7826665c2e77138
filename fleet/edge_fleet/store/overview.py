"""What the first page asks of the whole fleet, and a device's page of its device: part of the port.

Guards: each is one statement; none reads a window of another device.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from edge_fleet.store.rollouts import Wish
from edge_fleet.store.rollups import Kept


class DeviceRow(Struct, frozen=True, gc=False):
    """A device as its row holds it; ``reported``: JSON, b"" where it never reported.

    Nothing in it can hold it: ten thousand that the garbage collector leaves alone.
    """

    device: str
    online: bool
    seen_ms: int
    lag_ms: int
    windows: int
    dropped: int
    agent: str
    reported: bytes


class OverviewPort(Protocol):
    """This part of ``base.Transaction``."""

    def device_rows(self, after: str = "") -> list[DeviceRow]:
        """Every device after this one, by name."""
        ...

    def unreported_counted(self) -> list[tuple[str, str, str]]:
        """(device, model, version) of devices that never reported; of a model the newest last."""
        ...

    def open_by_device(self) -> dict[str, int]:
        """How many alarms are open, by the device or group that they name."""
        ...

    def unacknowledged(self) -> int:
        """Open alarms, under no other, that nobody acknowledged."""
        ...

    def kept_of(self, device: str, since_ms: int) -> list[Kept]:
        """Counted windows, hours and days of a device that came at or after ``since_ms``."""
        ...

    def wish_of(self, device: str) -> Wish | None:
        """What is wanted of one device."""
        ...

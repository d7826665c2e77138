"""Hours and days in the place of windows: their part of the port.

Guards: a window is in the store once, by itself or as a part of one sum, and its key is remembered
either way, so that one that comes again is never counted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

Key = tuple[str, int, int]
"""(device, boot, seq)."""


class Span(IntEnum):
    """How long a time is merged."""

    HOUR = 1
    DAY = 2

    @property
    def ms(self) -> int:
        """Its length."""
        return 3_600_000 if self is Span.HOUR else 86_400_000

    def start_ms(self, at_ms: int) -> int:
        """When the hour or day of ``at_ms`` began, UTC."""
        return at_ms // self.ms * self.ms


@dataclass(frozen=True)
class Kept:
    """What the store keeps of counted windows: of one by itself, or of an hour's or day's.

    ``received_ms``: when the last of them came. ``record``: a telemetry record; of several windows
    their sum (see ``edge_fleet.merging``).
    """

    device: str
    received_ms: int
    windows: int
    record: bytes = field(repr=False)


@dataclass(frozen=True)
class Sum:
    """Windows of one device, model and bundle that came within one hour or day, merged.

    Attributes:
        start_ms: when the hour or day began, by this server's clock: windows belong to the one in
            which they came.
        boot, seq: of the last window. received_ms: when the last one came.
        windows: how many. record: a telemetry record with the sums of theirs.
    """

    device: str
    bundle: str
    model: str
    span: Span
    start_ms: int
    boot: int
    seq: int
    received_ms: int
    windows: int
    record: bytes = field(repr=False)

    @property
    def place(self) -> tuple[str, str]:
        """(device, model), which tell the sums of one bundle and time apart."""
        return self.device, self.model


@dataclass(frozen=True)
class Old:
    """What may be merged: windows (or hours) that are older than a time."""

    rows: int
    size_bytes: int
    sums: int


class RollupPort(Protocol):
    """See ``base.Transaction``."""

    def bundles_counted(self) -> list[str]:
        """Bundles of which anything was counted."""
        ...

    def old_windows(self, bundle: str, before_ms: int) -> Old:
        """Counted windows that came before, and how many hours they would make."""
        ...

    def old_hours(self, bundle: str, before_ms: int) -> Old:
        """Hours that began before, and how many days they would make."""
        ...

    def oldest_window(self, bundle: str, before_ms: int) -> int | None:
        """When the first counted window came that came before; None when there is none."""
        ...

    def oldest_hour(self, bundle: str, before_ms: int) -> int | None:
        """When the first hour began that began before; None when there is none."""
        ...

    def window_keys(self, bundle: str, from_ms: int, to_ms: int, limit: int) -> list[Key]:
        """Keys of counted windows that came in [from, to), by device."""
        ...

    def windows_at(self, keys: Sequence[Key]) -> list[Kept]:
        """The windows under these keys."""
        ...

    def hours(self, bundle: str, from_ms: int, to_ms: int, limit: int) -> list[Sum]:
        """Hours that began in [from, to), by device."""
        ...

    def sums_at(self, bundle: str, span: Span, start_ms: int, devices: Sequence[str]) -> list[Sum]:
        """Sums of these devices that began then."""
        ...

    def put_sums(self, sums: Sequence[Sum]) -> None:
        """Keep sums, new or grown."""
        ...

    def roll_windows(self, keys: Sequence[Key]) -> None:
        """Take windows out and remember their keys. Raises MachineFault when one is not there."""
        ...

    def drop_hours(self, hours: Sequence[Sum]) -> None:
        """Take hours out. Raises MachineFault when one is not there."""
        ...

    def old_refused(self, before_ms: int, limit: int) -> list[Key]:
        """Keys of refused windows that came before."""
        ...

    def rolled(self, keys: Iterable[Key]) -> set[Key]:
        """Which of these keys are of windows that were taken out."""
        ...

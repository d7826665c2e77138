"""A telemetry record as the fleet keeps it."""

from __future__ import annotations

from typing import Protocol

from edge_contract import telemetry
from edge_fleet.store.base import Window


def window_of(record_bytes: bytes, received_ms: int) -> Window:
    """The window that a record is. Raises InputFault when it is not a valid record."""
    return window_from(telemetry.decode(record_bytes), record_bytes, received_ms)


def window_from(record: telemetry.Record, record_bytes: bytes, received_ms: int) -> Window:
    """The same of a record decoded already."""
    return Window(
        device=record.device,
        boot=record.boot,
        seq=record.seq,
        bundle=record.bundle.hex(),
        model=record.model,
        version=record.version,
        start_ms=record.start_ms,
        end_ms=record.end_ms,
        synchronised=record.synchronised,
        rows=record.rows,
        refused=record.refused,
        failed=record.failed,
        dropped=record.dropped,
        received_ms=received_ms,
        record=record_bytes,
    )


def began_ms(window: Window) -> int:
    """When it began, by the device's clock where that can be trusted, else when it came."""
    return times_ms(window, window.received_ms)[0]


class Timed(Protocol):
    """A window, or a record."""

    @property
    def start_ms(self) -> int: ...
    @property
    def end_ms(self) -> int: ...
    @property
    def synchronised(self) -> bool: ...


def times_ms(window: Timed, received_ms: int) -> tuple[int, int]:
    """Begin and end, by the device's clock where that can be trusted, else when it came."""
    if not window.synchronised or window.start_ms > received_ms:
        return received_ms, received_ms
    return window.start_ms, min(window.end_ms, received_ms)

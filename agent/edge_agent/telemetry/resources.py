"""The machine beside its counts: processors, memory, heat, disk. By what the kernel shows in files.

Guards: what the system does not say is None, and never a guess; nothing raises; one look serves all
windows that end together.

Sources: proc(5) (``/proc/stat``: user and nice hold guest time already), ``edge_agent.thermal``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edge_agent import hardware, thermal
from edge_contract.telemetry import Resources

MIB = 1024**2
FRESH_S = 5.0
"""Windows that end within this share one look: it takes some milliseconds."""
FIRMWARE_BITS = 0xF
SINCE_START = 16
"""Where ``get_throttled`` has the bits of what was at any time."""
OTHER_SIGN = 1 << 8


class Used(NamedTuple):
    """Processor time since the start, in seconds: passed on all processors, busy, our own."""

    passed_s: float
    busy_s: float
    own_s: float


def used(root: Path) -> Used | None:
    """Now; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError, UnicodeDecodeError):
        name, *ticks = (root / "proc/stat").read_text().partition("\n")[0].split()[:9]
        if name == "cpu" and len(ticks) == 8:
            times = [int(each) / os.sysconf("SC_CLK_TCK") for each in ticks]
            own = os.times()
            idle = times[3] + times[4]  # idle, and waiting for a disk
            return Used(sum(times), sum(times) - idle, own.user + own.system)
    return None


def percents(before: Used | None, after: Used | None) -> tuple[int | None, int | None]:
    """Shares of all processors between two looks, 0 to 100: busy, and of this process."""
    if before is None or after is None or after.passed_s <= before.passed_s:
        return None, None
    passed_s = after.passed_s - before.passed_s
    return (
        _percent((after.busy_s - before.busy_s) / passed_s),
        _percent((after.own_s - before.own_s) / passed_s),
    )


def slowed(reading: thermal.Reading, *, resting: bool) -> int:
    """The bits of ``Resources.slowed``.

    Args:
        resting: something else says that the machine is strained: a kernel's sign, want of memory.
    """
    firmware = reading.firmware or 0
    bits = firmware & FIRMWARE_BITS | (firmware >> SINCE_START & FIRMWARE_BITS) << 4
    return bits | (OTHER_SIGN if resting and not firmware & FIRMWARE_BITS else 0)


class Meter:
    """Looks at the machine when a window ends.

    Args:
        folder: where records wait: its file system's room counts.
        resting: the machine is strained (``Strain.resting``).
        root: where ``proc`` and ``sys`` are.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resting: Callable[[], bool] = lambda: False,
        root: Path = thermal.ROOT,
    ) -> None:
        self._folder = folder
        self._resting = resting
        self._root = root
        self._before = used(root)
        self._last: tuple[float, Resources] | None = None

    def look(self, now_s: float) -> Resources:
        """The machine now; processor time since the look before. ``now_s``: monotonic."""
        if self._last is not None and 0 <= now_s - self._last[0] < FRESH_S:
            return self._last[1]
        now = used(self._root)
        cpu, own = percents(self._before, now)
        reading = thermal.read(self._root)
        heat = reading.temperature_c
        seen = Resources(
            cpu_percent=cpu,
            own_percent=own,
            rss_mib=round(hardware.rss_bytes() / MIB) or None,
            temperature_c=None if heat is None else round(heat),
            disk_free_mib=self._free(),
            slowed=slowed(reading, resting=self._resting()),
        )
        self._before, self._last = now, (now_s, seen)
        return seen

    def _free(self) -> int | None:
        with contextlib.suppress(OSError):
            return hardware.free_bytes(self._folder) // MIB
        return None


def _percent(share: float) -> int:
    return round(min(max(share, 0.0), 1.0) * 100)

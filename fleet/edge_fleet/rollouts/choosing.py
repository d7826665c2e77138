"""Who comes first, and when a device may be asked. Pure.

Guards: the first so many stand for the whole, by hardware and site; the order is a rollout's own
lot and the same after any restart; nobody can choose it by a name, since the lot is drawn by a hash
of rollout and device.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import zoneinfo
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache

from edge_fleet.rollouts.order import Slot, Wave


def lot(rollout: str, device: str) -> float:
    """In [0, 1), the same each time."""
    digest = hashlib.sha256(f"{rollout}/{device}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def represented(
    rollout: str, devices: Iterable[str], stratum: Callable[[str], Hashable]
) -> list[str]:
    """The devices in an order of which each beginning represents all.

    The j-th of a stratum of n, by lot, stands at (j + u) / n with u the stratum's own lot:
    systematic sampling, so that up to each place t a stratum has t n devices, to within one, and
    strata of one device are spread over the whole.
    """
    strata: dict[Hashable, list[tuple[float, str]]] = {}
    for device in devices:
        strata.setdefault(stratum(device), []).append((lot(rollout, device), device))
    places = [
        ((j + lot(rollout, repr(key))) / len(some), drawn, device)
        for key, some in strata.items()
        for j, (drawn, device) in enumerate(sorted(some))
    ]
    return [device for _, _, device in sorted(places)]


def size(waves: Sequence[Wave], number: int, selected: int) -> int:
    """How many devices are in this wave and those before it, of ``selected``."""
    sizes = (max(w.devices, math.ceil(w.share * selected - 1e-9)) for w in waves[: number + 1])
    return min(max(sizes), selected)


def in_slot(slot: Slot | None, zone: str, now_ms: int) -> bool:
    """Whether it is that time of day where the device is; UTC where its zone is not known."""
    if slot is None:
        return True
    local = datetime.datetime.fromtimestamp(now_ms / 1000, _zone(zone))
    minute = local.hour * 60 + local.minute
    if slot.start <= slot.end:
        return slot.start <= minute < slot.end
    return minute >= slot.start or minute < slot.end


@lru_cache(1024)
def _zone(name: str) -> datetime.tzinfo:
    try:
        return zoneinfo.ZoneInfo(name) if name else datetime.UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # a device wrote it
        return datetime.UTC

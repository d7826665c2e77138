"""Whether a device lives. Pure.

Guards: "online" alone is not believed: when a device dies while the broker is down, its last will
is never published and it stays online for ever. It also has to have been heard of lately.
"""

from __future__ import annotations

from typing import Literal, Protocol

Liveness = Literal["online", "silent", "offline"]

LEASE_MIN_S = 300.0
LEASE_WINDOWS = 3
"""A device may miss two windows before it counts as silent."""


class Heard(Protocol):
    """A device, in so far as it was heard of. ``seen_ms``: when last, 0 for never."""

    @property
    def online(self) -> bool: ...
    @property
    def seen_ms(self) -> int: ...


def lease_s(window_s: float) -> float:
    """How long a device may stay unheard of before it counts as silent."""
    return max(LEASE_MIN_S, LEASE_WINDOWS * window_s)


def liveness(device: Heard, now_ms: int, window_s: float) -> Liveness:
    """Online and heard of within the lease; online but silent; or offline."""
    if not device.online:
        return "offline"
    heard = now_ms - device.seen_ms <= lease_s(window_s) * 1000
    return "online" if heard else "silent"

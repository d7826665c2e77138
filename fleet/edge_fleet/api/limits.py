"""How many requests a token or an address may make. Pure: the clock is an argument.

Guards: memory is bounded, however many addresses ask; whoever tries tokens that are not valid
pays more for each try. A bucket refills steadily (a token bucket, as in RFC 2697's meter).
"""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import OrderedDict

KEYS_MAX = 10_000
"""The one asked for longest ago is forgotten first; by then its bucket is full again, or nearly."""


class Buckets:
    """One bucket a key; safe for threads."""

    def __init__(self, per_s: float, burst: float) -> None:
        """``per_s`` > 0: what flows in; ``burst`` >= 1: what a bucket holds."""
        self._per_s, self._burst = per_s, burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str, now_s: float, cost: float = 1.0) -> int:
        """0 where the bucket had ``cost``; else the whole seconds until it will have it."""
        with self._lock:
            level, at = self._levels.pop(key, (self._burst, now_s))
            level = min(self._burst, level + max(0.0, now_s - at) * self._per_s)
            wait = 0 if level >= cost else math.ceil((cost - level) / self._per_s)
            self._levels[key] = (level if wait else level - cost, now_s)
            while len(self._levels) > KEYS_MAX:
                self._levels.popitem(last=False)
        return wait

    def charge(self, key: str, now_s: float, cost: float) -> None:
        """Take ``cost``, or what there is."""
        with self._lock:
            level, at = self._levels.pop(key, (self._burst, now_s))
            level = min(self._burst, level + max(0.0, now_s - at) * self._per_s)
            self._levels[key] = (max(0.0, level - cost), now_s)

    def __len__(self) -> int:
        return len(self._levels)


def of_address(host: str) -> str:
    """Whom an address belongs to: itself, for IPv6 its /64, which one customer has as a whole."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)

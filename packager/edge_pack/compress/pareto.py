"""Which candidate is taken: the rules, without a clock.

Guards: a difference inside the noise counts as none, and what is slower than float32 beyond it is
known to be so.

Noise is what float32 shows against itself: it runs twice in every round, and twice the median
difference of the two, at least 3 %, is what a candidate may be slower by. A candidate is slower
when its median ratio over the rounds is beyond that and no round disagrees; by chance alone that
happens to one of 32 equal candidates at five rounds, before the first condition. The search
believes it only when a second run agrees.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from edge_pack.compress.modes import Optimize

NOISE_LEAST = 0.03
RSS_SHARE, RSS_BYTES = 0.05, 256 * 1024
"""Resident memory within this of float32's is the same: pages and allocator arenas."""
GAIN_BYTES = 1024
"""Fewer bytes saved than this are nothing: a signed manifest alone is several times as many."""


@dataclass(frozen=True)
class Timing:
    """One candidate's medians in microseconds: batch -> one a round."""

    rounds: Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Point:
    """A candidate within the budget, against float32: 1 is the same, less is better.

    Attributes:
        latency: batch -> ratio; empty where nothing was timed.
        memory: ratio of resident memory; 1 where it is not known.
    """

    mode: str
    size_bytes: int
    latency: Mapping[int, float]
    memory: float

    @property
    def axes(self) -> tuple[float, ...]:
        """What dominance compares."""
        return (float(self.size_bytes), self.memory, *self.latency.values())


def noise_of(base: Timing, again: Timing) -> dict[int, float]:
    """How far two runs of the same model were apart, as a share by batch."""
    found = {}
    for batch, rounds in base.rounds.items():
        pairs = zip(rounds, again.rounds[batch], strict=True)
        apart = float(np.median([abs(b / a - 1) for a, b in pairs]))
        found[batch] = max(NOISE_LEAST, 2 * apart)
    return found


def ratios(base: Timing, timing: Timing, noise: Mapping[int, float]) -> dict[int, float]:
    """Median ratio to float32 by batch, 1 where it is within noise."""
    found = {}
    for batch, rounds in timing.rounds.items():
        ratio = float(np.median([b / a for a, b in zip(base.rounds[batch], rounds, strict=True)]))
        found[batch] = 1.0 if abs(ratio - 1) <= noise[batch] else ratio
    return found


def slower_at(base: Timing, timing: Timing, noise: Mapping[int, float]) -> int | None:
    """The first batch at which it is slower than float32 beyond noise, None where it is not."""
    for batch, rounds in timing.rounds.items():
        each = [b / a for a, b in zip(base.rounds[batch], rounds, strict=True)]
        if float(np.median(each)) > 1 + noise[batch] and min(each) > 1:
            return batch
    return None


def memory_ratio(base: int | None, found: int | None) -> float:
    """Resident memory as a share of float32's, 1 where it is the same or unknown."""
    if base is None or found is None or base <= 0:
        return 1.0
    same = abs(found - base) <= max(RSS_SHARE * base, RSS_BYTES)
    return 1.0 if same else max(found, 1) / base


def choose(points: Sequence[Point], optimize: Optimize) -> Point:
    """The best by the aim; what is equal there goes to fewer bytes, then to the earlier, plainer.

    ``balanced`` takes the least product of the ratios of bytes, memory and latency at each
    batch: halving one is worth as much as halving another.

    Args:
        points: at least one; the first is the plainest.
    """
    base = max(points[0].size_bytes, 1)

    def rank(point: Point) -> tuple[float, float]:
        size = point.size_bytes / base
        if optimize == "latency":
            return (prod(point.latency.values()), size)
        if optimize == "memory":
            return (point.memory, size)
        if optimize == "balanced":
            return (size * point.memory * prod(point.latency.values()), size)
        return (size, size)

    return min(points, key=rank)


def dominated(point: Point, others: Sequence[Point]) -> str:
    """The mode of one that is at least as good everywhere and better somewhere, or ""."""
    for other in others:
        pairs = list(zip(point.axes, other.axes, strict=True))
        if all(b <= a for a, b in pairs) and any(b < a for a, b in pairs):
            return other.mode
    return ""

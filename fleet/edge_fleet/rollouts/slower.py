"""Does the new version answer slower, or take more memory, than it may? Pure.

Guards: a device is compared with itself where it ran another version within the day before, and
else with devices of the same hardware that run another version now; one odd device among three or
more does not decide; a window is one outcome, however many calls it holds, for the calls of one
window are slow together.

"At most ``ratio`` times as slow" is taken whole: for each latency t, the share of calls over
``ratio`` t is at most the old version's share over t (stochastic order). Three such t are looked
at: edges of the record's buckets that half, a fifth and a twentieth of a device's own former calls
are over, so that fast devices and slow ones are one sample. The past chooses them, before the new
version's first call; the evidence is their mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edge_contract.telemetry import LATENCY_BUCKETS, latency_bucket
from edge_fleet.rollouts import comparing
from edge_fleet.rollouts.tallies import Arms, Counts, over

ODD_FROM = 3
"""With so many devices the worst one has not to be needed for the verdict."""
BUDGET_SHARE = 0.01
"""A budget is one of the 99th percentile."""
MEMORY_RATIO = 1.5
"""Windows differ by a tenth while the same version runs; a leak or a doubled model is more."""

SHARES = (0.5, 0.2, 0.05)


@dataclass(frozen=True)
class Slower:
    """Evidence (log) that the new version is slower than it may be.

    ``windows``, ``devices``: of the new version that could be compared. ``ratio``: of the
    geometric mean latencies. ``new_p99_ms``, ``old_p99_ms``: upper bounds of their buckets, at most
    1.42 times too high. All None without calls.
    """

    log_e: float
    windows: int
    devices: int
    ratio: float | None = None
    new_p99_ms: float | None = None
    old_p99_ms: float | None = None


def slower(arms: Arms, ratio: float) -> Slower:
    """New against old, as the module's docstring says."""
    groups, steps = _groups(arms), 2 * math.log2(ratio)
    found = [_evidence(new, old, steps) for new, old in groups]
    budget = _over_budget(arms)
    log_e = [comparing.united(found)] if found else []
    log_e += [] if budget is None else [budget]
    new = _all(calls for some, _ in groups for calls in some)
    old = _all(calls for _, some in groups for calls in some)
    return Slower(
        log_e=comparing.united(log_e),
        windows=len(new),
        devices=sum(len(some) for some, _ in groups),
        ratio=_ratio(new, old),
        new_p99_ms=_quantile_ms(new, 0.99),
        old_p99_ms=_quantile_ms(old, 0.99),
    )


def _groups(arms: Arms) -> list[tuple[list[Counts], list[Counts]]]:
    """Devices with a past of their own, and that of each; by hardware the others, and one past."""
    new = {device: tally.calls for device, tally in arms.new.items() if len(tally.calls)}
    past = [d for d in new if d in arms.own and len(arms.own[d].calls)]
    groups = [([new[d] for d in past], [arms.own[d].calls for d in past])] if past else []
    fresh = [d for d in new if d not in past]
    for hw in sorted({arms.hw.get(d, "") for d in fresh}):
        others = _all(t.calls for d, t in arms.others.items() if arms.hw.get(d, "") == hw)
        if len(others):
            groups.append(([new[d] for d in fresh if arms.hw.get(d, "") == hw], [others]))
    return groups


def _evidence(new: list[Counts], old: list[Counts], steps: float) -> float:
    """Of each share, over all devices; without the worst device, where there are enough."""
    former, now = [over(calls, steps) for calls in old], [over(calls) for calls in new]
    found = []
    for share in SHARES:
        edges = [int(np.argmin(np.abs(each.mean(axis=0) - share))) for each in former]
        then = np.concatenate([each[:, at] for each, at in zip(former, edges, strict=True)])
        of_each = edges if len(edges) == len(now) else edges * len(now)
        parts = [each[:, at] for each, at in zip(now, of_each, strict=True)]
        parts.sort(key=lambda part: float(part.mean()))
        log_e = _at_most(parts, then)
        if len(parts) >= ODD_FROM:
            log_e = min(log_e, _at_most(parts[:-1], then))
        found.append(log_e)
    return comparing.united(found)


def _at_most(parts: Sequence[NDArray[np.float64]], then: NDArray[np.float64]) -> float:
    return comparing.worse(
        comparing.outcomes(np.concatenate(parts)), comparing.outcomes(then), lambda mean: mean
    )


def _over_budget(arms: Arms) -> float | None:
    """Evidence that over 1 % of the calls take longer than the manifest allows."""
    if not arms.latency_budget_ms:
        return None
    edge = min(latency_bucket(int(arms.latency_budget_ms * 1e6)), LATENCY_BUCKETS - 2)
    parts = [over(tally.calls)[:, edge] for tally in arms.new.values() if len(tally.calls)]
    parts.sort(key=lambda part: float(part.mean()))
    parts = parts[:-1] if len(parts) >= ODD_FROM else parts
    if not parts:
        return None
    values = comparing.outcomes(np.concatenate(parts)).rounded(up=False)
    return float(comparing.above(values, np.asarray(BUDGET_SHARE)))


def heavier(arms: Arms) -> tuple[int, int]:
    """Devices that take more memory than they may on the new version, and those compared.

    More: over ``MEMORY_RATIO`` times what the same device took before, or by more than the
    manifest's budget; medians of windows.
    """
    some = of = 0
    for device, tally in arms.new.items():
        former = arms.own.get(device)
        if not tally.rss_mib or former is None or not former.rss_mib:
            continue
        now_mib, then_mib = median(tally.rss_mib), median(former.rss_mib)
        of += 1
        grown = (now_mib - then_mib) * 2**20
        some += now_mib > MEMORY_RATIO * then_mib or 0 < arms.ram_budget_bytes < grown
    return some, of


def _all(parts: Iterable[Counts]) -> Counts:
    found = list(parts)
    return np.concatenate(found) if found else np.zeros((0, LATENCY_BUCKETS), dtype=np.int64)


def _quantile_ms(calls: Counts, at: float) -> float | None:
    total = calls.sum(axis=0)
    if not total.any():
        return None
    bucket = int(np.searchsorted(np.cumsum(total), at * total.sum()))
    return float(2 ** ((bucket + 1) / 2) / 1000)


def _ratio(new: Counts, old: Counts) -> float | None:
    if not new.any() or not old.any():
        return None
    places = np.arange(LATENCY_BUCKETS)
    means = [float(each.sum(axis=0) @ places / each.sum()) for each in (new, old)]
    return float(2 ** ((means[0] - means[1]) / 2))

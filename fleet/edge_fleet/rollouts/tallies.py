"""What devices counted on the new version of a model, and on others, side by side. Pure.

Guards: a window says what its device counted with one version; windows of two versions never meet
in one tally; what a gate compares is drawn from these, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_contract import telemetry
from edge_contract.aside import DIFFERENCE_BUCKETS
from edge_contract.errors import InputFault
from edge_contract.profile import Monitor
from edge_contract.telemetry import LATENCY_BUCKETS, Record
from edge_fleet.rollouts.matching import Stratum

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """One device on one version.

    Attributes:
        rows, failed: answered or failed on since the rollout began, and failed on.
        calls: by latency, ``[windows, LATENCY_BUCKETS]``. rss_mib: of each window that says it.
        scores: the first rows in the cells of the bundle's output monitor; None: too few yet.
        bundle: the digest of these scores' bundle.
    """

    rows: int = 0
    failed: int = 0
    calls: Counts = field(default_factory=lambda: np.zeros((0, LATENCY_BUCKETS), dtype=np.int64))
    rss_mib: tuple[int, ...] = ()
    scores: Counts | None = None
    bundle: str = ""


@dataclass(frozen=True)
class ShadowTally:
    """A candidate in the shadow of one device's live version; see ``edge_contract.aside.Shadow``.

    ``calls``, ``live_calls``: by latency, ``[records, LATENCY_BUCKETS]``, of the same calls.
    """

    rows: int = 0
    refused: int = 0
    failed: int = 0
    skipped: int = 0
    agreed: int = 0
    differed: int = 0
    differences: Counts = field(
        default_factory=lambda: np.zeros(DIFFERENCE_BUCKETS, dtype=np.int64)
    )
    calls: Counts = field(default_factory=lambda: np.zeros((0, LATENCY_BUCKETS), dtype=np.int64))
    live_calls: Counts = field(
        default_factory=lambda: np.zeros((0, LATENCY_BUCKETS), dtype=np.int64)
    )


@dataclass(frozen=True)
class Grounds:
    """What estimates of one bundle rest on: the monitor of its output, its labels."""

    monitor: Monitor | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arms:
    """The new version beside others, by device.

    Attributes:
        new: since the rollout began. own: the same devices on other versions, since a day before
            that. others: other devices of the selection on other versions since it began.
        grounds: of each bundle, by digest. bundle: of the new version. hw, strata: of each device,
            see ``matching``; a device without a stratum is of one with the others without.
        latency_budget_ms, ram_budget_bytes: of the new version's manifest; 0: none.
    """

    new: Mapping[str, Tally] = field(default_factory=dict)
    own: Mapping[str, Tally] = field(default_factory=dict)
    others: Mapping[str, Tally] = field(default_factory=dict)
    grounds: Mapping[str, Grounds] = field(default_factory=dict)
    bundle: str = ""
    hw: Mapping[str, str] = field(default_factory=dict)
    strata: Mapping[str, Stratum] = field(default_factory=dict)
    latency_budget_ms: float = 0.0
    ram_budget_bytes: int = 0


def tally(
    records: Sequence[Record], late: Sequence[Record], scores: Counts | None = None,
    bundle: str = "",
) -> Tally:  # fmt: skip
    """Of the records of one device and version; ``late``: of those, since the rollout began."""
    calls = [each for record in records if (each := _calls(record)) is not None]
    rss = [record.resources.rss_mib for record in records if record.resources is not None]
    return Tally(
        rows=sum(record.rows + record.failed for record in late),
        failed=sum(record.failed for record in late),
        calls=np.stack(calls) if calls else np.zeros((0, LATENCY_BUCKETS), dtype=np.int64),
        rss_mib=tuple(each for each in rss if each is not None),
        scores=scores,
        bundle=bundle,
    )


def _calls(record: Record) -> Counts | None:
    """None of a window without calls, or whose latencies are malformed."""
    try:
        found = telemetry.latency_of(record)
    except InputFault:
        return None
    return found if found.any() else None


def over(calls: Counts, steps: float = 0.0) -> NDArray[np.float64]:
    """The share of calls over each bucket's upper edge, ``[windows, LATENCY_BUCKETS - 1]``.

    ``steps``: over an edge so many buckets lower, a bucket's calls lying evenly by the logarithm
    of their latency; below the first edge are all.
    """
    total = calls.sum(axis=1, keepdims=True)
    beyond = 1 - np.cumsum(calls, axis=1)[:, :-1] / np.maximum(total, 1)
    beyond = np.clip(np.hstack([np.ones_like(total, dtype=np.float64), beyond]), 0.0, 1.0)
    edges = np.maximum(np.arange(1, LATENCY_BUCKETS) - steps, 0.0)
    lower = np.floor(edges).astype(int)
    part = edges - lower
    upper = np.minimum(lower + 1, LATENCY_BUCKETS - 1)
    return np.asarray((1 - part) * beyond[:, lower] + part * beyond[:, upper])

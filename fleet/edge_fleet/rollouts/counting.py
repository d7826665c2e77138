"""Reads what devices counted on the new version and on others, for the gates.

Guards: a few statements for the whole fleet, never one a device; of a large fleet a sample by lot,
so that a look takes no longer the larger the fleet is; counts are read with the profile that their
bundle names. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_contract.aside import output_monitor
from edge_contract.errors import InputFault
from edge_contract.telemetry import Record
from edge_fleet import kept, merging
from edge_fleet.library import Known, Library
from edge_fleet.rollouts import choosing, matching
from edge_fleet.rollouts.matching import Stratum
from edge_fleet.rollouts.order import Order
from edge_fleet.rollouts.otherwise import BLOCK_ROWS
from edge_fleet.rollouts.tallies import Arms, Grounds, Tally, tally
from edge_fleet.store.base import Transaction
from edge_fleet.store.rollups import Kept

BEFORE_MS = 86_400_000
"""A device's own past: a day has every hour of it."""
NEW_MAX = 500
OTHERS_MAX = 200
"""Devices whose windows are looked at: an outcome each, more would show no more."""
_AT_ONCE = 200


@dataclass
class _Side:
    """Windows of one device on one bundle: records, and the first rows' counts."""

    records: list[Record] = field(default_factory=list)
    late: list[Record] = field(default_factory=list)
    block: NDArray[np.int64] | None = None
    rows: int = 0


@dataclass(frozen=True)
class Counted:
    """``rows``, ``failed``: of the new version, over all devices."""

    arms: Arms
    rows: int
    failed: int


def counted(
    tx: Transaction,
    order: Order,
    since_ms: int,
    digests: Sequence[str],
    selected: Mapping[str, str],
    *,
    strata: Mapping[str, Stratum] | None = None,
) -> Counted:
    """Everything that the gates compare.

    Args:
        since_ms: when the rollout began. digests: of the new version's bundle.
        selected: the hardware of each device that the order means. strata: see ``matching``.
    """
    reader = _Reader(tx, order, since_ms)
    rows, failed = reader.read_new(digests)
    new = {device for device, _ in reader.new}
    chosen = set(_lot(order, new, NEW_MAX))
    strata = strata or {}
    free = selected.keys() - new
    others = set(matching.controls(free, new, strata, OTHERS_MAX, _drawn(order)))
    if new:
        reader.read_former([d for d in tx.bundles_counted() if d not in digests], chosen, others)
    known = reader.known(digests[0]) if digests else None
    arms = Arms(
        new=_tallies(reader.new, chosen),
        own=_tallies(reader.former, chosen),
        others=_tallies(reader.former, others),
        grounds=reader.grounds,
        bundle=digests[0] if digests else "",
        hw=dict(selected),
        strata=strata,
        latency_budget_ms=known.manifest.runtime.latency_ms_max if known else 0.0,
        ram_budget_bytes=known.manifest.runtime.ram_bytes_max if known else 0,
    )
    return Counted(arms, rows, failed)


class _Reader:
    """Walks through the windows of one rollout once."""

    def __init__(self, tx: Transaction, order: Order, since_ms: int) -> None:
        self._tx, self._order, self._since_ms = tx, order, since_ms
        self._library = Library()
        self.new: dict[tuple[str, str], _Side] = {}
        self.former: dict[tuple[str, str], _Side] = {}
        self.grounds: dict[str, Grounds] = {}

    def known(self, digest: str) -> Known | None:
        """The bundle, where its profile is known."""
        return self._library.find(self._tx, digest)

    def read_new(self, digests: Sequence[str]) -> tuple[int, int]:
        """Rows of the new version over all devices, and those that it failed on."""
        rows = failed = 0
        for digest in digests:
            known = self._grounded(digest)
            for some in self._tx.counted_since(digest, self._since_ms, _AT_ONCE):
                for one in some:
                    record = merging.decode(one.record)
                    if (record.model, record.version) == (self._order.model, self._order.version):
                        rows += record.rows + record.failed
                        failed += record.failed
                        self._take(self.new, one, record, digest, known)
        return rows, failed

    def read_former(self, bundles: Sequence[str], chosen: set[str], others: set[str]) -> None:
        """Other versions: on the chosen devices from a day before on, on others since it began."""
        both = sorted(chosen | others)
        since_ms = self._since_ms - BEFORE_MS
        for digest in bundles:
            known = self.known(digest)
            if known is None or known.manifest.name != self._order.model:
                continue
            self._grounded(digest)
            for some in self._tx.counted_since(digest, since_ms, _AT_ONCE, both):
                for one in some:
                    if one.device in chosen or one.received_ms >= self._since_ms:
                        self._take(self.former, one, merging.decode(one.record), digest, known)

    def _grounded(self, digest: str) -> Known | None:
        known = self.known(digest)
        if known is not None:
            self.grounds[digest] = Grounds(output_monitor(known.profile), known.labels)
        return known

    def _take(
        self, sides: dict[tuple[str, str], _Side], one: Kept, record: Record, digest: str,
        known: Known | None,
    ) -> None:  # fmt: skip
        side = sides.setdefault((one.device, digest), _Side())
        side.records.append(record)
        if one.received_ms < self._since_ms:
            return
        side.late.append(record)
        if known is None or side.rows >= BLOCK_ROWS or not record.rows:
            return
        counts = _output_counts(known, one)
        if counts is not None:
            side.block = counts if side.block is None else side.block + counts
            side.rows += record.rows


def _output_counts(known: Known, one: Kept) -> NDArray[np.int64] | None:
    """Of the output's monitor; None where nothing is counted of it."""
    monitor = output_monitor(known.profile)
    if monitor is None:
        return None
    try:
        counts = kept.batch(known, [one]).counts[0]
    except InputFault:
        return None
    start = known.profile.offsets()[known.profile.monitors.index(monitor)]
    return np.asarray(counts[start : start + monitor.cells])


def _tallies(
    sides: Mapping[tuple[str, str], _Side], devices: Collection[str]
) -> dict[str, Tally]:  # fmt: skip
    """One a device; of several bundles the one with most rows of late gives the scores."""
    by_device: dict[str, list[tuple[str, _Side]]] = {}
    for (device, digest), side in sorted(sides.items(), key=lambda each: each[0]):
        if device in devices:
            by_device.setdefault(device, []).append((digest, side))
    found = {}
    for device, some in by_device.items():
        digest, most = max(some, key=lambda each: each[1].rows)
        found[device] = tally(
            [record for _, side in some for record in side.records],
            [record for _, side in some for record in side.late],
            most.block if most.rows >= BLOCK_ROWS else None,
            digest,
        )
    return found


def _lot(order: Order, devices: set[str], most: int) -> list[str]:
    if len(devices) <= most:
        return sorted(devices)
    return sorted(devices, key=lambda device: choosing.lot(_drawn(order), device))[:most]


def _drawn(order: Order) -> str:
    return f"{order.version}/look"

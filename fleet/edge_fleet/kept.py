"""The counts that the store holds, decoded many at once: what every reader walks through.

Guards: counts are read with the profile of the bundle that their record names and no other; a
reader sees every counted window once, whether it is still kept by itself or is part of a rolled-up
hour or day; memory holds one batch, however long the period.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_contract import telemetry
from edge_contract.errors import InputFault, MachineFault
from edge_contract.telemetry import Record
from edge_fleet import merging
from edge_fleet.library import Known
from edge_fleet.store.base import Transaction
from edge_fleet.store.rollups import Kept
from edge_fleet.windows import times_ms

BATCH_MAX = 200
CELLS_MAX = 500_000
"""Cells decoded at once: 4 MB, and about ten times that while bits become counts."""


@dataclass(frozen=True)
class Batch:
    """Some windows (or hours, or days) of one bundle.

    Attributes:
        kept: as the store holds them. records: their headers.
        counts: in the cells of the bundle's profile, ``[kept, cells]``.
    """

    kept: Sequence[Kept]
    records: Sequence[Record]
    counts: NDArray[np.int64]

    @cached_property
    def times_ms(self) -> list[tuple[int, int]]:
        """When each began and ended, by the device's clock where that can be trusted."""
        pairs = zip(self.records, self.kept, strict=True)
        return [times_ms(record, one.received_ms) for record, one in pairs]


def batches(tx: Transaction, known: Known, since_ms: int) -> Iterator[Batch]:
    """Everything counted of ``known`` that came at or after ``since_ms``, in no order.

    An hour or a day that is rolled up counts whole when its last window came in that time.
    """
    for kept in tx.counted_since(known.bundle, since_ms, at_once(known)):
        yield batch(known, kept)


def at_once(known: Known) -> int:
    """How many windows of this bundle are to be decoded together."""
    return max(1, min(BATCH_MAX, CELLS_MAX // max(known.profile.cells, 1)))


def batch(known: Known, kept: Sequence[Kept]) -> Batch:
    """Decoded. Raises InputFault when one of ``kept`` is unsound: none is that was counted."""
    records = [merging.decode(one.record) for one in kept]
    return Batch(kept, records, telemetry.counts_of_many(records, known.reference))


def sound(known: Known, kept: Sequence[Kept]) -> list[Kept]:
    """Those that can be read: all of them, unless the database itself is damaged."""
    try:
        batch(known, kept)
    except (InputFault, MachineFault):
        return [one for one in kept if _can_be_read(known, one)]
    return list(kept)


def _can_be_read(known: Known, one: Kept) -> bool:
    try:
        batch(known, [one])
    except (InputFault, MachineFault):
        return False
    return True


def by_device(tx: Transaction, known: Known, since_ms: int) -> dict[str, NDArray[np.int64]]:
    """The counts (cells,) of each device since ``since_ms``, in order of name.

    A window with noise counts as the fewer rows that it is worth.
    """
    sums: dict[str, NDArray[np.int64] | NDArray[np.float64]] = {}
    for some in batches(tx, known, since_ms):
        names, whose = np.unique([one.device for one in some.kept], return_inverse=True)
        order = np.argsort(whose, kind="stable")
        starts = np.searchsorted(whose[order], np.arange(len(names)))
        added = np.add.reduceat(_worth(some)[order], starts, axis=0)
        for name, counts in zip(names.tolist(), added, strict=True):
            sums[name] = sums[name] + counts if name in sums else counts
    return {name: np.rint(sums[name]).astype(np.int64) for name in sorted(sums)}


def _worth(some: Batch) -> NDArray[np.int64] | NDArray[np.float64]:
    """Counts, those with noise divided by how many times larger it makes their variance."""
    noise = np.array([telemetry.noise_of(record) for record in some.records])
    if (noise == 1).all():
        return some.counts
    return np.asarray(some.counts / noise[:, None], dtype=np.float64)

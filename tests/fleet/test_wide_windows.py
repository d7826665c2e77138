"""A window whose counts were too many to send: kept, told, and part of no evidence."""

from __future__ import annotations

import numpy as np
from fleet_kit import Packed, draw, record
from msgspec.structs import replace

from edge_contract import manifest as manifests
from edge_contract import telemetry
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of


def test_it_is_a_fault_of_its_device_and_harms_no_other(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    plain = record(packed, packed.counts(draw(rng, 60)))
    wide = replace(plain, seq=2, coding=telemetry.CODING_NONE, counts=b"", quality=((0, 1),))
    entry = manifests.decode(packed.manifest_bytes).file("profile.json")
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, 0)
        tx.put_blob(entry.sha256, packed.stored, 0)
        fresh = tx.add_windows([window_of(telemetry.encode(each), 5) for each in (plain, wide)])
        outcome = Evidence(Library(), Budget(1, 60)).count(tx, fresh, 10)
        (fault,) = outcome.faults
        assert "left the counts of its window out" in fault.detail
        totals = tx.totals()
        assert (totals.windows, totals.refused, totals.pending) == (2, 1, 0)
        assert len(list(tx.records())) == 2

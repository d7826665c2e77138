"""Windows with noise: no false alarm by the noise, and drift is still found; sums say it too."""

import random

import numpy as np
import pytest
from fleet_kit import Packed, draw, record
from msgspec.structs import replace

from edge_agent import noise
from edge_contract import manifest as manifests
from edge_contract import telemetry
from edge_contract.residuals import Residuals
from edge_contract.telemetry import Record
from edge_fleet import changes, kept, merging
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

DAY_MS = 86_400_000
BEGIN_MS = 1_800_000_000_000
RHO = noise.rho_of(4.0, 1e-6)


@pytest.fixture
def known(store: SqlStore, packed: Packed) -> SqlStore:
    """The store knows the bundle."""
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, BEGIN_MS)
        [entry] = [
            f for f in manifests.decode(packed.manifest_bytes).files if f.name == "profile.json"
        ]
        tx.put_blob(entry.sha256, packed.stored, BEGIN_MS)
    return store


def window(packed: Packed, seed: int, day: int, rows: int, shift: float, **more: str) -> Record:
    """A day of ``rows`` rows, with noise."""
    drawn = draw(np.random.default_rng([seed, day, len(more)]), rows)
    drawn.temperature += 2.0 * shift  # the reference's deviation is 2
    chance = random.Random(seed + day)
    noisy = noise.noised(packed.profile, packed.counts(drawn), rows, RHO, chance.randrange)
    start_ms = BEGIN_MS + day * DAY_MS
    plain = record(
        packed, noisy, seq=day, start_ms=start_ms, end_ms=start_ms + DAY_MS, rows=rows, **more
    )
    factor = noise.factor(packed.profile, rows, RHO)
    return replace(plain, coding=telemetry.CODING_NOISY, counts=telemetry.pack_noisy(noisy, factor))


def count(store: SqlStore, records: list[Record]) -> list[str]:
    """What the collector does with them; features that alarmed."""
    evidence, found = Evidence(Library(), Budget(1, 86_400)), []
    for one in records:
        with store.transaction() as tx:
            new = tx.add_windows([window_of(telemetry.encode(one), one.end_ms)])
            found += evidence.count(tx, new, one.end_ms).alarms
    return [alarm.feature for alarm in found if alarm.device == "pi-1"]


def test_a_quarter_sigma_is_found_through_the_noise_and_named(
    known: SqlStore, packed: Packed, seed: int
) -> None:
    moved = [window(packed, seed, day, 1440, 0.25) for day in range(12)]
    assert count(known, moved)[:1] == ["temperature"]


def test_noise_raises_no_alarm(known: SqlStore, packed: Packed, seed: int) -> None:
    """The smallest windows that leave at all, for two months; bare they would alarm on day one."""
    rows = noise.rows_needed(packed.profile, RHO)
    quiet = [window(packed, seed, day, rows, 0.0) for day in range(60)]
    assert count(known, quiet) == []
    with known.reading() as tx:
        [kept_one] = [tx.all_detectors()]
    assert sum(one.windows for one in kept_one) == 60
    found = changes.changes(known, BEGIN_MS + 61 * DAY_MS, period_ms=90 * DAY_MS, rate=0.001)
    assert [x.feature for x in found.changes] == []


def test_a_window_is_worth_fewer_rows_by_its_noise(
    known: SqlStore, packed: Packed, seed: int
) -> None:
    rows = noise.rows_needed(packed.profile, RHO)
    one = window(packed, seed, 0, rows, 0.0)
    count(known, [one])
    with known.reading() as tx:
        bundle = Library().find(tx, packed.digest)
        assert bundle is not None
        [worth] = kept.by_device(tx, bundle, 0).values()
    own = worth[: packed.profile.monitors[0].cells].sum()
    assert own == pytest.approx(rows / telemetry.noise_of(one), abs=packed.profile.cells / 2)


def test_merged_windows_tell_their_noise_together(packed: Packed, seed: int) -> None:
    reference = Residuals(packed.profile)
    noisy = window(packed, seed, 0, 300, 0.0)
    quiet = packed.counts(draw(np.random.default_rng(seed), 900))
    plain = record(packed, quiet, seq=5)
    both = [noisy, plain]
    counts = telemetry.counts_of_many(both, reference)
    sum_of = merging.merged(both, counts, [(0, 1), (1, 2)], reference)
    share = (300 * telemetry.noise_of(noisy) + 900) / 1200
    assert telemetry.noise_of(sum_of) == pytest.approx(share, abs=1 / telemetry.NOISE_STEPS)
    assert (telemetry.counts_of(sum_of, reference) == counts.sum(axis=0)).all()
    bare = merging.merged([plain], counts[1:], [(1, 2)], reference)
    assert bare.coding == telemetry.CODING_RESIDUALS

"""An hour of all devices holds each counted window once, whoever counted it and in what order."""

import hashlib
from typing import Any

import msgspec
import numpy as np
import pytest
from fleet_kit import BUDGET, Packed, draw, record

from edge_contract import manifest as manifests
from edge_contract import telemetry
from edge_contract.errors import MachineFault
from edge_fleet import kept, trends
from edge_fleet.evidence import Evidence
from edge_fleet.library import Known, Library
from edge_fleet.store.base import Window
from edge_fleet.store.sql import SqlStore
from edge_fleet.store.trends import Trend
from edge_fleet.windows import window_of

HOUR = trends.HOUR_MS
NOON = 1_700_000_000_000 // HOUR * HOUR


def known_to(store: SqlStore, packed: Packed) -> Known:
    profile = manifests.decode(packed.manifest_bytes).file("profile.json").sha256
    assert hashlib.sha256(packed.stored).hexdigest() == profile
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, 0)
        tx.put_blob(profile, packed.stored, 0)
        known = Library().find(tx, packed.digest)
    assert known is not None
    return known


def windows(packed: Packed, rng: np.random.Generator) -> list[Window]:
    """Three devices, two windows an hour for three hours, with errors, findings and latencies."""
    found = []
    for device in range(3):
        for seq in range(6):
            made = record(packed, packed.counts(draw(rng, 40)), device=f"pi-{device}", seq=seq)
            latency = rng.integers(0, 3, telemetry.LATENCY_BUCKETS)
            made = msgspec.structs.replace(
                made,
                refused=3,
                failed=2,
                errors=(3, 0, 0, 0, 0, 2),
                latency=telemetry.pack_counts(latency),
                quality=((5, 1),) if device == 1 else (),
            )
            found.append(window_of(telemetry.encode(made), NOON + seq * HOUR // 2))
    return found


def counted(store: SqlStore, some: list[Window], ordinal: int = 0) -> None:
    with store.transaction() as tx:
        Evidence(Library(), BUDGET, (), ordinal).count(tx, tx.add_windows(some), NOON)


def test_figures_that_are_lies_make_no_hour_unreadable(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """Many devices may say at most so much each: an hour ends at what it can hold."""
    known, most = known_to(store, packed), telemetry.COUNT_MAX
    sane = record(packed, packed.counts(draw(rng, 40)))
    lies: list[dict[str, Any]] = [
        {"refused": most, "errors": (most,)},
        {"failed": most, "errors": (0, most)},
        {"latency": telemetry.pack_counts([most] * telemetry.LATENCY_BUCKETS)},
    ]
    for seq, lie in enumerate([*lies, *lies, {}]):
        made = msgspec.structs.replace(sane, seq=seq, **lie)
        counted(store, [window_of(telemetry.encode(made), NOON)])
    with store.reading() as tx:
        [hour] = trends.between(tx, known, NOON, NOON + HOUR).values()
    assert (hour.windows, hour.rows) == (7, 280)
    assert (hour.refused, hour.failed, hour.errors) == (most, most, (most, most))
    assert hour.latency.tolist() == [most] * telemetry.LATENCY_BUCKETS


def test_hours_add_up_to_what_the_windows_say(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    known, every = known_to(any_store, packed), windows(packed, rng)
    order = rng.permutation(len(every)).tolist()
    for part, ordinal in enumerate((0, 1, 0, 1)):
        counted(any_store, [every[at] for at in order[part::4]], ordinal)
    counted(any_store, every, ordinal=1)  # they come again
    with any_store.reading() as tx:
        hours = trends.between(tx, known, NOON, NOON + 3 * HOUR)
        truth = sum(kept.by_device(tx, known, 0).values())
        assert trends.between(tx, known, NOON + HOUR, NOON + 2 * HOUR).keys() == {NOON + HOUR}
    assert sorted(hours) == [NOON, NOON + HOUR, NOON + 2 * HOUR]
    whole = trends.added(list(hours.values()))
    np.testing.assert_array_equal(whole.counts, truth)
    records = [telemetry.decode(one.record) for one in every]
    np.testing.assert_array_equal(whole.latency, sum(map(telemetry.latency_of, records)))
    assert (whole.windows, whole.rows, whole.refused, whole.failed) == (18, 720, 54, 36)
    assert whole.errors == (54, 0, 0, 0, 0, 36)
    assert whole.findings == ((5, 1, 6),)
    assert {hour.findings for hour in hours.values()} == {((5, 1, 2),)}
    first, rest = trends.steps(hours, [NOON, NOON + HOUR], HOUR, known)
    assert (first.windows, rest.windows) == (6, 6)
    assert trends.steps(hours, [NOON - HOUR], HOUR, known)[0].windows == 0


def test_windows_with_noise_weigh_what_they_are_worth(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    known = known_to(store, packed)
    noisy = []
    for at in range(4):
        made = record(packed, packed.counts(draw(rng, 400)), device=f"pi-{at}")
        counts = telemetry.counts_of(made, known.reference)
        packed_noisy = telemetry.pack_noisy(counts, 2.0)
        made = msgspec.structs.replace(made, coding=telemetry.CODING_NOISY, counts=packed_noisy)
        noisy.append(window_of(telemetry.encode(made), NOON))
    counted(store, noisy)
    with store.reading() as tx:
        hour = trends.between(tx, known, NOON, NOON + HOUR)[NOON]
    assert hour.rows == 1600
    cells = packed.profile.monitors[0].cells
    assert abs(int(hour.counts[:cells].sum()) - 800) <= cells / 2


def test_old_hours_go_and_only_those_of_the_same_collector(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    known = known_to(store, packed)
    one = windows(packed, rng)[0]
    later = NOON + (trends.KEEP_HOURS + 1) * HOUR
    late = [
        window_of(telemetry.encode(record(packed, packed.counts(draw(rng, 9)), seq=seq)), later)
        for seq in (100,)
    ]
    counted(store, [one])
    counted(store, late, ordinal=1)
    with store.reading() as tx:
        assert len(tx.trends(known.bundle, 0, 2**60)) == 2
    again = window_of(telemetry.encode(record(packed, packed.counts(draw(rng, 9)), seq=101)), later)
    counted(store, [again])
    with store.reading() as tx:
        left = tx.trends(known.bundle, 0, 2**60)
    assert [(each.hour_ms, each.ordinal) for each in left] == [(later, 0), (later, 1)]


def test_a_latency_that_an_older_program_kept_malformed_is_left_out(
    packed: Packed, rng: np.random.Generator
) -> None:
    good = record(packed, packed.counts(draw(rng, 9)))
    good = msgspec.structs.replace(good, latency=telemetry.pack_counts([1] * 48))
    bad = msgspec.structs.replace(good, latency=b"\xff", seq=2)
    hour = trends.of_records([good, bad], np.zeros((2, packed.profile.cells), dtype=np.int64))
    assert hour.latency.tolist() == [1] * 48


def test_a_damaged_hour_is_said_to_be_one(store: SqlStore, packed: Packed) -> None:
    known = known_to(store, packed)
    with store.transaction() as tx:
        tx.put_trend(Trend(known.bundle, NOON, 0, b"\x93"))
    with store.reading() as tx, pytest.raises(MachineFault, match="damaged"):
        trends.between(tx, known, 0, NOON + 1)

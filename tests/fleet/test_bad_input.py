"""Whatever a device sends is counted under its reason, is seen in ``status``, and disturbs nobody.

One collector over a real broker gets all of it, between the records of a good device whose
evidence has to come out as if nothing else had been sent.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from fleet_kit import (
    Packed,
    Publisher,
    collecting,
    draw,
    fault_kinds,
    pack,
    record,
    settled,
    totals,
    until,
)

from edge_contract import bundle, chunks, manifest, profile, telemetry
from edge_contract.profile import Monitor, Profile
from edge_contract.telemetry import Record
from edge_contract.topics import Topics
from edge_fleet import intake, reports
from edge_fleet.broker import BrokerConfig, BrokerThread
from edge_fleet.collector import now_ms
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.store.base import Fault
from edge_fleet.store.sql import SqlStore, open_store
from edge_fleet.windows import window_of

HOUR = 3_600_000


def many_features(count: int, rows: int) -> tuple[Packed, np.ndarray]:
    """A bundle of ``count`` features of two bins each, and the counts of a window of it."""
    empty = Monitor(name="", kind="quantile", edges=(0.0, 1.0, 2.0), counts=(50, 50, 0, 0, 0, 0, 0))
    monitors = tuple(
        msgspec.structs.replace(empty, name=f"x{at}", mean=1.0, std=0.5) for at in range(count)
    )
    made = Profile(rows=100, monitors=monitors)
    entry, stored = bundle.encode_member(manifest.PROFILE_FILE, profile.encode(made))
    small = manifest.decode(pack(np.random.default_rng(1), version="wide").manifest_bytes)
    files = tuple(entry if file.name == entry.name else file for file in small.files)
    data = manifest.encode(msgspec.structs.replace(small, files=files))
    parts = {hashlib.sha256(part).hexdigest(): part for part in chunks.split(stored)}
    parts[manifest.digest(data)] = data
    if entry.index:
        parts[entry.index] = chunks.index_of(stored)
    return Packed(made, data, stored, parts), np.tile([rows, 0, 0, 0, 0, 0, 0], count)


@dataclass
class World:
    """What a case may send with."""

    packed: Packed
    other: Packed
    unknown: Packed
    rng: np.random.Generator
    send: Publisher

    def good(self, device: str, seq: int = 1, n: int = 50, **where: Any) -> Record:
        return record(
            self.packed, self.packed.counts(draw(self.rng, n)), device=device, seq=seq, **where
        )

    def of_rows(self, device: str, rows: int, length_ms: int) -> Record:
        """All of ``rows`` in the first cell of each monitor."""
        counts = np.zeros(self.packed.profile.cells, dtype=np.int64)
        counts[list(self.packed.profile.offsets())] = rows
        end_ms = now_ms()
        return record(
            self.packed, counts, device=device, rows=rows, start_ms=end_ms - length_ms,
            end_ms=end_ms,
        )  # fmt: skip


def truncated(world: World, device: str) -> None:
    data = telemetry.encode(world.good(device))
    for length in sorted(world.rng.integers(0, len(data), 6).tolist()):
        world.send.payload(device, data[:length])


def duplicated(world: World, device: str) -> None:
    world.send.records([world.good(device)] * 1)
    one = world.good(device, seq=2)
    world.send.records([one, one, one])


def reordered(world: World, device: str) -> None:
    order = world.rng.permutation(8).tolist()
    world.send.records([world.good(device, seq=seq) for seq in order])


def future(world: World, device: str) -> None:
    world.send.record(world.good(device, end_ms=now_ms() + 10**10))
    world.send.record(world.good(device, seq=2, start_ms=2**53 - 9, end_ms=2**53))


def other_profile(world: World, device: str) -> None:
    """It names one bundle and counts in the cells of another."""
    counts = world.other.counts(draw(world.rng, 50))
    world.send.record(record(world.packed, counts, device=device, rows=50))


def unknown_profile(world: World, device: str) -> None:
    world.send.record(
        record(world.unknown, world.unknown.counts(draw(world.rng, 9)), device=device)
    )


def wrong_sums(world: World, device: str) -> None:
    one = world.good(device)
    world.send.record(msgspec.structs.replace(one, rows=one.rows + 1))
    world.send.record(msgspec.structs.replace(one, seq=2, counts=one.counts[:-1]))
    large = telemetry.pack_counts([2**53] + [0] * (world.packed.profile.cells - 1))
    world.send.record(msgspec.structs.replace(one, seq=3, counts=large))
    coded = msgspec.structs.replace(one, seq=4, coding=telemetry.CODING_RESIDUALS, counts=b"\xff")
    world.send.record(coded)


def no_rows(world: World, device: str) -> None:
    world.send.record(world.of_rows(device, 0, 300_000))


def two_to_the_31(world: World, device: str) -> None:
    world.send.record(world.of_rows(device, 2**31, 300_000))


def too_many_rows(world: World, device: str) -> None:
    one = world.of_rows(device, 2**31, 1_000)
    world.send.record(one)
    world.send.record(msgspec.structs.replace(one, seq=2, rows=2**53))


def ten_thousand_features(world: World, device: str) -> None:
    """Counts of them, said to be of a bundle that has four."""
    counts = np.tile([1, 0, 0, 0, 0, 0, 0], 10_000)
    world.send.record(record(world.packed, counts, device=device, rows=1))


def not_numbers(world: World, device: str) -> None:
    """NaN where a number belongs, latencies and moments that are none."""
    one = world.good(device)
    array: list[Any] = msgspec.msgpack.decode(telemetry.encode(one))
    at = one.__struct_fields__.index("rows")
    for wrong in (float("nan"), float("inf"), -1, 2**60):
        world.send.payload(device, msgspec.msgpack.encode([*array[:at], wrong, *array[at + 1 :]]))
    moments = one.__struct_fields__.index("moments")
    world.send.payload(device, msgspec.msgpack.encode([*array[:moments], float("nan")]))
    world.send.record(msgspec.structs.replace(one, latency=b"\xff"))


def restarted(world: World, device: str) -> None:
    """Its boot number was lost: numbers come again, with other content."""
    for _ in range(2):
        for seq in range(3):
            world.send.record(world.good(device, seq=seq))


def liar(world: World, device: str) -> None:
    world.send.record(world.good("good", seq=999), device=device)


@dataclass(frozen=True)
class Outcome:
    """What is to be seen of a device."""

    faults: dict[str, int]
    windows: int = 0
    rows: int | None = None


CASES: dict[Callable[[World, str], None], Outcome] = {
    truncated: Outcome({"bad-telemetry": 6}),
    duplicated: Outcome({}, 2, 100),
    reordered: Outcome({}, 8, 400),
    future: Outcome({"clock-ahead": 2}, 2, 100),
    other_profile: Outcome({"bad-counts": 1}),
    unknown_profile: Outcome({}),
    wrong_sums: Outcome({"bad-counts": 4}),
    no_rows: Outcome({}, 1, 0),
    two_to_the_31: Outcome({}, 1, 2**31),
    too_many_rows: Outcome({"too-many-rows": 2}),
    ten_thousand_features: Outcome({"bad-counts": 1}),
    not_numbers: Outcome({"bad-telemetry": 6}),
    restarted: Outcome({"reused-key": 3}, 3, 150),
    liar: Outcome({"wrong-device": 1}),
}


def names() -> list[str]:
    return [case.__name__.replace("_", "-") for case in CASES]


@pytest.fixture
def world(packed: Packed, publisher: Publisher, rng: np.random.Generator) -> World:
    made = World(
        packed=packed, other=pack(rng, version="2.0", extra_monitors=1),
        unknown=pack(rng, version="3.0"), rng=rng, send=publisher,
    )  # fmt: skip
    for known in (made.packed, made.other):
        publisher.bundle(known)
    return made


def test_each_kind_of_bad_input_has_its_reason_and_disturbs_nobody(
    any_broker: Any, store: SqlStore, world: World, tmp_path: Any
) -> None:
    good = [world.good("good", seq=seq, start_ms=now_ms() - HOUR) for seq in range(len(CASES) + 1)]
    with collecting(any_broker.url, store):
        for one, case, name in zip(good, CASES, names(), strict=False):
            world.send.record(one)
            case(world, name)
        world.send.record(good[-1])
        wanted = {
            (name, kind): times
            for name, case in zip(names(), CASES.values(), strict=True)
            for kind, times in case.faults.items()
        }
        until(lambda: fault_kinds(store) == wanted, "every fault")
        until(lambda: detector(store, world.packed, "good").windows == len(good), "all good ones")
        until(lambda: totals(store).pending == 1, "one waits")
    for name, case in zip(names(), CASES.values(), strict=True):
        found = detector(store, world.packed, name)
        assert (found.windows if found else 0, found.rows if found else None) == (
            case.windows, case.rows,
        ), name  # fmt: skip
    alone = open_store(f"sqlite:///{tmp_path}/alone.db", create=True)
    assert detector(store, world.packed, "good").state == evidence_alone(alone, world.packed, good)
    alone.close()
    status = reports.status(store, now_ms())
    assert {(f.device, f.kind): f.count for f in status.recent_faults} == wanted
    assert all(f.detail for f in status.recent_faults)
    assert status.faults == sum(wanted.values())
    [unknown] = status.unknown_profiles
    assert (unknown.bundle, unknown.version, unknown.windows) == (world.unknown.digest, "1.0", 1)


def test_a_window_that_names_a_blob_which_is_no_bundle_waits_and_stops_nobody(
    any_broker: Any, store: SqlStore, world: World
) -> None:
    """Every device reads the digest of the profile's file in its own manifest."""
    file = manifest.decode(world.packed.manifest_bytes).file(manifest.PROFILE_FILE)
    with collecting(any_broker.url, store):
        world.send.record(world.good("good"))
        until(settled(store, 1), "the profile is known")
        odd = msgspec.structs.replace(world.good("odd"), bundle=bytes.fromhex(file.sha256))
        world.send.record(odd)
        world.send.record(world.good("good", seq=2))
        until(settled(store, 3, pending=1), "the good one is counted")
    with collecting(any_broker.url, store):  # which looks at what waits
        world.send.record(world.good("good", seq=3))
        until(settled(store, 4, pending=1), "the next good one")
    assert fault_kinds(store) == {}


@pytest.mark.slow
def test_a_bundle_of_ten_thousand_features_is_counted_beside_another(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    wide, counts = many_features(10_000, 1)
    with BrokerThread(BrokerConfig()) as broker:
        send = Publisher(broker.url)
        send.bundle(packed)
        send.bundle(wide)
        with collecting(broker.url, store):
            for seq in range(2):
                send.record(record(wide, counts, device="wide", seq=seq))
                send.record(record(packed, packed.counts(draw(rng, 50)), device="good", seq=seq))
            until(lambda: totals(store).windows == 4 and totals(store).pending == 0, "all of them")
        send.close()
    assert (detector(store, wide, "wide").windows, detector(store, packed, "good").windows) == (
        2,
        2,
    )
    assert fault_kinds(store) == {}


def detector(store: SqlStore, packed: Packed, device: str) -> Any:
    with store.reading() as tx:
        return tx.detectors([(device, packed.digest)]).get((device, packed.digest))


def evidence_alone(store: SqlStore, packed: Packed, good: list[Record]) -> bytes:
    """The detector's state where only the good device ever sent something."""
    file = manifest.decode(packed.manifest_bytes).file(manifest.PROFILE_FILE)
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, 0)
        tx.put_blob(file.sha256, packed.stored, 0)
        evidence = Evidence(Library(), Budget(1, 60))
        for one in good:
            fresh = tx.add_windows([window_of(telemetry.encode(one), now_ms())])
            evidence.count(tx, fresh, now_ms())
    state: bytes = detector(store, packed, "good").state
    return state


@pytest.mark.parametrize(
    ("rows", "length_ms", "kept"),
    [
        (0, 0, True),
        (2**31, 300_000, True),
        (600_000_000, 0, True),  # a clock that was set back while the window ran
        (600_000_001, 60_000, False),
        (2**36, 7_000_000, True),
        (2**36 + 1, 10**9, False),
    ],
)
def test_more_rows_than_a_device_answers_are_not_believed(
    rows: int, length_ms: int, kept: bool, packed: Packed
) -> None:
    one = record(
        packed, np.zeros(packed.profile.cells, dtype=np.int64), rows=rows, start_ms=10**12,
        end_ms=10**12 + length_ms,
    )  # fmt: skip
    topics = Topics("test")
    payload = telemetry.encode(one)
    found = intake.read(topics, topics.telemetry("pi-1"), payload, retained=False, now_ms=10**13)
    assert isinstance(found, Fault) != kept
    if isinstance(found, Fault):
        assert found.kind == "too-many-rows"
        assert str(rows) in found.detail

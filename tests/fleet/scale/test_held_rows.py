"""Collectors that write the same devices at once wait for each other, and never in a circle."""

import random
import threading
from dataclasses import replace

import pytest
from sqlalchemy import text

from edge_contract import telemetry
from edge_contract.errors import EdgeError
from edge_fleet.store.base import Detector, EventSeen, Window
from edge_fleet.store.sql import open_store
from edge_fleet.windows import window_of

NAMES = ("pi-1", "Pi-1", "a_pi", "p-i1", "pi1", "PI_1", "a", "B", "0", "A-")
"""A database's language sorts them otherwise than by code point."""
ROUNDS, SEQS = 12, 8


def window(device: str, seq: int) -> Window:
    record = telemetry.Record(
        schema=1, device=device, boot=1, seq=seq, model="m", version="1", bundle=bytes(32),
        start_ms=0, end_ms=1000, synchronised=True, rows=10, refused=0, failed=0,
        coding=telemetry.CODING_LEB128, counts=b"", latency=b"",
    )  # fmt: skip
    return window_of(telemetry.encode(record), 2000)


def test_windows_and_events_of_the_same_devices_meet(any_db: str) -> None:
    """Duplicates too: who comes second waits for the first to commit, and keeps none of them."""
    seed = random.randrange(2**32)
    print("seed", seed)
    open_store(any_db, create=True).close()
    failed: list[Exception] = []
    barrier = threading.Barrier(3)

    def collect(number: int) -> None:
        rng = random.Random(seed + number)
        store = open_store(any_db, create=False)
        try:
            for round_ in range(ROUNDS):
                windows = [window(name, seq) for name in NAMES for seq in range(SEQS)]
                some = rng.sample(windows, len(windows) // 2)
                event = EventSeen(rng.choice(NAMES), number, round_, 1, "start", "m", "1", "", 2000)
                barrier.wait(60)
                with store.transaction() as tx:
                    tx.add_windows(some, beside=[event.device] if number else [])
                    if number:
                        tx.add_events([event])
        except (EdgeError, threading.BrokenBarrierError) as error:
            failed.append(error)
            barrier.abort()
        finally:
            store.close()

    threads = [threading.Thread(target=collect, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    store = open_store(any_db, create=False)
    with store.reading() as tx:
        kept = [one.key for one in tx.records()]
        counted = {one.device: one.windows for one in tx.devices()}
        assert len(tx.events(1000)) == 2 * ROUNDS
    store.close()
    assert len(kept) == len(set(kept))
    assert counted == {name: sum(key[0] == name for key in kept) for name in NAMES}


@pytest.mark.parametrize("boots", [(), (1,), (1, 2)])
def test_what_became_a_sum_is_found_whatever_is_asked(any_db: str, boots: tuple[int, ...]) -> None:
    store = open_store(any_db, create=True)
    with store.transaction() as tx:
        tx.add_windows([window(name, seq) for name in NAMES for seq in range(3)])
        tx.roll_windows([(name, 1, seq) for name in NAMES for seq in (0, 1)])
    with store.transaction() as tx:
        asked = [(name, boot, seq) for name in NAMES for boot in boots for seq in range(4)]
        found = {(name, 1, seq) for name in NAMES for seq in (0, 1)} if boots else set()
        assert tx.rolled(asked) == found
        assert tx.add_windows([window("a", 0), window("a", 3)]) == [window("a", 3)]
    store.close()


def test_detectors_of_many_devices_come_back_as_they_were(any_db: str) -> None:
    """In a transaction that puts some of them twice; also in a store that compresses states."""
    store = open_store(any_db, create=True)
    if "postgresql" in any_db:
        with store.connection(reading=False) as connection:
            connection.execute(text("ALTER TABLE detectors ALTER state SET STORAGE EXTENDED"))
        store.close()
        store = open_store(any_db, create=True)
        with store.connection(reading=True) as connection:
            how = "SELECT attstorage FROM pg_attribute WHERE attname = 'state' AND attrelid ="
            found = connection.execute(text(f"{how} to_regclass('detectors')")).scalar_one()
            assert found in ("e", b"e")
    rng = random.Random(7)
    made = [
        Detector(name, bundle * 32, "m", "1", rng.randbytes(3_000), 5, at, 2**40, 1, at, 9)
        for at, name in enumerate(NAMES)
        for bundle in ("0a", "f0")
    ]
    later = [replace(one, state=b"\0later\xff", windows=99) for one in made[::3]]
    with store.transaction() as tx:
        tx.put_detectors(made)
        tx.put_detectors([later[0], made[1], later[0]])
        tx.put_detectors(later)
    expected = {(one.device, one.bundle): one for one in [*made, *later]}
    with store.reading() as tx:
        assert tx.detectors([*expected, ("pi-1", "ee" * 32)]) == expected
        assert tx.detectors([]) == {}
    store.close()

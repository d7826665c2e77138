"""Compaction beside a running collector, a disk that is full, and the commands about it."""

import json
import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet_kit import (
    Packed,
    Publisher,
    collecting,
    draw,
    fault_kinds,
    record,
    settled,
    totals,
    until,
)
from sqlalchemy import event
from typer.testing import CliRunner

from edge_contract import bundle, manifest, telemetry
from edge_contract.errors import InputFault, MachineFault
from edge_contract.telemetry import Record
from edge_fleet import cli, compaction, kept
from edge_fleet.broker import BrokerConfig, BrokerThread
from edge_fleet.collector import now_ms
from edge_fleet.commands.compact import retention_of
from edge_fleet.compaction import Compacted, Retention
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.store.base import Counted
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

HOUR, DAY = 3_600_000, 86_400_000
AT_ONCE = Retention(raw_ms=0, hours_ms=0)


def later() -> int:
    """A time at which everything that comes now is old."""
    return now_ms() + 3 * DAY


def quiet(packed: Packed, rng: np.random.Generator, **where: Any) -> Record:
    return record(packed, packed.counts(draw(rng, 20)), **where)


def put(store: SqlStore, packed: Packed, records: list[Record], received_ms: int) -> None:
    file = manifest.decode(packed.manifest_bytes).file(manifest.PROFILE_FILE)
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, 0)
        tx.put_blob(file.sha256, packed.stored, 0)
        new = tx.add_windows([window_of(telemetry.encode(one), received_ms) for one in records])
        Evidence(Library(), Budget()).count(tx, new, received_ms)


def rows_counted(store: SqlStore, packed: Packed) -> int:
    with store.reading() as tx:
        known = Library().find(tx, packed.digest)
        sums = kept.by_device(tx, known, 0) if known else {}
    size = packed.profile.monitors[0].cells
    return sum(int(counts[:size].sum()) for counts in sums.values())


def test_windows_are_counted_once_while_others_are_merged(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """Everything is old at once, so that windows are taken out as fast as they come."""
    done: list[Compacted] = []
    enough = threading.Event()

    failed: list[BaseException] = []

    def compact() -> None:
        try:
            while not enough.is_set():
                done.append(
                    compaction.compact(any_store, AT_ONCE, later(), pause=lambda _: enough.is_set())
                )
        except BaseException as error:  # noqa: BLE001 (raised in the test's thread)
            failed.append(error)

    with BrokerThread(BrokerConfig()) as broker:
        send = Publisher(broker.url)
        send.bundle(packed)
        with collecting(broker.url, any_store):
            send.record(quiet(packed, rng, device="pi-first", seq=0))
            until(settled(any_store, 1), "known: what waits for a profile goes when it is old")
            thread = threading.Thread(target=compact)
            thread.start()
            try:
                for part in range(4):
                    send.records(
                        [quiet(packed, rng, device=f"pi-{i % 4}", seq=50 * part + i // 4)
                         for i in range(200)]
                    )  # fmt: skip
                until(settled(any_store, 801), "all counted")
                until(lambda: failed or sum(one.windows for one in done), "some are merged")
            finally:
                enough.set()
                thread.join(120)
        send.close()
    assert failed == []
    assert rows_counted(any_store, packed) == 801 * 20
    with any_store.reading() as tx:
        assert {d.device: (d.windows, d.rows) for d in tx.all_detectors()} == {
            "pi-first": (1, 20), **{f"pi-{i}": (200, 4000) for i in range(4)}
        }  # fmt: skip
    assert fault_kinds(any_store) == {}


def test_a_repeat_that_comes_while_its_window_is_taken_out_is_not_counted(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """It waits until the other transaction is through, then is known to be old."""
    one = quiet(packed, rng, seq=5)
    put(any_store, packed, [one], now_ms())
    again = window_of(telemetry.encode(one), now_ms())
    found: list[list[Any]] = []
    began = threading.Event()

    def repeat() -> None:
        began.set()
        with any_store.transaction() as tx:
            found.append(tx.add_windows([again]))

    thread = threading.Thread(target=repeat)
    with any_store.transaction() as tx:
        tx.roll_windows([again.key])
        thread.start()
        assert began.wait(60)
        if any_store._engine.dialect.name == "postgresql":
            until(lambda: waiting_locks(any_store) > 0, "it waits for the row")
    thread.join(120)
    assert found == [[]]
    assert totals(any_store).windows == 1


def waiting_locks(store: SqlStore) -> int:
    with store._connect(reading=True) as connection:
        count: int = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_locks WHERE NOT granted"
        ).scalar_one()
    return count


def test_a_key_that_was_counted_long_ago_is_told(
    any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    publisher.bundle(packed)
    with collecting(any_broker.url, store):
        publisher.records([quiet(packed, rng, seq=seq) for seq in range(3)])
        until(settled(store, 3), "counted")
        compaction.compact(store, AT_ONCE, later(), pause=lambda _: False)
        publisher.record(quiet(packed, rng, seq=1))
        publisher.record(quiet(packed, rng, seq=3))
        until(settled(store, 4), "the new one")
    assert fault_kinds(store) == {("pi-1", "old-key"): 1}


def test_a_full_disk_is_told_and_nothing_is_acknowledged_until_there_is_room(
    *, any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed,
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """SQLite's own limit stands for the disk's or a quota's: both end in SQLITE_FULL."""
    publisher.bundle(packed)
    with collecting(any_broker.url, store), caplog.at_level(logging.WARNING):
        publisher.record(quiet(packed, rng, seq=0))
        until(settled(store, 1), "the first")
        limit = [0]
        event.listen(store._engine, "begin", lambda c: limited(c, limit[0]))
        limit[0] = 1  # SQLite takes it as "no more than there is"
        publisher.records([quiet(packed, rng, seq=seq) for seq in range(1, 400)])
        until(lambda: any("is full" in text for text in caplog.messages), "a failed commit")
        assert any("nothing is acknowledged" in text for text in caplog.messages)
        assert totals(store).windows < 400
        limit[0] = 2**30
        until(settled(store, 400), "all of them, once there is room")
    assert fault_kinds(store) == {}
    assert rows_counted(store, packed) == 400 * 20


def limited(connection: Any, pages: int) -> None:
    if pages:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")


def test_it_goes_on_by_itself_until_it_is_told_to_stop(
    store: SqlStore, packed: Packed, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, packed, [quiet(packed, rng, seq=seq) for seq in range(5)], 5 * HOUR)
    stop = threading.Event()
    clock = [5 * HOUR]
    thread = threading.Thread(
        target=compaction.keep_compact, args=(store, Retention(DAY, None), stop),
        kwargs={"clock_ms": lambda: clock[0], "first_s": 0.01, "every_s": 0.01},
    )  # fmt: skip
    with caplog.at_level(logging.INFO), store.compacting():
        thread.start()
        until(lambda: any("being compacted already" in text for text in caplog.messages), "told")
    clock[0] = 5 * HOUR + 2 * DAY
    until(lambda: hours(store, packed) == 1, "the hour")
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert rows_counted(store, packed) == 100


def hours(store: SqlStore, packed: Packed) -> int:
    with store.reading() as tx:
        return len(tx.hours(packed.digest, 0, 2**60, 1000))


def run(*arguments: str, db: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, [*arguments, "--db", db], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_compact_says_what_it_would_do_and_does_it(
    db: str, store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    put(store, packed, [quiet(packed, rng, seq=seq) for seq in range(6)], now_ms() - 20 * DAY)
    put(store, packed, [quiet(packed, rng, seq=9)], now_ms())
    told = run("compact", "--dry-run", db=db)
    assert told.startswith("there is to do: 6 windows into 1 hours, 0 hours into 0 days, 0.0 MB")
    assert hours(store, packed) == 0
    done = json.loads(run("compact", "--json", db=db))
    assert (done["dry_run"], done["windows"], done["into_hours"], done["hours"]) == (False, 6, 1, 0)
    assert hours(store, packed) == 1
    store.put_settings({"keep_raw": "2h", "keep_hours": "1d"})
    assert json.loads(run("compact", "--json", "--dry-run", db=db))["hours"] == 1, (
        "as serve was told"
    )
    assert json.loads(run("compact", "--json", "--keep-hours", "forever", db=db))["hours"] == 0
    assert json.loads(run("compact", "--json", db=db))["into_days"] == 1
    assert rows_counted(store, packed) == 140


@pytest.mark.parametrize(
    ("raw", "days", "words"),
    [
        ("14", "90d", "--keep-raw '14' is no duration"),
        ("14d", "soon", "--keep-hours 'soon' is no duration"),
        ("-1d", "90d", "is no duration"),
        ("20d", "10d", "--keep-hours 10d is shorter than --keep-raw 20d"),
    ],
)
def test_a_time_that_is_none_is_refused(raw: str, days: str, words: str) -> None:
    with pytest.raises(InputFault, match=words):
        retention_of(raw, days)
    assert retention_of("36h", "forever") == Retention(36 * HOUR, None)


def test_fetch_learns_a_bundle_and_what_waited_is_counted(
    *, any_broker: Any, publisher: Publisher, db: str, store: SqlStore, packed: Packed,
    rng: np.random.Generator, tmp_path: Path,
) -> None:  # fmt: skip
    with collecting(any_broker.url, store):
        publisher.records([quiet(packed, rng, seq=seq) for seq in range(5)])
        until(settled(store, 5, pending=5), "kept")
    status = run("status", db=db)
    assert "5 windows of 1 devices wait for its profile: publish it, or `edge-fleet fetch" in status
    file = tmp_path / "boiler.edgepack"
    file.write_bytes(sealed(packed))
    learnt = json.loads(run("fetch", str(file), "--json", db=db))
    assert learnt == [
        {"model": "boiler", "version": "1.0", "bundle": packed.digest, "waiting": 5}
    ]  # fmt: skip
    with collecting(any_broker.url, store):
        until(settled(store, 5), "counted")
    assert rows_counted(store, packed) == 100
    assert "0 windows wait" in run("fetch", str(file), db=db)
    file.write_bytes(b"junk")
    with pytest.raises(InputFault, match=r"boiler\.edgepack: .*bundle"):
        run("fetch", str(file), db=db)


def sealed(packed: Packed) -> bytes:
    """The bundle's archive."""
    _, model = bundle.encode_member(manifest.MODEL_FILE, b"1.0")
    return bundle.write(
        packed.manifest_bytes, {manifest.MODEL_FILE: model, manifest.PROFILE_FILE: packed.stored}
    )


def plans(store: SqlStore, packed: Packed) -> str:
    """How the database goes about reading a period, and about finding what is old."""
    said: list[str] = []
    postgresql = store._engine.dialect.name == "postgresql"
    asked = threading.Event()

    def explain(
        connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any
    ) -> None:
        if asked.is_set() or not statement.startswith("SELECT"):
            return
        cursor = connection.connection.driver_connection.cursor()
        how = "EXPLAIN" if postgresql else "EXPLAIN QUERY PLAN"
        cursor.execute(f"{how} {statement}", parameters)
        said.extend(str(row[0 if postgresql else 3]) for row in cursor.fetchall())
        cursor.close()

    event.listen(store._engine, "before_cursor_execute", explain)
    with store.reading() as tx:
        list(tx.counted_since(packed.digest, 990_000, 100))
        tx.oldest_window(packed.digest, 1_000_000)
        tx.window_keys(packed.digest, 990_000, 999_000, 10)
        tx.old_windows(packed.digest, 990_000 // 100)
    asked.set()
    return "\n".join(said)


def test_what_came_in_a_period_is_found_by_an_index(any_store: SqlStore, packed: Packed) -> None:
    with any_store.transaction() as tx:
        data = telemetry.encode(record(packed, np.zeros(packed.profile.cells, dtype=np.int64)))
        for at, digest in enumerate(["01" * 32, *[packed.digest] * 3]):
            many = [
                replace(window_of(data, 1000 * i), seq=10_000 * at + i, bundle=digest)
                for i in range(1000)
            ]
            tx.add_windows(many)
            tx.mark([each.key for each in many], Counted.YES)
    if any_store._engine.dialect.name == "postgresql":
        with any_store._connect(reading=False) as connection:
            connection.exec_driver_sql("ANALYZE windows")
    found = plans(any_store, packed)
    assert found.count("windows_bundle") >= 4, found
    assert "SCAN windows" not in found, found
    assert "Seq Scan on windows" not in found, found


def test_a_store_that_fails_is_tried_again_at_the_next_turn(
    store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()
    failures = iter([MachineFault("the disk is gone")])

    def clock_ms() -> int:
        for failure in failures:
            raise failure
        stop.set()
        return 0

    with caplog.at_level(logging.INFO):
        compaction.keep_compact(
            store, Retention(), stop, clock_ms=clock_ms, first_s=0, every_s=0.01
        )
    assert "the disk is gone; windows stay as they are" in caplog.text
    assert "merged 0 windows" in caplog.text

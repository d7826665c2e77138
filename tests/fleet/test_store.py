"""The store keeps each window once, in SQLite and in a real PostgreSQL alike."""

import hashlib
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.schema import CreateIndex, CreateTable

from edge_contract import telemetry
from edge_contract.errors import InputFault, MachineFault
from edge_fleet.store import migrations, tables
from edge_fleet.store.base import (
    Alarm,
    AsideKind,
    AsideSeen,
    Counted,
    Detector,
    EventSeen,
    Fault,
    ReportSeen,
    StatusSeen,
    Window,
)
from edge_fleet.store.rollups import Kept
from edge_fleet.store.sql import SqlStore, open_store
from edge_fleet.windows import window_of

BUNDLE = "01" * 32


def window(device: str = "pi-1", boot: int = 1, seq: int = 1, rows: int = 10) -> Window:
    record = telemetry.Record(
        schema=1, device=device, boot=boot, seq=seq, model="m", version="1",
        bundle=bytes.fromhex(BUNDLE), start_ms=1000, end_ms=2000, synchronised=True, rows=rows,
        refused=0, failed=0, coding=1, counts=b"\0\4", latency=b"\0\x2f",
    )  # fmt: skip
    return window_of(telemetry.encode(record), 3000)


def alarm(device: str = "pi-1") -> Alarm:
    return Alarm(device, "m", "1", BUNDLE, 2, "feature", "x", 7, 5, 20.5, 15.25, b"{}")


def test_a_window_is_kept_once_however_often_it_comes(any_store: SqlStore) -> None:
    with any_store.transaction() as tx:
        assert tx.add_windows([window(seq=1), window(seq=2), window(seq=1)]) == [
            window(seq=1), window(seq=2),
        ]  # fmt: skip
    with any_store.transaction() as tx:
        assert tx.add_windows([window(seq=2), window(seq=3)]) == [window(seq=3)]
    with any_store.reading() as tx:
        assert tx.totals().windows == 3
        assert tx.totals().rows == 30
        assert [w.seq for w in tx.pending(BUNDLE, 10)] == [1, 2, 3]
        [device] = tx.devices()
        assert (device.windows, device.rows, device.seen_ms, device.lag_ms) == (3, 30, 3000, 1000)


def test_many_windows_in_one_batch_are_all_kept(any_store: SqlStore) -> None:
    many = [window(f"pi-{i % 7}", 1, i) for i in range(2500)]
    with any_store.transaction() as tx:
        assert len(tx.add_windows(many)) == 2500
        tx.mark([w.key for w in many[:1000]], Counted.YES)
        tx.mark([w.key for w in many[1000:1010]], Counted.REFUSED)
    with any_store.reading() as tx:
        assert (tx.totals().pending, tx.totals().refused) == (1490, 10)


def test_a_transaction_that_fails_keeps_nothing(any_store: SqlStore) -> None:
    with pytest.raises(RuntimeError), any_store.transaction() as tx:
        tx.add_windows([window()])
        tx.add_alarm(alarm())
        raise RuntimeError
    with any_store.reading() as tx:
        assert tx.totals().windows == 0
        assert tx.alarms(open_only=False) == []


def test_a_value_without_room_is_no_failure_of_the_store(any_store: SqlStore) -> None:
    """MachineFault would be tried again for ever."""
    with (
        pytest.raises((InputFault, OverflowError), match=r"range|too large"),
        any_store.transaction() as tx,
    ):
        tx.put_blob(BUNDLE, b"one", 2**70)
    with any_store.reading() as tx:
        assert tx.blob(BUNDLE) is None


def test_the_same_key_with_other_bytes_is_told_apart(any_store: SqlStore) -> None:
    with any_store.transaction() as tx:
        tx.add_windows([window(rows=10)])
        assert tx.same_record(window(rows=10))
        assert not tx.same_record(window(rows=11))
        assert not tx.same_record(window(seq=9))


def keys_of(found: list[Kept]) -> list[tuple[int, int]]:
    records = [telemetry.decode(one.record) for one in found]
    return [(record.boot, record.seq) for record in records]


def test_history_ends_at_the_window_asked_for_and_is_in_order(any_store: SqlStore) -> None:
    keys = [(2, 1), (1, 9), (1, 10), (2, 2), (3, 1)]
    with any_store.transaction() as tx:
        tx.add_windows([window(boot=b, seq=s) for b, s in keys])
        tx.mark([("pi-1", *key) for key in keys], Counted.YES)
        tx.mark([("pi-1", 1, 9)], Counted.REFUSED)
        found = tx.history("pi-1", BUNDLE, (2, 2), 10)
        assert keys_of(found) == [(1, 10), (2, 1), (2, 2)]
        assert keys_of(tx.history("pi-1", BUNDLE, (2, 2), 1)) == [(2, 2)]


def test_only_the_last_will_of_the_living_boot_counts(any_store: SqlStore) -> None:
    def seen(online: bool, boot: int, *, retained: bool = False) -> StatusSeen:
        return StatusSeen("pi-1", online, boot, "agent 1", 5000, retained)

    with any_store.transaction() as tx:
        tx.status(seen(True, 4, retained=True))
        assert tx.devices()[0].seen_ms == 0  # the broker kept it; the device may be long gone
        tx.status(seen(False, 3))
        assert tx.devices()[0].online
        tx.status(seen(False, 4))
        assert not tx.devices()[0].online
        tx.status(seen(True, 1))  # set up anew: its boots begin again
        [device] = tx.devices()
        assert (device.online, device.boot, device.seen_ms) == (True, 1, 5000)


def test_reports_events_faults_and_blobs_are_kept(any_store: SqlStore) -> None:
    event = EventSeen("pi-1", 1, 1, 50, "update", "m", "1", "x", 60)
    with any_store.transaction() as tx:
        tx.report(ReportSeen("pi-1", b"{}", 70, retained=False))
        tx.add_events([event, event])
        tx.add_events([replace(event, detail="other")])
        tx.add_faults([Fault("pi-1", "bad", "first", 1), Fault("pi-1", "bad", "second", 2)])
        tx.add_faults([Fault("pi-1", "bad", "third \0" + "x" * 9999, 3)])
        tx.put_blob(BUNDLE, b"one", 1)
        tx.put_blob(BUNDLE, b"one", 2)
    with any_store.reading() as tx:
        assert tx.devices()[0].reported == b"{}"
        assert tx.devices()[0].seen_ms == 60
        assert tx.events(10) == [event]
        [fault] = tx.faults()
        assert (fault.count, fault.first_ms, fault.last_ms) == (3, 2, 3)
        assert fault.detail.startswith("third x")
        assert tx.blob(BUNDLE) == b"one"
        assert tx.blob("02" * 32) is None
        assert tx.totals().faults == 3


def test_detectors_come_back_as_they_were_put(any_store: SqlStore) -> None:
    first = Detector("pi-1", BUNDLE, "m", "1", b"\0state", 4, 2, 20, 1, 2, 1000)
    second = replace(first, device="pi-2", monitors=3, updated_ms=2000)
    with any_store.transaction() as tx:
        tx.put_detectors([first, second])
        tx.put_detectors([replace(first, state=b"later", windows=3, updated_ms=1500)])
    with any_store.reading() as tx:
        found = tx.detectors([("pi-1", BUNDLE), ("pi-9", BUNDLE)])
        assert found == {
            ("pi-1", BUNDLE): replace(first, state=b"later", windows=3, updated_ms=1500)
        }
        assert tx.streams(0) == 7
        assert tx.streams(1800) == 3
        assert [d.device for d in tx.all_detectors()] == ["pi-1", "pi-2"]


def test_an_alarm_is_open_until_it_is_resolved_once(any_store: SqlStore) -> None:
    with any_store.transaction() as tx:
        one, two = tx.add_alarm(alarm()), tx.add_alarm(alarm("pi-2"))
        assert one != two
        assert tx.resolved([one, two, 999]) == {999}
        assert tx.resolve([one, 999], 80, "sensor\0 replaced") == [one]
        assert tx.resolve([one], 90, "again") == []
        assert tx.resolved([one, two]) == {one}
    with any_store.reading() as tx:
        assert tx.alarms(open_only=True) == [replace(alarm("pi-2"), id=two)]
        closed = tx.alarms(open_only=False)[-1]
        assert (closed.resolved_ms, closed.comment) == (80, "sensor replaced")
        assert tx.totals().open_alarms == 1


def test_bundles_of_unknown_profile_are_listed(any_store: SqlStore) -> None:
    with any_store.transaction() as tx:
        tx.add_windows([window(), window("pi-2"), window("pi-2", seq=2)])
        tx.mark([("pi-1", 1, 1)], Counted.PENDING)
        [unknown] = tx.pending_bundles(10)
    assert (unknown.bundle, unknown.model, unknown.windows, unknown.devices) == (BUNDLE, "m", 3, 2)


def test_one_collector_an_ordinal(any_db: str, any_store: SqlStore) -> None:
    other = open_store(any_db, create=True)
    with any_store.lock(0):
        with pytest.raises(InputFault, match="already works"), other.lock(0):
            pass
        with other.lock(1):
            pass
    with other.lock(0):
        pass
    other.close()


def test_a_store_belongs_to_one_fleet(any_store: SqlStore) -> None:
    any_store.claim("north")
    any_store.claim("north")
    with pytest.raises(InputFault, match="belongs to fleet 'north'"):
        any_store.claim("south")
    any_store.put_settings({"window_s": "60"})
    any_store.put_settings({"window_s": "300", "fleet": "south"})
    assert any_store.settings() == {"fleet": "north", "window_s": "300"}


def test_an_older_store_gets_each_missing_step_once(any_store: SqlStore) -> None:
    done = []
    steps = {1: lambda _: done.append(1), 2: lambda _: done.append(2)}
    with any_store._connect(reading=False) as connection:
        connection.execute(tables.schema_version.update().values(version=1))
        migrations.migrate(connection, target=3, steps=steps)
        migrations.migrate(connection, target=3, steps=steps)
        assert migrations.stored_version(connection) == 3
    assert done == [1, 2]


def test_records_beside_the_windows_are_kept_once(any_store: SqlStore) -> None:
    seen = AsideSeen("pi-1", 1, 7, AsideKind.SHADOW, BUNDLE, 90, b"bytes")
    with any_store.transaction() as tx:
        tx.add_windows([window()])
    for _ in range(2):
        with any_store.transaction() as tx:
            tx.add_asides([seen])
            tx.add_asides([replace(seen, record=b"others"), replace(seen, seq=8, received_ms=99)])
    with any_store.reading() as tx:
        assert [each.record for each in tx.asides(AsideKind.SHADOW)] == [b"bytes", b"bytes"]
        assert [each.seq for each in tx.asides(AsideKind.SHADOW, 95)] == [8]
        assert list(tx.asides(AsideKind.LABELLED)) == []
        assert tx.totals().windows == 1, "no record beside is a window"


def test_the_tables_are_those_of_the_schema_version() -> None:
    """A change here needs a step in ``migrations`` and a raised version."""
    parts = [CreateTable(table) for table in tables.metadata.sorted_tables]
    parts += [CreateIndex(i) for t in tables.metadata.sorted_tables for i in t.indexes]
    ddl = "".join(sorted(map(str, parts)))
    digest = hashlib.sha256(ddl.encode()).hexdigest()[:16]
    assert (migrations.VERSION, digest) == (5, "f646e74d65051330")


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE customers (id INTEGER)")
    for create in (True, False):
        with pytest.raises(InputFault, match="other tables"):
            open_store(f"sqlite:///{tmp_path}/other.db", create=create)


@pytest.mark.parametrize(
    ("url", "family", "words"),
    [
        ("sqlite:///{0}/none.db", InputFault, "there is no database"),
        ("sqlite://", InputFault, "names no file"),
        ("mysql://host/db", InputFault, "no store for a database"),
        ("nonsense", InputFault, "not valid"),
        ("sqlite:///{0}", InputFault, "there is no database"),
    ],
)
def test_a_wrong_url_is_refused(
    url: str, family: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(family, match=words):
        open_store(url.format(tmp_path), create=False)


def test_a_store_that_cannot_be_opened_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(MachineFault, match="not a database") as fault:
        open_store(f"sqlite:///{tmp_path}/junk.db", create=True)
    assert "Name the SQLite file of a fleet" in fault.value.advice
    with pytest.raises(MachineFault, match="unable to open"):
        open_store(f"sqlite:///{tmp_path}/no/such/folder/x.db", create=True)


def test_a_full_store_says_so_and_keeps_what_it_had(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.add_windows([window(seq=0)])
    with store._connect(reading=False) as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    # SQLite's own limit stands for the disk's: it fails in the same way, SQLITE_FULL.
    with (
        pytest.raises(MachineFault, match="full"),
        store._connect(reading=False) as connection,
    ):
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        from edge_fleet.store.transaction import SqlTransaction

        SqlTransaction(connection).add_windows([window(seq=i) for i in range(1, 5000)])
    with store.reading() as tx:
        assert tx.totals().windows == 1


def test_looking_for_waiting_windows_never_reads_all_windows(store: SqlStore) -> None:
    plans: list[str] = []

    def explained(connection: Any, _cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("SELECT") and " windows" in statement:
            cursor = connection.connection.driver_connection.cursor()
            plans.extend(r[3] for r in cursor.execute(f"EXPLAIN QUERY PLAN {statement}", rest[0]))

    event.listen(store._engine, "before_cursor_execute", explained)
    with store.reading() as tx:
        tx.totals()
        tx.pending(BUNDLE, 10)
        tx.pending_bundles(10)
        tx.history("pi-1", BUNDLE, (1, 1), 10)
        tx.waiting_bundles()
        tx.unknown_bundles(10)
        tx.old_waiting([BUNDLE], 1, 10)
    assert sum("windows_not_counted" in plan for plan in plans) == 4
    assert sum("INDEX windows_waiting" in plan for plan in plans) == 3
    assert not [plan for plan in plans if plan == "SCAN windows"]


def test_commits_are_durable(store: SqlStore) -> None:
    with store._connect(reading=True) as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"


def test_a_password_stands_in_no_message() -> None:
    pytest.importorskip("psycopg", reason="no psycopg installed")
    with pytest.raises(MachineFault) as caught:
        open_store("postgresql://edge:geheim@127.0.0.1:1/none", create=True)
    assert "geheim" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)

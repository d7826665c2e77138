"""A store of any older version is brought to the newest with its data, or left as it was.

``schemas/2.*.sql`` is what version 2 created, word for word; version 1 had no table ``asides``.
"""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from fleet_kit import Packed, draw, record

from edge_contract import manifest, telemetry
from edge_contract.errors import InputFault, MachineFault
from edge_contract.residuals import Residuals
from edge_fleet import kept
from edge_fleet.library import Library
from edge_fleet.store import migrations, sql, tables
from edge_fleet.store.base import AsideKind, AsideSeen
from edge_fleet.store.sql import SqlStore, open_store

SCHEMAS = Path(__file__).parent / "schemas"
COUNTED, PENDING = 1, 0


def made_by(version: int, db: str, packed: Packed, rng: np.random.Generator) -> np.ndarray:
    """A database as that version left it, with data; returns the sum of what it counted."""
    engine = sa.create_engine(sql._parse(db))
    ddl = (SCHEMAS / f"2.{engine.dialect.name}.sql").read_text()
    profile = manifest.decode(packed.manifest_bytes).file("profile.json").sha256
    total = np.zeros(packed.profile.cells, dtype=np.int64)
    with engine.begin() as connection:
        for statement in ddl.splitlines():
            if version == 2 or "asides" not in statement:
                connection.exec_driver_sql(statement)
        connection.execute(sa.insert(tables.schema_version).values(version=version))
        connection.execute(sa.insert(tables.settings).values(name="fleet", value="test"))
        for digest, data in ((packed.digest, packed.manifest_bytes), (profile, packed.stored)):
            blob = {"sha256": bytes.fromhex(digest), "data": data, "stored_ms": 0}
            connection.execute(sa.insert(tables.blobs).values(blob))
        for seq in range(6):
            counts = packed.counts(draw(rng, 40))
            one = record(packed, counts, seq=seq)
            if seq % 2:  # both codings were written
                coded = Residuals(packed.profile).write(counts, 40)
                one = telemetry.Record(
                    **{name: getattr(one, name) for name in one.__struct_fields__}
                    | {"coding": telemetry.CODING_RESIDUALS, "counts": coded}
                )
            values = {
                "device": "pi-1", "boot": 1, "seq": seq, "bundle": one.bundle,
                "counted": COUNTED if seq < 4 else PENDING, "received_ms": 1000 + seq,
                "record": telemetry.encode(one),
            }  # fmt: skip
            connection.execute(sa.insert(tables.windows).values(values))
            total += counts if seq < 4 else 0
    engine.dispose()
    return total


def counted(store: SqlStore, packed: Packed) -> np.ndarray:
    with store.reading() as tx:
        known = Library().find(tx, packed.digest)
        assert known
        return kept.by_device(tx, known, 0)["pi-1"]


def schema(db: str) -> dict[str, set[str]]:
    """Tables with their columns and indexes."""
    engine = sa.create_engine(sql._parse(db))
    found = sa.inspect(engine)
    names = {
        table: {column["name"] for column in found.get_columns(table)}
        | {f"index {index['name']}" for index in found.get_indexes(table)}
        for table in found.get_table_names()
    }
    engine.dispose()
    return names


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_store_is_brought_up_to_date_with_all_that_is_in_it(
    version: int, any_db: str, packed: Packed, rng: np.random.Generator
) -> None:
    total = made_by(version, any_db, packed, rng)
    with pytest.raises(InputFault, match=f"schema version {version}, this edge-fleet needs"):
        open_store(any_db, create=False)
    store = open_store(any_db, create=True)
    assert (counted(store, packed) == total).all()
    with store.transaction() as tx:
        assert [window.seq for window in tx.pending(packed.digest, 9)] == [4, 5]
        tx.add_asides([AsideSeen("pi-1", 1, 7, AsideKind.SHADOW, packed.digest, 90, b"bytes")])
        assert [each.seq for each in tx.asides(AsideKind.SHADOW)] == [7]
    store.close()
    open_store(any_db, create=False).close()
    wanted = {
        table.name: {column.name for column in table.columns}
        | {f"index {index.name}" for index in table.indexes}
        for table in tables.metadata.sorted_tables
    }
    assert schema(any_db) == wanted, "the same as of a store made anew"


def test_a_store_of_a_later_version_is_refused_with_advice_and_left_alone(
    any_db: str, packed: Packed, rng: np.random.Generator
) -> None:
    made_by(2, any_db, packed, rng)
    engine = sa.create_engine(sql._parse(any_db))
    with engine.begin() as connection:
        connection.execute(tables.schema_version.update().values(version=migrations.VERSION + 1))
    engine.dispose()
    before = schema(any_db)
    for create in (True, False):
        with pytest.raises(InputFault, match="this edge-fleet knows") as caught:
            open_store(any_db, create=create)
        assert "Update edge-pack" in str(caught.value)
    assert schema(any_db) == before


KILLED = """
import sys
from edge_fleet.store import migrations, sql
real = dict(migrations.STEPS)
def half(connection):
    real[2](connection)
    print("half", flush=True)
    sys.stdin.read()
migrations.migrate.__kwdefaults__["steps"] = {**real, 2: half}
sql.open_store(sys.argv[1], create=True)
"""


@pytest.mark.parametrize("version", [1, 2])
def test_killed_in_the_middle_it_has_changed_nothing(
    version: int, any_db: str, packed: Packed, rng: np.random.Generator
) -> None:
    total = made_by(version, any_db, packed, rng)
    before = schema(any_db)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, any_db], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.close()
    assert schema(any_db) == before
    store = open_store(any_db, create=True)
    assert (counted(store, packed) == total).all()
    store.close()


def test_a_step_that_fails_leaves_the_version_before(
    any_db: str, packed: Packed, rng: np.random.Generator
) -> None:
    made_by(2, any_db, packed, rng)
    engine = sa.create_engine(sql._parse(any_db))
    with engine.begin() as connection:  # somebody's own table is in the way
        connection.exec_driver_sql("CREATE TABLE rolled (x INTEGER)")
    engine.dispose()
    before = schema(any_db)
    with pytest.raises(MachineFault, match="already exists"):
        open_store(any_db, create=True)
    assert schema(any_db) == before


def test_a_store_of_version_3_gets_the_tables_of_version_4_and_keeps_its_data(
    any_db: str, packed: Packed, rng: np.random.Generator
) -> None:
    total = made_by(2, any_db, packed, rng)
    open_store(any_db, create=True).close()
    wanted = schema(any_db)
    engine = sa.create_engine(sql._parse(any_db))
    with engine.begin() as connection:
        for name in ("rollouts", "wishes", "api_tokens", "api_writes", "alarm_notes", "audit",
                     "device_clocks", "releases"):  # fmt: skip
            tables.metadata.tables[name].drop(connection)
        connection.execute(sa.text("DROP INDEX alarms_opened"))
        connection.execute(sa.text("DROP INDEX windows_waiting"))
        connection.execute(tables.schema_version.update().values(version=3))
    engine.dispose()
    store = open_store(any_db, create=True)
    assert (counted(store, packed) == total).all()
    with store.transaction() as tx:
        assert (tx.rollouts(), tx.wishes()) == ([], {})
    store.close()
    assert schema(any_db) == wanted


def test_a_store_of_version_4_gets_the_tables_of_version_5_and_keeps_its_data(
    any_db: str, packed: Packed, rng: np.random.Generator
) -> None:
    total = made_by(2, any_db, packed, rng)
    open_store(any_db, create=True).close()
    wanted = schema(any_db)
    engine = sa.create_engine(sql._parse(any_db))
    with engine.begin() as connection:
        for name in ("audit", "device_clocks", "releases"):
            tables.metadata.tables[name].drop(connection)
        connection.execute(sa.text("DROP INDEX windows_waiting"))
        connection.execute(tables.schema_version.update().values(version=4))
    engine.dispose()
    store = open_store(any_db, create=True)
    assert (counted(store, packed) == total).all()
    with store.transaction() as tx:
        assert tx.audits_before((), 9) == []
    store.close()
    assert schema(any_db) == wanted


@pytest.mark.parametrize("any_db", ["postgresql"], indirect=True)
def test_collectors_that_start_at_once_on_an_empty_database_all_start(any_db: str) -> None:
    """As Compose and Kubernetes start them; without a lock all but one fail on a table's name."""
    at_once = threading.Barrier(6)

    def start(_: int) -> int | None:
        at_once.wait(60)
        store = open_store(any_db, create=True)
        at_once.wait(60)
        store.claim("test")
        with store.connection(reading=True) as connection:
            version = migrations.stored_version(connection)
        store.close()
        return version

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(start, range(6))) == [migrations.VERSION] * 6

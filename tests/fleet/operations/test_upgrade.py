"""Stores that former versions really wrote, of both kinds, are brought up to date and go on.

``old/N.*.zst`` were written by the code of schema N (see ``old/make.py``): two devices, 40 windows
each, one of which drifts: evidence, an alarm, events, a fault.
"""

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
import stores_kit
import zstandard
from fleet_kit import BUDGET, Packed, draw, record

from edge_contract import telemetry
from edge_contract.errors import InputFault
from edge_fleet import kept, reports
from edge_fleet.backups import restoring, taking
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.store import migrations, sql
from edge_fleet.store.sql import SqlStore, open_store, reach
from edge_fleet.windows import window_of

OLD = Path(__file__).parent / "old"
T = 1_789_000_000_000
NOW = T + 41 * 60_000
VERSIONS = (2, 3, 4)


def brought(version: int, db: str, tmp_path: Path) -> None:
    """Put the stored database of ``version`` at ``db``."""
    url = sa.make_url(db)
    kind = url.get_backend_name()
    packed = (OLD / f"{version}.{kind}.zst").read_bytes()
    data = zstandard.ZstdDecompressor().decompress(packed, max_output_size=2**24)
    if kind == "sqlite":
        Path(str(url.database)).write_bytes(data)
        return
    dump = tmp_path / "dump.sql"
    # psql of an older minor release knows no \restrict, which pg_dump writes since CVE-2025-8714.
    lines = [line for line in data.splitlines() if not line.startswith((b"\\restr", b"\\unrestr"))]
    dump.write_bytes(b"\n".join(lines) + b"\n")
    words = ["psql", "-h", url.query["host"], "-U", "edge", "-q", "-v", "ON_ERROR_STOP=1"]
    subprocess.run(
        [*words, "-d", str(url.database), "-f", dump], check=True, stdout=subprocess.DEVNULL
    )


def rows_of(db: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table that is there, whatever the version."""
    engine = sa.create_engine(sql._parse(db))
    found = {}
    with engine.connect() as connection:
        metadata = sa.MetaData()
        metadata.reflect(connection)
        for table in metadata.sorted_tables:
            order = [column for column in table.columns if column.primary_key]
            rows = connection.execute(sa.select(table).order_by(*order))
            found[table.name] = [dict(row._mapping) for row in rows]
    engine.dispose()
    return found


def check_kept(before: dict[str, list[dict[str, Any]]], db: str) -> None:
    """Each old value stands where it stood; there may be more tables, columns and rows."""
    after = rows_of(db)
    for name, rows in before.items():
        if name == "schema_version":
            assert after[name] == [{"version": migrations.VERSION}]
            continue
        assert len(after[name]) == len(rows), name
        for old, new in zip(rows, after[name], strict=True):
            assert {key: new[key] for key in old} == old, name


def check_goes_on(db: str, packed: Packed, rng: np.random.Generator) -> None:
    """Reports read it, and the evidence of each device goes on from where it was."""
    store = open_store(db, create=False)
    found = reports.status(store, NOW)
    assert (found.fleet, found.devices, found.windows, found.open_alarms) == ("test", 2, 80, 1)
    (alarm,) = [each for each in reports.drift(store, NOW).alarms if each.resolved is None]
    assert (alarm.device, alarm.feature) == ("pi-2", "temperature")
    with store.reading() as tx:
        detectors = {each.device: each for each in tx.all_detectors()}
        bundle = detectors["pi-1"].bundle  # that version's: its manifest has fewer fields
        known = Library().find(tx, bundle)
        assert known is not None and known.profile is not None
        sums = kept.by_device(tx, known, 0)
    cells = packed.profile.monitors[0].cells
    assert [int(sums[device][:cells].sum()) for device in ("pi-1", "pi-2")] == [2400, 2400]
    evidence = Evidence(Library(), BUDGET)
    packed = dataclasses.replace(packed, profile=known.profile)
    one = msgspec.structs.replace(
        record(packed, packed.counts(draw(rng, 60)), seq=41, start_ms=NOW - 60_000),
        bundle=bytes.fromhex(bundle),
    )
    with store.transaction() as tx:
        fresh = tx.add_windows([window_of(telemetry.encode(one), NOW)])
        outcome = evidence.count(tx, fresh, NOW)
        again = tx.add_windows([window_of(telemetry.encode(one), NOW)])
    assert (len(fresh), outcome.faults, outcome.unknown, again) == (1, [], set(), [])
    with store.reading() as tx:
        after = {each.device: each for each in tx.all_detectors()}
    assert detectors["pi-1"].windows == 40 and after["pi-1"].windows == 41
    assert after["pi-2"] == detectors["pi-2"]
    store.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_that_an_older_version_wrote_is_upgraded_and_goes_on(
    version: int, any_db: str, tmp_path: Path, packed: Packed, rng: np.random.Generator
) -> None:
    brought(version, any_db, tmp_path)
    before = rows_of(any_db)
    with pytest.raises(InputFault, match=f"schema version {version}, this edge-fleet needs"):
        open_store(any_db, create=False)
    assert rows_of(any_db) == before
    open_store(any_db, create=True).close()
    check_kept(before, any_db)
    check_goes_on(any_db, packed, rng)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_backup_taken_before_the_upgrade_is_restored_and_brought_up_to_date(
    version: int, any_db: str, tmp_path: Path, packed: Packed, rng: np.random.Generator
) -> None:
    """Also from one kind of database into the other."""
    brought(version, any_db, tmp_path)
    before = rows_of(any_db)
    old, file = reach(any_db, create=False), tmp_path / "before.backup"
    assert taking.take(old, file, NOW).version == version
    old.close()
    assert rows_of(any_db) == before
    db = f"sqlite:///{tmp_path}/restored.db"
    store = reach(db, create=True)
    told = restoring.restore(store, file, force=False, by="ops", now_ms=NOW)
    store.close()
    assert (told.version, told.into) == (version, migrations.VERSION)
    goes_on = open_store(db, create=False)
    assert stores_kit.dump(goes_on)["windows"]
    goes_on.close()
    check_goes_on(db, packed, rng)


def test_going_back_is_refused_with_advice_and_changes_nothing(any_store: SqlStore) -> None:
    """What an older program would say is said by the same lines of today's."""
    with any_store.connection(reading=False) as connection:
        connection.execute(sa.text(f"UPDATE schema_version SET version = {migrations.VERSION + 1}"))
    before = stores_kit.dump(any_store)
    with (
        pytest.raises(InputFault, match="it never changes a newer database"),
        any_store.connection(reading=False) as connection,
    ):
        migrations.migrate(connection)
    assert stores_kit.dump(any_store) == before

"""A backup is the store of one moment; it is restored whole, into either kind, or not at all."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
import stores_kit

from edge_contract.errors import InputFault, MachineFault
from edge_fleet.backups import form, restoring, taking
from edge_fleet.store import migrations, tables
from edge_fleet.store.base import Alarm
from edge_fleet.store.sql import SqlStore, open_store

NOW = 1_790_000_000_000


def filled(db: str, seed: int) -> SqlStore:
    store = open_store(db, create=True)
    store.claim("plant")
    stores_kit.fill(store, random.Random(seed))
    return store


@pytest.fixture
def taken(tmp_path: Path, seed: int) -> tuple[Path, stores_kit.Dump]:
    """A backup of an SQLite store, and what was in that."""
    store = filled(f"sqlite:///{tmp_path}/from.db", seed)
    file = tmp_path / "fleet.backup"
    taking.take(store, file, NOW)
    found = stores_kit.dump(store)
    store.close()
    return file, found


def reached(db: str) -> SqlStore:
    from edge_fleet.store.sql import reach

    return reach(db, create=True)


def restored(store: SqlStore, file: Path, *, force: bool) -> restoring.Restored:
    return restoring.restore(store, file, force=force, by="ops", now_ms=NOW + 1)


def without_note(found: stores_kit.Dump) -> stores_kit.Dump:
    """Without the entry in the audit that says who restored it."""
    (*others, last) = found["audit"]
    assert last[1:4] == (NOW + 1, "ops", "store.restore")
    return {**found, "audit": others}


def test_every_row_of_every_table_moves_between_the_kinds_of_database_and_back(
    tmp_path: Path, any_db: str, taken: tuple[Path, stores_kit.Dump]
) -> None:
    file, rows = taken
    there = reached(any_db)
    told = restored(there, file, force=False)
    assert without_note(stores_kit.dump(there)) == rows
    assert told.rows == {name: len(each) for name, each in rows.items() if name in told.rows}
    assert (told.fleet, told.created_ms, told.into) == ("plant", NOW, migrations.VERSION)
    again = tmp_path / "again.backup"
    taking.take(there, again, NOW)
    there.close()
    back = reached(f"sqlite:///{tmp_path}/back.db")
    restored(back, again, force=False)
    once = without_note(stores_kit.dump(back))
    assert without_note(once) == rows, "one note of each restoring"
    back.close()


def test_numbers_that_the_database_gives_go_on_behind_those_restored(
    any_db: str, taken: tuple[Path, stores_kit.Dump]
) -> None:
    file, rows = taken
    there = reached(any_db)
    restored(there, file, force=False)
    alarm = Alarm(
        "pi-1", "m", "1", "00" * 32, 0, "input", "x", NOW, NOW, 1.0, 1.0, b""
    )  # fmt: skip
    with there.transaction() as tx:
        assert tx.add_alarm(alarm) == max(row[0] for row in rows["alarms"]) + 1
    there.close()


def test_what_is_written_meanwhile_is_not_in_it(any_db: str, tmp_path: Path, seed: int) -> None:
    store = filled(any_db, seed)
    before = stores_kit.dump(store)
    other = open_store(any_db, create=False)
    asked: list[int] = []

    def write(done: int, _total: int) -> None:
        asked.append(done)
        with other.connection(reading=False) as connection:
            connection.execute(sa.delete(tables.windows))
            name = f"late-{len(asked)}"
            connection.execute(sa.insert(tables.settings).values(name=name, value="x"))

    file = tmp_path / "fleet.backup"
    taking.take(store, file, NOW, write)
    assert len(asked) > 5, "the others wrote while it was taken"
    assert stores_kit.dump(store) != before
    there = reached(f"sqlite:///{tmp_path}/there.db")
    restored(there, file, force=False)
    assert without_note(stores_kit.dump(there)) == before
    for each in (store, other, there):
        each.close()


def test_only_its_owner_may_read_it_and_nothing_is_left_beside_it(
    taken: tuple[Path, stores_kit.Dump],
) -> None:
    file, _ = taken
    assert file.stat().st_mode & 0o777 == 0o600
    assert not list(file.parent.glob(".*"))


def test_a_disk_that_cannot_take_it_leaves_no_file(tmp_path: Path, seed: int) -> None:
    store = filled(f"sqlite:///{tmp_path}/from.db", seed)
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(MachineFault, match="no regular file"):
        taking.take(store, target, NOW)

    def full(_done: int, _total: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineFault, match="No space left"):
        taking.take(store, tmp_path / "x.backup", NOW, full)
    assert not (tmp_path / "x.backup").exists() and not list(tmp_path.glob(".x*"))
    store.close()


def test_a_store_that_holds_something_is_replaced_only_by_force(
    any_db: str, taken: tuple[Path, stores_kit.Dump], seed: int
) -> None:
    file, rows = taken
    there = filled(any_db, seed + 1)
    before = stores_kit.dump(there)
    with pytest.raises(InputFault, match="is not empty"):
        restored(there, file, force=False)
    assert stores_kit.dump(there) == before
    restored(there, file, force=True)
    assert without_note(stores_kit.dump(there)) == rows
    there.close()


def test_nothing_is_restored_under_a_collector_at_work(
    any_db: str, taken: tuple[Path, stores_kit.Dump], seed: int
) -> None:
    file, rows = taken
    there, other = filled(any_db, seed + 1), reached(any_db)
    there.put_settings({"collector-3": "1"})
    before = stores_kit.dump(there)
    for ordinal in (0, 3):
        with there.lock(ordinal), pytest.raises(InputFault, match="already works on"):
            restored(other, file, force=True)
    assert stores_kit.dump(there) == before
    restored(other, file, force=True)
    assert without_note(stores_kit.dump(there)) == rows
    there.close()
    other.close()


def test_a_file_cut_off_anywhere_is_refused_and_changes_nothing(
    tmp_path: Path, taken: tuple[Path, stores_kit.Dump], seed: int
) -> None:
    file, _ = taken
    whole = file.read_bytes()
    there = filled(f"sqlite:///{tmp_path}/there.db", seed + 1)
    before = stores_kit.dump(there)
    rng = random.Random(seed)
    lengths = {*range(80), len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(60))}
    for length in lengths:
        file.write_bytes(whole[:length])
        with pytest.raises(InputFault):
            restored(there, file, force=True)
    assert stores_kit.dump(there) == before
    there.close()


def test_a_changed_byte_is_found_wherever_it_is(
    taken: tuple[Path, stores_kit.Dump], seed: int
) -> None:
    file, _ = taken
    whole = file.read_bytes()
    rng = random.Random(seed)
    for at in {*range(60), *(rng.randrange(len(whole)) for _ in range(80))}:
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
        with pytest.raises(InputFault):
            restoring.verify(file)
    file.write_bytes(whole + b"\0")
    with pytest.raises(InputFault, match="seal"):
        restoring.verify(file)


def written(path: Path, header: form.Header, rows: list[list[form.Value]]) -> Path:
    with path.open("wb") as file:
        writer = form.Writer(file, header)
        writer.rows(0, rows)
        writer.seal()
    return path


def header(*tables_: form.TableForm, version: int = migrations.VERSION) -> form.Header:
    return form.Header(version, NOW, "plant", "sqlite", "0.1.0", tables_)


SETTINGS = form.TableForm("settings", ("name", "value"))


@pytest.mark.parametrize(
    ("made", "row", "why"),
    [
        (header(SETTINGS, version=migrations.VERSION + 1), ["a", "b"], "schema version"),
        (header(form.TableForm("sqlite_master", ("sql",))), ["x"], "nobody's"),
        (header(form.TableForm("schema_version", ("version",))), [99], "nobody's"),
        (header(form.TableForm("settings", ("name", "value; DROP"))), ["a", "b"], "nobody's"),
        (header(SETTINGS), ["a", 7], "a int in settings.value"),
        (header(SETTINGS), ["a", None], "NoneType"),
        (header(SETTINGS), ["a"], "does not fit its columns"),
        (header(SETTINGS, SETTINGS), ["a", "b"], "makes no sense"),
    ],
)
def test_a_file_that_somebody_made_up_is_refused_before_anything_changes(
    tmp_path: Path, made: form.Header, row: list[form.Value], why: str
) -> None:
    file = written(tmp_path / "made-up", made, [row])
    there = reached(f"sqlite:///{tmp_path}/there.db")
    with pytest.raises(InputFault, match=why):
        restored(there, file, force=True)
    with there.connection(reading=True) as connection:
        assert migrations.stored_version(connection) is None
    there.close()


def test_a_part_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    import hashlib

    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(form.BLOCK_MAX_BYTES + 1))
    for body in (
        (2**32 - 1).to_bytes(4, "big") + bytes(32),
        len(bomb).to_bytes(4, "big") + hashlib.sha256(bomb).digest() + bomb,
    ):
        file = tmp_path / "bomb"
        file.write_bytes(form.MAGIC + body)
        with pytest.raises(InputFault, match="claims"):
            restoring.verify(file)


KILLED = """
import sys
from pathlib import Path
from edge_fleet.backups import restoring
from edge_fleet.store.sql import reach
file, db, after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
calls = 0
def wait(_done, _total):
    global calls
    calls += 1
    if calls == after:
        print("there", flush=True)
        sys.stdin.read()
restoring.restore(
    reach(db, create=True), file, force=True, by="me", now_ms=1, progress=wait)
"""


def test_killed_while_it_restores_the_store_is_what_it_was(
    any_db: str, taken: tuple[Path, stores_kit.Dump], seed: int
) -> None:
    file, rows = taken
    blocks = 0

    def count(_done: int, _total: int) -> None:
        nonlocal blocks
        blocks += 1

    restoring.verify(file, count)
    there = filled(any_db, seed + 1)
    before = stores_kit.dump(there)
    for after in (1, blocks + 2, 2 * blocks - 1):  # while it verifies, and twice while it writes
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, file, any_db, str(after)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == b"there\n"
        child.kill()
        child.wait()
        child.stdout.close()
        child.stdin.close()
        assert stores_kit.dump(there) == before
    restored(there, file, force=True)
    assert without_note(stores_kit.dump(there)) == rows
    there.close()

"""Puts a backup into a store, of either kind.

Guards, in this order: (1) the whole file is read and every hash in it holds; (2) the store is
empty, or the user said that what is in it may go; (3) no collector works on it; (4) everything is
one transaction: whatever ends it before its commit, the store holds what it held before. The file
is checked a second time as its rows go in, so that one which changed meanwhile changes nothing.

A backup of an older schema lacks tables and columns: the tables stay empty and the columns get
their defaults, which is what ``store.migrations`` does as long as each step only adds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    func,
    insert,
    inspect,
    literal_column,
    select,
)

from edge_contract.errors import InputFault, MachineFault
from edge_fleet.backups.form import Block, Header, Rows, Seal, TableForm, Value, blocks
from edge_fleet.leader import LOCK_ORDINAL
from edge_fleet.reports import instant
from edge_fleet.store import migrations, tables
from edge_fleet.store.audit import audit
from edge_fleet.store.sql import SqlStore
from edge_fleet.store.transaction import SqlTransaction

Progress = Callable[[int, int], None]
"""Told (bytes of the file so far, bytes in all)."""
_BEAT = "collector-"


class Restored(msgspec.Struct, frozen=True):
    """What is in a backup, and in the store once it was restored.

    Attributes:
        version: the backup's schema; ``into``: the store's, after it.
        created_ms: when it was taken, milliseconds since 1970 UTC.
    """

    fleet: str
    created_ms: int
    version: int
    into: int
    rows: dict[str, int]


def verify(path: Path, progress: Progress = lambda *_: None) -> Restored:
    """Step 1: read all of it. Raises InputFault for a file that is damaged or of a later schema."""
    header: Header | None = None
    counts: dict[str, int] = {}
    for block in _read(path, progress):
        match block:
            case Header():
                header = _known(block)
            case Rows() if header is not None:
                _check_values(header.tables[block.table], block.rows)
            case Seal():
                counts = block.rows
    assert header is not None, "blocks() ends with the seal"
    return Restored(header.fleet, header.created_ms, header.version, migrations.VERSION, counts)


def restore(
    store: SqlStore,
    path: Path,
    *,
    force: bool,
    by: str,
    now_ms: int,
    progress: Progress = lambda *_: None,
) -> Restored:
    """Make ``store`` what the backup says, and ``by`` the last one in its audit.

    ``force``: also where it holds something.

    Raises InputFault (the file, a store that is not empty or in use), MachineFault (the store).
    """
    found = verify(path, progress)  # 1
    with store.connection(reading=True) as connection:
        ordinals = _check_target(connection, store, force=force)  # 2
    with contextlib.ExitStack() as stack:
        for ordinal in sorted({0, LOCK_ORDINAL, *ordinals}):  # 3
            stack.enter_context(store.lock(ordinal))
        stack.enter_context(store.compacting())
        connection = stack.enter_context(store.connection(reading=False))  # 4
        _check_target(connection, store, force=force)
        # Dropped, not emptied: the audit's rows let nobody delete them, and indexes come anew.
        tables.metadata.drop_all(connection)
        migrations.migrate(connection)
        _fill(connection, path, progress)
        _check_counts(connection, found.rows)
        _note(connection, found, by, now_ms)
    return found


def _read(path: Path, progress: Progress) -> Iterator[Block]:
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            yield from blocks(file, lambda at: progress(at, total))
    except OSError as error:
        raise InputFault(f"cannot read {path}: {error.strerror or error}") from error


def _known(header: Header) -> Header:
    """Each table and column is one of this program's schema."""
    if header.version > migrations.VERSION:
        raise InputFault(
            f"the backup is of schema version {header.version}, this edge-fleet knows"
            f" {migrations.VERSION}",
            advice="Update edge-pack on this machine, or restore with the one that wrote it"
            f" ({header.program[:40]}).",
        )
    for form in header.tables:
        table = tables.metadata.tables.get(form.name)
        columns = {column.name for column in table.columns} if table is not None else set()
        if form.name == tables.schema_version.name or not set(form.columns) <= columns:
            raise InputFault(f"the backup names a table or column of nobody's: {form.name[:64]!r}")
    return header


def _check_values(form: TableForm, rows: list[list[Value]]) -> None:
    columns = [tables.metadata.tables[form.name].c[name] for name in form.columns]
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            if not _fits(column, value):
                raise InputFault(
                    f"the backup holds a {type(value).__name__} in {form.name}.{column.name}"
                )


def _fits(column: Column[Any], value: Value) -> bool:
    if value is None:
        return bool(column.nullable)
    match column.type:
        case Boolean():
            return isinstance(value, bool)
        case Integer():  # the small and the big ones, too
            return type(value) is int and -(2**63) <= value < 2**63
        case Float():
            return isinstance(value, float) or type(value) is int
        case LargeBinary():
            return isinstance(value, bytes)
    return isinstance(value, str)


def _check_target(connection: Connection, store: SqlStore, *, force: bool) -> set[int]:
    """Step 2; the ordinals of collectors that ever worked on it."""
    version = migrations.stored_version(connection)
    if version is None:
        return set()
    if version > migrations.VERSION:
        migrations.check_version(version)
    names = set(inspect(connection).get_table_names())
    filled = [
        table.name
        for table in tables.metadata.sorted_tables
        if table is not tables.schema_version and table.name in names
        if connection.execute(select(literal_column("1")).select_from(table).limit(1)).first()
    ]
    if filled and not force:
        raise InputFault(
            f"{store} is not empty: it has rows in {', '.join(filled[:5])}",
            advice="Name an empty database, or --force to replace all that is in it.",
        )
    found = connection.execute(
        select(tables.settings.c.name).where(tables.settings.c.name.like(f"{_BEAT}%"))
    )
    numbers = [row.name.removeprefix(_BEAT) for row in found]
    return {int(number) for number in numbers if number.isascii() and number.isdigit()}


def _fill(connection: Connection, path: Path, progress: Progress) -> None:
    header: Header | None = None
    for block in _read(path, progress):
        if isinstance(block, Header):
            header = _known(block)
        elif isinstance(block, Rows) and header is not None:
            form = header.tables[block.table]
            _check_values(form, block.rows)
            values = [dict(zip(form.columns, row, strict=True)) for row in block.rows]
            if values:
                connection.execute(insert(tables.metadata.tables[form.name]), values)
    if connection.dialect.name == "postgresql":
        _count_on(connection)


def _note(connection: Connection, found: Restored, by: str, now_ms: int) -> None:
    """What came after the backup is gone, its audit too: this says so."""
    detail = f"a backup of {instant(found.created_ms) or 'an unknown time'}"
    tx = SqlTransaction(connection)
    audit(tx, now_ms, by, action="store.restore", subject="store", detail=detail)


def _count_on(connection: Connection) -> None:
    """PostgreSQL's sequences go on behind the numbers that were put in; SQLite's do by itself."""
    for table in tables.metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None:
            continue
        highest = connection.execute(select(func.max(column))).scalar_one()
        sequence = connection.execute(
            select(func.pg_get_serial_sequence(table.name, column.name))
        ).scalar_one()
        if highest is not None and sequence is not None:
            connection.execute(select(func.setval(sequence, highest)))


def _check_counts(connection: Connection, counts: dict[str, int]) -> None:
    for name, wanted in counts.items():
        table = tables.metadata.tables[name]
        there = connection.execute(select(func.count()).select_from(table)).scalar_one()
        if there != wanted:
            raise MachineFault(
                f"table {name} has {there} rows after restoring, the backup {wanted}",
                advice="Nothing was changed. Restore again while nothing else uses the database.",
            )

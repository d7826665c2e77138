"""Takes a backup of a store while collectors and services work on it.

Guards: all of it is one moment of the store (SQLite: one reading transaction over the WAL;
PostgreSQL: REPEATABLE READ). The file is complete and flushed before it has its name; only its
owner may read it, since it holds all that the store holds.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path

import msgspec
from sqlalchemy import Connection, Table, func, inspect, select

from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports import disk
from edge_fleet.backups.form import Header, TableForm, Value, Writer
from edge_fleet.store import migrations, tables
from edge_fleet.store.sql import SqlStore

ROWS_AT_ONCE = 500
BLOCK_BYTES = 1024 * 1024
Progress = Callable[[int, int], None]
"""Told (rows so far, rows in all)."""


class Taken(msgspec.Struct, frozen=True):
    """What was written."""

    file: str
    version: int
    fleet: str
    rows: dict[str, int]
    size_bytes: int


def take(store: SqlStore, path: Path, now_ms: int, progress: Progress = lambda *_: None) -> Taken:
    """Write all of ``store``, of this or an older schema, to ``path`` (mode 0600).

    Raises InputFault for a store that holds no fleet, or is of a later schema; MachineFault.
    """
    disk.check_place(path)
    temporary = ""
    try:
        disk.make_folder(path.parent)
        handle, temporary = tempfile.mkstemp(disk.TEMPORARY, f".{path.name}.", path.parent)
        with os.fdopen(handle, "wb") as file, store.connection(reading=True) as connection:
            header, found = _header(connection, store, now_ms)
            writer = Writer(file, header)
            _write(connection, writer, found, progress)
            counts = writer.seal()
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        disk.sync_directory(path.parent)
        temporary = ""
    except OSError as error:
        raise MachineFault(
            f"cannot write {path}: {error.strerror or error}",
            advice="Check free space and permissions; the store was only read.",
        ) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
    return Taken(str(path), header.version, header.fleet, counts, writer.size_bytes)


def _header(
    connection: Connection, store: SqlStore, now_ms: int
) -> tuple[Header, list[tuple[Table, TableForm]]]:
    version = migrations.stored_version(connection)
    if version is None:
        raise InputFault(f"{store} holds no fleet yet", advice="Name its store with --db.")
    if version > migrations.VERSION:
        migrations.check_version(version)
    there = inspect(connection)
    names = set(there.get_table_names())
    found = []
    for table in tables.metadata.sorted_tables:
        if table.name in names and table.name != tables.schema_version.name:
            columns = {column["name"] for column in there.get_columns(table.name)}
            kept = tuple(str(name) for name in (c.name for c in table.columns) if name in columns)
            found.append((table, TableForm(str(table.name), kept)))
    wanted = tables.settings.c.name == "fleet"
    fleet = connection.execute(select(tables.settings.c.value).where(wanted)).scalar_one_or_none()
    header = Header(
        version=version,
        created_ms=now_ms,
        fleet=fleet or "",
        kind=connection.dialect.name,
        program=version_of("edge-pack"),
        tables=tuple(form for _, form in found),
    )
    return header, found


def _write(
    connection: Connection,
    writer: Writer,
    found: list[tuple[Table, TableForm]],
    progress: Progress,
) -> None:
    total = sum(
        connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table, _ in found
    )
    done = 0
    for number, (table, form) in enumerate(found):
        columns = [table.c[name] for name in form.columns]
        result = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(
            select(*columns).order_by(*table.primary_key.columns)
        )
        block: list[list[Value]] = []
        size = 0
        for row in result:
            values = list(row)
            block.append(values)
            size += sum(len(value) if isinstance(value, (bytes, str)) else 9 for value in values)
            if size >= BLOCK_BYTES:
                writer.rows(number, block)
                done += len(block)
                progress(done, total)
                block, size = [], 0
        if block:
            writer.rows(number, block)
            done += len(block)
            progress(done, total)

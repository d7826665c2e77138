"""Brings a store to the schema that this program knows, one step at a time.

Guards: a store written by a newer program is refused, never guessed at. A fresh store gets the
newest tables at once; an old one gets each step that it lacks, in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Connection, insert, inspect, select, update

from edge_contract.errors import InputFault, MachineFault
from edge_fleet.store import (
    api_rows,
    audit_rows,
    firing_rows,
    group_rows,
    rollout_rows,
    sharing_rows,
    state_rows,
    tables,
    trend_rows,
)

VERSION = 5

Step = Callable[[Connection], None]


def _third(connection: Connection) -> None:
    """What version 3 adds."""
    for each in (tables.of_a_period, tables.sums, tables.rolled):
        each.create(connection)
    firing_rows.create(connection)
    group_rows.create(connection)


def _fourth(connection: Connection) -> None:
    """What version 4 adds."""
    rollout_rows.create(connection)
    api_rows.create(connection)


def _fifth(connection: Connection) -> None:
    """What version 5 adds."""
    audit_rows.create(connection)
    sharing_rows.create(connection)
    state_rows.create(connection)
    trend_rows.create(connection)


STEPS: Mapping[int, Step] = {1: tables.asides.create, 2: _third, 3: _fourth, 4: _fifth}
"""``STEPS[n]`` turns a store of version n into one of version n + 1."""


def stored_version(connection: Connection) -> int | None:
    """The store's schema version; None for a store without tables.

    Raises InputFault when there are tables but they are not ours.
    """
    names = inspect(connection).get_table_names()
    if not names:
        return None
    if tables.schema_version.name not in names:
        raise InputFault(
            "the database holds other tables and none of edge-fleet",
            advice="Name another database with --db; edge-fleet wants one of its own.",
        )
    version = connection.execute(select(tables.schema_version.c.version)).scalar_one_or_none()
    if version is None:
        raise MachineFault("the database has no schema version: its set-up was interrupted")
    return int(version)


def check_version(version: int) -> None:
    """Raises InputFault when the store is newer or older than this program."""
    if version > VERSION:
        raise InputFault(
            f"the database has schema version {version}, this edge-fleet knows {VERSION}",
            advice="Update edge-pack on this machine; it never changes a newer database.",
        )
    if version < VERSION:
        raise InputFault(
            f"the database has schema version {version}, this edge-fleet needs {VERSION}",
            advice="Start `edge-fleet serve` once: it brings the database up to date.",
        )


def migrate(
    connection: Connection, *, target: int = VERSION, steps: Mapping[int, Step] = STEPS
) -> None:
    """Create or upgrade the tables, within the caller's transaction."""
    version = stored_version(connection)
    if version is None:
        tables.metadata.create_all(connection)
        connection.execute(insert(tables.schema_version).values(version=target))
        return
    if version > target:
        check_version(version)
    for step in range(version, target):
        steps[step](connection)
        connection.execute(update(tables.schema_version).values(version=step + 1))

"""Clocks of devices, and what channels name, in SQL; see ``store.states`` for the promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Select, String, Table, select

from edge_fleet.store.base import EventSeen
from edge_fleet.store.states import ClockSeen, NamedRelease
from edge_fleet.store.tables import events, metadata

_IN_MAX = 400

device_clocks = Table(
    "device_clocks",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("ahead_ms", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

releases = Table(
    "releases",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("channel", String(64), nullable=False),
    Column("first_ms", BigInteger, nullable=False),
)


def create(connection: Connection) -> None:
    """The tables, in a store that lacks them."""
    metadata.create_all(connection, tables=[device_clocks, releases])


class StateRows:
    """This part of ``transaction.SqlTransaction``."""

    _connection: Connection
    _insert: Any

    def note_clock(self, seen: ClockSeen) -> None:
        statement = self._insert(device_clocks).values(vars(seen))
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[device_clocks.c.device],
                set_={name: statement.excluded[name] for name in ("ahead_ms", "at_ms")},
            )
        )

    def clocks(self, devices: Sequence[str] | None = None) -> dict[str, ClockSeen]:
        if devices is None:
            return self._clocks(select(device_clocks))
        found: dict[str, ClockSeen] = {}
        for at in range(0, len(devices), _IN_MAX):
            some = list(devices[at : at + _IN_MAX])
            found |= self._clocks(select(device_clocks).where(device_clocks.c.device.in_(some)))
        return found

    def _clocks(self, statement: Select[Any]) -> dict[str, ClockSeen]:
        return {
            row.device: ClockSeen(**row._mapping) for row in self._connection.execute(statement)
        }

    def add_releases(self, new: Sequence[NamedRelease]) -> None:
        if new:
            statement = self._insert(releases).on_conflict_do_nothing()
            self._connection.execute(statement, [vars(one) for one in new])

    def tell(self, new: Sequence[EventSeen]) -> list[EventSeen]:
        if not new:
            return []
        by_key = {(one.device, one.boot, one.seq): one for one in new}
        statement = (
            self._insert(events)
            .on_conflict_do_nothing()
            .returning(events.c.device, events.c.boot, events.c.seq)
        )
        rows = self._connection.execute(statement, [vars(one) for one in by_key.values()])
        return [by_key[key] for key in sorted(tuple(row) for row in rows)]

    def releases(self) -> list[NamedRelease]:
        order = (releases.c.first_ms, releases.c.model, releases.c.version, releases.c.digest)
        found = self._connection.execute(select(releases).order_by(*order))
        return [NamedRelease(**row._mapping) for row in found]

"""What several processes on one store need, in SQL; see ``store.sharing`` for the promises.

SQLite has one writer at a time, so that there is nothing to wait for within a transaction.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Index,
    delete,
    func,
    literal_column,
    select,
    text,
    tuple_,
    update,
)

from edge_fleet.store.base import Window
from edge_fleet.store.copying import held
from edge_fleet.store.rollups import Key
from edge_fleet.store.tables import blobs, settings, windows
from edge_fleet.windows import window_of

TERM = "leader-term"
_IN_MAX = 400
_LOCK_SPACE = 0x65646770
"""First key of the advisory locks of transactions; those of processes have another."""

_is_waiting = windows.c.counted == literal_column("0")
"""Word for word in every query, so that a database may use the index below."""
waiting_index = Index(
    "windows_waiting",
    windows.c.bundle,
    windows.c.received_ms,
    sqlite_where=_is_waiting,
    postgresql_where=_is_waiting,
)


def create(connection: Connection) -> None:
    """The index, in a store that lacks it."""
    waiting_index.create(connection, checkfirst=True)


class SharingRows:
    """This part of ``transaction.SqlTransaction``."""

    _connection: Connection
    _insert: Any

    def begin_term(self) -> int:
        first = self._insert(settings).values(name=TERM, value="0").on_conflict_do_nothing()
        self._connection.execute(first)
        held = select(settings.c.value).where(settings.c.name == TERM).with_for_update()
        term = int(self._connection.execute(held).scalar_one()) + 1
        self._connection.execute(
            update(settings).where(settings.c.name == TERM).values(value=str(term))
        )
        return term

    def in_term(self, term: int) -> bool:
        held = select(settings.c.value).where(settings.c.name == TERM).with_for_update(read=True)
        return self._connection.execute(held).scalar_one_or_none() == str(term)

    def alone(self, name: str) -> None:
        if self._connection.dialect.name == "postgresql":
            keys = {"space": _LOCK_SPACE, "number": zlib.crc32(name.encode()) - 2**31}
            self._connection.execute(text("SELECT pg_advisory_xact_lock(:space, :number)"), keys)

    def hold_devices(self, devices_: Iterable[str]) -> None:
        if self._connection.dialect.name == "postgresql":
            held(self._connection, sorted(set(devices_)))

    def waiting_bundles(self) -> list[str]:
        one = select(windows.c.bundle).where(_is_waiting, windows.c.bundle == blobs.c.sha256)
        found = select(blobs.c.sha256).where(one.exists()).order_by(blobs.c.sha256)
        return [bytes(one).hex() for one in self._connection.execute(found).scalars()]

    def unknown_bundles(self, limit: int) -> list[str]:
        newest = func.max(windows.c.received_ms)
        here = select(blobs.c.sha256).where(blobs.c.sha256 == windows.c.bundle)
        found = (
            select(windows.c.bundle)
            .where(_is_waiting, ~here.exists())
            .group_by(windows.c.bundle)
            .order_by(newest.desc())
            .limit(limit)
        )
        return [bytes(one).hex() for one in self._connection.execute(found).scalars()]

    def waiting_windows(self, bundle: str, limit: int) -> list[Window]:
        found = (
            select(windows.c.record, windows.c.received_ms)
            .where(_is_waiting, windows.c.bundle == bytes.fromhex(bundle))
            .order_by(windows.c.received_ms)
            .limit(limit)
        )
        return [
            window_of(bytes(row.record), row.received_ms) for row in self._connection.execute(found)
        ]

    def old_waiting(self, known: Sequence[str], before_ms: int, limit: int) -> list[Key]:
        found = (
            select(windows.c.device, windows.c.boot, windows.c.seq)
            .where(
                _is_waiting,
                windows.c.received_ms < before_ms,
                windows.c.bundle.not_in([bytes.fromhex(one) for one in known]),
            )
            .order_by(windows.c.bundle, windows.c.received_ms)  # that of the index
            .limit(limit)
        )
        return [(row.device, row.boot, row.seq) for row in self._connection.execute(found)]

    def drop_waiting(self, keys: Sequence[Key]) -> int:
        gone = 0
        for at in range(0, len(keys), _IN_MAX):
            key = tuple_(windows.c.device, windows.c.boot, windows.c.seq)
            some = delete(windows).where(_is_waiting, key.in_(keys[at : at + _IN_MAX]))
            gone += self._connection.execute(some).rowcount
        return gone

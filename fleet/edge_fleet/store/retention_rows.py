"""Taking out events and records beside the windows, in SQL; see ``store.retention``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, delete, select, tuple_

from edge_fleet.store.base import AsideKind
from edge_fleet.store.rollup_rows import RollupRows
from edge_fleet.store.rollups import Key
from edge_fleet.store.tables import asides, events

_KINDS = tuple(int(kind) for kind in AsideKind)
_IN_MAX = 400


class RetentionRows(RollupRows):
    """This part of ``transaction.SqlTransaction``."""

    def old_events(self, before_ms: int, limit: int) -> list[Key]:
        return self._keys(
            select(events.c.device, events.c.boot, events.c.seq)
            .where(events.c.received_ms < before_ms)
            .order_by(events.c.received_ms)
            .limit(limit)
        )

    def drop_events(self, keys: Sequence[Key]) -> None:
        self._delete(events, (events.c.device, events.c.boot, events.c.seq), list(keys))

    def old_asides(self, before_ms: int, limit: int) -> list[Key]:
        return self._keys(
            select(asides.c.device, asides.c.boot, asides.c.seq)
            .where(asides.c.kind.in_(_KINDS), asides.c.received_ms < before_ms)
            .limit(limit)
        )

    def drop_asides(self, keys: Sequence[Key]) -> None:
        self._delete(asides, (asides.c.device, asides.c.boot, asides.c.seq), list(keys))
        self._remember_all(keys)

    def _take_asides_back(self, kept: set[Key]) -> set[Key]:
        """Delete those that were taken out before, which came again; returns their keys."""
        known = sorted(self.rolled(kept))
        for at in range(0, len(known), _IN_MAX):
            key = tuple_(asides.c.device, asides.c.boot, asides.c.seq)
            self._connection.execute(delete(asides).where(key.in_(known[at : at + _IN_MAX])))
        return set(known)

    def _keys(self, statement: Select[Any]) -> list[Key]:
        found = self._connection.execute(statement)
        return [(row.device, row.boot, row.seq) for row in found]

"""Rollouts and wishes in SQL; see ``store.rollouts`` for the promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    Row,
    Select,
    String,
    Table,
    func,
    literal,
    select,
    tuple_,
)

from edge_fleet.store.api import Key
from edge_fleet.store.rollouts import RolloutRow, Wish
from edge_fleet.store.tables import metadata

_IN_MAX = 400
_LOCK_SPACE = 0x726F6C6C
"""First key of PostgreSQL's advisory locks of rollouts: "roll"."""
_STARTS = 1

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("model", String(64), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
)

wishes = Table(
    "wishes",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("desired", LargeBinary, nullable=False),
)


def create(connection: Connection) -> None:
    """The tables, in a store that lacks them."""
    metadata.create_all(connection, tables=[rollouts, wishes])


class RolloutRows:
    """This part of ``transaction.SqlTransaction``."""

    _connection: Connection
    _insert: Any

    def rollouts(self) -> list[RolloutRow]:
        found = self._connection.execute(select(rollouts).order_by(rollouts.c.id))
        return [_rollout(row) for row in found]

    def rollout(self, number: int) -> RolloutRow | None:
        return self._rollout(select(rollouts).where(rollouts.c.id == number))

    def rollout_held(self, number: int) -> RolloutRow | None:
        return self._rollout(select(rollouts).where(rollouts.c.id == number).with_for_update())

    def _rollout(self, statement: Select[Any]) -> RolloutRow | None:
        row = self._connection.execute(statement).one_or_none()
        return None if row is None else _rollout(row)

    def rollouts_before(
        self, before: Key, limit: int, *, model: str = "", phase: str = ""
    ) -> list[RolloutRow]:
        statement = select(rollouts).order_by(rollouts.c.id.desc()).limit(limit)
        if before:
            statement = statement.where(rollouts.c.id < before[0])
        if model:
            statement = statement.where(rollouts.c.model == model)
        if phase:
            statement = statement.where(rollouts.c.phase == phase)
        return [_rollout(row) for row in self._connection.execute(statement)]

    def new_rollouts(self, after: Key, until_ms: int, limit: int) -> list[RolloutRow]:
        place = tuple_(rollouts.c.updated_ms, rollouts.c.id)
        statement = select(rollouts).where(rollouts.c.updated_ms <= until_ms)
        if after:
            statement = statement.where(place > tuple_(*map(literal, after)))
        statement = statement.order_by(rollouts.c.updated_ms, rollouts.c.id).limit(limit)
        return [_rollout(row) for row in self._connection.execute(statement)]

    def serialise_starts(self) -> None:
        if self._connection.dialect.name == "postgresql":  # SQLite has one writer at a time
            self._connection.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, _STARTS)))

    def put_rollout(self, row: RolloutRow) -> None:
        statement = self._insert(rollouts).values(vars(row))
        fresh = ("phase", "updated_ms", "state")
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[rollouts.c.id],
                set_={name: statement.excluded[name] for name in fresh},
            )
        )

    def wishes(self) -> dict[str, Wish]:
        return self._wishes(select(wishes))

    def wishes_of(self, devices: Sequence[str]) -> dict[str, Wish]:
        found: dict[str, Wish] = {}
        for at in range(0, len(devices), _IN_MAX):
            some = devices[at : at + _IN_MAX]
            found |= self._wishes(select(wishes).where(wishes.c.device.in_(some)))
        return found

    def _wishes(self, statement: Select[Any]) -> dict[str, Wish]:
        return {
            row.device: Wish(row.device, row.revision, row.at_ms, bytes(row.desired))
            for row in self._connection.execute(statement)
        }

    def put_wishes(self, changed: Sequence[Wish]) -> None:
        if not changed:
            return
        statement = self._insert(wishes)
        fresh = ("revision", "at_ms", "desired")
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[wishes.c.device],
                set_={name: statement.excluded[name] for name in fresh},
                where=wishes.c.revision < statement.excluded["revision"],
            ),
            [vars(wish) for wish in changed],
        )


def _rollout(row: Row[Any]) -> RolloutRow:
    return RolloutRow(**{**row._mapping, "state": bytes(row.state)})

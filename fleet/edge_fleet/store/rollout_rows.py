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
    String,
    Table,
    select,
)

from edge_fleet.store.rollouts import RolloutRow, Wish
from edge_fleet.store.tables import metadata

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

    def rollout_held(self, number: int) -> RolloutRow | None:
        statement = select(rollouts).where(rollouts.c.id == number).with_for_update()
        row = self._connection.execute(statement).one_or_none()
        return None if row is None else _rollout(row)

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
        found = self._connection.execute(select(wishes))
        return {
            row.device: Wish(row.device, row.revision, row.at_ms, bytes(row.desired))
            for row in found
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

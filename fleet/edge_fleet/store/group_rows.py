"""Groups of devices in SQL; see ``store.groups`` for the promises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    func,
    select,
    text,
    update,
)

from edge_fleet.drift.budget import Scope
from edge_fleet.store.groups import Group
from edge_fleet.store.tables import alarms, metadata

_IN_MAX = 400

groups = Table(
    "groups",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("bundle", LargeBinary(32), primary_key=True),
    Column("scope", String(16), nullable=False),
    Column("model", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("monitors", Integer, nullable=False),
    Column("windows", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)


def create(connection: Connection) -> None:
    """The table, and what alarms say of groups, in a store that lacks them."""
    metadata.create_all(connection, tables=[groups])
    for column in ("scope VARCHAR(16) DEFAULT 'device' NOT NULL", "parent BIGINT"):
        connection.execute(text(f"ALTER TABLE alarms ADD COLUMN {column}"))


class GroupRows:
    """This part of ``transaction.SqlTransaction``."""

    _connection: Connection
    _insert: Any

    def groups(self, bundle: str, names: Iterable[str]) -> dict[str, Group]:
        found = self._connection.execute(
            select(groups).where(
                groups.c.bundle == bytes.fromhex(bundle), groups.c.name.in_(list(names))
            )
        )
        return {row.name: _group(row) for row in found}

    def put_groups(self, changed: Sequence[Group]) -> None:
        if not changed:
            return
        rows = [{**vars(one), "bundle": bytes.fromhex(one.bundle)} for one in changed]
        statement = self._insert(groups)
        fresh = ("state", "monitors", "windows", "rows", "updated_ms")
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[groups.c.name, groups.c.bundle],
                set_={name: statement.excluded[name] for name in fresh},
            ),
            rows,
        )

    def all_groups(self) -> list[Group]:
        order = (groups.c.name, groups.c.model, groups.c.updated_ms)
        return [_group(row) for row in self._connection.execute(select(groups).order_by(*order))]

    def group_streams(self, since_ms: int) -> dict[Scope, int]:
        found = self._connection.execute(
            select(groups.c.scope, func.sum(groups.c.monitors))
            .where(groups.c.updated_ms >= since_ms)
            .group_by(groups.c.scope)
        )
        return {scope: int(monitors) for scope, monitors in found}

    def put_under(self, ids: Iterable[int], parent: int) -> None:
        wanted = sorted(set(ids))
        for at in range(0, len(wanted), _IN_MAX):
            some = wanted[at : at + _IN_MAX]
            self._connection.execute(
                update(alarms).where(alarms.c.id.in_(some)).values(parent=parent)
            )


def _group(row: Row[Any]) -> Group:
    values = {**row._mapping, "bundle": bytes(row.bundle).hex(), "state": bytes(row.state)}
    return Group(**values)

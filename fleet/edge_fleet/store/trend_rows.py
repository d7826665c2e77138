"""Hours of all devices together, in SQL; see ``store.trends`` for the promises."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    LargeBinary,
    SmallInteger,
    Table,
    delete,
    select,
)

from edge_fleet.store.tables import detectors, metadata
from edge_fleet.store.trends import Held, Trend

trends = Table(
    "trends",
    metadata,
    Column("bundle", LargeBinary(32), primary_key=True),
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("ordinal", SmallInteger, primary_key=True, autoincrement=False),
    Column("hour", LargeBinary, nullable=False),
)


def create(connection: Connection) -> None:
    """The table, in a store that lacks it."""
    metadata.create_all(connection, tables=[trends])


class TrendRows:
    """This part of ``transaction.SqlTransaction``."""

    _connection: Connection
    _insert: Any

    def trend(self, bundle: str, hour_ms: int, ordinal: int) -> Trend | None:
        row = self._connection.execute(
            select(trends.c.hour).where(
                trends.c.bundle == bytes.fromhex(bundle),
                trends.c.hour_ms == hour_ms,
                trends.c.ordinal == ordinal,
            )
        ).one_or_none()
        return None if row is None else Trend(bundle, hour_ms, ordinal, bytes(row.hour))

    def put_trend(self, trend: Trend) -> None:
        values = {**vars(trend), "bundle": bytes.fromhex(trend.bundle)}
        statement = self._insert(trends)
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=list(trends.primary_key),
                set_={"hour": statement.excluded["hour"]},
            ),
            [values],
        )

    def forget_trends(self, bundle: str, ordinal: int, before_ms: int) -> None:
        self._connection.execute(
            delete(trends).where(
                trends.c.bundle == bytes.fromhex(bundle),
                trends.c.hour_ms < before_ms,
                trends.c.ordinal == ordinal,
            )
        )

    def trends(self, bundle: str, since_ms: int, until_ms: int) -> list[Trend]:
        found = self._connection.execute(
            select(trends.c.hour_ms, trends.c.ordinal, trends.c.hour)
            .where(
                trends.c.bundle == bytes.fromhex(bundle),
                trends.c.hour_ms >= since_ms,
                trends.c.hour_ms < until_ms,
            )
            .order_by(trends.c.hour_ms, trends.c.ordinal)
        )
        return [Trend(bundle, row.hour_ms, row.ordinal, bytes(row.hour)) for row in found]

    def held_of(self, bundle: str) -> list[Held]:
        found = self._connection.execute(
            select(*(detectors.c[name] for name in Held._fields))
            .where(detectors.c.bundle == bytes.fromhex(bundle))
            .order_by(detectors.c.device)
        )
        return [Held(*row) for row in found.all()]

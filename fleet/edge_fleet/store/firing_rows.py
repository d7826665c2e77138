"""Triggers' firings and bets on error rates in SQL; see ``store.firings`` for the promises."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Row,
    Select,
    String,
    Table,
    Text,
    func,
    literal,
    select,
)

from edge_contract.aside import LABELLED_SCHEMA
from edge_fleet.store.firings import Firing, LabelEvidence
from edge_fleet.store.tables import asides, detectors, metadata

_SHORT_CHARS = 8000

firings = Table(
    "firings",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("trigger", String(64), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("model", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("bundle", LargeBinary(32), nullable=False),
    Column("alarms", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_ms", BigInteger, nullable=False),
    Column("done_ms", BigInteger, nullable=True),
    Column("detail", Text, nullable=False),
    Column("evidence", LargeBinary, nullable=False),
    Index("firings_trigger", "trigger", "number", unique=True),
)

label_evidence = Table(
    "label_evidence",
    metadata,
    Column("bundle", LargeBinary(32), primary_key=True),
    Column("state", LargeBinary, nullable=False),
    Column("wrong", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("alarm", BigInteger, nullable=True),
    Column("risen", Boolean, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)


def create(connection: Connection) -> None:
    """The tables, in a store that lacks them."""
    metadata.create_all(connection, tables=[firings, label_evidence])


class FiringRows:
    """This part of ``transaction.SqlTransaction``."""

    _connection: Connection
    _insert: Any

    def add_firing(self, firing: Firing) -> bool:
        values = {**vars(firing), "bundle": bytes.fromhex(firing.bundle)}
        values |= {"alarms": json.dumps(firing.alarms), "detail": _short(firing.detail)}
        made = self._connection.execute(
            self._insert(firings).values(values).on_conflict_do_nothing().returning(firings.c.key)
        )
        return made.scalar_one_or_none() is not None

    def put_firing(self, firing: Firing) -> None:
        self._connection.execute(
            firings.update()
            .where(firings.c.key == firing.key)
            .values(
                state=firing.state, attempts=firing.attempts, next_ms=firing.next_ms,
                done_ms=firing.done_ms, detail=_short(firing.detail),
            )
        )  # fmt: skip

    def firings(self, trigger: str = "", limit: int = 1000) -> list[Firing]:
        statement = select(firings).order_by(firings.c.at_ms.desc(), firings.c.number.desc())
        if trigger:
            statement = statement.where(firings.c.trigger == trigger)
        return [firing_of(row) for row in self._connection.execute(statement.limit(limit))]

    def open_firings(self, trigger: str) -> list[Firing]:
        found = self._connection.execute(
            select(firings)
            .where(firings.c.trigger == trigger, firings.c.state.in_(["waiting", "active"]))
            .order_by(firings.c.number)
        )
        return [firing_of(row) for row in found]

    def old_firings(self, trigger: str, before_ms: int) -> list[Firing]:
        newest = (
            select(func.max(firings.c.number))
            .where(firings.c.trigger == trigger)
            .group_by(firings.c.bundle, firings.c.state)
        )
        columns: list[Any] = [column for column in firings.c if column is not firings.c.evidence]
        statement: Select[Any] = select(*columns, literal(b"", LargeBinary).label("evidence"))
        found = self._connection.execute(
            statement.where(
                firings.c.trigger == trigger,
                firings.c.at_ms < before_ms,
                firings.c.state.in_(["done", "failed", "dry-run"]),
                firings.c.number.not_in(newest),
            ).order_by(firings.c.number)
        )
        return [firing_of(row) for row in found]

    def drop_firings(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._connection.execute(firings.delete().where(firings.c.key == key))

    def rows_of(self, bundles: Iterable[str]) -> dict[str, tuple[int, int, int]]:
        found = {}
        for bundle in bundles:
            rows, windows, devices = self._connection.execute(
                select(
                    func.sum(detectors.c.rows), func.sum(detectors.c.windows), func.count()
                ).where(detectors.c.bundle == bytes.fromhex(bundle))
            ).one()
            found[bundle] = (int(rows or 0), int(windows or 0), int(devices))
        return found

    def labelling_streams(self, since_ms: int) -> int:
        pairs = (
            select(asides.c.device, asides.c.bundle)
            .where(asides.c.kind == LABELLED_SCHEMA, asides.c.received_ms >= since_ms)
            .distinct()
            .subquery()
        )
        return int(self._connection.execute(select(func.count()).select_from(pairs)).scalar_one())

    def label_evidence(self, bundles: Iterable[str]) -> dict[str, LabelEvidence]:
        found = {}
        for bundle in bundles:
            row = self._connection.execute(
                select(label_evidence).where(label_evidence.c.bundle == bytes.fromhex(bundle))
            ).one_or_none()
            if row is not None:
                values = {**row._mapping, "bundle": bundle, "state": bytes(row.state)}
                found[bundle] = LabelEvidence(**values)
        return found

    def put_label_evidence(self, evidence: Sequence[LabelEvidence]) -> None:
        if not evidence:
            return
        rows = [{**vars(one), "bundle": bytes.fromhex(one.bundle)} for one in evidence]
        statement = self._insert(label_evidence)
        fresh = ("state", "wrong", "rows", "alarm", "risen", "updated_ms")
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[label_evidence.c.bundle],
                set_={name: statement.excluded[name] for name in fresh},
            ),
            rows,
        )


def firing_of(row: Row[Any]) -> Firing:
    """A firing as a row keeps it."""
    values = {**row._mapping, "bundle": bytes(row.bundle).hex(), "evidence": bytes(row.evidence)}
    return Firing(**{**values, "alarms": tuple(json.loads(row.alarms))})


def _short(text: str) -> str:
    """What PostgreSQL's text can hold, and the end of what is long."""
    return text.replace("\0", "")[-_SHORT_CHARS:]

"""The audit in SQL; see ``store.audit`` for the promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    event,
    func,
    insert,
    or_,
    select,
)

from edge_fleet.store import chain
from edge_fleet.store.api import Key
from edge_fleet.store.audit import ACTOR_MAX_CHARS, DETAIL_MAX_CHARS, Entry
from edge_fleet.store.tables import Serial, metadata

_LOCK_SPACE = 0x61756474
"""Key of PostgreSQL's advisory lock of ours: "audt"."""
_ACTION_MAX_CHARS = 64
_SUBJECT_MAX_CHARS = 128

audits = Table(
    "audit",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(ACTOR_MAX_CHARS), nullable=False),
    Column("action", String(_ACTION_MAX_CHARS), nullable=False),
    Column("subject", String(_SUBJECT_MAX_CHARS), nullable=False),
    Column("detail", Text, nullable=False),
    Column("link", LargeBinary(32), nullable=False),
    Index("audit_subject", "subject", "id"),
)
"""``link``: SHA-256 of all up to this entry, see ``chain``."""

_REFUSED = "the audit is only added to"


@event.listens_for(audits, "after_create")
def _guard(_table: Table, connection: Connection, **_: Any) -> None:
    """Have the database refuse what changes an entry, or takes one out."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "CREATE OR REPLACE FUNCTION edge_audit_kept() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION '{_REFUSED}'; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER audit_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit"
            " FOR EACH STATEMENT EXECUTE FUNCTION edge_audit_kept()"
        )
        return
    for what in ("UPDATE", "DELETE"):
        connection.exec_driver_sql(
            f"CREATE TRIGGER audit_no_{what.lower()} BEFORE {what} ON audit"
            f" BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"
        )


def create(connection: Connection) -> None:
    """The table, in a store that lacks it."""
    metadata.create_all(connection, tables=[audits])


class AuditRows:
    """This part of ``transaction.SqlTransaction``."""

    _connection: Connection

    def add_audit(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        if self._connection.dialect.name == "postgresql":  # SQLite has one writer at a time
            self._connection.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, 0)))
        newest = select(audits.c.link).order_by(audits.c.id.desc()).limit(1)
        previous = bytes(self._connection.execute(newest).scalar_one_or_none() or chain.BEGIN)
        rows = []
        for entry in entries:
            kept = _kept(entry)
            previous = chain.link(previous, kept)
            rows.append({**vars(kept), "link": previous})
            del rows[-1]["id"]
        self._connection.execute(insert(audits), rows)

    def linked_audits(self) -> Iterator[tuple[Entry, bytes]]:
        statement = select(audits).order_by(audits.c.id).execution_options(yield_per=1_000)
        for row in self._connection.execute(statement):
            yield _entry(row), bytes(row.link)

    def audits_before(
        self, before: Key, limit: int, *, actor: str = "", action: str = "", subject: str = ""
    ) -> list[Entry]:
        statement = select(audits).order_by(audits.c.id.desc()).limit(limit)
        if before:
            statement = statement.where(audits.c.id < before[0])
        if actor:
            statement = statement.where(audits.c.actor == actor)
        if action:
            of_kind = audits.c.action.startswith(f"{action}.", autoescape=True)
            statement = statement.where(or_(audits.c.action == action, of_kind))
        if subject:
            statement = statement.where(audits.c.subject == subject)
        return [_entry(row) for row in self._connection.execute(statement)]


def _kept(entry: Entry) -> Entry:
    """As the table holds it."""
    return replace(
        entry,
        actor=_fitting(entry.actor, ACTOR_MAX_CHARS),
        action=_fitting(entry.action, _ACTION_MAX_CHARS),
        subject=_fitting(entry.subject, _SUBJECT_MAX_CHARS),
        detail=_fitting(entry.detail, DETAIL_MAX_CHARS),
    )


def _entry(row: Row[Any]) -> Entry:
    values = dict(row._mapping)
    del values["link"]
    return Entry(**values)


def _fitting(text: str, chars: int) -> str:
    """PostgreSQL takes no NUL, and no more than the column holds."""
    return text.replace("\0", "")[:chars]

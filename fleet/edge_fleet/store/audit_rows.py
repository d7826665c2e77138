"""The audit in SQL; see ``store.audit`` for the promises."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    String,
    Table,
    Text,
    insert,
    or_,
    select,
)

from edge_fleet.store.audit import ACTOR_MAX_CHARS, DETAIL_MAX_CHARS, Entry
from edge_fleet.store.rollups import Key
from edge_fleet.store.tables import Serial, metadata

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
    Index("audit_subject", "subject", "id"),
)


def create(connection: Connection) -> None:
    """The table, in a store that lacks it."""
    metadata.create_all(connection, tables=[audits])


class AuditRows:
    """This part of ``transaction.SqlTransaction``."""

    _connection: Connection

    def add_audit(self, entries: Sequence[Entry]) -> None:
        rows = [
            {
                "at_ms": entry.at_ms,
                "actor": _fitting(entry.actor, ACTOR_MAX_CHARS),
                "action": _fitting(entry.action, _ACTION_MAX_CHARS),
                "subject": _fitting(entry.subject, _SUBJECT_MAX_CHARS),
                "detail": _fitting(entry.detail, DETAIL_MAX_CHARS),
            }
            for entry in entries
        ]
        if rows:
            self._connection.execute(insert(audits), rows)

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
        return [Entry(**row._mapping) for row in self._connection.execute(statement)]


def _fitting(text: str, chars: int) -> str:
    """PostgreSQL takes no NUL, and no more than the column holds."""
    return text.replace("\0", "")[:chars]

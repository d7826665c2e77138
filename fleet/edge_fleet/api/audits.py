"""The audit as it is given over HTTP and by the command: a transaction and a question in.

Guards: a page costs what its entries cost.
"""

from __future__ import annotations

from msgspec import Struct

from edge_fleet.api import cursors, resources
from edge_fleet.reports import instant
from edge_fleet.store.audit import Entry
from edge_fleet.store.base import Transaction


class AuditView(Struct, frozen=True):
    """One thing that somebody did. ``actor``: a token, a user, or the server itself."""

    id: int
    at: str | None
    actor: str
    action: str
    subject: str
    detail: str


def audits(
    tx: Transaction, cursor: str, limit: int, *, actor: str, action: str, subject: str
) -> resources.Page[AuditView]:
    """What was done, newest first. Raises InputFault for a cursor."""
    key = cursors.decode(cursor, "audit", (int,))
    found = tx.audits_before(key, limit + 1, actor=actor, action=action, subject=subject)
    following = resources.next_of("audit", found, limit, lambda one: (one.id,))
    return resources.Page(tuple(map(audit_view, found[:limit])), following)


def audit_view(one: Entry) -> AuditView:
    """One entry of the audit."""
    return AuditView(one.id, instant(one.at_ms), one.actor, one.action, one.subject, one.detail)

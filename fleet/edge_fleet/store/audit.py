"""Who did what, and when: the audit's part of the store's port.

Guards: an entry is kept in the transaction of what it tells of, so that neither is there without
the other; nothing here changes or deletes one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edge_fleet.store.api import Key

PLANNER = "edge-fleet"
"""Who decides where no person does."""
ACTOR_MAX_CHARS = 64
DETAIL_MAX_CHARS = 2000


@dataclass(frozen=True)
class Entry:
    """One thing that was done.

    Attributes:
        at_ms: when, by the server's clock. actor: a token's or a user's name, or ``PLANNER``.
        action: such as ``rollout.start``. subject: of what, such as ``rollout 3``.
        detail: in words. id: rises in the order in which entries were written; 0: not kept yet.
    """

    at_ms: int
    actor: str
    action: str
    subject: str
    detail: str = ""
    id: int = 0


class AuditPort(Protocol):
    """This part of ``base.Transaction``."""

    def add_audit(self, entries: Sequence[Entry]) -> None:
        """Keep entries, in this order; their texts shortened to what the table holds."""
        ...

    def audits_before(
        self, before: Key, limit: int, *, actor: str = "", action: str = "", subject: str = ""
    ) -> list[Entry]:
        """Entries, newest first, by (id,); ``action`` also names all of a kind: ``rollout``."""
        ...

    def linked_audits(self) -> Iterator[tuple[Entry, bytes]]:
        """Every entry, oldest first, with its link: see ``chain``."""
        ...


def audit(
    tx: AuditPort, at_ms: int, actor: str, *, action: str, subject: str, detail: str = ""
) -> None:
    """Keep that ``actor`` did ``action`` to ``subject``."""
    tx.add_audit([Entry(at_ms, actor, action, subject, detail)])

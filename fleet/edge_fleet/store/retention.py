"""What is kept for a time and then taken out: events, and records beside the windows.

Guards: a record of labels is bet on once: its key is remembered when it goes, as a window's is, so
that one that comes again is not kept again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge_fleet.store.rollups import Key


class RetentionPort(Protocol):
    """See ``base.Transaction``."""

    def old_events(self, before_ms: int, limit: int) -> list[Key]:
        """Keys of events that came before, the oldest first."""
        ...

    def drop_events(self, keys: Sequence[Key]) -> None:
        """Take events out. Raises MachineFault when one is not there."""
        ...

    def old_asides(self, before_ms: int, limit: int) -> list[Key]:
        """Keys of records beside the windows that came before."""
        ...

    def drop_asides(self, keys: Sequence[Key]) -> None:
        """Take them out and remember their keys. Raises MachineFault when one is not there."""
        ...

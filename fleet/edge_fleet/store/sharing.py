"""Several processes on one store: their part of the port.

Guards: whoever led before and does not know yet that another one leads changes nothing: each of
its transactions looks at the term first. What two processes change in one transaction each, they
take hold of in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from edge_fleet.store.rollups import Key

if TYPE_CHECKING:
    from edge_fleet.store.base import Window


class SharingPort(Protocol):
    """This part of ``base.Transaction``."""

    def begin_term(self) -> int:
        """The number of a new leader's term, one above the last; earlier ones are over."""
        ...

    def in_term(self, term: int) -> bool:
        """This term is the newest, and stays so until the transaction ends."""
        ...

    def alone(self, name: str) -> None:
        """Wait for other transactions that called this with ``name``, and hold off later ones."""
        ...

    def hold_devices(self, devices: Iterable[str]) -> None:
        """Hold these devices' rows, in order of name, until the transaction ends."""
        ...

    def waiting_bundles(self) -> list[str]:
        """Those that have windows not counted yet, where the store has bytes of that digest.

        It takes as long as the store has such bytes, however many windows wait for others.
        """
        ...

    def unknown_bundles(self, limit: int) -> list[str]:
        """The others that have windows not counted yet, those that came last first."""
        ...

    def waiting_windows(self, bundle: str, limit: int) -> list[Window]:
        """Windows of ``bundle`` not counted yet, the ones that came first first."""
        ...

    def old_waiting(self, known: Sequence[str], before_ms: int, limit: int) -> list[Key]:
        """Keys of windows not counted yet that came before, of bundles that are none of these."""
        ...

    def drop_waiting(self, keys: Sequence[Key]) -> int:
        """Take windows out that are still not counted; how many these were.

        Their keys are not remembered: they were never counted, and may come again.
        """
        ...

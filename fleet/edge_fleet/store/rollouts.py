"""Rollouts and what devices are to follow: their part of the port.

Guards: a wish and the state of the rollout that it comes from are kept in one transaction, before
anything is sent; the revision of a device's wish only rises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edge_fleet.store.api import Key


@dataclass(frozen=True)
class RolloutRow:
    """A rollout as it is kept; ``state``: see ``rollouts.state``."""

    id: int
    model: str
    phase: str
    updated_ms: int
    state: bytes = field(repr=False)


@dataclass(frozen=True)
class Wish:
    """What one device is to follow; ``desired``: the message, JSON, of this ``revision``."""

    device: str
    revision: int
    at_ms: int
    desired: bytes = field(repr=False)


class RolloutsPort(Protocol):
    """This part of ``base.Transaction``."""

    def rollouts(self) -> list[RolloutRow]:
        """Every rollout, oldest first."""
        ...

    def rollout(self, number: int) -> RolloutRow | None:
        """One rollout."""
        ...

    def rollout_held(self, number: int) -> RolloutRow | None:
        """One rollout, held against others until the transaction ends."""
        ...

    def rollouts_before(
        self, before: Key, limit: int, *, model: str = "", phase: str = ""
    ) -> list[RolloutRow]:
        """Rollouts, newest first, by (id,)."""
        ...

    def new_rollouts(self, after: Key, until_ms: int, limit: int) -> list[RolloutRow]:
        """Rollouts changed up to ``until_ms``, oldest change first, by (updated_ms, id)."""
        ...

    def serialise_starts(self) -> None:
        """Hold off every other transaction that called this, until this one ends."""
        ...

    def put_rollout(self, row: RolloutRow) -> None:
        """Keep a rollout, new or changed."""
        ...

    def wishes(self) -> dict[str, Wish]:
        """What is wanted, by device."""
        ...

    def wishes_of(self, devices: Sequence[str]) -> dict[str, Wish]:
        """What is wanted of these."""
        ...

    def put_wishes(self, wishes: Sequence[Wish]) -> None:
        """Keep wishes; one whose revision does not rise changes nothing."""
        ...

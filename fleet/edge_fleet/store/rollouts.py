"""Rollouts and what devices are to follow: their part of the port.

Guards: a wish and the state of the rollout that it comes from are kept in one transaction, before
anything is sent; the revision of a device's wish only rises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


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

    def rollout_held(self, number: int) -> RolloutRow | None:
        """One rollout, held against others until the transaction ends."""
        ...

    def put_rollout(self, row: RolloutRow) -> None:
        """Keep a rollout, new or changed."""
        ...

    def wishes(self) -> dict[str, Wish]:
        """What is wanted, by device."""
        ...

    def put_wishes(self, wishes: Sequence[Wish]) -> None:
        """Keep wishes; one whose revision does not rise changes nothing."""
        ...

"""What the store keeps of groups of devices: see ``edge_fleet.group_evidence``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge_fleet.drift.budget import Scope


@dataclass(frozen=True)
class Group:
    """The evidence on one bundle of many devices together.

    Attributes:
        name: ``site=north``, or ``drift.groups.EVERY_DEVICE``.
        state: see ``drift.groups``. monitors: how many streams it is.
    """

    name: str
    bundle: str
    scope: Scope
    model: str
    version: str
    state: bytes = field(repr=False)
    monitors: int = 0
    windows: int = 0
    rows: int = 0
    updated_ms: int = 0


class Groups(Protocol):
    """This part of ``base.Transaction``."""

    def groups(self, bundle: str, names: Iterable[str]) -> dict[str, Group]:
        """Groups of ``bundle`` by name."""
        ...

    def put_groups(self, groups: Sequence[Group]) -> None:
        """Keep groups, new or changed."""
        ...

    def all_groups(self) -> list[Group]:
        """Every group, by name and model, the one heard of last behind the others."""
        ...

    def group_streams(self, since_ms: int) -> dict[Scope, int]:
        """Monitors of groups updated at or after ``since_ms``, by scope."""
        ...

    def put_under(self, ids: Iterable[int], parent: int) -> None:
        """List alarms under the alarm of a group that explains them."""
        ...

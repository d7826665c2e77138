"""What a trigger set off, and the evidence on error rates: their part of the port.

Guards: a firing is kept before anything is sent, and only once under its number, so that a restart
neither loses nor repeats one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

FiringState = Literal["waiting", "active", "done", "failed", "dry-run"]
"""Waiting to be delivered; delivered and to be told again (Alertmanager); over; given up."""


@dataclass(frozen=True)
class Firing:
    """One time that a trigger's conditions held.

    Attributes:
        key: names it to whoever is told, however often that is.
        number: of its trigger's, from 1; no two have the same.
        alarms: ids of the alarms that were its grounds.
        rows: of the bundle, counted up to then.
        attempts: deliveries that were tried. next_ms: when the next one is due.
        detail: what the last delivery came to.
        evidence: the record that is delivered, JSON.
    """

    key: str
    trigger: str
    number: int
    model: str
    version: str
    bundle: str
    alarms: tuple[int, ...]
    rows: int
    at_ms: int
    state: FiringState
    attempts: int = 0
    next_ms: int = 0
    done_ms: int | None = None
    detail: str = ""
    evidence: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class LabelEvidence:
    """The bets on the error rate of one bundle.

    Attributes:
        state: see ``edge_fleet.error_watch``. wrong, rows: labels counted so far.
        alarm: the one it raised. risen: the threshold was reached once.
    """

    bundle: str
    state: bytes = field(repr=False)
    wrong: int = 0
    rows: int = 0
    alarm: int | None = None
    risen: bool = False
    updated_ms: int = 0


class FiringsPort(Protocol):
    """This part of ``base.Transaction``."""

    def add_firing(self, firing: Firing) -> bool:
        """Keep a firing; False where its trigger has one of that number already."""
        ...

    def put_firing(self, firing: Firing) -> None:
        """Keep what became of a firing: state, attempts, times, detail."""
        ...

    def firings(self, trigger: str = "", limit: int = 1000) -> list[Firing]:
        """Firings, of all triggers or of one, newest first."""
        ...

    def open_firings(self, trigger: str) -> list[Firing]:
        """A trigger's firings that wait or are active, oldest first."""
        ...

    def old_firings(self, trigger: str, before_ms: int) -> list[Firing]:
        """A trigger's firings of before that are over, oldest first, without their evidence.

        Not the newest of each bundle and state: cooldowns and new rows are counted from those.
        """
        ...

    def drop_firings(self, keys: Iterable[str]) -> None:
        """Take firings out."""
        ...

    def rows_of(self, bundles: Iterable[str]) -> dict[str, tuple[int, int, int]]:
        """(rows, windows, devices) that were counted of each bundle."""
        ...

    def labelling_streams(self, since_ms: int) -> int:
        """Of how many (device, bundle) records of labels came at or after ``since_ms``."""
        ...

    def label_evidence(self, bundles: Iterable[str]) -> dict[str, LabelEvidence]:
        """The bets on error rates, by bundle."""
        ...

    def put_label_evidence(self, evidence: Sequence[LabelEvidence]) -> None:
        """Keep bets on error rates, new or changed."""
        ...

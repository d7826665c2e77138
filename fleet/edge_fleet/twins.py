"""Two agents under one device name, as the fleet sees them. Pure.

Guards: a restart, or a card in new hardware, is a new run and no alarm; a run that is born again
after another one was can only mean that both live.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_fleet.store.base import EventSeen, Fault, StatusSeen

KIND = "duplicate-identity"
FORMER_MAX = 8
"""Runs of one device that are remembered: twins take turns."""


@dataclass
class _Runs:
    now: str
    former: list[str] = field(default_factory=list)


class Twins:
    """The runs of each device since this collector started."""

    def __init__(self) -> None:
        self._runs: dict[str, _Runs] = {}

    def born(self, seen: StatusSeen) -> Fault | None:
        """A fault when this birth proves that two agents live under one name."""
        if not seen.online or not seen.run:
            return None
        runs = self._runs.setdefault(seen.device, _Runs(seen.run))
        if seen.run == runs.now:
            return None
        again = seen.run in runs.former
        runs.former = [each for each in (*runs.former, runs.now) if each != seen.run][-FORMER_MAX:]
        runs.now = seen.run
        if not again:
            return None
        where = f" (machine {seen.machine})" if seen.machine else ""
        detail = f"two agents take turns under this name: run {seen.run}{where} is back"
        return Fault(seen.device, KIND, detail, seen.received_ms)


def told(event: EventSeen) -> Fault | None:
    """A fault when a device itself says that it met another one."""
    if event.kind != KIND:
        return None
    return Fault(event.device, KIND, event.detail, event.received_ms)

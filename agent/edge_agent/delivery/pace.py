"""How fast and when a download may go on: rate, bytes a day, hours of the day, a spread start.

Pure: functions of (policy, state, now); ``pacer`` gives them clocks, chance and a disk.

Guards: no byte of a bundle is asked for that a cap forbids, whatever the clock does and however
often the agent is restarted; every wait has a reason for a person and a moment at which it ends.

- Rate: a token bucket. In any ``t`` seconds at most ``burst(policy) + rate_max * t`` bytes come.
- Day: each date of the device's zone has its own account, so a clock that jumps away and back
  opens none twice. Where a clock stands still between restarts, 25 hours of running are a day.
- Slots: local times of day, ``22:00-05:00`` across midnight. A clock that nobody keeps may have
  woken up in the past: for ``CLOCK_GRACE_S`` a download waits for it, then the clock is taken as
  it is. It passes every slot once a day, so an update is late, never lost.
- Start: whenever a gate opens (a new release, a slot, a new day), up to ``start_delay_max_s`` more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from edge_contract.errors import EdgeError

CLOCK_GRACE_S = 600.0
"""A time service is there within minutes of the network, or is not there at all."""
DAY_RUN_S = 25 * 3600.0
"""Longer than any date of any zone, so that it never shortens one."""
DATES_KEPT = 16
BURST_S = 1.0
"""What was not used for so long may be used at once; one chunk at least."""

Wait = Literal["", "slot", "clock", "day", "start", "rate"]


@dataclass(frozen=True)
class Room:
    """What may be asked for now.

    Attributes:
        size_bytes: so much; 0 when it must wait.
        wait: what is waited for. wait_s: how long, at least; ask again then.
        until: when it ends by the device's clock, as far as that is known.
        text: all of it for a person.
    """

    size_bytes: int
    wait: Wait = ""
    wait_s: float = 0.0
    until: datetime | None = None
    text: str = ""


UNLIMITED_BYTES = 2**62


class Pace(Protocol):
    """Asked before bytes of a bundle are asked for, while none are under way; told of what came.

    Where it must wait, the download waits in place for the ``rate`` and ends with ``Paused`` for
    anything else, so that no connection is held for hours.
    """

    def room(self, want_bytes: int) -> Room:
        """How many bytes may be asked for now: at least ``want_bytes``, or none and a wait.

        ``want_bytes``: the least that makes sense to ask for, one chunk at most.
        """

    def spent(self, size_bytes: int) -> None:
        """So many bytes came over the network, wanted or not. Called in any thread."""


class Unlimited:
    """No cap at all."""

    def room(self, want_bytes: int) -> Room:
        """Any number of bytes."""
        return Room(UNLIMITED_BYTES)

    def spent(self, size_bytes: int) -> None:
        """Not counted."""


class Paused(EdgeError):
    """The policy lets nothing through for now. What arrived stays on disk."""

    exit_code = 5

    def __init__(self, room: Room) -> None:
        super().__init__(room.text)
        self.room = room

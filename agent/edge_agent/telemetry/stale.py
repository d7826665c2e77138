"""Whether the device's clock may be believed, measured by the clock that never jumps. Pure."""

from __future__ import annotations

from typing import NamedTuple

PERIOD_S = 60.0
MOVES = 0.1
UNSYNCHRONISED_S = 86_400.0


class ClockSeen(NamedTuple):
    """The last look at the device's clock, and since when no time service keeps it."""

    wall_ms: int
    monotonic_s: float
    lone_since_s: float
    wrong: str = ""


def clock(
    before: ClockSeen | None, wall_ms: int, monotonic_s: float, *, synchronised: bool
) -> ClockSeen:
    """What is wrong with the wall clock, measured by the one that never jumps; "": nothing.

    It stands still when it went less than a tenth of the way in a minute or more; a jump, as when
    a device first hears the time, is none. It is stale, too, when nothing kept it for a day.
    """
    if before is None:
        return ClockSeen(wall_ms, monotonic_s, monotonic_s)
    lone_since_s = monotonic_s if synchronised else before.lone_since_s
    passed_s = monotonic_s - before.monotonic_s
    if passed_s < PERIOD_S:
        return before._replace(lone_since_s=lone_since_s)
    moved_s = (wall_ms - before.wall_ms) / 1000
    wrong = ""
    if 0 <= moved_s < MOVES * passed_s:
        wrong = "the device's clock stands still"
    elif monotonic_s - lone_since_s >= UNSYNCHRONISED_S:
        wrong = "no time service has kept the device's clock for a day"
    return ClockSeen(wall_ms, monotonic_s, lone_since_s, wrong)

"""How fast and when a download may go on: rate, bytes a day, hours of the day, a spread start.

Pure: functions of (policy, state, now); ``pacer`` gives them clocks, chance and a disk.

Guards: no byte of a bundle is asked for that a cap forbids, whatever the clock does; every wait
has a reason for a person and a moment at which it ends.

- Rate: a token bucket. In any ``t`` seconds at most ``burst(policy) + rate_max * t`` bytes come.
- Day: each date of the device's zone has its own account, so a clock that jumps away and back
  opens none twice. Where a clock stands still between restarts, 25 hours of running are a day.
- Slot: hours of the local day, ``22:00-05:00`` across midnight. A clock that nobody keeps may have
  woken up in the past: for ``CLOCK_GRACE_S`` a download waits for it, then the clock is taken as
  it is. It passes the slot once a day, so an update is late, never lost.
- Start: whenever a gate opens (a new release, a slot, a new day), up to ``start_delay_max_s`` more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta, Struct

from edge_agent.policy import Policy, left_s, next_opening
from edge_agent.units import show_bytes
from edge_contract.chunks import CHUNK_BYTES
from edge_contract.errors import EdgeError
from edge_contract.messages import Count

CLOCK_GRACE_S = 600.0
"""A time service is there within minutes of the network, or is not there at all."""
DAY_RUN_S = 25 * 3600.0
"""No date of any zone is longer, so that this never shortens one."""
DATES_KEPT = 16
BURST_S = 1.0
"""What was not used for so long may be used at once; one chunk at least."""
BATCH_BYTES = 16 * CHUNK_BYTES
"""Asked for at once where a gate may close meanwhile: what may come after it closed."""
UNLIMITED_BYTES = 2**62


Wait = Literal["", "slot", "clock", "day", "start", "rate", "disk"]


@dataclass(frozen=True)
class Room:
    """What may be asked for now.

    Attributes:
        size_bytes: so much; 0 when it must wait.
        wait: what is waited for. wait_s: how long, as far as that is known; ask again then.
        until: when it ends by the device's clock.
        text: all of it for a person.
    """

    size_bytes: int
    wait: Wait = ""
    wait_s: float = 0.0
    until: datetime | None = None
    text: str = ""


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


@dataclass(frozen=True)
class Now:
    """This moment: by a clock that never jumps, and by the device's, in its zone."""

    monotonic_s: float
    local: datetime
    synchronised: bool


# -- the state ---------------------------------------------------------------------------------


class Day(Struct, frozen=True, kw_only=True):
    """What was spent on one local date, and how long the agent ran on it."""

    date: date
    spent_bytes: Count = 0
    ran_s: Annotated[float, Meta(ge=0)] = 0.0


@dataclass(frozen=True)
class State:
    """What the policy remembers.

    Attributes:
        began_s, at_s: when it began, and was last looked at; monotonic.
        level: bytes in the bucket, under 0 after more came than was asked for.
        days: accounts; today's is the last.
        held: a gate was closed when it was last looked at.
        open_s: nothing before this, monotonic.
        share: of ``start_delay_max_s``, drawn from [0, 1).
    """

    began_s: float
    at_s: float
    level: float
    days: tuple[Day, ...] = ()
    held: bool = True
    open_s: float = 0.0
    share: float = 0.0


def begin(policy: Policy, now: Now, days: tuple[Day, ...] = ()) -> State:
    """The state at a start of the agent. ``days`` as they were kept."""
    fresh = State(now.monotonic_s, now.monotonic_s, burst(policy), days)
    return replace(fresh, days=_accounts(days, now.local.date(), 0.0))


def hold(state: State, share: float) -> State:
    """Put the next start off by ``share`` of the delay."""
    return replace(state, held=True, share=share)


def burst(policy: Policy) -> float:
    """The most that comes at once, in bytes."""
    return max(policy.rate_max * BURST_S, float(CHUNK_BYTES))


def tick(policy: Policy, state: State, now: Now) -> State:
    """The state ``now``: the bucket filled up, today's account the last one."""
    passed_s = max(now.monotonic_s - state.at_s, 0.0)
    return replace(
        state,
        at_s=now.monotonic_s,
        level=min(burst(policy), state.level + policy.rate_max * passed_s),
        days=_accounts(state.days, now.local.date(), passed_s),
    )


def spend(state: State, size_bytes: int) -> State:
    """So many bytes came; into today's account, as it was last looked at."""
    *others, today = state.days
    charged = msgspec.structs.replace(today, spent_bytes=today.spent_bytes + size_bytes)
    return replace(state, level=state.level - size_bytes, days=(*others, charged))


def _accounts(days: tuple[Day, ...], today: date, passed_s: float) -> tuple[Day, ...]:
    """Today's account as the last; a new one after ``DAY_RUN_S`` of running on it."""
    account = next((day for day in days if day.date == today), Day(date=today))
    if days and days[-1].date == today:
        account = msgspec.structs.replace(account, ran_s=account.ran_s + passed_s)
    if account.ran_s >= DAY_RUN_S:
        account = Day(date=today)
    return (*(day for day in days if day.date != today), account)[-DATES_KEPT:]


# -- the decision ------------------------------------------------------------------------------


def room(policy: Policy, state: State, now: Now, want_bytes: int) -> tuple[State, Room]:
    """Whether ``want_bytes`` may be asked for now; then how many at most."""
    want_bytes = min(want_bytes, CHUNK_BYTES)
    state = tick(policy, state, now)
    closed = _slot_closed(policy, state, now) or _day_full(policy, state, now, want_bytes)
    if closed:
        return replace(state, held=True), closed
    if state.held:
        delay_s = state.share * _spread_s(policy, now)
        state = replace(state, held=False, open_s=now.monotonic_s + delay_s)
    if now.monotonic_s < state.open_s:
        wait_s = state.open_s - now.monotonic_s
        until = _after(now, wait_s)
        return state, Room(
            0, "start", wait_s, until, f"random start delay, begins at {until:%H:%M:%S}"
        )
    if policy.rate_max and state.level < want_bytes:
        wait_s = (want_bytes - state.level) / policy.rate_max
        text = f"held at {show_bytes(policy.rate_max)}/s"
        return state, Room(0, "rate", wait_s, _after(now, wait_s), text)
    return state, Room(_size(policy, state))


def _size(policy: Policy, state: State) -> int:
    size = BATCH_BYTES if policy.slot or policy.daily_max else UNLIMITED_BYTES
    if policy.daily_max:
        size = min(size, policy.daily_max - state.days[-1].spent_bytes)
    if policy.rate_max:
        size = min(size, int(state.level))
    return size


def _slot_closed(policy: Policy, state: State, now: Now) -> Room | None:
    if not policy.slot:
        return None
    names = ", ".join(each.text for each in policy.slot)
    grace_s = state.began_s + CLOCK_GRACE_S - now.monotonic_s
    if not now.synchronised and grace_s > 0:
        text = f"waiting for the clock to be set, before the slot {names} can be told"
        return Room(0, "clock", grace_s, None, f"{text}; {grace_s / 60:.0f} minutes more at most")
    if left_s(policy.slot, now.local):
        return None
    until = next_opening(policy.slot, now.local)
    doubt = "" if now.synchronised else " by a clock that nobody keeps"
    text = f"waiting for the slot {names}, opens at {until:%H:%M}{doubt}"
    return Room(0, "slot", _until_s(now, until), until, text)


def _day_full(policy: Policy, state: State, now: Now, want_bytes: int) -> Room | None:
    if not policy.daily_max or state.days[-1].spent_bytes + want_bytes <= policy.daily_max:
        return None
    midnight = datetime.combine(now.local.date() + timedelta(days=1), time(), now.local.tzinfo)
    until = midnight.astimezone(UTC).astimezone(now.local.tzinfo)  # where there is no midnight
    text = f"daily cap of {show_bytes(policy.daily_max)} reached, goes on at {until:%H:%M}"
    return Room(0, "day", _until_s(now, until), until, text)


def _spread_s(policy: Policy, now: Now) -> float:
    """How far starts are spread from now on: over half of a slot at most."""
    rest_s = left_s(policy.slot, now.local)
    return min(policy.start_delay_max_s, rest_s / 2) if rest_s else policy.start_delay_max_s


def _until_s(now: Now, until: datetime) -> float:
    return max(until.timestamp() - now.local.timestamp(), 0.0)


def _after(now: Now, wait_s: float) -> datetime:
    return (now.local.astimezone(UTC) + timedelta(seconds=wait_s)).astimezone(now.local.tzinfo)

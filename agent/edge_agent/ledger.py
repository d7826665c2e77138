"""What noise has cost in the last 24 hours, on disk before it is spent.

Guards: never more than a day's budget in any 24 hours, over restarts and power cuts: what is spent
is written first, and what cannot be written is not spent. A clock that was set back, or has not
been set, makes the budget come back later, never sooner; one that is set forward while the agent
runs changes nothing, because the clock that never jumps has to agree.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from edge_agent.telemetry.recorder import Instant
from edge_contract import wire
from edge_contract.errors import InputFault, MachineFault
from edge_contract.messages import Count
from edge_contract.ports.disk import read_bounded, write_atomic

log = logging.getLogger(__name__)

DAY_S = 86_400.0
_MAX_BYTES = 256 * 1024
_SLACK = 1e-9


class Spent(Struct, frozen=True, array_like=True):
    """One release: when, by the wall clock, and what it cost."""

    at_ms: Count
    rho: Annotated[float, Meta(gt=0)]


class _File(Struct, frozen=True, kw_only=True):
    schema: int = 1
    spent: Annotated[tuple[Spent, ...], Meta(max_length=4096)] = ()


class Ledger:
    """A day's budget. One thread at a time.

    Args:
        path: where it is kept. now: when the agent began. rho_per_day: the budget.
    """

    def __init__(self, path: Path, now: Instant, rho_per_day: float) -> None:
        self._path = path
        self._budget = rho_per_day
        self._entries = [(one, -float("inf")) for one in _load(path, now, rho_per_day)]

    def spent(self, now: Instant) -> float:
        """Rho of the last 24 hours."""
        self._entries = [one for one in self._entries if not _over(*one, now)]
        return sum(one.rho for one, _ in self._entries)

    def spend(self, now: Instant, rho: float) -> bool:
        """Take ``rho`` off the budget; False, with nothing taken, where it is not there.

        Raises MachineFault when the disk does not take it; then nothing is taken either.
        """
        if self.spent(now) + rho > self._budget * (1 + _SLACK):
            return False
        entry = Spent(max(now.wall_ms, 0), rho)
        kept = (*(one for one, _ in self._entries), entry)
        write_atomic(self._path, wire.encode_json(_File(spent=kept)), mode=0o600)
        self._entries.append((entry, now.monotonic_s))
        return True


def _over(entry: Spent, made_s: float, now: Instant) -> bool:
    """Both clocks say that a day went by; of an earlier start only the wall clock can."""
    return now.wall_ms - entry.at_ms >= 1000 * DAY_S and now.monotonic_s - made_s >= DAY_S - 1.0


def _load(path: Path, now: Instant, budget: float) -> tuple[Spent, ...]:
    """What an earlier start spent; a whole day's budget where that cannot be read."""
    if not path.exists():
        return ()
    try:
        return wire.decode_json(read_bounded(path, _MAX_BYTES), _File, size_max=_MAX_BYTES).spent
    except (InputFault, MachineFault) as error:
        log.warning("the ledger of noise cannot be read, today counts as spent: %s", error.what)
        return (Spent(max(now.wall_ms, 0), budget),)

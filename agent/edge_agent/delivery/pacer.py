"""The policy of downloads on this device: ``pace`` with clocks, chance and a disk.

Guards: what may be asked for today is on disk as spent before it is asked for, so that no cut of
power or process gives a byte of it back; a rest writes what was truly spent.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from edge_agent.delivery import pace
from edge_agent.delivery.pace import BATCH_BYTES, DATES_KEPT, Day, Now, Room
from edge_agent.policy import Policy
from edge_contract import wire
from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports.disk import read_bounded, write_atomic

log = logging.getLogger(__name__)

KEEP_S = 900.0
"""How long the agent ran on a date is written this often while it waits for the next."""
_ACCOUNTS_MAX_BYTES = 4096
_BEGUN_MAX = 1024


class _Accounts(Struct, frozen=True, kw_only=True):
    schema: int = 1
    days: Annotated[tuple[Day, ...], Meta(max_length=DATES_KEPT)] = ()


class Pacer:
    """Holds downloads to the policy. Any thread may call.

    Args:
        path: where the accounts of days are kept; written only with a daily cap.
        now: this moment. rng: spreads starts.
    """

    def __init__(
        self, policy: Policy, path: Path, *, now: Callable[[], Now], rng: random.Random
    ) -> None:
        self._policy = policy
        self._path = path
        self._now = now
        self._rng = rng
        self._lock = threading.Lock()
        self._begun: dict[str, None] = {}
        self._kept = _read(path) if policy.daily_max else ()
        self._kept_s = now().monotonic_s
        self._state = pace.begin(policy, now(), self._kept)
        self._came_bytes = 0

    @property
    def came_bytes(self) -> int:
        """All that came since the start, also of metadata."""
        return self._came_bytes

    def begin(self, sha256: str) -> None:
        """A bundle is to be fetched: at the first time its start is put off by chance."""
        with self._lock:
            if sha256 not in self._begun:
                self._begun[sha256] = None
                if len(self._begun) > _BEGUN_MAX:
                    del self._begun[next(iter(self._begun))]
                self._state = pace.hold(self._state, self._rng.random())

    def room(self, want_bytes: int) -> Room:
        """As ``Pace.room``. Raises MachineFault when the disk does not take the account."""
        with self._lock:
            now = self._now()
            self._state, found = pace.room(self._policy, self._state, now, want_bytes)
            if self._policy.daily_max:
                if found.size_bytes:
                    self._reserve(found.size_bytes, now)
                elif now.monotonic_s - self._kept_s >= KEEP_S:
                    self._keep(self._state.days, now)
            return found

    def spent(self, size_bytes: int) -> None:
        """As ``Pace.spent``."""
        with self._lock:
            self._came_bytes += size_bytes
            self._state = pace.spend(self._state, size_bytes)

    def rest(self) -> None:
        """Nothing is under way: keep what was truly spent. What cannot be kept stays reserved."""
        with self._lock:
            if self._policy.daily_max and _spent(self._kept) != _spent(self._state.days):
                try:
                    self._keep(self._state.days, self._now())
                except MachineFault as error:
                    log.warning("what the day's downloads took is not kept: %s", error.what)

    def _reserve(self, size_bytes: int, now: Now) -> None:
        """Have ``size_bytes`` more on disk as spent; some ahead, to spare the flash card."""
        *others, today = self._state.days
        needed = today.spent_bytes + size_bytes
        kept = self._kept[-1] if self._kept else None
        if kept and kept.date == today.date and kept.spent_bytes >= needed:
            return
        ahead = min(BATCH_BYTES, self._policy.daily_max // 16)
        most = max(needed, min(needed + ahead, self._policy.daily_max))
        self._keep((*others, msgspec.structs.replace(today, spent_bytes=most)), now)

    def _keep(self, days: tuple[Day, ...], now: Now) -> None:
        write_atomic(self._path, wire.encode_json(_Accounts(days=days)))
        self._kept, self._kept_s = days, now.monotonic_s


def _spent(days: tuple[Day, ...]) -> list[tuple[object, int]]:
    return [(day.date, day.spent_bytes) for day in days]


def _read(path: Path) -> tuple[Day, ...]:
    """The accounts as they were kept; none where there are none that can be read."""
    if not path.exists():
        return ()
    try:
        data = read_bounded(path, _ACCOUNTS_MAX_BYTES)
        return wire.decode_json(data, _Accounts, size_max=_ACCOUNTS_MAX_BYTES).days
    except InputFault as error:
        log.warning("the daily cap begins anew: %s", error.what)
        return ()

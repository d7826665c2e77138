"""The e-detector of many devices together: a cohort, or the whole fleet.

Guards: the same promise as a device's detector, per slot of one window's length: while nothing
changed, a group's chance of an alarm within n slots is at most n / A, whatever the order in which
windows come, late ones included, and each window counts once.

Log evidence is linear in the counts, so a group's is the sum of its windows'. Evidence may begin
at each slot: M <- (M + 1) e with the first window of a slot, M <- M e with every other one. M less
the number of slots begun is a supermartingale at every window (each window's e is at most 1 in the
mean, given what came before), so Doob's inequality holds as it does for one device (``edetector``).

How many rows a window has is no sign of anything: a fleet that is busy by day has other evidence
at noon than at night even of what never happens, in proportion to its rows. What is learnt is how
far windows are off what their rows had let expect.

Devices are not independent: one weather, one daily rhythm moves them all, and a sum over a
thousand devices would take noon for a change. So a group's evidence is divided by a factor D:

- D = n, the windows of a slot, is their geometric mean: an e-value under any dependence between
  them (Hoelder's inequality). A group begins like that, with no more power than one device.
- After ``learn`` slots D is what the slots before this one showed: the variance of a slot's mean
  between slots over what independent devices would leave of it (the spread within slots / n);
  between 1 and n. Devices that go their own ways earn the group its power.

The second is a heuristic like the design effect: simulated (benchmarks/monitoring.py), not proven.
Pure: the slot is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract.components import Floats
from edge_contract.typed import msgpack_decoder
from edge_fleet.drift.edetector import ALGORITHM, LOG_MAX, LOG_MIN, NO_EVIDENCE, DriftTable

EVERY_DEVICE = "(all devices)"
"""The name of the group that every device is in; no device can be called that."""
LEARN_S, MEMORY_S = 2 * 86_400.0, 14 * 86_400.0
"""Two days show a daily rhythm; what is older than two weeks fades."""
LEARN_SLOTS_MIN = 48
OUTLIER = 3.0
"""Once a group has learnt, a slot further off than this many standard deviations counts as so far:
else a change, in the hour in which it comes, would be learnt as what devices have in common."""
ROUNDING = 1e-5
"""A probe that varies by less than this share of itself does not vary: what is left is rounding
in float32, and no sign that devices move together."""
WINDOWS_MIN = 2
"""A slot with fewer windows says nothing about how devices differ."""

Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Pace:
    """How many slots are learnt from before devices count as independent, and remembered."""

    learn: int
    memory: int

    @classmethod
    def of(cls, window_s: float) -> Pace:
        """For slots of ``window_s`` seconds."""
        learn = max(LEARN_SLOTS_MIN, round(LEARN_S / window_s))
        return cls(learn, max(7 * LEARN_SLOTS_MIN, round(MEMORY_S / window_s)))


@dataclass(frozen=True)
class GroupState:
    """What a group's detector remembers.

    Attributes:
        log_m: evidence, ``[entries]``.
        run, began: since which slot each entry's evidence has been adding up, and to how much
            (Page's sum: its start is the likeliest beginning of a change), ``[entries]``.
        slot: the last one; its windows: how many, their rows, sums and squares of how far the
            probes were off the expected, ``[probes]``.
        windows_before: of the slot before.
        learnt: how many slots were learnt from: the probes' running mean a row, the variance
            of slots about it, and the variance that independent devices would have, ``[probes]``.
    """

    log_m: Singles
    run: Singles
    began: NDArray[np.int64]
    sums: Singles
    squares: Singles
    mean: Singles
    between: Singles
    within: Singles
    slot: int = 0
    windows: int = 0
    rows: int = 0
    windows_before: int = 0
    learnt: int = 0


class GroupTable:
    """A profile's bets, as a group places them.

    A probe is one bet a component: the smallest, upwards. It is all but linear in the component's
    mean, so it stands for it where a group learns how alike its devices are.
    """

    def __init__(self, table: DriftTable, pace: Pace) -> None:
        self.table = table
        self.pace = pace

    @cached_property
    def probes(self) -> NDArray[np.int64]:
        """Indices of the probes among the entries."""
        found: list[int] = []
        for start, monitor in zip(self.table.starts.tolist(), self.table.monitors, strict=True):
            first: dict[int, int] = {}
            for at, entry in enumerate(monitor.entries):
                first.setdefault(entry.component, start + at)
            found += first.values()
        return np.array(found, dtype=np.int64)

    @cached_property
    def _owners(self) -> NDArray[np.int64]:
        """Which monitor each entry belongs to."""
        return np.repeat(np.arange(len(self.table.sizes)), self.table.sizes)

    def start(self) -> GroupState:
        """A group of which nothing came yet."""
        entries, probes = self.table.entries, len(self.probes)
        none = np.zeros(probes, dtype=np.float32)
        return GroupState(
            log_m=np.full(entries, NO_EVIDENCE, dtype=np.float32),
            run=np.zeros(entries, dtype=np.float32),
            began=np.zeros(entries, dtype=np.int64),
            sums=none, squares=none, mean=none, between=none, within=none,
        )  # fmt: skip

    def advance(
        self, state: GroupState, slot: int, log_e: Floats, rows: NDArray[np.int64]
    ) -> GroupState:
        """Count windows that came in ``slot``; an earlier slot than the last one is the last one.

        Args:
            log_e: log evidence of each window, ``[windows, entries]``; at least one window.
            rows: how many each has, ``[windows]``.
        """
        begins = slot > state.slot or not state.windows
        if begins:
            state = replace(self._closed(state), slot=max(slot, state.slot))
        off = log_e[:, self.probes] - rows[:, None] * state.mean.astype(np.float64)
        state = replace(
            state,
            windows=state.windows + len(log_e),
            rows=state.rows + int(rows.sum()),
            sums=(state.sums + off.sum(axis=0)).astype(np.float32),
            squares=(state.squares + (off**2).sum(axis=0)).astype(np.float32),
        )
        together = log_e.sum(axis=0) / self.divisors(state)[self._owners]
        log_m, run, began = state.log_m.astype(np.float64), state.run, state.began
        if begins:
            log_m = np.logaddexp(log_m, 0.0)
            fresh = run <= 0
            run, began = np.where(fresh, 0.0, run), np.where(fresh, state.slot, began)
        return replace(
            state,
            log_m=np.clip(log_m + together, LOG_MIN, LOG_MAX).astype(np.float32),
            run=(run + together).astype(np.float32),
            began=began,
        )

    def divisors(self, state: GroupState) -> Floats:
        """D of each monitor, ``[monitors]``: from 1 to the windows of a slot."""
        most = float(max(state.windows, state.windows_before, 1))
        found = np.full(len(self.table.sizes), most)
        if state.learnt >= self.pace.learn:
            alike = state.between / np.maximum(state.within, 1e-30)
            shared = np.zeros(len(found))
            np.maximum.at(shared, self._owners[self.probes], alike)
            found = np.clip(shared, 1.0, most)
        return found

    def anew(self, state: GroupState, monitor: int) -> GroupState:
        """Without the evidence on ``monitor``; what was learnt of its devices stays."""
        mine = self._owners == monitor
        return replace(
            state,
            log_m=np.where(mine, np.float32(NO_EVIDENCE), state.log_m),
            run=np.where(mine, np.float32(0), state.run),
        )

    def _closed(self, state: GroupState) -> GroupState:
        """The slot is over: learn from it how alike its devices are."""
        none = np.zeros(len(self.probes), dtype=np.float32)
        after = replace(
            state, windows=0, rows=0, windows_before=state.windows, sums=none, squares=none
        )
        n = state.windows
        if n < WINDOWS_MIN or not state.rows:
            return after
        apart = state.sums.astype(np.float64) / n
        rounding = (ROUNDING * state.rows / n * state.mean.astype(np.float64)) ** 2
        spread = np.maximum(state.squares.astype(np.float64) / n - apart**2, rounding) * n / (n - 1)
        learnt = min(state.learnt + 1, self.pace.memory)
        weight = 1.0 / (learnt if learnt <= self.pace.learn else self.pace.memory)
        if state.learnt >= self.pace.learn:
            most = OUTLIER * np.sqrt(np.maximum(state.between, state.within))
            apart = np.clip(apart, -most, most)
        return replace(
            after,
            learnt=learnt,
            mean=(state.mean + weight * apart * n / state.rows).astype(np.float32),
            between=((1 - weight) * (state.between + weight * apart**2)).astype(np.float32),
            within=(state.within + weight * (spread / n - state.within)).astype(np.float32),
        )


class _Saved(Struct, frozen=True, array_like=True):
    """A group's state at rest: arrays as little-endian float32, slots as int64."""

    algorithm: int
    entries: tuple[bytes, bytes, bytes]
    probes: tuple[bytes, bytes, bytes, bytes, bytes]
    slot: int
    windows: int
    windows_before: int
    learnt: int
    latched: dict[int, int]
    rows: int = 0


_LEARNING = 2
"""Raised whenever what is learnt changes its meaning."""
_KIND = 256 * _LEARNING + ALGORITHM
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(_Saved)


def save(state: GroupState, latched: dict[int, int]) -> bytes:
    """State and open alarms (monitor to alarm) as bytes."""
    probes = (state.sums, state.squares, state.mean, state.between, state.within)
    a, b, c, d, e = (each.astype("<f4").tobytes() for each in probes)
    entries = (
        state.log_m.astype("<f4").tobytes(), state.run.astype("<f4").tobytes(),
        state.began.astype("<i8").tobytes(),
    )  # fmt: skip
    return _ENCODER.encode(
        _Saved(_KIND, entries, (a, b, c, d, e), state.slot, state.windows,
               state.windows_before, state.learnt, latched, state.rows)
    )  # fmt: skip


def load(data: bytes, table: GroupTable) -> tuple[GroupState, dict[int, int]]:
    """Back again; a state of another algorithm starts anew but stays latched."""
    saved = _DECODER.decode(data)
    log_m, run = (np.frombuffer(each, dtype="<f4").astype(np.float32) for each in saved.entries[:2])
    probes = [np.frombuffer(each, dtype="<f4").astype(np.float32) for each in saved.probes]
    fits = len(log_m) == table.table.entries and len(probes[0]) == len(table.probes)
    if saved.algorithm != _KIND or not fits:
        return table.start(), dict(saved.latched)
    sums, squares, mean, between, within = probes
    state = GroupState(
        log_m=log_m, run=run,
        began=np.frombuffer(saved.entries[2], dtype="<i8").astype(np.int64),
        sums=sums, squares=squares, mean=mean, between=between, within=within,
        slot=saved.slot, windows=saved.windows, rows=saved.rows,
        windows_before=saved.windows_before, learnt=saved.learnt,
    )  # fmt: skip
    return state, dict(saved.latched)

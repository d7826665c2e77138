"""What is wrong with a model's input, seen on the device, before any statistics of the fleet.

Guards: a healthy device raises nothing (a condition needs evidence that chance gives once in e^25
windows, or a run that the reference never came near); one cause has one name; a condition begins
once and ends once. Pure: counts go in, changes come out.

Of every input monitor: ``missing``, ``infinite``, ``out-of-range``, ``unseen``, ``off-lattice``: a
larger share than in the reference. Of every number: ``stuck`` (one value for longer than ever),
``flat`` (hardly any spread), ``sentinel`` (an error value of ``tally.SENTINELS`` far beyond the
reference), ``unit`` (the values of another unit of measurement). Of the model: ``refused``, rows
turned away.

Shares are judged by Page's cumulative sum of log-likelihood ratios (Page 1954), p0 against p1, rows
divided by the reference's design effect: by Lorden (1971) the mean time between false alarms is at
least e^h windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.telemetry.conditions import (
    CODE,
    EFFECT_MAX,
    EVIDENCE,
    RANGE_EFFECT_MAX,
    Finding,
    Key,
    effect,
)
from edge_agent.telemetry.sensors import Sensors
from edge_agent.telemetry.tally import Tallied
from edge_contract.profile import CATEGORY_SPECIALS, NUMBER_SPECIALS, Profile
from edge_contract.telemetry import ERROR_CODES

EFFECT = 0.1
"""p1 is a tenth of the other rows above p0: 2 % are found in the end, all rows at once."""
GOOD_ROWS = 100
GOOD_SHARE = 0.02
"""A share is back when so many rows have come in windows with hardly more of it than p0."""
REFUSED_P0 = 0.001

_SHARES = {"missing": ("missing",), "infinite": ("infinite",), "out-of-range": ("under", "over"),
           "unseen": ("unseen",), "off-lattice": ("off",)}  # fmt: skip


class Changed(NamedTuple):
    """What began and what ended with a look."""

    begun: tuple[Finding, ...] = ()
    ended: tuple[Finding, ...] = ()


class Looked(NamedTuple):
    """Counts of a period: as ``Quality.look`` takes them."""

    rows: int
    cells: NDArray[np.int64]
    tallied: Tallied
    refused: int
    errors: Sequence[int]


class Quality:
    """The conditions of one model's input.

    ``look`` may be asked as often as one likes with the counts of a period so far; ``close`` takes
    those of the whole period, and the next one begins.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        inputs = [i for i, m in enumerate(profile.monitors) if m.source in ("feature", "tensor")]
        self._shares = _Shares(profile, inputs)
        self._sensors = Sensors(profile)
        self._refused = _Refused()
        self._open: dict[Key, Finding] = {}
        self._seen: dict[Key, None] = {}

    @property
    def open(self) -> tuple[Finding, ...]:
        """What holds now, in the order of the profile."""
        return _sorted(self._open.values())

    @property
    def seen(self) -> tuple[tuple[int, int], ...]:
        """Codes and monitors of all that held within the period, in the order of the profile."""
        return tuple(sorted(self._seen, key=lambda each: (each[1], each[0])))

    def look(
        self,
        rows: int,
        cells: NDArray[np.int64],
        tallied: Tallied,
        *,
        refused: int = 0,
        errors: Sequence[int] = (),
    ) -> Changed:
        """What began or ended by these counts of the period so far.

        Args:
            cells, tallied: of the ``rows`` answered. refused, errors: as a record has them.
        """
        return self._step(Looked(rows, cells, tallied, refused, errors), last=False)

    def close(
        self,
        rows: int,
        cells: NDArray[np.int64],
        tallied: Tallied,
        *,
        refused: int = 0,
        errors: Sequence[int] = (),
    ) -> Changed:
        """The same by the counts of a whole period."""
        return self._step(Looked(rows, cells, tallied, refused, errors), last=True)

    def begin(self) -> None:
        """A new period: what holds still was seen in it."""
        self._seen = dict.fromkeys(self._open)

    def end(self) -> tuple[Finding, ...]:
        """Nothing more will be looked at: what held until now."""
        ended, self._open = self.open, {}
        return ended

    def _step(self, seen: Looked, *, last: bool) -> Changed:
        begun, gone = self._refused.judge(seen, last=last)
        if seen.rows and self._profile.rows:
            found, over, named = self._sensors.judge(seen.rows, seen.cells, seen.tallied, last=last)
            more, less = self._shares.judge(seen.rows, seen.cells, named, last=last)
            begun, gone = [*begun, *found, *more], [*gone, *over, *less]
        ended = [self._open.pop(key) for key in gone]
        self._open.update((each.key, each) for each in begun)
        self._seen.update((each.key, None) for each in begun)
        return Changed(_sorted(begun), _sorted(ended))


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda each: (each.monitor, each.code)))


class _Sums:
    """Cumulative sums, one a share: whether it is above p0, and when it is back."""

    def __init__(self, p0: NDArray[np.float64], effects: NDArray[np.float64]) -> None:
        self._p0 = p0
        p1 = p0 + EFFECT * (1 - p0)
        self._hit, self._miss = np.log(p1 / p0), np.log((1 - p1) / (1 - p0))
        self._effects = effects
        self._sums = np.zeros(len(p0))
        self._good = np.zeros(len(p0), dtype=np.int64)
        self._open = np.zeros(len(p0), dtype=np.bool_)

    def step(
        self, hits: NDArray[np.int64], rows: int, *, last: bool
    ) -> tuple[list[int], list[int]]:
        """Places of what begins and of what ends, with so many hits in so many rows."""
        gain = (hits * self._hit + (rows - hits) * self._miss) / self._effects
        sums = np.clip(self._sums + gain, 0.0, 2 * EVIDENCE)
        begin = ~self._open & (sums > EVIDENCE)
        good = np.where(hits <= (self._p0 + GOOD_SHARE) * rows, self._good + rows, 0)
        end = self._open & (good >= GOOD_ROWS)
        self._open = (self._open | begin) & ~end
        if last:
            self._sums, self._good = sums, good
        self._sums[end] = 0.0
        return np.flatnonzero(begin).tolist(), np.flatnonzero(end).tolist()


class _Refused:
    """Rows that were turned away: of the model, not of a feature."""

    def __init__(self) -> None:
        self._sums = _Sums(np.array([REFUSED_P0]), np.array([EFFECT_MAX]))

    def judge(self, seen: Looked, *, last: bool) -> tuple[list[Finding], list[Key]]:
        """What begins, what ends."""
        key = (CODE["refused"], -1)
        rows = seen.rows + seen.refused
        begun, ended = self._sums.step(np.array([seen.refused]), rows, last=last)
        why = [name for name, count in zip(ERROR_CODES, seen.errors, strict=False) if count]
        said = f"{seen.refused} of {rows} rows ({', '.join(why)})"
        return [Finding(*key, said)] if begun else [], [key] if ended else []


class _Shares:
    """Special cells: more of them than the reference has."""

    def __init__(self, profile: Profile, inputs: Sequence[int]) -> None:
        keys, cells, p0, effects = [], [], [], []
        offsets = profile.offsets()
        total = max(profile.rows, 1)
        for i in inputs:
            monitor = profile.monitors[i]
            specials = {"category": CATEGORY_SPECIALS, "score": ()}.get(
                monitor.kind, NUMBER_SPECIALS
            )
            for name, parts in _SHARES.items():
                places = [specials.index(part) for part in parts if part in specials]
                if not places:
                    continue
                at = [monitor.regular + place for place in places]
                known = sum(monitor.counts[place] for place in at)
                keys.append((CODE[name], i))
                cells.append([offsets[i] + at[0], offsets[i] + at[-1]])
                p0.append((known + 3 + 3 * math.sqrt(known + 1)) / total)
                most = RANGE_EFFECT_MAX if name == "out-of-range" else EFFECT_MAX
                effects.append(effect(profile, monitor, most))
        self._keys: list[Key] = keys
        self._cells = np.array(cells, dtype=np.int64).reshape(-1, 2)
        self._sums = _Sums(np.minimum(np.array(p0), 0.999), np.array(effects))

    def judge(
        self, rows: int, cells: NDArray[np.int64], named: dict[int, int], *, last: bool
    ) -> tuple[list[Finding], list[Key]]:
        """What begins, what ends.

        Args:
            named: rows out of range by monitor that have another name already.
        """
        first, second = self._cells.T
        hits = np.where(first == second, cells[first], cells[first] + cells[second])
        for at, key in enumerate(self._keys):
            if key[0] == CODE["out-of-range"] and key[1] in named:
                hits[at] = max(hits[at] - named[key[1]], 0)
        begun, ended = self._sums.step(hits, rows, last=last)
        return (
            [Finding(*self._keys[at], f"{hits[at] / rows:.0%} of {rows} rows") for at in begun],
            [self._keys[at] for at in ended],
        )

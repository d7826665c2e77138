"""The fleet's detectors over simulated rows: the code that a collector runs, without its store.

Rows of ``streams`` become counts as on a device, against a profile that the packager built; log
evidence, recursion, thresholds and groups are ``edge_fleet.drift``'s own. What a store adds
(suppression, an event that rests on one device) only makes fewer alarms and is left out: every
crossing counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from streams import CATEGORIES, DAY_HOURS, NEW_WORD, WORDS, Rows, Setting, reference

from edge_contract import profile as profiles
from edge_contract.manifest import Feature, Outputs
from edge_contract.profile import Monitor, Profile
from edge_contract.projection import Projector
from edge_fleet.drift.budget import Budget, Scope
from edge_fleet.drift.edetector import DriftTable, advance
from edge_fleet.drift.groups import GroupTable, Pace
from edge_pack import profile_build
from edge_pack.answers import Answers
from edge_pack.intake import Rows as ReferenceRows

WATCHED = 15
"""Numbers; with five categories 20 features."""
COHORT = 50
REFERENCE_DEVICES, REFERENCE_DAYS = 2, 7
WINDOW_S = 3600.0
SCOPES: tuple[Scope, ...] = ("device", "cohort", "fleet")


def build_profile(setting: Setting, *, seed: int, tolerance: float = 0.0) -> Profile:
    """A week each of two devices of their own, in order of time, as ``edge-pack build`` has it.

    Args:
        tolerance: how far a device may be from the reference, in standard deviations.
    """
    rows = reference(
        setting, seed=seed, rows=60 * DAY_HOURS * REFERENCE_DAYS, devices=REFERENCE_DEVICES
    )
    numbers = rows.numbers.reshape(-1, rows.numbers.shape[2]).astype(np.float64)
    letters = rows.letters.reshape(-1, CATEGORIES)
    columns: dict[str, NDArray] = {f"x{at}": numbers[:, at] for at in range(WATCHED)}
    columns |= {f"c{at}": np.array(WORDS, object)[letters[:, at]] for at in range(CATEGORIES)}
    features = [Feature(name=f"x{at}") for at in range(WATCHED)]
    features += [
        Feature(name=f"c{at}", type="category", categories=tuple(sorted(WORDS)))
        for at in range(CATEGORIES)
    ]
    count = len(numbers)
    built = profile_build.build(
        features, ReferenceRows(count, columns, {}), Answers(), Answers(),
        task="tensors", outputs=Outputs(tensors=()),
        order=profile_build.Order(np.arange(count), 60.0 * np.arange(count)),
    )  # fmt: skip
    if not tolerance:
        return built
    monitors = tuple(replace(monitor, tolerance=tolerance) for monitor in built.monitors)
    return replace(built, monitors=monitors)


class Counter:
    """Counts rows of many devices at once, in the cells that a device counts in."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._projectors = [Projector(one) for one in profile.projections]
        self._cells = [_Cells(one) if one.edges else None for one in profile.monitors]

    def __call__(self, rows: Rows) -> NDArray[np.int64]:
        """Counts ``[devices, cells]`` of one hour."""
        devices, many = rows.numbers.shape[:2]
        numbers = rows.numbers[:, :, :WATCHED].astype(np.float64)
        flat = numbers.reshape(-1, WATCHED)
        projected = [projector(flat) for projector in self._projectors]
        along = np.concatenate(projected, axis=1) if projected else np.zeros((len(flat), 0))
        directions = iter(along.T.reshape(-1, devices, many))
        parts = []
        for monitor, cells in zip(self.profile.monitors, self._cells, strict=True):
            if cells is None:
                parts.append(_words(monitor, rows.letters[:, :, int(monitor.name[1:])]))
            elif monitor.source == "projection":
                parts.append(cells(next(directions)))
            else:
                parts.append(cells(numbers[:, :, int(monitor.name[1:])]))
        return np.concatenate(parts, axis=1)

    def check(self, rows: Rows) -> None:
        """The same as the counting functions of the contract. Raises AssertionError."""
        counts = self(rows)
        offsets = self.profile.offsets()
        flat = rows.numbers[0, :, :WATCHED].astype(np.float64)
        along = [column for projector in self._projectors for column in projector(flat).T]
        directions = iter(along)
        for at, monitor in enumerate(self.profile.monitors):
            own = counts[0, offsets[at] : offsets[at] + monitor.cells]
            if monitor.kind == "category":
                letters = rows.letters[0, :, int(monitor.name[1:])]
                words = [(*WORDS, NEW_WORD)[letter] for letter in letters]
                assert (own == profiles.count_categories(monitor, words)).all(), monitor.name
            else:
                directed = monitor.source == "projection"
                values = next(directions) if directed else flat[:, int(monitor.name[1:])]
                assert (own == profiles.count_numbers(monitor, values)).all(), monitor.name


class _Cells:
    """Looks cells of a quantile monitor up by a grid: a binary search takes ten times as long."""

    STEPS = 4096

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        edges = np.asarray(monitor.edges)
        self._low, self._high = float(edges[0]), float(edges[-1])
        grid = np.linspace(self._low, self._high, self.STEPS + 1)
        self._first = np.clip(edges.searchsorted(grid, side="right") - 2, 0, monitor.regular - 1)
        self._upper = edges[1:].copy()
        self._upper[-1] = np.inf  # the last bin holds its edge
        within = np.histogram(edges, grid)[0]
        self._steps = int(within.max()) + 1

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Counts ``[devices, cells]`` of finite values ``[devices, rows]``."""
        scale = self.STEPS / (self._high - self._low)
        at = ((np.clip(values, self._low, self._high) - self._low) * scale).astype(np.int32)
        cells = self._first[at]
        for _ in range(self._steps):
            cells += values >= self._upper[cells]
        regular = self._monitor.regular
        cells[values < self._low] = regular
        cells[values > self._high] = regular + 1
        return _tally(cells, self._monitor.cells)


def _words(monitor: Monitor, letters: NDArray[np.int8]) -> NDArray[np.int64]:
    where = {name: cell for cell, name in enumerate(monitor.categories)}
    unseen = monitor.regular + 1
    cells = np.array([where.get(word, unseen) for word in (*WORDS, NEW_WORD)])
    return _tally(cells[letters], monitor.cells)


def _tally(cells: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    devices = len(cells)
    flat = (cells + width * np.arange(devices)[:, None]).ravel()
    return np.bincount(flat, minlength=devices * width).reshape(devices, width)


@dataclass
class Watch:
    """All detectors of a fleet.

    Attributes:
        promised_to: for how many devices the promise is made, where fewer are simulated.
        crossings: (hour, scope, which, monitor), in order of time.
    """

    profile: Profile
    devices: int
    budget: Budget
    promised_to: int = 0
    crossings: list[tuple[int, Scope, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = DriftTable(self.profile)
        self._groups = GroupTable(self.table, Pace.of(self.budget.window_s))
        self._state = self.table.start(self.devices)
        self._cohorts = [
            slice(at, at + COHORT) for at in range(0, self.devices - COHORT + 1, COHORT)
        ]
        self._cohort_states = [self._groups.start() for _ in self._cohorts]
        self._fleet_state = self._groups.start()
        monitors, devices = len(self.profile.monitors), self.promised_to or self.devices
        self.streams: dict[Scope, int] = {
            "device": devices * monitors,
            "cohort": devices // COHORT * monitors,
            "fleet": monitors,
        }
        self.thresholds = self.budget.log_thresholds(self.streams)

    def hour(self, hour: int, counts: NDArray[np.int64]) -> None:
        """Count one window a device; what crosses starts anew, as when a person resolved it."""
        log_e = self.table.log_e(counts)
        rows = counts[:, : self.profile.monitors[0].cells].sum(axis=1)
        self._state = advance(self._state, log_e)
        self._note(hour, "device", self.table.levels(self._state), self._reset_device)
        for at, some in enumerate(self._cohorts):
            self._cohort_states[at] = self._groups.advance(
                self._cohort_states[at], hour + 1, log_e[some], rows[some]
            )
        self._fleet_state = self._groups.advance(self._fleet_state, hour + 1, log_e, rows)
        if self._cohorts:
            logs = np.stack([state.log_m for state in self._cohort_states])
            self._note(hour, "cohort", self.table.levels(logs), self._reset_cohort)
        levels = self.table.levels(self._fleet_state.log_m)[None]
        self._note(hour, "fleet", levels, self._reset_fleet)

    def _note(
        self,
        hour: int,
        scope: Scope,
        levels: NDArray[np.float64],
        reset: Callable[[int, int], None],
    ) -> None:
        for which, monitor in np.argwhere(levels >= self.thresholds[scope]).tolist():
            self.crossings.append((hour, scope, which, monitor))
            reset(which, monitor)

    def _reset_device(self, which: int, monitor: int) -> None:
        start, size = self.table.starts[monitor], self.table.sizes[monitor]
        self._state[which, start : start + size] = self.table.start()[0, :size]

    def _reset_cohort(self, which: int, monitor: int) -> None:
        self._cohort_states[which] = self._groups.anew(self._cohort_states[which], monitor)

    def _reset_fleet(self, _which: int, monitor: int) -> None:
        self._fleet_state = self._groups.anew(self._fleet_state, monitor)

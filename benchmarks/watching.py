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

    def __call__(self, rows: Rows) -> NDArray[np.int64]:
        """Counts ``[devices, cells]`` of one hour."""
        devices, many = rows.numbers.shape[:2]
        numbers = np.ascontiguousarray(rows.numbers[:, :, :WATCHED].T)
        flat = rows.numbers[:, :, :WATCHED].astype(np.float64).reshape(-1, WATCHED)
        directions = (
            np.ascontiguousarray(column.reshape(devices, many).T)
            for projector in self._projectors
            for column in projector(flat).T
        )
        parts = []
        for monitor in self.profile.monitors:
            if monitor.kind == "category":
                parts.append(_words(monitor, rows.letters[:, :, int(monitor.name[1:])]))
            elif monitor.source == "projection":
                parts.append(_cells(monitor, next(directions)))
            else:
                parts.append(_cells(monitor, numbers[int(monitor.name[1:])]))
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


def _cells(monitor: Monitor, values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Counts ``[devices, cells]`` of finite values ``[rows, devices]`` of a quantile monitor.

    How many values of each device reach each edge, a comparison an edge: a fifth of the time that
    a binary search a value takes.
    """
    edges = np.asarray(monitor.edges).astype(values.dtype)
    too_low = edges < monitor.edges  # rounded to float32: the next one has the same values above it
    edges[too_low] = np.nextafter(edges[too_low], np.inf, dtype=values.dtype)
    width = np.uint8 if len(values) < 256 else np.int64
    reached = np.empty((len(edges) + 1, values.shape[1]), dtype=np.int64)
    for at, edge in enumerate(edges):
        reached[at] = np.add.reduce((values >= edge).view(np.uint8), axis=0, dtype=width)
    # The last bin holds its edge.
    reached[-1] = reached[-2] = np.sum(values > np.float64(monitor.edges[-1]), axis=0)
    regular = monitor.regular
    counts = np.zeros((values.shape[1], monitor.cells), dtype=np.int64)
    counts[:, :regular] = (reached[:regular] - reached[1 : regular + 1]).T
    counts[:, regular] = len(values) - reached[0]
    counts[:, regular + 1] = reached[-1]
    return counts


def _words(monitor: Monitor, letters: NDArray[np.int8]) -> NDArray[np.int64]:
    where = {name: cell for cell, name in enumerate(monitor.categories)}
    unseen = monitor.regular + 1
    cells = np.array([where.get(word, unseen) for word in (*WORDS, NEW_WORD)])
    devices = len(letters)
    flat = (cells[letters] + monitor.cells * np.arange(devices)[:, None]).ravel()
    tally = np.bincount(flat, minlength=devices * monitor.cells)
    return tally.reshape(devices, monitor.cells)


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

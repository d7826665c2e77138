"""Simulated fleets of sensors, quiet or with a fault at a known hour: what monitors are judged on.

A device answers a row a minute: 20 numbers and 5 categories. Numbers come in pairs that are
correlated by ``CORRELATION``. A setting says how rows depend on time and device: not at all, on
the row before (AR(1)), on the hour of the day, on weekends and holidays, on the device.

Guards: a quiet number has mean 0 and variance 1 over the fleet and the year, whatever the setting;
a category has its ``SHARES`` where there is no cycle, and about them where there is; the same seed
gives the same rows; a fault changes nothing but its own feature, from its own hour on, so that a
stream with and without it are twins. Needs numpy alone (1.26 or later): a peer's own environment
makes the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

NUMBERS, CATEGORIES = 20, 5
LATENTS = NUMBERS + CATEGORIES
ROWS_AN_HOUR = 60
DAY_HOURS, YEAR_DAYS = 24, 365
CORRELATION = 0.8
"""Of a pair of neighbouring numbers, 0 and 1, 2 and 3, ..."""
SHARES = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
"""Of a category's words, in order."""
WORDS = ("idle", "run", "ramp", "purge", "hold", "trip")
NEW_WORD = "bypass"
"""What a fault of kind ``category`` brings; its index is ``len(WORDS)``."""
FREE_DAYS_OF_WEEK = (5, 6)
HOLIDAYS = (0, 5, 119, 127, 138, 158, 226, 298, 304, 341, 357, 358, 359)
"""Days of the year without work, besides weekends."""
FREE_AMPLITUDE, FREE_LEVEL = 0.5, -0.3
"""On such a day: how much of the cycle is left, and where numbers rest."""

_CUTS = np.array([NormalDist().inv_cdf(p) for p in np.cumsum(SHARES)[:-1]], dtype=np.float32)


@dataclass(frozen=True)
class Setting:
    """How rows depend on time and device.

    Attributes:
        rho: correlation of a row with the one before, of what the cycle does not explain.
        daily: amplitude of the daily cycle; its variance is half its square, of 1 in all.
        holidays: the cycle rests on weekends and holidays.
        device_std: standard deviation of the devices' own means.
    """

    name: str
    rho: float = 0.0
    daily: float = 0.0
    holidays: bool = False
    device_std: float = 0.0


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("iid"),
        Setting("ar1", rho=0.9),
        Setting("daily", daily=1.0),
        Setting("both", rho=0.9, daily=1.0),
        Setting("holidays", rho=0.9, daily=1.0, holidays=True),
        Setting("devices", device_std=0.05),
        Setting("all", rho=0.9, daily=1.0, holidays=True, device_std=0.05),
    )
}

FaultKind = Literal["shift", "scale", "category", "correlation", "stuck"]


@dataclass(frozen=True)
class Fault:
    """What happens to a feature.

    Attributes:
        kind: ``shift`` adds ``size`` standard deviations; ``scale`` multiplies by ``size``;
            ``category`` gives a share ``size`` of rows a word never seen before; ``correlation``
            draws the odd number of a pair apart from the even one, margins as they were;
            ``stuck`` repeats the last value before the fault.
        feature: index of the number, or for ``category`` of the category.
        hour: the first hour of it.
        devices: how many devices have it, the first ones; None: all.
    """

    kind: FaultKind
    size: float = 0.0
    feature: int = 1
    hour: int = 0
    devices: int | None = None

    @property
    def name(self) -> str:
        """For a table."""
        words = {
            "shift": f"{self.size:g} sigma shift", "scale": f"spread times {self.size:g}",
            "category": f"new category, {100 * self.size:g} %",
            "correlation": "lost correlation", "stuck": "stuck sensor",
        }  # fmt: skip
        return words[self.kind]


FAULTS = (
    Fault("shift", 0.1),
    Fault("shift", 0.25),
    Fault("shift", 0.5),
    Fault("scale", 1.5),
    Fault("category", 0.05),
    Fault("correlation"),
    Fault("stuck"),
)
"""One of each kind, from the first hour on: ``dataclasses.replace(fault, hour=...)``."""


@dataclass(frozen=True)
class Rows:
    """What every device answered in some hours.

    Attributes:
        hour: the first of them, counted from a midnight that begins a week and a year.
        numbers: float32 ``[devices, rows, NUMBERS]``.
        letters: int8 ``[devices, rows, CATEGORIES]``, indices into ``(*WORDS, NEW_WORD)``.
    """

    hour: int
    numbers: np.ndarray[Any, np.dtype[np.float32]]
    letters: np.ndarray[Any, np.dtype[np.int8]]


class Stream:
    """Rows of a fleet, hour by hour.

    Args:
        seed: of these rows. fleet_seed: of the devices' own means; None: ``seed``.
        hour: the first hour; faults count from the same midnight.
        rows: a device's rows an hour, evenly spaced.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        seed: int,
        devices: int = 1,
        rows: int = ROWS_AN_HOUR,
        hour: int = 0,
        faults: Sequence[Fault] = (),
        fleet_seed: int | None = None,
    ) -> None:
        self._setting, self._seed, self._faults = setting, seed, tuple(faults)
        self._devices, self._rows, self._hour = devices, rows, hour
        fleet = np.random.default_rng([seed if fleet_seed is None else fleet_seed, 1])
        drawn = fleet.standard_normal((devices, 1, LATENTS), dtype=np.float32)
        self._own = drawn * np.float32(setting.device_std)
        self._phase = (np.arange(LATENTS) // 2 * 2 * np.pi / LATENTS).astype(np.float32)
        start = np.random.default_rng([seed, 2])
        self._last = start.standard_normal((devices, LATENTS), dtype=np.float32)
        self._held: dict[Fault, Any] = {}

    def __iter__(self) -> Iterator[Rows]:
        """The next hours, without an end."""
        while True:
            yield self.next_hour()

    def next_hour(self) -> Rows:
        """The next hour of all devices."""
        hour = self._hour
        self._hour += 1
        noise = self._noise(hour)
        latent = self._mixed(noise, hour)
        numbers = latent[:, :, :NUMBERS]
        words = np.searchsorted(_CUTS, latent[:, :, NUMBERS:], side="right").astype(np.int8)
        for fault in self._faults:
            self._apply(fault, hour, numbers, words)
        return Rows(hour, numbers, words)

    def skip(self, hours: int) -> None:
        """Leave out the next ``hours``; the first row after them follows the last one before."""
        self._hour += hours

    def _noise(self, hour: int) -> Any:
        """AR(1) of unit variance, ``[devices, rows, LATENTS]``."""
        rng = np.random.default_rng([self._seed, 3, hour])
        noise = rng.standard_normal((self._devices, self._rows, LATENTS), dtype=np.float32)
        rho = np.float32(self._setting.rho)
        if rho:
            noise *= np.float32(sqrt(1 - float(rho) ** 2))
            last = self._last
            for at in range(self._rows):
                noise[:, at] += rho * last
                last = noise[:, at]
            self._last = last.copy()
        return noise

    def _mixed(self, noise: Any, hour: int) -> Any:
        """Pairs correlated, the cycle and the devices' own means added, variance 1 again."""
        lost = [f for f in self._faults if f.kind == "correlation" and hour >= f.hour]
        kept = noise[:, :, 1:NUMBERS:2].copy() if lost else None
        odd = noise[:, :, 1:NUMBERS:2]
        odd *= np.float32(sqrt(1 - CORRELATION**2))
        odd += np.float32(CORRELATION) * noise[:, :, 0:NUMBERS:2]
        for fault in lost:
            odd[: fault.devices, :, fault.feature // 2] = kept[
                : fault.devices, :, fault.feature // 2
            ]
        setting = self._setting
        share, level = self._cycle(hour)
        noise *= np.float32(sqrt(1 - setting.daily**2 / 2))
        if setting.daily or level:
            noise += share * self._wave(hour) + np.float32(level)
        noise += self._own
        mean, std = moments(setting)
        return (noise - np.float32(mean)) / np.float32(std)

    def _wave(self, hour: int) -> Any:
        """The cycle at each row, the same of both numbers of a pair, ``[rows, LATENTS]``."""
        of_day = (hour % DAY_HOURS + np.arange(self._rows) / self._rows) / DAY_HOURS
        angle = (2 * np.pi * of_day).astype(np.float32)[:, None] + self._phase
        return np.float32(self._setting.daily) * np.sin(angle)

    def _cycle(self, hour: int) -> tuple[np.float32, float]:
        """How much of the cycle there is, and the level."""
        if self._setting.holidays and is_free(hour // DAY_HOURS):
            return np.float32(FREE_AMPLITUDE), FREE_LEVEL
        return np.float32(1), 0.0

    def _apply(self, fault: Fault, hour: int, numbers: Any, words: Any) -> None:
        some = slice(None, fault.devices)
        mine = numbers[some, :, fault.feature] if fault.kind != "category" else None
        if fault.kind == "stuck" and hour < fault.hour:
            self._held[fault] = mine[:, -1:].copy()
        if hour < fault.hour:
            return
        if fault.kind == "shift":
            mine += np.float32(fault.size)
        elif fault.kind == "scale":
            mine *= np.float32(fault.size)
        elif fault.kind == "stuck":
            mine[:] = self._held.setdefault(fault, mine[:, :1].copy())
        elif fault.kind == "category":
            rng = np.random.default_rng([self._seed, 4, hour])
            letters = words[some, :, fault.feature]
            letters[rng.random(letters.shape) < fault.size] = len(WORDS)


def is_free(day: int) -> bool:
    """Whether nobody works on that day."""
    return day % 7 in FREE_DAYS_OF_WEEK or day % YEAR_DAYS in HOLIDAYS


def moments(setting: Setting) -> tuple[float, float]:
    """Mean and standard deviation over a year of what is standardised to 0 and 1."""
    free = sum(is_free(day) for day in range(YEAR_DAYS)) / YEAR_DAYS if setting.holidays else 0.0
    cycle = setting.daily**2 / 2
    mean = free * FREE_LEVEL
    variance = 1 - cycle + cycle * (1 - free + free * FREE_AMPLITUDE**2)
    variance += free * (1 - free) * FREE_LEVEL**2 + setting.device_std**2
    return mean, sqrt(variance)


def reference(
    setting: Setting,
    *,
    seed: int,
    rows: int,
    devices: int = 1,
    rows_an_hour: int = ROWS_AN_HOUR,
    hour: int = 0,
) -> Rows:
    """``rows`` quiet rows of each device in order of time, from ``hour`` on."""
    stream = Stream(setting, seed=seed, devices=devices, rows=rows_an_hour, hour=hour)
    hours = [stream.next_hour() for _ in range(-(-rows // rows_an_hour))]
    return Rows(
        hour,
        np.concatenate([some.numbers for some in hours], axis=1)[:, :rows],
        np.concatenate([some.letters for some in hours], axis=1)[:, :rows],
    )

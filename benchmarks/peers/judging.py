"""What monitors say of quiet and of faulty streams, as false alarms and delays.

Guards: every monitor is judged by the same rule; a delay that a quiet twin of the stream has too is
called noise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streams
from peers import watching
from peers.ours import Ours, Said
from peers.watching import Case, Judged

DEVICES, HOURS_A_MONTH = 1_000, 720
ALPHA = 1 / (DEVICES * HOURS_A_MONTH * streams.LATENTS)
"""The level of one test, when one false alarm a fleet-month is allowed."""
QUIET_COLUMNS = (0, 1, 2, 3, streams.NUMBERS)
"""What peers are asked of quiet streams: columns are alike, and some peers are slow."""


@dataclass(frozen=True)
class Size:
    """How much is run: settings, and ``(devices, hours)`` of quiet and of faulty streams.

    ``windows``: of a real series at most, the first ones.
    """

    quiet: tuple[str, ...] = ("iid", "ar1", "both", "all")
    faulty: tuple[str, ...] = ("iid", "both")
    peers_quiet: tuple[int, int] = (3, 72)
    ours_quiet: tuple[int, int] = (15, 720)
    delay: tuple[int, int] = (4, 48)
    ours_delay: tuple[int, int] = (4, 336)
    windows: int = 1_000

    def __str__(self) -> str:
        def times(size: tuple[int, int]) -> str:
            return f"{size[0]} devices for {size[1]} hours"

        return (
            f"Measured on: quiet streams, ours {times(self.ours_quiet)}, peers"
            f" {times(self.peers_quiet)}; faults, ours {times(self.ours_delay)}, peers"
            f" {times(self.delay)}; real series, at most {self.windows} windows of each device."
        )

    def cut(self, series: dict[str, Case]) -> dict[str, Case]:
        """The first windows of each series."""
        return {
            name: case | {key: case[key][:, : self.windows] for key in ("after", "said")}
            for name, case in series.items()
        }


QUICK = Size(
    quiet=("iid", "both"), faulty=("iid",), peers_quiet=(2, 48), ours_quiet=(10, 168),
    delay=(3, 36), ours_delay=(3, 72), windows=60,
)  # fmt: skip


@dataclass(frozen=True)
class Delay:
    """Windows to the first alarm of each device; ``inf``: none. ``quiet``: of the twins."""

    found: Sequence[float]
    quiet: Sequence[float]

    @property
    def median(self) -> float:
        """Half of the devices alarmed by then; ``inf`` when fewer did at all."""
        return float(np.median(self.found))

    @property
    def noise(self) -> bool:
        """A quiet twin alarms no later."""
        return bool(np.median(self.quiet) <= self.median < np.inf)

    def __str__(self) -> str:
        if self.noise:
            return "noise"
        return f"{self.median:.0f}" if np.isfinite(self.median) else "-"


def first(flags: Any) -> list[float]:
    """Windows to the first alarm on any monitor, each device: ``[devices, windows, monitors]``."""
    hit = flags.any(axis=2)
    return [float(row.argmax()) + 1 if row.any() else np.inf for row in hit]


def a_month(flags: Any, monitors: int) -> tuple[float, float]:
    """Alarms a fleet-month of ``monitors`` a device, and what chance leaves open: 3 / windows.

    The rule of three: with none in n, the mean is below 3 / n at 95 %.
    """
    devices, windows, watched = flags.shape
    times = DEVICES * HOURS_A_MONTH * monitors / (devices * windows * watched)
    return float(flags.sum()) * times, 3.0 * times


def fault_columns(fault: streams.Fault) -> tuple[int, ...]:
    """What peers are shown of a fault: its feature, or for a correlation the four pairs around."""
    if fault.kind == "correlation":
        return tuple(range(8))
    return (fault.feature + (streams.NUMBERS if fault.kind == "category" else 0),)


def ours_simulated(size: Size, folder: Path) -> dict[str, Any]:
    """False alarms by setting, and delays by setting and fault, of our alarms and findings."""
    found: dict[str, Any] = {kind: {"quiet": {}, "delays": {}} for kind in Said._fields}
    for name in size.quiet:
        setting = streams.SETTINGS[name]
        devices, hours = size.ours_quiet
        case = watching.simulated(setting, hours=hours, devices=devices)
        ours = Ours(case, folder)
        level = ours.log_threshold(DEVICES, 3600)
        say(f"ours, {name}: {devices} devices, {hours} hours")
        for kind, flags in ours.judge(case, level)._asdict().items():
            found[kind]["quiet"][name] = a_month(flags, flags.shape[2])
        if name in size.faulty:
            for kind, delays in _our_delays(ours, setting, level, size).items():
                found[kind]["delays"][name] = delays
        ours.close()
    return found


def _our_delays(
    ours: Ours, setting: streams.Setting, level: float, size: Size
) -> dict[str, dict[str, Delay]]:
    devices, hours = size.ours_delay
    found: dict[str, dict[str, Delay]] = {kind: {} for kind in Said._fields}
    twins = ours.judge(watching.simulated(setting, hours=hours, devices=devices), level)._asdict()
    for fault in streams.FAULTS:
        say(f"ours, {setting.name}: {fault.name}")
        case = watching.simulated(setting, hours=hours, devices=devices, fault=fault)
        columns = fault_columns(fault)
        watched = ours.watches(list(columns[:2]))
        for kind, flags in ours.judge(case, level)._asdict().items():
            twin = first(twins[kind][:, :, watched])
            found[kind][fault.name] = Delay(first(flags[:, :, watched]), twin)
    return found


def peer_simulated(name: str, size: Size, folder: Path) -> dict[str, Any]:
    """The same of a peer, by rule."""
    cases = {}
    for setting in size.quiet:
        devices, hours = size.peers_quiet
        cases[f"quiet-{setting}"] = watching.simulated(
            streams.SETTINGS[setting], hours=hours, devices=devices, columns=QUIET_COLUMNS
        )
    for setting in size.faulty:
        cases |= _fault_cases(setting, size)
    said, version = watching.ask(name, cases, ALPHA, folder)
    found: dict[str, Any] = {"version": version, "quiet": {}, "delays": {}}
    for rule in watching.rules(name):
        found["quiet"][rule] = {
            setting: _rate(said[f"quiet-{setting}"][rule]) for setting in size.quiet
        }
        found["delays"][rule] = {
            setting: {
                fault.name: _delay(said, f"{setting}-{at}", _twin(setting, fault), rule)
                for at, fault in enumerate(streams.FAULTS)
            }
            for setting in size.faulty
        }
    return found


def _twin(setting: str, fault: streams.Fault) -> str:
    return f"{setting}-twin-{'-'.join(map(str, fault_columns(fault)[:2]))}"


def _fault_cases(setting: str, size: Size) -> dict[str, Case]:
    devices, hours = size.delay
    cases = {}
    for at, fault in enumerate(streams.FAULTS):
        columns = fault_columns(fault)
        kinds: list[tuple[str, streams.Fault | None]] = [(f"{setting}-{at}", fault)]
        kinds.append((_twin(setting, fault), None))
        for name, one in kinds:
            if name not in cases:
                cases[name] = watching.simulated(
                    streams.SETTINGS[setting], hours=hours, devices=devices, fault=one,
                    columns=columns,
                )  # fmt: skip
    return cases


def _rate(judged: Judged) -> tuple[float, float] | str:
    return judged.failed or a_month(judged.flags, streams.LATENTS)


def _delay(said: Any, case: str, twin: str, rule: str) -> Delay | str:
    one, quiet = said[case][rule], said[twin][rule]
    return one.failed or quiet.failed or Delay(first(one.flags), first(quiet.flags))


def real_faults(case: Case) -> tuple[str, ...]:
    """Those that fit a series: one sensor has no company to lose."""
    return watching.REAL_FAULTS[: None if case["before"].shape[1] > 1 else -1]


def real_cases(series: dict[str, Case]) -> dict[str, Case]:
    """Each series quiet, and with each fault from the middle of its stream on."""
    found = {}
    for name, case in series.items():
        found[f"{name}-quiet"] = case
        for kind in real_faults(case):
            found[f"{name}-{kind}"] = watching.broken(case, kind, case["after"].shape[1] // 2)
    return found


def real_result(case: Case, flags: dict[str, Any], watched: Sequence[int]) -> dict[str, Any]:
    """Of one series: false alarms in 1,000 windows of a sensor, and delays after the middle.

    ``flags``: by ``quiet`` and kind of fault. ``watched``: the monitors that may see the fault.
    """
    quiet, middle = flags["quiet"], case["after"].shape[1] // 2
    windows = quiet.shape[0] * quiet.shape[1] * len(case["names"])
    twins = first(quiet[:, middle:, watched])
    return {
        "false_alarms": int(quiet.sum()),
        "per_1000": 1_000 * float(quiet.sum()) / windows,
        "delays": {
            kind: Delay(first(flags[kind][:, middle:, watched]), twins)
            for kind in real_faults(case)
        },
    }


def ours_real(series: dict[str, Case], folder: Path) -> dict[str, Any]:
    """Ours on every series, at the promise for a thousand devices with as many monitors."""
    cases = real_cases(series)
    found: dict[str, Any] = {kind: {} for kind in Said._fields}
    for name, case in series.items():
        say(f"ours, {name}")
        ours = Ours(case, folder, ordered=bool(case["ordered"]))
        level = ours.log_threshold(DEVICES, 3600)
        kinds = ("quiet", *real_faults(case))
        said = {kind: ours.judge(cases[f"{name}-{kind}"], level)._asdict() for kind in kinds}
        for what in Said._fields:
            flags = {kind: said[kind][what] for kind in kinds}
            found[what][name] = real_result(case, flags, ours.watches([0]))
        ours.close()
    return found


def peer_real(name: str, series: dict[str, Case], folder: Path) -> dict[str, Any]:
    """A peer on every series, by rule; a fault is seen by its column or by all at once."""
    said, _ = watching.ask(name, real_cases(series), ALPHA, folder)
    found: dict[str, Any] = {rule: {} for rule in watching.rules(name)}
    for rule in watching.rules(name):
        for series_name, case in series.items():
            kinds = ("quiet", *real_faults(case))
            judged = {kind: said[f"{series_name}-{kind}"][rule] for kind in kinds}
            failed = next((one.failed for one in judged.values() if one.failed), "")
            flags = {kind: one.flags for kind, one in judged.items()}
            sensors = len(case["names"])
            found[rule][series_name] = failed or real_result(
                case, flags, [0, *range(sensors, flags["quiet"].shape[2])]
            )
    return found


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)

"""The promise on false alarms, and how soon real drift is found: simulated fleets, hour by hour.

    python benchmarks/monitoring.py [--quick] [--json FILE] [--markdown] [--write-readme]
                                    [--devices N] [--days N] [--jobs N] [--from FILE]
                                    [--keep FOLDER]

(a) Quiet fleets: so many devices of 20 features (15 numbers, 5 categories, and the directions
through the numbers), a row a minute, a window an hour. Rows are independent, AR(1) with rho .9, on
a daily rhythm that all devices share, both, with weekends and holidays, and with devices that
differ from one another as well (``all``). Every crossing of a threshold is a false alarm; the
promise is one in 30 days over all devices, cohorts and the fleet. It does not cover devices that
rest elsewhere than the reference unless the build allows for it: that row, ``devices``, is shown,
of 30 days at most, and is no goal. What crosses starts anew, so a device that differs alarms again
and again here; a collector keeps its alarm open instead. A whole year of 1,000 devices is
``--devices 1000 --days 365``: twenty minutes of processor time for each kind of rows. With
``--keep`` each part that ended is written to a folder and is not measured again by the next run
that names it.

(b) One fault at a known hour, of each kind: hours until the first alarm on one device (median over
200 that have it), on cohorts of 50, and over 1,000 devices, with the thresholds of 1,000 devices.

Rows are ``streams``'s, as for the comparison with other monitors; profiles are built by the
packager; detectors are the fleet's own (``watching``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import Counter as Tally
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import watching
from streams import FAULTS, SETTINGS, Fault, Stream
from watching import COHORT, SCOPES, WINDOW_S, Counter, Watch

from edge_fleet.drift.budget import Budget

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks/monitoring.py -->", "<!-- end -->"
PROMISED = 1.0
"""False alarms in 30 days."""
DAYS, DEVICES = 30, 1000
DEVICE_TOLERANCE = 0.8
"""Devices differ by .05 in each number (``streams``), which is .11 along the narrow direction of a
pair, and so do the two devices of the reference: the farthest of 1,000 is .71 off. A tolerance of
.6 raised 37 alarms in a year, by 13 streams, each of them .62 to .71 off; one of .25 raised 1,370
in a month of 300 devices."""
BURN_IN_HOURS = 52
"""A group learns for two days before its devices count as independent."""
HOURS_MAX, FLEET_HOURS = 72, 6
FAULT_SETTINGS = ("iid", "ar1")


@dataclass(frozen=True)
class Quiet:
    """A quiet fleet's settings.

    Attributes:
        tolerance: how far devices may be off, by the build.
        promised: whether the promise covers it.
    """

    setting: str
    tolerance: float = 0.0
    promised: bool = field(default=True, repr=False)

    @property
    def name(self) -> str:
        """For tables."""
        allowed = f", {self.tolerance:g} sigma allowed" if self.tolerance else ""
        return self.setting + allowed


QUIET = (
    Quiet("iid"), Quiet("ar1"), Quiet("daily"), Quiet("both"), Quiet("holidays"),
    Quiet("all", DEVICE_TOLERANCE), Quiet("devices", promised=False),
)  # fmt: skip


def quiet(which: Quiet, devices: int, days: int) -> dict[str, Any]:
    """False alarms of a quiet fleet, by scope."""
    setting = SETTINGS[which.setting]
    profile = watching.build_profile(setting, seed=1, tolerance=which.tolerance)
    counted, stream = Counter(profile), Stream(setting, seed=2, devices=devices)
    watch = Watch(profile, devices, Budget(PROMISED, WINDOW_S))
    counted.check(stream.next_hour())
    for hour in range(days * 24):
        watch.hour(hour, counted(stream.next_hour()))
    alarms = Tally(scope for _, scope, _, _ in watch.crossings)
    streams = Tally((scope, which, monitor) for _, scope, which, monitor in watch.crossings)
    return {
        "devices": devices, "days": days, "windows": devices * days * 24,
        "tests": devices * days * 24 * len(profile.monitors),
        "design effect": [round(monitor.design_effect, 1) for monitor in profile.monitors],
        "alarms": {scope: alarms[scope] for scope in SCOPES},
        "streams that alarmed": len(streams),
        "promised": PROMISED * days / 30,
    }  # fmt: skip


def delays(name: str, fault: Fault, sizes: tuple[int, int]) -> dict[str, Any]:
    """Hours from a fault to the first alarm; ``sizes``: devices for single ones, for the fleet."""
    profile = watching.build_profile(SETTINGS[name], seed=1)
    few, many = sizes
    single = _first(profile, name, fault, few, HOURS_MAX)
    fleet = _first(profile, name, fault, many, FLEET_HOURS)
    return {
        "device": _summary(single["device"], few),
        "cohort": _summary(single["cohort"], few // COHORT),
        "fleet": _summary(fleet["fleet"], 1),
        "devices": few, "fleet of": many,
    }  # fmt: skip


def _first(
    profile: watching.Profile, name: str, fault: Fault, devices: int, hours: int
) -> dict[str, dict[int, int]]:
    """By scope, for each that alarmed: hours to its first alarm after the fault began."""
    fault = replace(fault, hour=BURN_IN_HOURS)
    counted = Counter(profile)
    stream = Stream(SETTINGS[name], seed=3, devices=devices, faults=(fault,))
    watch = Watch(profile, devices, Budget(PROMISED, WINDOW_S), promised_to=DEVICES)
    found: dict[str, dict[int, int]] = {scope: {} for scope in SCOPES}
    for hour in range(BURN_IN_HOURS + hours):
        watch.hour(hour, counted(stream.next_hour()))
        if len(found["device"]) == devices and hour > BURN_IN_HOURS + FLEET_HOURS:
            break
        for at, scope, which, _ in watch.crossings:
            if at >= BURN_IN_HOURS:
                found[scope].setdefault(which, at - BURN_IN_HOURS + 1)
    return found


def _summary(found: dict[int, int], of: int) -> dict[str, Any]:
    """Share found, and the median delay where more than half were."""
    hours = sorted(found.values()) + [HOURS_MAX * 1000] * (of - len(found))
    middle = median(hours) if hours else HOURS_MAX * 1000
    return {
        "found": len(found) / of if of else 0.0,
        "median_h": middle if middle <= HOURS_MAX else None,
    }


def goals(found: dict[str, Any]) -> dict[str, tuple[float, float, bool]]:
    """What was promised: figure, goal, met."""
    met = {}
    for name in (each.name for each in QUIET if each.promised):
        figures = found["quiet"][name]
        alarms, promised = sum(figures["alarms"].values()), max(figures["promised"], 1.0)
        met[f"false alarms, {name}: at most"] = (alarms, promised, alarms <= promised)
    for scope, fault, goal in (
        ("device", "0.25 sigma shift", 12.0), ("fleet", "0.1 sigma shift", 1.0),
    ):  # fmt: skip
        hours = found["delays"]["iid"][fault][scope]["median_h"]
        figure = float("inf") if hours is None else hours
        met[f"hours to find a {fault}, {scope}: at most"] = (figure, goal, figure <= goal)
    return met


def markdown(found: dict[str, Any]) -> str:
    """Both tables."""
    first = next(iter(found["quiet"].values()))
    lines = [
        f"| quiet fleet: {first['devices']:,} devices, {first['days']} days, "
        f"{first['tests'] / 1e6:.0f} million tests | false alarms: devices / cohorts / fleet |",
        "|---|---|",
    ]
    for name, figures in found["quiet"].items():
        counts = " / ".join(str(figures["alarms"][scope]) for scope in SCOPES)
        shorter = f", {figures['days']} days" if figures["days"] != first["days"] else ""
        lines.append(f"| {name}{shorter} | {counts} |")
    lines += ["", "| fault, hours to the alarm (median) | one device | 50 devices | fleet |"]
    lines.append("|---|---|---|---|")
    for setting, faults in found["delays"].items():
        for fault, figures in faults.items():
            cells = [_hours(figures[scope], scope) for scope in SCOPES]
            lines.append(f"| {fault}, {setting} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _hours(figures: dict[str, Any], scope: str) -> str:
    if figures["median_h"] is not None:
        return f"{figures['median_h']:g}"
    if scope == "fleet":
        return f"more than {FLEET_HOURS}"
    return f"{100 * figures['found']:.0f} % in {HOURS_MAX}"


def write_readme(table: str) -> None:
    """Put the tables between their markers. Raises ValueError where they are missing."""
    text = README.read_text(encoding="utf-8")
    pattern = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    made, count = re.subn(pattern, lambda _found: f"{BEGIN}\n{table}\n{END}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{README} has {count} places between {BEGIN} and {END}, not one")
    README.write_text(made, encoding="utf-8")


def measure(
    devices: int, days: int, sizes: tuple[int, int], jobs: int, keep: Path | None
) -> dict[str, Any]:
    """Everything, in ``jobs`` processes; parts that ``keep`` has are taken from there."""
    with ProcessPoolExecutor(jobs) as pool:
        fleets = {
            each.name: pool.submit(
                kept, keep, quiet, each, devices, days if each.promised else min(days, DAYS)
            )
            for each in QUIET
        }
        found = {
            name: {
                fault.name: pool.submit(kept, keep, delays, name, fault, sizes) for fault in FAULTS
            }
            for name in FAULT_SETTINGS
        }
        result: dict[str, Any] = {"quiet": {}, "delays": {name: {} for name in found}}
        for name, future in fleets.items():
            result["quiet"][name] = future.result()
            print(name, result["quiet"][name]["alarms"], flush=True)
        for setting, faults in found.items():
            for name, future in faults.items():
                result["delays"][setting][name] = future.result()
                print(setting, name, result["delays"][setting][name], flush=True)
    return result


def kept(keep: Path | None, part: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """``part(*given)``, from the folder where an earlier run wrote it there."""
    if keep is None:
        return part(*given)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{part.__name__} {given}").strip("-")
    file = keep / f"{name}.json"
    if not file.exists():
        keep.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps(part(*given)))
        unfinished.replace(file)
    return dict(json.loads(file.read_text()))


def main() -> None:
    """Measure, print, write JSON and the README's tables where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 devices, ten days")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print the tables alone")
    parser.add_argument("--write-readme", action="store_true", help="put the tables there")
    parser.add_argument("--devices", type=int, default=DEVICES, help="of the quiet fleets")
    parser.add_argument("--days", type=int, default=DAYS, help="of the quiet fleets")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--keep", type=Path, help="a folder for the parts of a long run")
    parser.add_argument("--from", dest="measured", type=Path, help="figures of an earlier --json")
    options = parser.parse_args()
    if options.write_readme and options.quick:
        parser.error("the README's tables are of a whole run")
    devices, days = (100, 10) if options.quick else (options.devices, options.days)
    sizes = (COHORT, 200) if options.quick else (4 * COHORT, DEVICES)
    if options.measured:
        found = json.loads(options.measured.read_text())["figures"]
    else:
        found = measure(devices, days, sizes, options.jobs, options.keep)
    table = markdown(found)
    print(table)
    met = goals(found)
    if not options.markdown:
        for name, (figure, goal, done) in met.items():
            print(f"{'met' if done else 'NOT MET':8} {name} {goal:g}: {figure:g}")
    if options.json:
        found["faults"] = [asdict(fault) for fault in FAULTS]
        options.json.write_text(json.dumps({"figures": found, "goals": met}, indent=2) + "\n")
    if options.write_readme:
        write_readme(table)


if __name__ == "__main__":
    main()

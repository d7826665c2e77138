"""Monitoring beside Evidently, NannyML, river and whylogs: false alarms, delay, cost, real series.

    python benchmarks/monitoring_peers.py [--quick] [--json FILE] [--read FILE]
                                          [--write-readme] [--only NAME]

The same rows go before every monitor: simulated fleets (``streams.py``) and series that ship inside
packages (``peers/series.py``). Ours is the code that ships: a bundle with its profile, a device's
window, the fleet's detector for single devices. A peer lives in an environment of its own, which is
installed once under ~/.cache/edge-pack/peers, and is asked by its documented defaults and by one
tuning: the level that one false alarm a month over 1,000 devices asks of each of their tests.

A false alarm is any on a quiet stream; each window of a feature that alarms is one, for the peers
and for us (our monitor starts anew after it). A delay is that of the first alarm on the faulty
feature, or on many columns at once; it is noise where a twin of the stream without the fault alarms
no later.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import streams
from peers import judging, ours, watching
from peers.judging import QUICK, Delay, Size, say

README = Path(__file__).parent.parent / "README.md"
PAGE = README.parent / "docs" / "drift.md"
BEGIN, END = "<!-- benchmarks/monitoring_peers.py -->", "<!-- end -->"
OURS = "edge-pack"
COST_ROWS = (200, 1_000, 10_000)


def costs(names: list[str], folder: Path) -> dict[str, Any]:
    """Bytes a window and rows a processor second, 20 numbers and 5 categories."""
    case = watching.simulated(streams.SETTINGS["iid"], hours=12, devices=14)
    own = ours.Ours(case, folder)
    found: dict[str, Any] = {OURS: {str(n): ours.cost(own, case, n, folder) for n in COST_ROWS}}
    own.close()
    found["raw rows"] = {str(n): {"bytes": ours.raw_bytes(case, n)} for n in COST_ROWS}
    path = folder / "cost.npz"
    np.savez(path, **case)
    for name in names:
        rows = COST_ROWS if name == "whylogs" else COST_ROWS[1:2]
        answer = watching.request(name, "cost", {"case": str(path), "rows": rows}, folder)
        found[name] = answer["cost"]
        if answer.get("differs_from_report"):
            raise RuntimeError(f"{name}: its report says otherwise than its tests")
    return found


def compare(
    size: Size, names: list[str], folder: Path, keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """All figures; ``keep`` is given those that are there after each monitor."""
    found: dict[str, Any] = {"simulated": {OURS: judging.ours_simulated(size, folder)}}
    series = size.cut(watching.real(folder))
    found["real"] = {OURS: judging.ours_real(series, folder)}
    found["costs"] = costs(names, folder)
    for name in names:
        keep(found)
        found["simulated"][name] = judging.peer_simulated(name, size, folder)
        found["real"][name] = judging.peer_real(name, series, folder)
    if "whylogs" in names:
        say("whylogs, as it is installed today ...")
        found["whylogs with numpy 2"] = watching.whylogs_today(folder)
    return found


def rate(figure: Any) -> str:
    """Alarms a fleet-month; below what chance leaves open where there was none."""
    if isinstance(figure, str):
        return "fails"
    count, open_ = figure
    return f"{count:,.0f}" if count else f"0 (< {open_:,.0f})"


def labels(name: str) -> dict[str, str]:
    """A monitor's lines: key and title. Ours are the fleet's alarms and the device's findings."""
    if name == OURS:
        return {"alarms": f"**{OURS}**", "findings": f"{OURS}, the device's own checks"}
    return {rule: name if rule == "default" else f"{name}, tuned" for rule in watching.rules(name)}


def rows_of(found: dict[str, Any], name: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """A monitor's lines: title, false alarms by setting, delays by setting and fault."""
    if name == OURS:
        return [(title, found[key]["quiet"], found[key]["delays"])
                for key, title in labels(name).items()]  # fmt: skip
    return [(title, found["quiet"][key], found["delays"][key])
            for key, title in labels(name).items()]  # fmt: skip


def simulated_table(found: dict[str, Any], size: Size) -> str:
    """False alarms a fleet-month, then hours to an alarm, a line a monitor and rule."""
    faults = [fault.name for fault in streams.FAULTS]
    parts = []
    title = "| false alarms a fleet-month | " + " | ".join(size.quiet) + " |"
    lines = [title, "|---" * (len(size.quiet) + 1) + "|"]
    for name, one in found.items():
        for label, quiet, _ in rows_of(one, name):
            cells = " | ".join(rate(quiet[setting]) for setting in size.quiet)
            lines.append(f"| {label} | {cells} |")
    parts.append("\n".join(lines))
    for setting in size.faulty:
        lines = [f"| hours to an alarm, {setting} | " + " | ".join(faults) + " |"]
        lines.append("|---" * (len(faults) + 1) + "|")
        for name, one in found.items():
            for label, _, delays in rows_of(one, name):
                said = [delays[setting][fault] for fault in faults]
                cells = ["fails" if isinstance(delay, str) else str(delay) for delay in said]
                lines.append(f"| {label} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def real_table(found: dict[str, Any]) -> str:
    """False alarms in 1,000 windows of a sensor; then windows to an alarm for each fault."""
    names = list(found[OURS]["alarms"])
    lines = ["| real series | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for name, one in found.items():
        for key, title in labels(name).items():
            cells = " | ".join(_real_cell(one[key][series]) for series in names)
            lines.append(f"| {title} | {cells} |")
    return "\n".join(lines)


def _real_cell(result: Any) -> str:
    if isinstance(result, str):
        return "fails"
    delays = " / ".join(str(delay) for delay in result["delays"].values())
    return f"{result['per_1000']:.3g}; {delays}"


def cost_table(found: dict[str, Any]) -> str:
    """Bytes of a window and rows a processor second."""
    sizes = " / ".join(f"{n:,}" for n in COST_ROWS)
    lines = [f"| | bytes a window of {sizes} rows | rows a CPU second, by 1 / 32 / 1,000 |",
             "|---|---|---|"]  # fmt: skip
    for name, by_rows in found.items():
        sizes = [by_rows.get(str(n), {}).get("bytes") for n in COST_ROWS]
        written = " / ".join(f"{size:,.0f}" for size in sizes) if all(sizes) else "the raw rows"
        figures = by_rows[str(COST_ROWS[1])]
        batches = [figures.get(f"rows_per_cpu_s_{n}") for n in (1, 32, 1000)]
        if all(batches):
            fast = " / ".join(f"{figure:,.0f}" for figure in batches)
        else:
            one = figures.get("rows_per_cpu_s")
            fast = f"{one:,.0f} (judged, not only counted)" if one else "-"
        lines.append(f"| {name} | {written} | {fast} |")
    return "\n".join(lines)


def goals(found: dict[str, Any], size: Size) -> dict[str, list[Any]]:
    """The promise, the delay the design promises, and the costs that it promises."""
    own = found["simulated"][OURS]
    out: dict[str, list[Any]] = {}
    for setting in size.quiet:
        count, _ = own["alarms"]["quiet"][setting]
        out[f"false alarms a fleet-month, {setting}, at most"] = [count, 1.0, count <= 1.0]
    delay = own["alarms"]["delays"]["iid"]["0.25 sigma shift"].median
    out["hours to a .25 sigma shift, iid, at most"] = [delay, 24.0, delay <= 24]
    mine = found["costs"][OURS]
    size_bytes = mine["10000"]["bytes"]
    times = found["costs"]["raw rows"]["10000"]["bytes"] / size_bytes
    out["bytes of 10,000 rows, raw over ours, at least"] = [round(times), 1_000.0, times >= 1_000]
    if "whylogs" in found["costs"]:
        theirs = found["costs"]["whylogs"]
        times = theirs["10000"]["bytes"] / size_bytes
        out["bytes, whylogs over ours, at least"] = [round(times, 1), 100.0, times >= 100]
        for batch in (1, 32, 1000):
            key = f"rows_per_cpu_s_{batch}"
            times = mine["1000"][key] / theirs["1000"][key]
            out[f"rows a CPU second by {batch}, ours over whylogs, at least"] = [
                round(times, 1), 10.0, times >= 10
            ]  # fmt: skip
    return out


def markdown(found: dict[str, Any], size: Size) -> str:
    """All tables."""
    parts = [str(size), simulated_table(found["simulated"], size), real_table(found["real"]),
             cost_table(found["costs"])]  # fmt: skip
    return "\n\n".join(parts)


def summary(found: dict[str, Any], size: Size) -> str:
    """The README's table: a line a monitor and rule."""
    faults = ("0.25 sigma shift", "lost correlation", "stuck sensor")
    lines = ["| | false alarms a fleet-month, independent rows | the same, sensors "
             "| hours to a .25 sigma shift | lost correlation | stuck sensor |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for name, one in found["simulated"].items():
        for label, quiet, delays in rows_of(one, name):
            cells = [rate(quiet[setting]) for setting in ("iid", size.quiet[-1])]
            said = [delays["iid"][fault] for fault in faults]
            cells += ["fails" if isinstance(delay, str) else str(delay) for delay in said]
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Put ``text`` between the markers of a page. Raises ValueError where they are missing."""
    before = page.read_text(encoding="utf-8")
    pattern = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    made, count = re.subn(
        pattern, lambda _found: f"{BEGIN}\n{text}\n{END}", before, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{page} has {count} places between {BEGIN} and {END}, not one")
    page.write_text(made, encoding="utf-8")


def _plain(value: Any) -> Any:
    """For JSON."""
    if isinstance(value, Delay):
        windows = {"found": value.found, "quiet": value.quiet}
        return {key: [one if np.isfinite(one) else None for one in some]
                for key, some in windows.items()} | {"says": str(value)}  # fmt: skip
    raise TypeError(type(value).__name__)


def read(path: Path) -> dict[str, Any]:
    """The figures of a file that ``--json`` wrote."""

    def made(some: dict[str, Any]) -> Any:
        if some.keys() != {"found", "quiet", "says"}:
            return some
        windows = ([np.inf if one is None else one for one in some[key]]
                   for key in ("found", "quiet"))  # fmt: skip
        return Delay(*windows)

    figures: dict[str, Any] = json.loads(path.read_text(), object_hook=made)["figures"]
    return figures


def main() -> int:
    """Measure, print, write; 0 when every goal is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer devices, hours and settings")
    parser.add_argument("--json", type=Path, help="write the figures and goals to this file")
    parser.add_argument(
        "--write-readme", action="store_true", help=f"put the tables there and into {PAGE.name}"
    )
    parser.add_argument("--read", type=Path, help="measure nothing: take what --json wrote")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        help=f"one of {', '.join(watching.TOOLS)}; repeatable",
    )
    options = parser.parse_args()
    if options.write_readme and options.only:
        parser.error("the README's tables are of all monitors")
    names = [name for name in watching.TOOLS if not options.only or name in options.only]
    size = QUICK if options.quick else Size()

    def keep(figures: dict[str, Any], met: dict[str, list[Any]] | None = None) -> None:
        if options.json:
            content = {"figures": figures, "goals": met or {}}
            options.json.write_text(json.dumps(content, indent=2, default=_plain) + "\n")

    if options.read:
        found = read(options.read)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(size, names, Path(folder), keep)
    text = markdown(found, size)
    print(text)
    if "whylogs with numpy 2" in found:
        print(f"\nwhylogs with numpy 2: {found['whylogs with numpy 2'] or 'works'}")
    met = goals(found, size)
    for name, (figure, goal, done) in met.items():
        print(f"{'met' if done else 'NOT MET':8} {name} {goal:g}: {figure:.4g}")
    keep(found, met)
    if options.write_readme:
        write(PAGE, text)
        write(README, summary(found, size))
    return 0 if all(done for _, _, done in met.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())

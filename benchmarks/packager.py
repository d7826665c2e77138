"""Models by their stock converter, ONNX Runtime's quantizers, treelite, their library, and us.

    python benchmarks/packager.py [--quick] [--json FILE] [--markdown] [--write-readme]

Bytes are what travels of the model. Flips are labels that differ from the original's on raw
float64 rows that no engine saw before. Latency is one row by bare runs on ready tensors, all
engines in one process in turns; a ratio is the median over the turns. Memory is the growth by
loading and one answer, in a process of its own; all ONNX engines are loaded alike.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from peers.measure import Figure, measure
from peers.models import cases
from peers.prepare import PREPARE

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks/packager.py -->", "<!-- end -->"
QUANTIZERS = ("ort dynamic", "ort static")
HEADER = (
    "| model | stock `.onnx` | best ORT quantizer | edge-pack | latency | memory |\n"
    "|---|---|---|---|---|---|"
)
MEDIAN_GOAL = 0.3
"""Our bytes as a share of the stock converter's: the middle model's."""

Found = dict[str, dict[str, Figure]]


def markdown(found: Found) -> str:
    """The README's table: bytes and flips by engine, and ours against stock."""
    return "\n".join([HEADER, *(_row(name, figures) for name, figures in found.items())])


def _row(name: str, figures: dict[str, Figure]) -> str:
    stock, ours = figures["stock"], figures["edge-pack"]
    cells = [name, _cell(stock), _cell(best_quantized(figures)), _cell(ours),
             _times(latency_ratio(figures)), _times(memory_ratio(figures))]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def best_quantized(figures: dict[str, Figure]) -> Figure:
    """Of the runtime's quantizers the one with the fewest flips, then the fewest bytes."""
    tried = [figures[engine] for engine in QUANTIZERS]
    done = [figure for figure in tried if figure.flips is not None]
    if not done:
        return next((figure for figure in tried if figure.fails), tried[0])
    return min(done, key=lambda figure: (figure.flips, figure.bytes))


def latency_ratio(figures: dict[str, Figure]) -> float | None:
    """Ours over stock, turn by turn."""
    pairs = zip(figures["edge-pack"].rounds_us, figures["stock"].rounds_us, strict=False)
    ratios = [ours / stock for ours, stock in pairs]
    return median(ratios) if ratios else None


def memory_ratio(figures: dict[str, Figure]) -> float | None:
    """Ours over stock."""
    ours, stock = figures["edge-pack"].rss_bytes, figures["stock"].rss_bytes
    return ours / stock if ours is not None and stock else None


def _cell(figure: Figure) -> str:
    if figure.fails:
        return "fails"
    if figure.flips is None or figure.bytes is None:
        return "-"
    return f"{figure.bytes / 1000:,.1f} kB, {figure.flips}"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def line(name: str, engine: str, figure: Figure) -> str:
    """All figures of one engine, or why there are none."""
    if figure.flips is None or figure.bytes is None:
        return f"{name:24} {engine:12} {'fails: ' if figure.fails else ''}{figure.why}"
    return (
        f"{name:24} {engine:12} {figure.bytes / 1000:10,.1f} kB {figure.flips:5} flips "
        f"{figure.latency_us or 0:8,.1f} us {(figure.rss_bytes or 0) / 1e6:7.1f} MB"
    )


def goals(found: Found) -> dict[str, list[Any]]:
    """No flips of ours on unseen rows; bytes never above stock's, and the middle share."""
    out: dict[str, list[Any]] = {}
    shares = []
    for name, figures in found.items():
        ours, stock = figures["edge-pack"], figures["stock"]
        out[f"{name} flips"] = [ours.flips, 0, ours.flips == 0]
        if ours.bytes and stock.bytes:
            shares.append(ours.bytes / stock.bytes)
            out[f"{name} bytes"] = [round(shares[-1], 4), 1.0, shares[-1] <= 1]
    if shares:
        middle = median(shares)
        out["median bytes"] = [round(middle, 4), MEDIAN_GOAL, middle <= MEDIAN_GOAL]
    return out


def write_readme(table: str) -> None:
    """Put the table between its markers. Raises ValueError where they are missing."""
    text = README.read_text(encoding="utf-8")
    made, count = re.subn(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}",
        lambda _found: f"{BEGIN}\n{table}\n{END}",
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{README} has {count} places between {BEGIN} and {END}, not one")
    README.write_text(made, encoding="utf-8")


def run(only: list[str], *, quick: bool, quiet: bool) -> Found:
    """The figures of every model whose library is there, printed as they come unless ``quiet``."""
    found: Found = {}
    for case in cases(quick=quick):
        if only and case.name not in only:
            continue
        if find_spec(case.library) is None:
            print(f"{case.name}: {case.library} is not installed", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            found[case.name] = measure(case, Path(folder), quick=quick)
        if not quiet:
            for engine in PREPARE:
                print(line(case.name, engine, found[case.name][engine]), flush=True)
    return found


def main() -> None:
    """Measure all, print, write JSON and the README's table where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small models")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print the README's table alone")
    parser.add_argument("--write-readme", action="store_true", help="put the table there")
    parser.add_argument("--only", action="append", default=[], help="a model's name; repeatable")
    options = parser.parse_args()
    if options.write_readme and (options.quick or options.only):
        parser.error("the README's table is of all models, in full")
    found = run(options.only, quick=options.quick, quiet=options.markdown)
    met = goals(found)
    if options.markdown:
        print(markdown(found))
    else:
        for name, (figure, goal, done) in met.items():
            print(f"{'met ' if done else 'MISSED'} {name}: {figure} (goal: at most {goal})")
    if options.json:
        figures = {n: {e: vars(f) for e, f in by.items()} for n, by in found.items()}
        ratios = {n: {"latency": latency_ratio(by), "memory": memory_ratio(by)}
                  for n, by in found.items()}  # fmt: skip
        made = {"figures": figures, "ratios": ratios, "goals": met}
        options.json.write_text(json.dumps(made, indent=2) + "\n")
    if options.write_readme:
        write_readme(markdown(found))


if __name__ == "__main__":
    main()

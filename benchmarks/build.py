"""What a build costs, stage by stage, and what its bundle weighs.

    python benchmarks/build.py [--quick] [--json FILE]

Ratios are taken within one run on one machine. ``overhead`` is everything a build does beyond
what nobody can avoid (loading, asking the original, converting), without the measuring of
latency, as a share of that; ``bytes`` is the model in the bundle against the stock converter's
file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import joblib
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_pack import BuildConfig, Built, build

UNAVOIDABLE = ("load", "ask the original", "convert")


@dataclass(frozen=True)
class Case:
    """A model to build, and what its bundle has to reach."""

    name: str
    model: Any
    bytes_goal: float
    overhead_goal: float


def cases(*, quick: bool) -> list[Case]:
    """A network and a forest on scikit-learn's digits."""
    width, trees = (64, 30) if quick else (512, 100)
    network = MLPClassifier((width,), max_iter=30 if quick else 60, random_state=0, tol=1e-2)
    return [
        Case("network", make_pipeline(StandardScaler(), network), 0.35, 2.5),
        Case("forest", RandomForestClassifier(trees, random_state=0), 0.05, 2.0),
    ]


def run(case: Case, folder: Path, repeats: int) -> list[Built]:
    """Build the case ``repeats`` times, after one that imports the libraries."""
    table = load_digits(as_frame=True)
    model, rows = folder / f"{case.name}.joblib", folder / "rows.csv"
    joblib.dump(case.model.fit(table.data, table.target), model)
    table.data.assign(digit=table.target).to_csv(rows, index=False)
    config = BuildConfig(
        model=model,
        data=rows,
        name=case.name,
        version="1",
        out=folder / f"{case.name}.edgepack",
        target="digit",
        max_flips=0.005,
        max_diff=0.1,
        measure=False,
    )
    build(config)
    return [build(config) for _ in range(repeats)]


def figures(builds: list[Built]) -> dict[str, float]:
    """Medians over the builds: seconds a stage, overhead and bytes as ratios."""
    stages = {name: median(built.stages_s[name] for built in builds) for name in builds[0].stages_s}
    needed = sum(stages[name] for name in UNAVOIDABLE)
    manifest = builds[0].manifest
    return {
        **{f"{name}, s": seconds for name, seconds in stages.items()},
        "overhead": (sum(stages.values()) - needed) / needed,
        "stock bytes": manifest.compression.stock_bytes,
        "stored bytes": manifest.files[0].size,
        "bytes": manifest.files[0].size / manifest.compression.stock_bytes,
        "flips": manifest.parity.flips,
        "largest difference": manifest.parity.diff_max,
    }


def main() -> None:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small models, one build each")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    chosen = cases(quick=options.quick)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen:
            found[case.name] = figures(run(case, Path(folder), 1 if options.quick else 5))
    goals = {
        f"{case.name} {key}": [
            round(found[case.name][key], 4),
            goal,
            found[case.name][key] <= goal,
        ]
        for case in chosen
        for key, goal in (("bytes", case.bytes_goal), ("overhead", case.overhead_goal))
    }
    table = Table("figure", *found)
    for key in found[chosen[0].name]:
        table.add_row(key, *(f"{found[case.name][key]:,.4g}" for case in chosen))
    Console().print(table)
    for name, (figure, goal, met) in goals.items():
        print(f"{'met ' if met else 'MISSED'} {name}: {figure} (goal: at most {goal})")
    if options.json:
        options.json.write_text(json.dumps({"figures": found, "goals": goals}, indent=2) + "\n")


if __name__ == "__main__":
    main()

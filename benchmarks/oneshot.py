"""What one-shot tests of a report are worth: false findings, and shifts found, on binned counts.

    python benchmarks/oneshot.py [--quick] [--json FILE]

15 numbers and 5 categories, a reference of 20,000 rows, windows of 200, 1,000 and 10,000 rows. For
each test: how often a report on quiet rows names anything (Benjamini-Hochberg at 5 % over the 20
features), how often one feature that moved by .25 sigma is named, and by .03 sigma, which nobody
wants. Beside them the fixed threshold PSI > 0.2 and p < .05 on raw rows without any correction.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from edge_contract import profile as profiles
from edge_contract.profile import Monitor
from edge_fleet.drift import oneshot
from edge_fleet.drift.discovery import adjusted

REFERENCE, NUMBERS, LETTERS = 20_000, 15, 8
SIZES = (200, 1_000, 10_000)
Test = Callable[[Monitor, np.ndarray], oneshot.Result]


def number(values: np.ndarray) -> Monitor:
    """A monitor in 32 reference quantiles."""
    edges = tuple(np.unique(np.quantile(values, np.linspace(0, 1, profiles.BINS_MAX + 1))).tolist())
    empty = Monitor(name="x", kind="quantile", edges=edges, counts=())
    counts = tuple(profiles.count_numbers(empty, values).tolist())
    return Monitor(name="x", kind="quantile", edges=edges, counts=counts)


def neyman(minimum_effect: float) -> Test:
    """Neyman's test for numbers; its like for categories, the G-test."""

    def test(monitor: Monitor, counts: np.ndarray) -> oneshot.Result:
        if monitor.kind == "category":
            cells = oneshot.cells(monitor, counts)
            return oneshot.power_divergence(cells, minimum_effect=minimum_effect)
        return oneshot.neyman(monitor, counts, minimum_effect=minimum_effect)

    return test


def of_numbers(inner: Test) -> Test:
    """``inner`` for numbers, G for categories."""
    plain = neyman(0.0)
    return lambda monitor, counts: (plain if monitor.kind == "category" else inner)(monitor, counts)


TESTS: dict[str, Test] = {
    "Neyman, 4 components": neyman(0.0),
    "minimum-effect Neyman, 0.1": neyman(0.1),
    "binned Anderson-Darling": of_numbers(oneshot.anderson_darling),
    "binned Kolmogorov-Smirnov": of_numbers(oneshot.kolmogorov_smirnov),
    "G over 32 bins": lambda monitor, counts: oneshot.power_divergence(
        oneshot.cells(monitor, counts)
    ),
}


def run(times: int, n: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Shares of ``times`` reports, by test: quiet, .25 sigma, .03 sigma."""
    names = [*TESTS, "PSI > 0.2, 10 bins", "KS p < .05, raw rows"]
    found = {name: {"quiet": 0.0, "0.25": 0.0, "0.03": 0.0} for name in names}
    for _ in range(times):
        raw = rng.normal(size=(REFERENCE, NUMBERS))
        letters = rng.integers(0, LETTERS, (REFERENCE, 5))
        monitors = [number(raw[:, at]) for at in range(NUMBERS)]
        for at in range(5):
            counts = (*np.bincount(letters[:, at], minlength=LETTERS).tolist(), 0, 0, 0)
            monitors.append(
                Monitor(name="c", kind="category", categories=tuple("abcdefgh"), counts=counts)
            )
        values = rng.normal(size=(n, NUMBERS))
        said = rng.integers(0, LETTERS, (n, 5))
        for name, shift in (("quiet", 0.0), ("0.25", 0.25), ("0.03", 0.03)):
            moved = values.copy()
            moved[:, 0] += shift
            counts = [profiles.count_numbers(m, moved[:, i]) for i, m in enumerate(monitors[:15])]
            counts += [
                np.concatenate([np.bincount(said[:, i], minlength=LETTERS), [0, 0, 0]])
                for i in range(5)
            ]
            for title, test in TESTS.items():
                p = np.array([float(test(m, c).p) for m, c in zip(monitors, counts, strict=True)])
                hit = adjusted(p) <= 0.05
                found[title][name] += float(hit.any() if name == "quiet" else hit[0])
            hit = np.array([_psi(raw[:, i], moved[:, i]) > 0.2 for i in range(NUMBERS)])
            found["PSI > 0.2, 10 bins"][name] += float(hit.any() if name == "quiet" else hit[0])
            sorted_p = [stats.ks_2samp(raw[:, i], moved[:, i], method="asymp").pvalue
                        for i in (range(NUMBERS) if name == "quiet" else [0])]  # fmt: skip
            found["KS p < .05, raw rows"][name] += float(min(sorted_p) < 0.05)
    return {title: {k: v / times for k, v in each.items()} for title, each in found.items()}


def _psi(reference: np.ndarray, values: np.ndarray) -> float:
    """As it is used: ten deciles, empty ones at a ten-thousandth."""
    edges = np.quantile(reference, np.linspace(0, 1, 11)[1:-1])
    shares = [np.maximum(np.bincount(np.searchsorted(edges, x), minlength=10) / len(x), 1e-4)
              for x in (reference, values)]  # fmt: skip
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def main() -> None:
    """Print the table; with ``--json`` write figures and goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 reports instead of 200")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    times = 20 if options.quick else 200
    seed = 5
    found = {n: run(times, n, np.random.default_rng(seed + n)) for n in SIZES}
    print(f"{times} reports a cell; % at n = {' / '.join(map(str, SIZES))}")
    for name in found[SIZES[0]]:
        cells = [
            " / ".join(f"{100 * found[n][name][kind]:.3g}" for n in SIZES)
            for kind in ("quiet", "0.25", "0.03")
        ]
        print(f"{name:28} any false {cells[0]:18} .25 sigma {cells[1]:18} .03 sigma {cells[2]}")
    ours = "minimum-effect Neyman, 0.1"
    power, false = found[1000][ours]["0.25"], max(found[n][ours]["quiet"] for n in SIZES)
    unwanted = max(found[n][ours]["0.03"] for n in SIZES)
    goals = {
        "0.25 sigma found at n=1000, share of reports": [power, 0.9, power >= 0.9],
        "any false finding in 20 features, share of reports": [false, 0.05, false <= 0.05],
        "0.03 sigma named, share of reports": [unwanted, 0.02, unwanted <= 0.02],
    }
    if options.json:
        options.json.write_text(json.dumps({"figures": found, "goals": goals}, indent=2) + "\n")
    for name, (figure, goal, met) in goals.items():
        print(f"{'met' if met else 'MISSED'}: {name}: {figure:.3g} (goal {goal:g})")


if __name__ == "__main__":
    main()

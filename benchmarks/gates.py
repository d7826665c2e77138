"""What the gates of a rollout promise: false stops while nothing changed, and delays when it did.

    python benchmarks/gates.py [--quick] [--runs N] [--only WORDS] [--json FILE]

Each run is a wave of two hours looked at whenever records come (every five minutes; the minutes in
between have nothing new), until the gate stops it. Devices differ: each has its own speed, and each
window its own load. alpha is 0.05 here, so that what is promised can be measured; an order's own
is 0.01. The seed is printed. Exit code 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from edge_contract.telemetry import LATENCY_BUCKETS
from edge_fleet.rollouts import comparing, finding, matching, slower
from edge_fleet.rollouts.tallies import Arms, Tally

ALPHA = 0.05
STOP = -math.log(ALPHA)
LOOKS = 24
MINUTES = 5
Run = Callable[[np.random.Generator], int | None]
"""Looks until the gate stops; None: never."""


def errors(shown: float, limit: float = 0.01, rows: int = 200) -> Run:
    """Rows failed on against a fixed limit."""

    def run(rng: np.random.Generator) -> int | None:
        wrong = np.cumsum(rng.binomial(rows, shown, LOOKS))
        return first(
            finding.log_evidence(limit, int(wrong[at]), rows * (at + 1)) for at in range(LOOKS)
        )

    return run


def labels(shown: float, former: float, limit: float, rows: int = 200) -> Run:
    """Labels of the new version against labels of others of the same time."""

    def run(rng: np.random.Generator) -> int | None:
        both = np.cumsum(rng.binomial(rows, [[shown], [former]], (2, LOOKS)), axis=1)
        return first(
            of_labels(int(both[0, at]), int(both[1, at]), rows * (at + 1), limit)
            for at in range(LOOKS)
        )

    return run


def of_labels(new: int, old: int, rows: int, limit: float) -> float:
    """Of equally many rows on both sides."""
    return comparing.worse(
        comparing.counted(new, rows), comparing.counted(old, rows), comparing.more_by(limit)
    )


def windows(rng: np.random.Generator, scale_ms: float, count: int, calls: int = 100) -> np.ndarray:
    """Latency buckets of windows, each with a load of its own."""
    load = rng.lognormal(0, 0.15, (count, 1))
    taken_us = 1000 * scale_ms * load * rng.lognormal(0, 0.4, (count, calls))
    at = np.clip(np.floor(2 * np.log2(taken_us)), 0, LATENCY_BUCKETS - 1).astype(int)
    found = np.zeros((count, LATENCY_BUCKETS), dtype=np.int64)
    np.add.at(found, (np.repeat(np.arange(count), calls), at.ravel()), 1)
    return found


def latency(factor: float, devices: int = 1) -> Run:
    """``devices`` against their own last day; the limit is 1.5 times."""

    def run(rng: np.random.Generator) -> int | None:
        scales = rng.lognormal(1, 0.7, devices).tolist()
        own = {f"d{i}": Tally(calls=windows(rng, s, 288)) for i, s in enumerate(scales)}
        new = [windows(rng, s * factor, LOOKS) for s in scales]
        return first(
            slower.slower(
                Arms({f"d{i}": Tally(calls=w[: at + 1]) for i, w in enumerate(new)}, own), 1.5
            ).log_e
            for at in range(LOOKS)
        )

    return run


def devices(change: float, limit: float, count: int = LOOKS, controls: int = 60) -> Run:
    """A share of each device's answers, devices that join one a look, against controls."""

    def run(rng: np.random.Generator) -> int | None:
        spread = 20.0
        old = rng.beta(0.3 * spread, 0.7 * spread, controls)
        mean = 0.3 + change
        new = rng.beta(mean * spread, (1 - mean) * spread, count)
        return first(
            comparing.worse(
                comparing.outcomes(new[: at + 1]), comparing.outcomes(old), comparing.more_by(limit)
            )
            for at in range(count)
        )

    return run


SITES = (0.55, 0.45, 0.35, 0.2, 0.15, 0.1)
"""A share of answers, by site; the version comes to the first ones first."""
SITE_DEVICES = 24


def sites(change: float, limit: float, count: int = LOOKS, *, like: bool = True) -> Run:
    """As ``devices``, where sites differ and a site's time slot comes before the next one's.

    ``like``: controls are weighed as the gates do it; else all devices on the old version count.
    """

    def run(rng: np.random.Generator) -> int | None:
        fleet = [(site, i) for site in range(len(SITES)) for i in range(SITE_DEVICES)]
        joining = [device for device in fleet if device[1] < SITE_DEVICES // 3][:count]
        old, new = (
            {
                d: float(rng.beta(20 * (SITES[d[0]] + by), 20 * (1 - SITES[d[0]] - by)))
                for d in fleet
            }
            for by in (0.0, change)
        )
        return first(
            against(
                {d: new[d] for d in joining[: at + 1]},
                {d: old[d] for d in fleet if d not in joining[: at + 1]},
                limit,
                like=like,
            )
            for at in range(count)
        )

    return run


def against(
    new: dict[tuple[int, int], float], old: dict[tuple[int, int], float], limit: float, *,
    like: bool,
) -> float:  # fmt: skip
    """Evidence of outcomes by (site, device)."""
    kinds = [[("", str(site)) for site, _ in some] for some in (new, old)]
    weights = matching.weights(*(collections.Counter(some) for some in kinds))
    sides = [
        comparing.outcomes(
            list(some.values()), [weight.get(kind, 0.0) if like else 1.0 for kind in of]
        )
        for some, of, weight in zip((new, old), kinds, weights, strict=True)
    ]
    return comparing.worse(sides[0], sides[1], comparing.more_by(limit))


def promoted(differ: float, limit: float = 0.05, rows: int = 100) -> Run:
    """A candidate in the shadow: looks until it is let on."""

    def run(rng: np.random.Generator) -> int | None:
        some = np.cumsum(rng.binomial(rows, differ, LOOKS))
        return first(
            float(
                comparing.below(
                    comparing.counted(int(some[at]), rows * (at + 1)), np.asarray(limit)
                )
            )
            for at in range(LOOKS)
        )

    return run


def first(evidence: Iterable[float]) -> int | None:
    """The first look that stops, from 1."""
    for at, log_e in enumerate(evidence, 1):
        if log_e >= STOP:
            return int(at)
    return None


FALSE: dict[str, Run] = {
    "errors at their limit": errors(0.01),
    "labels as wrong as before": labels(0.1, 0.1, 0.0),
    "labels at their limit": labels(0.12, 0.1, 0.02),
    "latency unchanged, a canary": latency(1.0),
    "latency unchanged, 4 devices": latency(1.0, 4),
    "latency at its limit, a canary": latency(1.5),
    "scores and estimate unchanged": devices(0.0, 0.0),
    "the same at sites that differ": sites(0.0, 0.0),
    "let on from the shadow at its limit": promoted(0.05),
}
DELAY: dict[str, tuple[Run, str, float]] = {
    "3 % more errors (200 rows a look)": (errors(0.04), "looks", 6),
    "2 x latency, a canary": (latency(2.0), "looks", LOOKS),
    "3 x latency, a canary": (latency(3.0), "looks", 12),
    "2 x latency, 4 devices": (latency(2.0, 4), "looks", 12),
    "5 % less accuracy (600 labels a look)": (labels(0.15, 0.1, 0.02, 600), "looks", LOOKS),
    "10 % less accuracy (200 labels a look)": (labels(0.2, 0.1, 0.02), "looks", 12),
    "a share moved by 0.4, limit 0.2": (devices(0.4, 0.2, 60), "devices", 40),
    "the same at sites that differ": (sites(0.4, 0.1, 48), "devices", 40),
    "let on from the shadow, 1 % differ": (promoted(0.01), "looks", 6),
}


UNLIKE = "the same at sites that differ, all other devices as controls (no goal: what it is for)"


def main() -> None:
    """Run, print, and exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the runs")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=38)
    parser.add_argument("--only", default="", help="of which the name has these words")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs = max(options.runs // (20 if options.quick else 1), 20)
    rng = np.random.default_rng(options.seed)
    print(f"seed {options.seed}, {runs} runs, alpha {ALPHA}, {LOOKS} looks")
    goals: dict[str, tuple[float, float, bool]] = {}
    for name, run in FALSE.items():
        if options.only not in name:
            continue
        share = sum(run(rng) is not None for _ in range(runs)) / runs
        # A goal on a sample: alpha and what chance adds to it, once in 1,000 such benchmarks.
        allowed = ALPHA + 3.1 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
        goals[f"false: {name}"] = (share, allowed, share <= allowed)
        print(f"{100 * share:6.2f} % stopped falsely: {name}", flush=True)
    for name, (run, unit, goal) in DELAY.items():
        if options.only not in name:
            continue
        some = [run(rng) for _ in range(max(runs // 10, 20))]
        found = sorted(math.inf if one is None else one for one in some)
        median, missed = found[len(found) // 2], some.count(None)
        goals[f"delay: {name}"] = (median, goal, median <= goal)
        print(f"{median:6g} {unit} (median), {100 * missed / len(some):.0f} % missed: {name}",
              flush=True)  # fmt: skip
    if options.only in UNLIKE:
        share = sum(sites(0.0, 0.0, like=False)(rng) is not None for _ in range(runs // 10)) * 10
        print(f"{100 * share / runs:6.2f} % stopped falsely: {UNLIKE}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, "runs": runs, "goals": goals}))
    sys.exit(0 if all(met for _, _, met in goals.values()) else 1)


if __name__ == "__main__":
    main()

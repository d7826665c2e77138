"""What ids for labels and a candidate in the shadow cost a request of the live version.

    python benchmarks/shadow.py [--quick] [--json FILE]

CPU microseconds of the request's own thread, the kinds taking turns, medians over rounds; then the
99th percentile of what a caller waits, at 300 requests a second, with a 50-tree forest in the
shadow of every request and without, in turns.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from predict import NAMES, build, models, reference, timed

from edge_agent import Model, tap
from edge_agent.predictions import Answers, Noted, bundle_of
from edge_agent.shade import Runner, Shade
from edge_agent.tap import Tap, watch
from edge_agent.telemetry.recorder import Instant

ID_GOAL_US = 6.0
SHOWN_GOAL_US = 3.0
P99_GOAL = 2.0
RATE_HZ = 300


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    runner = Runner()
    runner.start()
    costs = cpu(runner, 30 if options.quick else 150)
    alone, beside = waits(runner, 4 if options.quick else 20)
    runner.stop(10.0)
    figures = {
        "id, us above": (costs["an id"] - costs["counted"], ID_GOAL_US),
        "shadow of a tenth, us above": (costs["a tenth shown"] - costs["counted"], SHOWN_GOAL_US),
        "p99 with a shadow, ratio": (beside / alone, P99_GOAL),
    }
    for kind, us in costs.items():
        print(f"{kind:16} {us:7.2f} us")
    print(f"p99 a caller waits: {alone * 1e3:.2f} ms alone, {beside * 1e3:.2f} ms with a shadow")
    goals = {name: (figure, goal, figure <= goal) for name, (figure, goal) in figures.items()}
    for name, (figure, goal, met) in goals.items():
        print(f"{'met' if met else 'NOT MET':8} {name}: {figure:.2f}, goal {goal:g}")
    if options.json:
        options.json.write_text(json.dumps({"goals": goals}, indent=2) + "\n")


def shade(live: Model, candidate: Model, runner: Runner, share: float) -> Shade:
    """The candidate beside the live model."""
    return Shade(
        live, candidate, runner,
        share=share, tolerance=0.1, rng=random.Random(0), now=Instant(0, 0.0),  # noqa: S311 - a share
    )  # fmt: skip


def cpu(runner: Runner, rounds: int) -> dict[str, float]:
    """Microseconds of CPU a request, by what happens beside it."""
    onnx = models()["logistic"]
    plain, noted, watched = build(onnx), build(onnx), build(onnx)
    bundle = bundle_of(noted.manifest, noted.profile, noted.digest)
    assert bundle is not None and noted.observer is not None
    answers = Answers(None, boot=1, keep=10_000, keep_s=1e6, now_s=time.time)
    noted.observer = Tap(noted.observer, Noted(answers, bundle))
    watch(watched, shade(watched, build(onnx), runner, 0.1))
    rows = [dict(zip(NAMES, row.tolist(), strict=True)) for row in reference()[:512]]
    kinds: dict[str, Callable[[], float]] = {
        "counted": lambda: timed(plain.predict, rows),
        "an id": lambda: timed(partial(tap.predict, noted), rows),
        "a tenth shown": lambda: timed(watched.predict, rows),
    }
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, call in kinds.items():
            taken[kind].append(call())
    return {kind: statistics.median(found) for kind, found in taken.items()}


def waits(runner: Runner, turns: int) -> tuple[float, float]:
    """The 99th percentile of seconds that a caller waits, without and with a shadow."""
    live, candidate = build(models()["logistic"]), build(models()["forest"])
    beside = shade(live, candidate, runner, 1.0)
    rows = [dict(zip(NAMES, row.tolist(), strict=True)) for row in reference()[:RATE_HZ]]
    waited: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * turns):
        shown = turn % 2 == 1
        watch(live, beside if shown else None)
        begin = time.perf_counter()
        for at, row in enumerate(rows):
            time.sleep(max(begin + at / RATE_HZ - time.perf_counter(), 0))
            asked = time.perf_counter()
            live.predict(row)
            waited[shown].append(time.perf_counter() - asked)
    alone, with_shadow = (statistics.quantiles(waited[key], n=100)[98] for key in (False, True))
    return alone, with_shadow


if __name__ == "__main__":
    main()

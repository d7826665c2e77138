"""One prediction with full telemetry, against a bare ``session.run`` on the same array.

    python benchmarks/predict.py [--quick] [--json FILE]

Both run in one process and take turns, so that a busy machine slows both. Microseconds are CPU
time, medians over rounds; ratio and difference are taken within each round, and their medians
shown.
The goal is the project's: at most 1.4 times and 6 us above the bare call. With directions the
profile counts twice as many monitors: the features, and as many principal components of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from edge_agent import Model
from edge_agent.runtime import Session, onnxruntime, versions
from edge_agent.telemetry.window import BULK_ROWS, Window
from edge_contract import manifest as manifests
from edge_contract import projection as projections
from edge_contract.manifest import (
    Compression,
    Feature,
    File,
    Manifest,
    Outputs,
    Parity,
    Provenance,
    Runtime,
    Tensor,
)
from edge_contract.profile import NUMBER_SPECIALS, SCORE_BINS, Monitor, Profile
from edge_contract.projection import Projection, Projector

FEATURES = 20
RATIO_GOAL = 1.4
ABOVE_GOAL_US = 6.0
DIRECTED = f"with {FEATURES} directions, telemetry on"
NAMES = tuple(f"sensor_{i:02d}" for i in range(FEATURES))


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    # As many calls as rows are binned at once: every round pays for its share of the counting.
    rounds, calls = (40 if options.quick else 200), BULK_ROWS
    goals: dict[str, tuple[float, float, bool]] = {}
    print(
        f"{FEATURES} features, one row, medians of {rounds} rounds of {calls} calls; {versions()}"
    )
    print(f"{'model':10} {'call':34} {'us':>8} {'ratio':>7} {'above us':>9}")
    for name, onnx in models().items():
        times = measure(onnx, rounds, calls)
        report(name, times, goals)
    for name, (figure, goal, met) in goals.items():
        print(f"{'met' if met else 'NOT MET':8} {name}: {figure:.2f}, goal {goal:g}")
    if options.json:
        options.json.write_text(json.dumps({"goals": goals}, indent=2) + "\n")


def models() -> dict[str, bytes]:
    """The smallest model there is, and one that a device might well run."""
    rows = reference()
    labels = (rows[:, 0] + rows[:, 1] > 0).astype(int)
    return {
        name: to_onnx(
            estimator.fit(rows, labels), rows[:1], options={"zipmap": False}, target_opset=17
        ).SerializeToString()
        for name, estimator in (
            ("logistic", LogisticRegression()),
            ("forest", RandomForestClassifier(50, max_depth=8, random_state=0)),
        )
    }


def reference() -> NDArray[np.float32]:
    """Rows to train on and to take the bins from."""
    return np.random.default_rng(0).normal(size=(2000, FEATURES)).astype(np.float32)


def measure(onnx: bytes, rounds: int, calls: int) -> dict[str, list[float]]:
    """Microseconds a call in each round, by kind of call; the kinds take turns in a round."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    bare = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    model = build(onnx)
    directed = build(onnx, directions=FEATURES)
    silent = build(onnx)
    silent.observer = None
    arrays = [reference()[i : i + 1] for i in range(calls)]
    rows = [dict(zip(NAMES, array[0].tolist(), strict=True)) for array in arrays]
    feeds = [{"X": array} for array in arrays]
    kinds: dict[str, Callable[[], float]] = {
        "bare session.run": lambda: timed(partial(bare.run, None), feeds),
        "predict(array), telemetry on": lambda: timed(model.predict, arrays),
        DIRECTED: lambda: timed(directed.predict, arrays),
        "predict(dict), telemetry on": lambda: timed(model.predict, rows),
        "predict(dict), telemetry off": lambda: timed(silent.predict, rows),
    }
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    gc.collect()
    for _ in range(rounds):
        for kind, call in kinds.items():
            taken[kind].append(call())
    return taken


def timed(call: Callable[[Any], object], items: list[Any]) -> float:
    """Microseconds of this thread's CPU time a call: other processes' turns do not count."""
    begin = time.thread_time_ns()
    for item in items:
        call(item)
    return (time.thread_time_ns() - begin) / len(items) / 1000


def build(onnx: bytes, directions: int = 0) -> Model:
    """A model with a profile of 32 bins a feature and direction, and a window that counts it."""
    manifest = Manifest(
        schema=manifests.SCHEMA,
        name="bench",
        version="1",
        task="classification",
        features=tuple(Feature(name=name) for name in NAMES),
        inputs=(Tensor(name="X", dtype="float32", shape=(None, FEATURES), features=NAMES),),
        outputs=Outputs(
            tensors=("label", "probabilities"),
            label="label",
            scores="probabilities",
            labels=(0, 1),
        ),
        files=(File(name="model.onnx", size=0, sha256="0" * 64, raw_size=0, raw_sha256="0" * 64),),
        runtime=Runtime(ir=8, opsets={"": 17}, ops=(), onnxruntime="1.18", ram_bytes=0),
        compression=Compression(mode="none", stock_bytes=len(onnx)),
        parity=Parity(rows=0, flips=0, flips_max=0, diff_max=0, diff_p99=0, diff_budget=0),
        provenance=Provenance(source_sha256="0" * 64, source_type="bench", libraries={}),
    )
    rows = reference().astype(np.float64)
    monitors = [number(name, rows[:, i]) for i, name in enumerate(NAMES)]
    monitors.append(
        Monitor(
            name="prediction",
            kind="score",
            source="output",
            edges=tuple(np.linspace(0, 1, SCORE_BINS + 1).tolist()),
            labels=2,
            counts=(0,) * (2 * SCORE_BINS + 1),
        )
    )
    through = []
    if directions:
        found = principal(rows, directions)
        through = [found]
        values = Projector(found)(rows)
        monitors += [
            msgspec.structs.replace(number(name, values[:, at]), source="projection")
            for at, name in enumerate(found.names)
        ]
    model = Model(manifest, "0" * 64, Session(onnx))
    profile = Profile(rows=0, monitors=tuple(monitors), projections=tuple(through))
    model.observer = Window(manifest, profile)
    return model


def number(name: str, values: NDArray[np.float64]) -> Monitor:
    """32 quantile bins."""
    edges = np.quantile(values, np.linspace(0, 1, 33))
    empty = (0,) * (32 + len(NUMBER_SPECIALS))
    return Monitor(name=name, kind="quantile", edges=tuple(edges.tolist()), counts=empty)


def principal(rows: NDArray[np.float64], directions: int) -> Projection:
    """The first principal components of all features."""
    means, scales = rows.mean(axis=0), rows.std(axis=0)
    _, _, axes = np.linalg.svd((rows - means) / scales, full_matrices=False)
    return Projection(
        inputs=NAMES, elements=FEATURES, means=tuple(means.tolist()), scales=tuple(scales.tolist()),
        directions=directions, matrix=projections.pack(axes[:directions]),
    )  # fmt: skip


def report(
    name: str, taken: dict[str, list[float]], goals: dict[str, tuple[float, float, bool]]
) -> None:
    """Print one model's lines; judge the calls with telemetry."""
    bare = taken["bare session.run"]
    for kind, times in taken.items():
        us = statistics.median(times)
        ratio = statistics.median(t / b for t, b in zip(times, bare, strict=True))
        above = statistics.median(t - b for t, b in zip(times, bare, strict=True))
        print(f"{name:10} {kind:34} {us:8.2f} {ratio:7.2f} {above:9.2f}")
        if kind.endswith("on"):
            short = f"{name} {kind.split(',')[0]}"
            goals[f"{short}, ratio"] = (ratio, RATIO_GOAL, ratio <= RATIO_GOAL)
            goals[f"{short}, us above"] = (above, ABOVE_GOAL_US, above <= ABOVE_GOAL_US)


if __name__ == "__main__":
    main()

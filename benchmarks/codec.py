"""How small tree ensembles get, how fast they come back, and in how much memory.

    python benchmarks/codec.py [--quick] [--json FILE]

Real models on scikit-learn's bundled sets and on synthetic tables without a grid, the hardest
case: every threshold is a mantissa of its own.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from skl2onnx import to_onnx
from sklearn import datasets, ensemble, neural_network

from edge_contract.codec import decode, encode

SHARE_GOALS = {
    "random forest, digits": 0.031,
    "random forest, plain": 0.06,
    "forest regressor, diabetes": 0.052,
    "histogram boosting, digits": 0.075,
    "isolation forest, cancer": 0.075,
}
DECODE_GOAL_MB_S = 20.0
PEAK_GOAL = 6.0
QUICK = ("random forest, digits", "isolation forest, cancer")


@dataclass(frozen=True)
class Row:
    """One model: bytes, seconds, and peak bytes allocated while decoding."""

    name: str
    stock: int
    zstd_3: int
    zstd_19: int
    ours: int
    encode_s: float
    decode_s: float
    peak: int


def models() -> dict[str, tuple[Any, tuple[np.ndarray, np.ndarray]]]:
    """Name -> estimator and its table."""
    digits = datasets.load_digits(return_X_y=True)
    cancer = datasets.load_breast_cancer(return_X_y=True)
    diabetes = datasets.load_diabetes(return_X_y=True)
    plain = datasets.make_classification(4000, 20, n_informative=10, random_state=0)
    return {
        "random forest, digits": (ensemble.RandomForestClassifier(60, random_state=0), digits),
        "random forest, plain": (ensemble.RandomForestClassifier(60, random_state=0), plain),
        "forest regressor, diabetes": (
            ensemble.RandomForestRegressor(60, random_state=0),
            diabetes,
        ),
        "gradient boosting, digits": (
            ensemble.GradientBoostingClassifier(n_estimators=50, random_state=0),
            digits,
        ),
        "histogram boosting, digits": (
            ensemble.HistGradientBoostingClassifier(max_iter=40, random_state=0),
            digits,
        ),
        "histogram boosting, plain": (
            ensemble.HistGradientBoostingClassifier(random_state=0),
            plain,
        ),
        "isolation forest, cancer": (ensemble.IsolationForest(random_state=0), cancer),
        "network, digits": (
            neural_network.MLPClassifier((128, 64), max_iter=20, random_state=0),
            digits,
        ),
    }


def convert(model: Any, rows: np.ndarray, labels: np.ndarray) -> bytes:
    """The fitted model as skl2onnx writes it."""
    model.fit(rows, labels)
    options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
    opsets = {"": 15, "ai.onnx.ml": 3}
    converted = to_onnx(model, rows[:1].astype(np.float32), options=options, target_opset=opsets)
    return bytes(converted.SerializeToString())


def measure(name: str, data: bytes) -> Row:
    """Encode once, decode five times; the best of these."""
    start = time.perf_counter()
    blob = encode(data)
    encode_s = time.perf_counter() - start
    decode_s = []
    for _ in range(5):
        start = time.perf_counter()
        result = decode(blob, size_max=len(data))
        decode_s.append(time.perf_counter() - start)
    if result != data:
        raise SystemExit(f"{name}: the decoded bytes differ")
    del result
    tracemalloc.start()
    decode(blob, size_max=len(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    fast, best = (len(zstandard.ZstdCompressor(level=level).compress(data)) for level in (3, 19))
    return Row(name, len(data), fast, best, len(blob), encode_s, min(decode_s), peak)


def show(row: Row) -> None:
    shares = [size / row.stock for size in (row.zstd_3, row.zstd_19, row.ours)]
    speeds = [row.stock / seconds / 1e6 for seconds in (row.encode_s, row.decode_s)]
    cells = [f"{row.name:28s}{row.stock:10d}{row.ours:9d}"]
    cells += [f"{share:8.4f}" for share in shares]
    cells += [f"{speed:9.1f}" for speed in speeds]
    print(*cells, f"{row.peak / row.stock:6.1f}")


def goals(rows: list[Row]) -> dict[str, list[float | bool]]:
    """Goal name -> figure, goal, met."""
    found: dict[str, list[float | bool]] = {}
    for row in rows:
        if row.name in SHARE_GOALS:
            share, goal = round(row.ours / row.stock, 4), SHARE_GOALS[row.name]
            found[f"codec share of stock: {row.name}"] = [share, goal, share <= goal]
    large = [row for row in rows if row.stock > 500_000]
    speed = round(min(row.stock / row.decode_s for row in large) / 1e6, 1)
    peak = round(max(row.peak / row.stock for row in large), 2)
    found["codec decode MB/s, slowest"] = [speed, DECODE_GOAL_MB_S, speed >= DECODE_GOAL_MB_S]
    found["codec decode peak memory, share of output"] = [peak, PEAK_GOAL, peak <= PEAK_GOAL]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two models only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the goals here")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        f"{'':28s}{'stock':>10s}{'ours':>9s}   zstd-3  zstd-19  share  enc MB/s  dec MB/s  peak x"
    )
    rows = []
    for name, (model, table) in models().items():
        if not arguments.quick or name in QUICK:
            rows.append(measure(name, convert(model, *table)))
            show(rows[-1])
    found = goals(rows)
    for name, (figure, goal, met) in found.items():
        print(f"{'met ' if met else 'MISS'} {name}: {figure} (goal {goal})")
    if arguments.json:
        arguments.json.write_text(json.dumps({"goals": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()

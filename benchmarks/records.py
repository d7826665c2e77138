"""What one window of counts weighs on the wire, against the entropy bound and plain codings.

    python benchmarks/records.py [--quick] [--json FILE]

The model has 15 numbers of 32 bins, 5 categories and a score of 2 labels; the reference has 20,000
rows, and a window comes from the same distribution. The bound is what an ideal code for the
multinomial distribution of each monitor takes on these very windows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray
from scipy import stats

from edge_contract import telemetry
from edge_contract.profile import Monitor, Profile
from edge_contract.residuals import Residuals

REFERENCE_ROWS = 20_000
GOALS = {"record_bytes_10000": 711.0, "to_bound_10000": 1.25, "to_zstd_10000": 0.6}


def reference(rng: np.random.Generator) -> Profile:
    """The profile of the model above."""

    def counts(shares: NDArray[np.float64], specials: int) -> tuple[int, ...]:
        return (*rng.multinomial(REFERENCE_ROWS, shares).tolist(), *[0] * specials)

    edges = tuple(map(float, range(33)))
    monitors = [
        Monitor(name=f"number{i}", kind="quantile", edges=edges, counts=counts(np.ones(32) / 32, 5))
        for i in range(15)
    ]
    for i, size in enumerate((3, 5, 9, 14, 20)):
        names = tuple(f"c{j}" for j in range(size))
        shares = rng.dirichlet(np.ones(size))
        monitors.append(
            Monitor(name=f"text{i}", kind="category", categories=names, counts=counts(shares, 3))
        )
    score = counts(rng.dirichlet(np.full(32, 0.7)), 1)
    bins = tuple(np.linspace(0, 1, 17).tolist())
    monitors.append(
        Monitor(
            name="prediction", kind="score", source="output", labels=2, edges=bins, counts=score
        )
    )
    return Profile(rows=REFERENCE_ROWS, monitors=tuple(monitors))


def record(counts: bytes, latency: NDArray[np.int64], rows: int, coding: int) -> bytes:
    """As a device sends it."""
    return telemetry.encode(
        telemetry.Record(
            schema=telemetry.SCHEMA, device="gateway-0417", boot=12, seq=3481, model="pump",
            version="1.4.2", bundle=bytes(range(32)), start_ms=1_790_000_000_000,
            end_ms=1_790_000_300_000, synchronised=True, rows=rows, refused=0, failed=0,
            coding=coding, counts=counts, latency=telemetry.pack_counts(latency),
        )
    )  # fmt: skip


def measure(rows: int, windows: int, rng: np.random.Generator) -> dict[str, float]:
    """Means over the windows, of so many rows each: bytes, and microseconds of one core."""
    profile = reference(rng)
    coder = Residuals(profile)
    shares = [np.array(monitor.counts) / REFERENCE_ROWS for monitor in profile.monitors]
    written, drawn, sums = [], [], dict.fromkeys(("bound", "leb128", "zstd", "record"), 0.0)
    for _ in range(windows):
        parts = [rng.multinomial(rows, share) for share in shares]
        counts = np.concatenate(parts)
        drawn.append(counts)
        written.append(coder.write(counts, rows))
        latency = rng.multinomial(rows, stats.norm.pdf(np.arange(48), 10, 1.2) / 1.0001)
        sums["record"] += len(record(written[-1], latency, rows, telemetry.CODING_RESIDUALS))
        sums["leb128"] += len(telemetry.pack_counts(counts))
        sums["zstd"] += len(zstandard.compress(msgspec.msgpack.encode(counts.tolist()), 19))
        bits = [stats.multinomial.logpmf(p, rows, s) for p, s in zip(parts, shares, strict=True)]
        sums["bound"] -= sum(bits) / np.log(2) / 8
    began = time.process_time()
    for counts in drawn:
        coder.write(counts, rows)
    wrote_s = time.process_time() - began
    began = time.process_time()
    for at in range(0, windows, 100):
        coder.read_many(written[at : at + 100], [rows] * len(written[at : at + 100]))
    read_s = time.process_time() - began
    return {
        **{name: total / windows for name, total in sums.items()},
        "counts": float(np.mean([len(data) for data in written])),
        "write_us": wrote_s / windows * 1e6,
        "read_us": read_s / windows * 1e6,
    }


def main() -> int:
    """Print the table; 0 when every goal is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 windows of each size, not 1,000")
    parser.add_argument("--json", type=Path, help="write the figures and goals here")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    figures: dict[str, float] = {}
    print(" rows    record  counts   bound  ratio  LEB128  zstd-19   write us  read us")
    for rows in (60, 200, 1_000, 10_000):
        of = measure(rows, 100 if options.quick else 1_000, rng)
        print(
            f"{rows:6d} {of['record']:7.0f} {of['counts']:7.0f} {of['bound']:7.0f}"
            f" {of['counts'] / of['bound']:6.2f} {of['leb128']:7.0f} {of['zstd']:8.0f}"
            f" {of['write_us']:10.0f} {of['read_us']:8.0f}"
        )
        figures[f"record_bytes_{rows}"] = of["record"]
        figures[f"to_bound_{rows}"] = of["counts"] / of["bound"]
        figures[f"to_zstd_{rows}"] = of["counts"] / of["zstd"]
    goals = {name: [figures[name], goal, figures[name] <= goal] for name, goal in GOALS.items()}
    for name, (figure, goal, met) in goals.items():
        print(f"{'met' if met else 'MISSED':6}  {name}: {figure:.2f}, goal {goal:g}")
    if options.json:
        options.json.write_text(json.dumps({**figures, "goals": goals}, indent=2) + "\n")
    return 0 if all(met for _, _, met in goals.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())

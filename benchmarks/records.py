"""What one window of counts weighs on the wire, against the entropy bound and plain codings.

    python benchmarks/records.py [--quick] [--json FILE]

The model has 20 numbers of 32 bins, 5 categories and a score of 2 labels with 32 bins each (those
of one label beyond the threshold are empty); the reference has 20,000 rows, and a window comes from
the same distribution. The bound is what an ideal code for the multinomial distribution of each
monitor takes on these very windows. The record is whole: header, counts, moments and runs of the
numbers, latencies, errors, findings, resources.

Rows a second are those of a window that a model's observer calls row by row, binning included, and
of the pure ``bisect`` way without numpy.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray
from scipy import stats

from edge_agent.inputs import Batch
from edge_agent.telemetry.window import Window
from edge_contract import bisecting, moments, telemetry
from edge_contract.manifest import (
    Compression,
    Feature,
    Manifest,
    Outputs,
    Parity,
    Provenance,
    Runtime,
)
from edge_contract.profile import Monitor, Profile
from edge_contract.residuals import Residuals

REFERENCE_ROWS = 20_000
NUMBERS = 20
GOALS = {
    "record_bytes_10000": 711.0,
    "to_bound_10000": 1.25,
    "to_zstd_10000": 0.6,
    "numbers_tally_us": 5.0,
}


def reference(rng: np.random.Generator) -> Profile:
    """The profile of the model above."""

    def counts(shares: NDArray[np.float64], specials: int) -> tuple[int, ...]:
        return (*rng.multinomial(REFERENCE_ROWS, shares).tolist(), *[0] * specials)

    edges = tuple(stats.norm.ppf(np.linspace(1e-9, 1 - 1e-9, 33)).tolist())
    monitors = [
        Monitor(
            name=f"number{i}", kind="quantile", edges=edges, counts=counts(np.ones(32) / 32, 5),
            std=1.0,
        )
        for i in range(NUMBERS)
    ]  # fmt: skip
    for i, size in enumerate((3, 5, 9, 14, 20)):
        names = tuple(f"c{j}" for j in range(size))
        shares = rng.dirichlet(np.ones(size))
        monitors.append(
            Monitor(name=f"text{i}", kind="category", categories=names, counts=counts(shares, 3))
        )
    shares = np.zeros(64)
    shares[:16], shares[48:] = np.split(rng.dirichlet(np.full(32, 0.7)), 2)
    score = counts(shares, 1)
    bins = tuple(np.linspace(0, 1, 33).tolist())
    monitors.append(
        Monitor(
            name="prediction", kind="score", source="output", labels=2, edges=bins, counts=score
        )
    )
    return Profile(rows=REFERENCE_ROWS, monitors=tuple(monitors))


def record(
    profile: Profile, vector: NDArray[np.int64], counts: bytes, rng: np.random.Generator
) -> bytes:
    """As a device sends it. Moments are those of rows that are spread as the counts are."""
    rows = int(vector[: profile.monitors[0].cells].sum())
    latency = rng.multinomial(rows, stats.norm.pdf(np.arange(48), 10, 1.2) / 1.0001)
    seen = [
        moments.Moments(
            float(rng.normal(0, 1 / np.sqrt(rows))),
            float(np.sqrt(rng.chisquare(max(rows - 1, 1)) / rows)),
            1,
        )
        for _ in range(NUMBERS)
    ]
    return telemetry.encode(
        telemetry.Record(
            schema=telemetry.SCHEMA, device="gateway-0417", boot=12, seq=3481, model="pump",
            version="1.4.2", bundle=bytes(range(32)), start_ms=1_790_000_000_000,
            end_ms=1_790_000_300_000, synchronised=True, rows=rows, refused=0, failed=0,
            coding=telemetry.CODING_RESIDUALS, counts=counts,
            latency=telemetry.pack_counts(latency),
            moments=moments.write(profile, vector, seen),
            resources=telemetry.Resources(37, 4, 118, 61, 21_450, 0),
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
        sums["record"] += len(record(profile, counts, written[-1], rng))
        sums["leb128"] += len(telemetry.pack_counts(counts))
        sums["zstd"] += len(zstandard.compress(msgspec.msgpack.encode(counts.tolist()), 19))
        bits = [stats.multinomial.logpmf(p, rows, s) for p, s in zip(parts, shares, strict=True)]
        sums["bound"] -= float(sum(bits)) / math.log(2) / 8
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


def window_of(profile: Profile, *, tally: bool) -> Window:
    """A window as a model's observer has it."""
    features = [m for m in profile.monitors if m.source == "feature"]
    manifest = Manifest(
        schema=1, name="pump", version="1", task="classification", inputs=(), files=(),
        features=tuple(
            Feature(name=m.name, type="category" if m.kind == "category" else "number")
            for m in features
        ),
        outputs=Outputs(tensors=("p",), scores="p", labels=("bad", "good")),
        runtime=Runtime(ir=8, opsets={"": 17}, ops=(), onnxruntime="1.18", ram_bytes=0),
        compression=Compression(mode="none", stock_bytes=0),
        parity=Parity(rows=1, flips=0, flips_max=0, diff_max=0, diff_p99=0, diff_budget=1),
        provenance=Provenance(source_sha256="0" * 64, source_type="none", libraries={}),
    )  # fmt: skip
    return Window(manifest, profile, tally=tally)


def speeds(rows: int, rng: np.random.Generator) -> dict[str, float]:
    """Microseconds of one core a row, called row by row: 20 numbers and a score; 5 categories, too;
    the same by ``bisect``. Of the first two once more with moments and runs.
    """
    profile = reference(rng)
    numbers = rng.normal(size=(rows, NUMBERS))
    texts = [m for m in profile.monitors if m.kind == "category"]
    drawn = [rng.choice(m.categories, rows).tolist() for m in texts]
    words = list(zip(*drawn, strict=True))
    scores = rng.random(rows).tolist()
    batches = [
        Batch(feeds={}, rows=1, single=True, numbers=row.tobytes(), categories=(some,))
        for row, some in zip(numbers, words, strict=True)
    ]
    found = {}
    plain_profile = Profile(
        rows=profile.rows, monitors=(*profile.monitors[:NUMBERS], profile.monitors[-1])
    )
    for name, tally in (("numbers", False), ("numbers_tally", True)):
        window = window_of(plain_profile, tally=tally)
        quick = [Batch(feeds={}, rows=1, single=True, values=row) for row in numbers.tolist()]
        began = time.process_time()
        for batch, score in zip(quick, scores, strict=True):
            window.observe(batch, (int(score >= 0.5),), (score,), 12_000)
        window.close()
        found[f"{name}_us"] = (time.process_time() - began) / rows * 1e6
    for name, tally in (("all", False), ("all_tally", True)):
        window = window_of(profile, tally=tally)
        began = time.process_time()
        for batch, score in zip(batches, scores, strict=True):
            window.observe(batch, (int(score >= 0.5),), (score,), 12_000)
        window.close()
        found[f"{name}_us"] = (time.process_time() - began) / rows * 1e6
    plain = numbers.tolist()
    began = time.process_time()
    number_cells = [bisecting.number_cell(m) for m in profile.monitors[:NUMBERS]]
    text_cells = [bisecting.category_cell(m) for m in texts]
    score_cell = bisecting.score_cell(profile.monitors[-1])
    counts = [[0] * monitor.cells for monitor in profile.monitors]
    for row, some, score in zip(plain, words, scores, strict=True):
        for count, cell, value in zip(counts, number_cells, row, strict=False):
            count[cell(value)] += 1
        for count, word_cell, word in zip(counts[NUMBERS:], text_cells, some, strict=False):
            count[word_cell(word)] += 1
        counts[-1][score_cell(int(score >= 0.5), score)] += 1
    found["bisect_us"] = (time.process_time() - began) / rows * 1e6
    return found


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
    took = speeds(5_000 if options.quick else 50_000, rng)
    figures |= took
    for name, us in took.items():
        print(f"{name[:-3]:14} {us:6.2f} us a row, {1e6 / us:9,.0f} rows a second")
    goals = {name: [figures[name], goal, figures[name] <= goal] for name, goal in GOALS.items()}
    for name, (figure, goal, met) in goals.items():
        print(f"{'met' if met else 'MISSED':6}  {name}: {figure:.2f}, goal {goal:g}")
    if options.json:
        options.json.write_text(json.dumps({**figures, "goals": goals}, indent=2) + "\n")
    return 0 if all(met for _, _, met in goals.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())

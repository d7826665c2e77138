"""Raked errors of a model of values, against a world whose errors after a shift are known.

Two inputs x ~ N(s, 1), z ~ N(-s / 2, 1); the model's error is 0.3 x^2 - 0.2 z + (0.2 + 0.3 |x|) n,
n ~ N(0, 1): larger, and more one-sided, the further x is out. Given x and z it is normal, so its
moments are closed forms (|error|: scipy's folded normal), averaged over x and z by Gauss-Hermite.
"""

from __future__ import annotations

import io

import msgspec
import numpy as np
import pytest
from fleet_kit import FLEET, Packed, number, record
from scipy import stats

from edge_contract import bundle, profile, telemetry
from edge_contract import manifest as manifests
from edge_fleet import estimating
from edge_fleet.drift.budget import Budget
from edge_fleet.estimating import Held
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.quality import raking
from edge_fleet.quality.raking import Labelled, rake
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

NOW_MS = 1_700_000_600_000
FIGURES = ("mae", "rmse", "bias")


def truth(shift: float) -> dict[str, float]:
    """The errors of rows that moved by ``shift``."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weight = np.outer(weights, weights) / weights.sum() ** 2
    x, z = np.meshgrid(nodes + shift, nodes - shift / 2, indexing="ij")
    mean, spread = 0.3 * x**2 - 0.2 * z, 0.2 + 0.3 * np.abs(x)
    absolute = stats.foldnorm.mean(np.abs(mean) / spread, scale=spread)
    return {
        "mae": float((weight * absolute).sum()),
        "rmse": float(np.sqrt((weight * (mean**2 + spread**2)).sum())),
        "bias": float((weight * mean).sum()),
    }


def drawn(rng: np.random.Generator, rows: int, shift: float) -> tuple[np.ndarray, ...]:
    """x, z, what the model answers, and its errors."""
    x, z = rng.normal(shift, 1, rows), rng.normal(-shift / 2, 1, rows)
    error = 0.3 * x**2 - 0.2 * z + (0.2 + 0.3 * np.abs(x)) * rng.normal(size=rows)
    return x, z, 50 + 2 * x + z, error


def monitors(rng: np.random.Generator) -> tuple[profile.Monitor, ...]:
    x, z, said, _ = drawn(rng, 20_000, 0.0)
    output = msgspec.structs.replace(number("prediction", said), source="output")
    return number("x", x), number("z", z), output


def cells(monitor: profile.Monitor, values: np.ndarray) -> np.ndarray:
    """The cell of each value, by the very function that devices count with."""
    places = np.searchsorted(monitor.edges, values)  # equal within a bin, so few are asked
    _, first, where = np.unique(places, return_index=True, return_inverse=True)
    found = [profile.count_numbers(monitor, values[at : at + 1]).argmax() for at in first]
    return np.array(found)[where]


def test_the_oracle_agrees_with_drawing(seed: int) -> None:
    *_, error = drawn(np.random.default_rng(seed), 400_000, 0.5)
    known = truth(0.5)
    assert known["bias"] == pytest.approx(0.425), "0.3 (1 + s^2) + 0.2 s / 2"
    assert np.abs(error).mean() == pytest.approx(known["mae"], rel=0.02)
    assert np.sqrt((error**2).mean()) == pytest.approx(known["rmse"], rel=0.02)


@pytest.mark.parametrize("shift", [0.25, 0.5])
def test_errors_after_a_known_shift_are_found(shift: float, seed: int) -> None:
    """24 sets of 1,500 labelled rows of before: right on average, and the intervals hold."""
    rng = np.random.default_rng(seed)
    known, before, runs = truth(shift), truth(0.0), 24
    every = monitors(rng)
    values: dict[str, list[float]] = {name: [] for name in FIGURES}
    inside = dict.fromkeys(FIGURES, 0)
    for _ in range(runs):
        *inputs, error = drawn(rng, 1_500, 0.0)
        *later, _ = drawn(rng, 20_000, shift)
        own = np.stack([cells(m, column) for m, column in zip(every, inputs, strict=True)], axis=1)
        counts = [profile.count_numbers(m, column) for m, column in zip(every, later, strict=True)]
        labelled = Labelled(true=inputs[2] - error, predicted=inputs[2])
        for found in raking.estimate(labelled, rake(own, counts), rng):
            assert found.value is not None, found.refused
            values[found.figure].append(found.value)
            inside[found.figure] += found.low <= known[found.figure] <= found.high
    for name in FIGURES:
        mean, spread = np.mean(values[name]), np.std(values[name]) / np.sqrt(runs)
        print(
            f"{name}: {before[name]:.4f} before, {known[name]:.4f} now, {mean:.4f} +- {spread:.4f}"
        )
        # Bins know no more than the share of rows in them: 3 % is what their ends hide.
        assert abs(mean - known[name]) < 0.03 * known[name] + 4 * spread
        if shift == 0.5:
            assert abs(mean - known[name]) < abs(mean - before[name]), "nearer to now than before"
        assert inside[name] >= runs - 5


def test_the_whole_way_from_windows_and_files_says_the_same(
    store: SqlStore, packed: Packed, seed: int
) -> None:
    """A store with one window after the shift, CSV files of rows and answers of before it."""
    rng = np.random.default_rng(seed)
    every = monitors(rng)
    made = profile.Profile(rows=20_000, monitors=every)
    entry, stored = bundle.encode_member(manifests.PROFILE_FILE, profile.encode(made))
    was = manifests.decode(packed.manifest_bytes)
    manifest = manifests.encode(
        msgspec.structs.replace(
            was, task="regression", files=(was.files[0], entry),
            outputs=manifests.Outputs(tensors=("value",), value="value"),
        )
    )  # fmt: skip
    meter = Packed(made, manifest, stored, {})
    *later, _ = drawn(rng, 20_000, 0.5)
    counts = [profile.count_numbers(m, column) for m, column in zip(every, later, strict=True)]
    one = record(meter, np.concatenate(counts))
    store.claim(FLEET)
    with store.transaction() as tx:
        tx.put_blob(meter.digest, manifest, 1)
        tx.put_blob(entry.sha256, stored, 1)
        fresh = tx.add_windows([window_of(telemetry.encode(one), NOW_MS - 1000)])
        Evidence(Library(), Budget()).count(tx, fresh, NOW_MS - 1000)
    x, z, said, error = drawn(rng, 2_500, 0.0)
    rows, answers = io.StringIO(), io.StringIO()
    rows.write("x,z,y\n")
    answers.write("line,value\n")
    columns = (each.tolist() for each in (x, z, said, error))
    for line, (a, b, answer, off) in enumerate(zip(*columns, strict=True), 2):
        rows.write(f"{a!r},{b!r},{answer - off!r}\n")
        answers.write(f"{line},{answer!r}\n")
    held = Held(rows.getvalue().encode(), answers.getvalue().encode(), "y")
    [found] = estimating.qualities(store, NOW_MS, period_ms=86_400_000, held=held)
    known = truth(0.5)
    assert {each.figure for each in found.estimates} == set(FIGURES)
    for each in found.estimates:
        assert each.value is not None and each.low is not None and each.high is not None
        half = (each.high - each.low) / 2
        assert each.low - half < known[each.figure] < each.high + half, each
        assert each.rows < 2_500 and each.blind

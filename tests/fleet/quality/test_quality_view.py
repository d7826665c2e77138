"""`edge-fleet quality`: estimates of each version, from what devices really send."""

import dataclasses
import json

import msgspec
import numpy as np
import pytest
from fleet_kit import Packed, draw, record
from typer.testing import CliRunner, Result

from edge_contract import aside, telemetry
from edge_contract import manifest as manifests
from edge_contract.profile import SCORE_BINS, count_scores
from edge_contract.telemetry import pack_counts
from edge_fleet import estimating
from edge_fleet.cli import app
from edge_fleet.collector import now_ms
from edge_fleet.drift.budget import Budget
from edge_fleet.error_watch import ErrorWatch
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.quality import cbpe, late
from edge_fleet.quality.estimates import BLIND
from edge_fleet.store.base import AsideKind, AsideSeen
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

BINS = SCORE_BINS


def quality(*words: str, db: str) -> Result:
    return CliRunner().invoke(app, ["quality", *words, "--db", db])


@pytest.fixture
def graded(packed: Packed) -> Packed:
    """The bundle, with the accuracy that its build measured."""
    metric = manifests.Metric(name="accuracy", original=0.8, bundle=0.8, low=0.78, high=0.82)
    manifest = manifests.decode(packed.manifest_bytes)
    data = manifests.encode(msgspec.structs.replace(manifest, metrics=(metric,)))
    return dataclasses.replace(packed, manifest_bytes=data)


def keep(store: SqlStore, packed: Packed, rng: np.random.Generator) -> None:
    """Two devices of 500 rows in five windows each."""
    now = now_ms()
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, now)
        [entry] = [
            f for f in manifests.decode(packed.manifest_bytes).files if f.name == "profile.json"
        ]
        tx.put_blob(entry.sha256, packed.stored, now)
        windows = [
            window_of(
                telemetry.encode(
                    record(packed, packed.counts(draw(rng, 100)), device=device, seq=seq)
                ),
                now,
            )
            for device in ("pi-1", "pi-2")
            for seq in range(5)
        ]
        Evidence(Library(), Budget(1, 60)).count(tx, tx.add_windows(windows), now)


def label(
    store: SqlStore, packed: Packed, rng: np.random.Generator, *, records: int, accuracy: float
) -> None:
    """Records of 40 labels each; a score's chance of being right is the same everywhere."""
    now = now_ms()
    seen = []
    for seq in range(records):
        rows = draw(rng, 40)
        said = (rows.score >= 0.5).astype(int)
        counts = np.zeros((2, 2, BINS), dtype=np.int64)
        right = (rng.random(40) < accuracy).astype(int)
        np.add.at(counts, (right, said, np.minimum((rows.score * BINS).astype(int), BINS - 1)), 1)
        made = aside.Labelled(
            device="pi-1", boot=1, seq=100 + seq, model="boiler", version="1.0",
            bundle=bytes.fromhex(packed.digest), start_ms=now, end_ms=now, synchronised=True,
            kind="label", labels=2, bins=BINS, unit=1.0, counts=pack_counts(counts.reshape(-1)),
        )  # fmt: skip
        seen.append(
            AsideSeen(
                "pi-1", 1, 100 + seq, AsideKind.LABELLED, packed.digest, now + seq,
                aside.encode(made),
            )
        )  # fmt: skip
    with store.transaction() as tx:
        ErrorWatch(Library(), Budget(1, 60)).count(tx, tx.add_asides(seen), now)


def test_without_labels_the_scores_are_taken_at_their_word(
    store: SqlStore, db: str, packed: Packed, rng: np.random.Generator
) -> None:
    keep(store, packed, rng)
    [found] = json.loads(quality("--json", db=db).output)
    assert (found["rows"], found["labelled"], found["errors"]) == (1000, 0, None)
    assert found["calibration"] == "the scores' own word"
    figures = {(e["method"], e["figure"]): e for e in found["estimates"]}
    scores = draw(np.random.default_rng(1), 100_000).score
    assert figures["score", "accuracy"]["value"] == pytest.approx(
        np.maximum(scores, 1 - scores).mean(), abs=0.02
    )
    assert figures["labels", "accuracy"]["value"] is None
    assert "0 labels came" in figures["labels", "accuracy"]["refused"]


def test_late_labels_calibrate_the_scores_and_stand_beside_them(
    store: SqlStore, db: str, graded: Packed, rng: np.random.Generator
) -> None:
    keep(store, graded, rng)
    label(store, graded, rng, records=30, accuracy=0.85)
    [found] = json.loads(quality("--json", db=db).output)
    assert found["calibration"] == "1200 late labels"
    for each in found["estimates"]:
        if each["figure"] == "accuracy":
            assert each["low"] - 0.03 < 0.85 < each["high"] + 0.03
            assert each["value"] == pytest.approx(0.85, abs=0.05)
    assert found["errors"]["watched"] == pytest.approx(0.22)
    assert not found["errors"]["risen"]


def test_an_error_rate_that_rose_is_seen(
    store: SqlStore, db: str, graded: Packed, rng: np.random.Generator
) -> None:
    keep(store, graded, rng)
    label(store, graded, rng, records=30, accuracy=0.6)
    result = quality(db=db)
    assert "errors above 22 %: RISEN" in result.output
    for blind in (BLIND["score"], BLIND["labels"]):
        assert blind in result.output


def test_a_period_without_answers_or_another_model_has_no_figure(
    store: SqlStore, db: str, packed: Packed, rng: np.random.Generator
) -> None:
    keep(store, packed, rng)
    nothing = quality("--model", "x", db=db)
    assert nothing.exit_code == 0
    assert "no version that says labels answered in the last 24 h" in nothing.output
    assert json.loads(quality("--model", "x", "--json", db=db).output) == []
    assert "--hours 0 is not above 0" in str(quality("--hours", "0", db=db).exception)


def test_figures_of_late_labels_are_those_of_the_confusion_matrix() -> None:
    """40 right no, 10 wrong yes (precision); 5 wrong no, 45 right yes."""
    answers = np.zeros((2, 2, 4), dtype=np.int64)
    answers[1, 0, 1], answers[0, 1, 2], answers[0, 0, 0], answers[1, 1, 3] = 40, 10, 5, 45
    found = {e.figure: e for e in late.estimate(answers)}
    assert found["accuracy"].value == pytest.approx(0.85)
    assert found["precision"].value == pytest.approx(45 / 55)
    assert found["recall"].value == pytest.approx(0.9)
    assert found["f1"].value == pytest.approx(2 * 45 / (55 + 50))
    assert found["accuracy"].low < 0.85 < found["accuracy"].high
    three = {e.figure: e for e in late.estimate(np.full((2, 3, 4), 10))}
    assert three["accuracy"].value == 0.5
    assert "two labels only" in three["recall"].refused
    none = np.zeros((2, 2, 4), dtype=np.int64)
    none[1, 0] = 25
    refused = {e.figure: e for e in late.estimate(none)}
    assert refused["accuracy"].value == 1.0
    assert "no row" in refused["recall"].refused
    assert "no positive row" in refused["f1"].refused


def test_labelled_rows_of_the_build_calibrate_the_scores(
    packed: Packed, rng: np.random.Generator
) -> None:
    """70 % of each cell's rows were right, whatever the scores say."""
    at = [monitor.kind for monitor in packed.profile.monitors].index("score")
    rows = np.zeros((2, 2, BINS), dtype=np.int64)
    for label in (0, 1):
        rows[label, label], rows[1 - label, label] = 70, 30
    monitors = list(packed.profile.monitors)
    labelled = tuple(rows.reshape(-1).tolist())
    monitors[at] = msgspec.structs.replace(monitors[at], labelled=labelled)
    calibration, whose = estimating.calibration_of(monitors[at], np.zeros((2, 2, BINS), dtype=int))
    assert whose == f"{rows.sum()} labelled rows of the build"
    scores = draw(rng, 5000).score
    counts = count_scores(monitors[at], (scores >= 0.5).astype(int), scores)
    [accuracy, *_] = cbpe.estimate(monitors[at], counts, calibration, rng)
    assert accuracy.value == pytest.approx(0.7, abs=0.01)
    assert accuracy.low is not None and accuracy.low < 0.7 < (accuracy.high or 0)

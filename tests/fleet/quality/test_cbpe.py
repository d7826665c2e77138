"""Quality from a histogram of scores, against NannyML on the same rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from edge_contract import profile as profiles
from edge_contract.profile import Monitor
from edge_fleet.quality import cbpe, figures
from edge_fleet.quality.estimates import BLIND

FIGURES = json.loads(Path(__file__).with_name("nannyml.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in FIGURES["cases"]}
ALL = ("accuracy", "precision", "recall", "f1", "auc")


def monitor_of(labels: int, bins: int) -> Monitor:
    edges = tuple(np.linspace(0, 1, bins + 1).tolist())
    empty = (0,) * (labels * bins + 1)
    return Monitor(
        name="prediction", kind="score", source="output", edges=edges, labels=labels, counts=empty
    )


def compared(case: dict, *, measured: bool) -> dict[str, float]:
    """Ours less NannyML's, for each figure that both give."""
    monitor = monitor_of(case["labels"], case["bins"])
    word = cbpe.from_scores(monitor)
    found = cbpe.from_labelled(monitor, np.array(case["reference"])) if measured else word
    window = np.append(np.array(case["window"]).ravel(), 0)
    theirs = {**case["nannyml"], "auc": case["nannyml"].get("roc_auc")}
    return {
        each.figure: each.value - theirs[each.figure]
        for each in cbpe.estimate(monitor, window, found, np.random.default_rng(1))
        if each.value is not None and theirs[each.figure] is not None
    }


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("calibrated")])
def test_of_calibrated_scores_it_is_nannymls_to_the_width_of_a_bin(name: str) -> None:
    """32 bins: accuracy .0002, F1 .0004, AUC .0008; 16 bins: .0006, .0013, .0031."""
    case = CASES[name]
    most = (3e-4, 5e-4, 1e-3) if case["bins"] == 32 else (8e-4, 1.6e-3, 3.5e-3)
    apart = compared(case, measured=False)
    assert set(apart) == set(ALL)
    for figure, limit in zip(("accuracy", "f1", "auc"), most, strict=True):
        assert abs(apart[figure]) <= limit, (figure, apart)


@pytest.mark.parametrize("name", CASES)
def test_with_labelled_rows_both_calibrate_and_agree_within_their_noise(name: str) -> None:
    """Each learns the calibration from the same 20,000 rows in its own way."""
    apart = compared(CASES[name], measured=True)
    assert abs(apart["accuracy"]) <= 0.006
    assert max(map(abs, apart.values())) <= 0.01


def test_overconfident_scores_mislead_without_labelled_rows_and_not_with_them() -> None:
    case = CASES["overconfident, shifted, 16 bins"]
    assert compared(case, measured=False)["accuracy"] > 0.05
    assert abs(compared(case, measured=True)["accuracy"]) < 0.005


def test_the_figures_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for labels, average in ((2, "binary"), (4, "macro")):
        true, said = rng.integers(0, labels, (2, 500))
        said = np.where(rng.random(500) < 0.5, true, said)
        found = figures.of_confusion(metrics.confusion_matrix(true, said).astype(float))
        assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, said))
        for name in ("precision", "recall", "f1"):
            expected = getattr(metrics, f"{name}_score")(true, said, average=average)
            assert found[name] == pytest.approx(expected)


def test_the_weighted_area_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score, true = np.round(rng.random(300), 2), rng.random(300) < 0.4
    weights = rng.random((2, 3, 300))
    found = figures.weighted_auc(score, true, weights)
    for at in np.ndindex(2, 3):
        expected = metrics.roc_auc_score(true, score, sample_weight=weights[at])
        assert found[at] == pytest.approx(expected)


def test_the_area_from_bins_knows_the_order_within_a_bin(seed: int) -> None:
    """Four bins lose .04 of the area to ties; the rise within a bin brings most of it back."""
    rng = np.random.default_rng(seed)
    score = rng.random(200_000)
    true = rng.random(200_000) < score
    edges = np.linspace(0, 1, 5)
    at = np.minimum((score * 4).astype(int), 3)
    plus, minus = np.bincount(at[true]), np.bincount(at[~true])
    real = metrics.roc_auc_score(true, score)
    assert metrics.roc_auc_score(true, at) < real - 0.01
    found = float(figures.auc_of_bins(plus.astype(float), minus.astype(float), edges))
    assert found == pytest.approx(real, abs=0.004)


def test_scores_as_the_device_counts_them_come_out_by_label_and_bin() -> None:
    monitor = monitor_of(3, 4)
    counts = profiles.count_scores(monitor, np.array([0, 2, 2]), np.array([0.1, 0.9, np.nan]))
    scores = cbpe.scores_of(monitor, counts)
    assert scores.shape == (3, 4)
    assert (scores[0, 0], scores[2, 3], scores.sum()) == (1, 1, 2)


def test_late_labels_of_two_classes_are_a_calibration(seed: int) -> None:
    """[wrong or right, predicted, bin] says whose label a wrong answer should have had."""
    rng = np.random.default_rng(seed)
    monitor = monitor_of(2, 16)
    truth = rng.multinomial(5000, rng.dirichlet(np.ones(64))).reshape(2, 2, 16)
    answers = np.stack([
        np.stack([truth[1, 0], truth[0, 1]]),  # wrong: 0 said of 1, 1 said of 0
        np.stack([truth[0, 0], truth[1, 1]]),
    ])  # fmt: skip
    assert (
        cbpe.from_answers(monitor, answers).rows == cbpe.from_labelled(monitor, truth).rows
    ).all()
    with pytest.raises(ValueError, match="two labels only"):
        cbpe.from_answers(monitor_of(3, 16), answers)


def test_its_interval_covers_the_windows_true_accuracy(seed: int) -> None:
    """A calibration from 2,000 rows; 60 windows of a distribution that only its inputs left."""
    rng = np.random.default_rng(seed)
    monitor, inside = monitor_of(2, 16), 0
    for _ in range(60):
        score = rng.beta(2, 2, 2000)
        true = rng.random(2000) < score**1.5
        said = (score >= 0.5).astype(int)
        truth = np.zeros((2, 2, 16), dtype=np.int64)
        np.add.at(truth, (true.astype(int), said, (score * 16).astype(int)), 1)
        later = rng.beta(2.5, 2, 50_000)
        counts = profiles.count_scores(monitor, (later >= 0.5).astype(np.int64), later)
        real = np.mean(np.where(later >= 0.5, later**1.5, 1 - later**1.5))
        found = cbpe.estimate(monitor, counts, cbpe.from_labelled(monitor, truth), rng)[0]
        assert found.low is not None
        inside += found.low <= real <= found.high
    assert inside >= 48


def test_what_cannot_be_estimated_is_refused_and_says_why() -> None:
    rng = np.random.default_rng(0)
    three = monitor_of(3, 16)
    counts = np.full(three.cells, 100)
    found = {e.figure: e for e in cbpe.estimate(three, counts, cbpe.from_scores(three), rng)}
    assert found["accuracy"].value is not None
    assert found["accuracy"].low is None  # taken at their word, nothing is known of the error
    assert "labelled reference rows only" in found["recall"].refused
    assert "predicted label's score alone" in found["auc"].refused
    assert all(each.blind == BLIND["score"] for each in found.values())
    none = monitor_of(2, 1)
    for each in cbpe.estimate(none, np.array([50, 50, 0]), cbpe.from_scores(none), rng):
        assert each.value is None
        assert "no scores" in each.refused
    two = monitor_of(2, 16)
    for each in cbpe.estimate(two, np.eye(two.cells)[3], cbpe.from_scores(two), rng):
        assert each.value is None
        assert "at least 50" in each.refused


def test_few_labelled_rows_leave_the_scores_at_their_word() -> None:
    monitor = monitor_of(2, 16)
    truth = np.zeros((2, 2, 16), dtype=np.int64)
    truth[0, 1, 9] = 199
    assert not cbpe.from_labelled(monitor, truth).measured
    truth[0, 1, 9] = 200
    assert cbpe.from_labelled(monitor, truth).measured
    with pytest.raises(ValueError, match="expected"):
        cbpe.from_labelled(monitor, truth[:, :, :8])

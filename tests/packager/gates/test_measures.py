"""Quality figures against scikit-learn, their intervals against scipy's bootstrap."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as peers
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_pack.answers import Answers
from edge_pack.gates import resample
from edge_pack.gates.case import Case, case_of
from edge_pack.gates.measures import Measure, measures

CLASSIFIED = {measure.name: measure for measure in measures("classification")}
VALUED = {measure.name: measure for measure in measures("regression")}


def _held_out(bunch: Any) -> Case:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05))
    scores = cross_val_predict(model, bunch.data, bunch.target, method="predict_proba")
    answers = Answers(scores.argmax(axis=1), scores)
    return case_of("classification", answers, bunch.target.astype(float), scores.shape[1])


@pytest.fixture(scope="module")
def cancer() -> Case:
    return _held_out(load_breast_cancer())


@pytest.fixture(scope="module")
def wines() -> Case:
    return _held_out(load_wine())


@pytest.fixture(scope="module")
def progress() -> Case:
    bunch = load_diabetes()
    values = cross_val_predict(LinearRegression(), bunch.data, bunch.target)
    return case_of("regression", Answers(values=values[:, None]), bunch.target, 0)


def _peer_ece(case: Case) -> float:
    """The definition, bin by bin (no ties in these scores)."""
    if case.labels == 2:
        confidence, right = case.scores[:, 1], case.truth == 1
    else:
        confidence, right = case.scores.max(axis=1), case.scores.argmax(axis=1) == case.truth
    order = np.argsort(confidence)
    bins = np.arange(len(order)) * 15 // len(order)
    return sum(
        abs(confidence[order[bins == b]].mean() - right[order[bins == b]].mean())
        * np.mean(bins == b)
        for b in range(15)
    )


def test_figures_of_two_labels_are_scikit_learns(cancer: Case) -> None:
    y, said, p = cancer.truth, cancer.said, cancer.scores
    expected = {
        "accuracy": peers.accuracy_score(y, said),
        "balanced_accuracy": peers.balanced_accuracy_score(y, said),
        "precision": peers.precision_score(y, said),
        "recall": peers.recall_score(y, said),
        "f1": peers.f1_score(y, said),
        "roc_auc": peers.roc_auc_score(y, p[:, 1]),
        "log_loss": peers.log_loss(y, p),
        "brier": peers.brier_score_loss(y, p[:, 1]),
        "calibration_error": _peer_ece(cancer),
    }
    found = {name: measure.of(cancer) for name, measure in CLASSIFIED.items()}
    assert found == pytest.approx(expected, rel=1e-12)


def test_figures_of_three_labels_are_scikit_learns(wines: Case) -> None:
    y, said, p = wines.truth, wines.said, wines.scores
    expected = {
        "accuracy": peers.accuracy_score(y, said),
        "balanced_accuracy": peers.balanced_accuracy_score(y, said),
        "precision": peers.precision_score(y, said, average="macro"),
        "recall": peers.recall_score(y, said, average="macro"),
        "f1": peers.f1_score(y, said, average="macro"),
        "roc_auc": peers.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "log_loss": peers.log_loss(y, p),
        "brier": float(((p - np.eye(3)[y]) ** 2).sum(axis=1).mean()),
        "calibration_error": _peer_ece(wines),
    }
    found = {name: measure.of(wines) for name, measure in CLASSIFIED.items()}
    assert found == pytest.approx(expected, rel=1e-12)


def test_figures_of_a_regression_are_scikit_learns(progress: Case) -> None:
    y, value = progress.target, progress.value
    expected = {
        "rmse": peers.root_mean_squared_error(y, value),
        "mae": peers.mean_absolute_error(y, value),
        "r2": peers.r2_score(y, value),
        "median_ae": peers.median_absolute_error(y, value),
    }
    found = {name: measure.of(progress) for name, measure in VALUED.items()}
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", [n for n in CLASSIFIED if n != "calibration_error"])
@pytest.mark.parametrize("which", ["cancer", "wines"])
def test_each_resample_agrees_with_the_rows_it_stands_for(
    which: str, name: str, request: pytest.FixtureRequest
) -> None:
    case: Case = request.getfixturevalue(which)
    resamples = resample.draw(len(case.truth), resamples=40)
    found = CLASSIFIED[name].resampled(case, resamples)
    for drawn, figure in zip(resamples.weights.astype(int), found, strict=True):
        again = CLASSIFIED[name].of(case.take(np.repeat(np.arange(len(drawn)), drawn)))
        assert figure == pytest.approx(again, rel=1e-9)


def test_ties_count_half_in_each_resample(cancer: Case) -> None:
    coarse = np.round(cancer.scores, 1)
    tied = Case(2, cancer.truth, cancer.said, coarse)
    for cells in (2000, 100):  # row by row, and by placements
        resamples = resample.draw(len(tied.truth), resamples=20, cells=cells)
        found = CLASSIFIED["roc_auc"].resampled(tied, resamples)
        for drawn, figure in zip(resamples.weights.astype(int), found, strict=True):
            rows = np.repeat(np.arange(len(resamples.cell)), drawn[resamples.cell])
            again = peers.roc_auc_score(tied.truth[rows], coarse[rows, 1])
            assert figure == pytest.approx(again, abs=1e-12 if cells == 2000 else 2e-3)


@pytest.mark.parametrize("name", ["rmse", "mae", "r2"])
def test_each_resample_of_a_regression_agrees_too(name: str, progress: Case) -> None:
    resamples = resample.draw(len(progress.target), resamples=40)
    found = VALUED[name].resampled(progress, resamples)
    for drawn, figure in zip(resamples.weights.astype(int), found, strict=True):
        again = VALUED[name].of(progress.take(np.repeat(np.arange(len(drawn)), drawn)))
        assert figure == pytest.approx(again, rel=1e-9)


def _ends(measure: Measure, case: Case, rows: int) -> tuple[float, float]:
    figure = measure.of(case)
    found = resample.interval(
        measure.resampled(case, resample.draw(rows)), figure, pivot=measure.pivot, span=measure.span
    )
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["accuracy", "recall", "f1", "roc_auc", "log_loss", "brier"])
def test_intervals_are_scipys(name: str, cancer: Case) -> None:
    measure = CLASSIFIED[name]
    peer = stats.bootstrap(
        (np.arange(len(cancer.truth)),),
        lambda rows: measure.of(cancer.take(rows)),
        vectorized=False, n_resamples=600, method="percentile", rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    low, high = _ends(measure, cancer, len(cancer.truth))
    width = peer.high - peer.low
    assert abs(low - peer.low) < 0.15 * width and abs(high - peer.high) < 0.15 * width


@pytest.mark.parametrize("name", ["rmse", "mae", "r2", "median_ae"])
def test_intervals_of_a_regression_are_scipys(name: str, progress: Case) -> None:
    measure = VALUED[name]
    peer = stats.bootstrap(
        (np.arange(len(progress.target)),),
        lambda rows: measure.of(progress.take(rows)),
        vectorized=False, n_resamples=600, method="percentile", rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    low, high = _ends(measure, progress, len(progress.target))
    width = peer.high - peer.low
    assert abs(low - peer.low) < 0.15 * width and abs(high - peer.high) < 0.15 * width


def _drawn(rng: np.random.Generator, rows: int, labels: int) -> Case:
    scores = rng.dirichlet(np.ones(labels), rows)
    truth = np.array([rng.choice(labels, p=p) for p in scores]) if rows < 10_000 else (
        (scores.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    )  # fmt: skip
    return case_of(
        "classification", Answers(scores.argmax(axis=1), scores), truth.astype(float), labels
    )


def test_many_rows_in_cells_give_the_width_that_rows_give() -> None:
    """9,000 rows: the cells' intervals against those of drawing every row."""
    case = _drawn(np.random.default_rng(11), 9_000, 2)
    for name, measure in CLASSIFIED.items():
        low, high = _ends(measure, case, 9_000)
        rowwise = resample.draw(9_000, seed=3, resamples=400, cells=9_000)
        replicas = measure.resampled(case, rowwise)
        ends = resample.interval(replicas, measure.of(case), pivot=measure.pivot, span=measure.span)
        assert ends is not None
        assert (high - low) == pytest.approx(ends[1] - ends[0], rel=0.15), name
        assert abs((high + low) - (ends[1] + ends[0])) < 0.2 * (high - low), name


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Accuracy and AUC of 150 draws of 300 rows from a known law; 95 % nominal."""
    rng = np.random.default_rng(17)
    big = _drawn(rng, 200_000, 2)
    names = ("accuracy", "roc_auc", "brier")
    true = {name: CLASSIFIED[name].of(big) for name in names}
    held = dict.fromkeys(names, 0)
    for _ in range(150):
        case = _drawn(rng, 300, 2)
        for name in names:
            low, high = _ends(CLASSIFIED[name], case, 300)
            held[name] += low <= true[name] <= high
    for name, count in held.items():
        assert count >= 132, (name, count)  # 132 of 150 at 95 %: once in 1,000


def test_a_hundred_thousand_rows_take_well_under_a_second() -> None:
    case = _drawn(np.random.default_rng(1), 100_000, 2)
    began = time.process_time()
    resamples = resample.draw(100_000)
    for measure in CLASSIFIED.values():
        measure.resampled(case, resamples)
    assert time.process_time() - began < 2  # seen: 0.4


def test_calibration_error_of_a_calibrated_model_reaches_zero() -> None:
    """The plain estimate is above zero; the interval does not pretend that the model is off."""
    case = _drawn(np.random.default_rng(2), 3_000, 2)
    low, high = _ends(CLASSIFIED["calibration_error"], case, 3_000)
    assert low < 0.01 and CLASSIFIED["calibration_error"].of(case) > 0.01 and high < 0.05


def _case(truth: list[float], said: list[int], p: list[float] | None = None) -> Case:
    scores = None if p is None else np.column_stack([1 - np.array(p), p])
    return case_of("classification", Answers(np.array(said), scores), np.array(truth), 2)


def test_what_rows_do_not_define_has_no_figure() -> None:
    one_sided = _case([0, 0, 0], [0, 0, 0], [0.1, 0.2, 0.3])
    found = {name: measure.of(one_sided) for name, measure in CLASSIFIED.items()}
    assert found["accuracy"] == 1 and found["log_loss"] > 0
    assert [found[n] for n in ("precision", "recall", "f1", "roc_auc")] == [None] * 4
    without = _case([0, 1], [0, 1])
    assert CLASSIFIED["roc_auc"].of(without) is None and CLASSIFIED["recall"].of(without) == 1
    constant = case_of("regression", Answers(values=np.ones((3, 1))), np.ones(3), 0)
    assert VALUED["r2"].of(constant) is None and VALUED["rmse"].of(constant) == 0


def test_a_label_nobody_declared_is_wrong_and_has_no_probability() -> None:
    case = _case([0, 1, -1, -1], [0, 1, 1, -1], [0.1, 0.9, 0.6, 0.5])
    assert CLASSIFIED["accuracy"].of(case) == 0.5
    assert CLASSIFIED["balanced_accuracy"].of(case) == pytest.approx(2 / 3)
    assert CLASSIFIED["log_loss"].of(case) == pytest.approx(-np.log(0.9))
    assert CLASSIFIED["roc_auc"].of(case) == 1


def test_the_same_rows_give_the_same_interval(cancer: Case) -> None:
    measure = CLASSIFIED["roc_auc"]
    assert _ends(measure, cancer, 569) == _ends(measure, cancer, 569)


def test_outliers_are_the_positive_label() -> None:
    answers = Answers(np.array([0, 1, 0, 1]))  # labels (-1, 1)
    case = case_of("outliers", answers, np.array([1.0, 1, 0, 0]), 2)
    found = {measure.name: measure.of(case) for measure in measures("outliers")}
    assert found["recall"] == 0.5 and found["precision"] == 0.5

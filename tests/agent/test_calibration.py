"""Scores put right by labels: the nearest curve that never falls, within the signed bounds."""

import random
from bisect import bisect_right
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edge_agent import calibration
from edge_agent.calibrating import LABELS_MAX, Calibrating
from edge_agent.calibration import PRIOR_ROWS, Curve
from edge_agent.predictions import Answer, Bundle
from edge_agent.settings import Calibration as Settings
from edge_contract.manifest import Calibration as Bounds

EDGES = tuple(np.linspace(0, 1, 17).tolist())
BUNDLE = Bundle(
    model="pump", version="1.0", sha256="ab" * 32, kind="label", labels=("ok", "worn"), edges=EDGES
)
BOUNDS = Bounds(max_shift=0.2, min_labels=200)


class Seat:
    """Where the curve is put."""

    curve: Curve | None = None


def answer(score: float, *, label: int | None = None, bundle: Bundle = BUNDLE) -> Answer:
    predicted = int(score >= 0.5) if label is None else label
    return Answer(1, 1, 0, bundle, predicted, score, None)


counted = st.lists(
    st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    min_size=16, max_size=16,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(counted)
def test_the_curve_is_scikit_learns_isotonic_regression(bins: list[tuple[int, int]]) -> None:
    sklearn = pytest.importorskip("sklearn.isotonic")
    right, total = np.array(bins).T
    middle = (np.array(EDGES[:-1]) + np.array(EDGES[1:])) / 2
    weight = total + PRIOR_ROWS
    rate = (right + PRIOR_ROWS * middle) / weight
    wanted = sklearn.IsotonicRegression().fit_transform(middle, rate, sample_weight=weight)
    curve = calibration.fit(EDGES, right.tolist(), total.tolist(), 1.0)
    assert np.allclose(curve.rates, wanted, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(counted, st.floats(0.01, 1.0))
def test_no_curve_falls_or_leaves_the_bounds(bins: list[tuple[int, int]], max_shift: float) -> None:
    right, total = zip(*bins, strict=True)
    curve = calibration.fit(EDGES, right, total, max_shift)
    scores = np.linspace(0, 1, 301)
    said = np.array([curve(score) for score in scores.tolist()])
    assert (np.diff(said) >= -1e-12).all()
    assert (np.abs(said - scores) <= max_shift + 1e-12).all()
    assert said.min() >= 0
    assert said.max() <= 1
    assert curve.shift <= max_shift + 1e-12


def test_without_labels_the_model_is_believed() -> None:
    curve = calibration.fit(EDGES, [0] * 16, [0] * 16, 0.5)
    for score in np.linspace(0.04, 0.96, 40).tolist():
        assert curve(score) == pytest.approx(score, abs=1e-9)


def test_overconfident_scores_are_put_right(chance: random.Random) -> None:
    """The device's world: logits twice too large. The Brier score falls, and stays within 0.01."""
    seat = Seat()
    store = Calibrating(Settings(), Path("/nowhere"))
    store.attach(BUNDLE, Bounds(max_shift=0.5, min_labels=200), seat)
    truths, scores = [], []
    for at in range(6000):
        logit = chance.gauss(0, 1.5)
        truth = chance.random() < 1 / (1 + np.exp(-logit))
        score = float(1 / (1 + np.exp(-2 * logit)))
        if at < 4000:
            store.count(answer(score), float(truth))
        else:
            truths.append(float(truth))
            scores.append(score)
    assert seat.curve is not None
    put_right = [seat.curve(score) for score in scores]
    true = [1 / (1 + ((1 - s) / s) ** 0.5) if 0 < s < 1 else s for s in scores]
    assert np.mean(np.abs(np.array(put_right) - true)) < 0.4 * np.mean(
        np.abs(np.array(scores) - true)
    )
    brier = [np.mean((np.array(x) - truths) ** 2) for x in (scores, put_right, true)]
    assert brier[1] < brier[0]
    assert brier[1] < brier[2] + 0.01


@pytest.fixture
def chance() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def test_nothing_moves_before_the_signed_number_of_labels(tmp_path: Path) -> None:
    seat = Seat()
    store = Calibrating(Settings(), tmp_path)
    store.attach(BUNDLE, BOUNDS, seat)
    for _ in range(199):
        store.count(answer(0.9), 0.0)
    report = store.report(BUNDLE.sha256)
    assert seat.curve is None
    assert report is not None
    assert (report.labels, report.needed, report.shift) == (199, 200, 0.0)
    store.count(answer(0.9), 0.0)
    assert seat.curve is not None
    assert seat.curve(0.9) == pytest.approx(0.7)  # the labels say 0.02; 0.2 is allowed
    assert seat.curve.of("worn", {"ok": 0.1, "worn": 0.9}) == pytest.approx(0.7)
    assert seat.curve.of("ok", {"ok": 0.1, "worn": 0.9}) == pytest.approx(0.3)
    report = store.report(BUNDLE.sha256)
    assert report is not None
    assert report.shift == report.max_shift == 0.2


@pytest.mark.parametrize(
    ("bundle", "bounds", "wanted"),
    [
        (BUNDLE, None, Settings()),
        (replace(BUNDLE, kind="value", labels=(), edges=()), BOUNDS, Settings()),
        (replace(BUNDLE, edges=()), BOUNDS, Settings()),
        (BUNDLE, BOUNDS, Settings(models=("fan",))),
    ],
    ids=["not allowed", "a value", "no scores", "another model"],
)
def test_what_may_not_or_cannot_be_calibrated_is_not(
    bundle: Bundle, bounds: Bounds | None, wanted: Settings
) -> None:
    seat = Seat()
    store = Calibrating(wanted, Path("/nowhere"))
    store.attach(bundle, bounds, seat)
    for _ in range(300):
        store.count(answer(0.9, bundle=bundle), 0.0)
    assert seat.curve is None
    assert store.report(bundle.sha256) is None


def test_a_device_may_ask_for_more_labels_never_for_fewer(tmp_path: Path) -> None:
    for own, needed in ((1000, 1000), (3, 200)):
        store = Calibrating(Settings(min_labels=own), tmp_path)
        store.attach(BUNDLE, BOUNDS, Seat())
        report = store.report(BUNDLE.sha256)
        assert report is not None
        assert report.needed == needed


def test_labels_outlive_a_restart_and_a_new_version_begins_anew(tmp_path: Path) -> None:
    store, seat = Calibrating(Settings(), tmp_path), Seat()
    store.attach(BUNDLE, BOUNDS, seat)
    for at in range(300):
        store.count(answer((at % 100) / 100), float(at % 3 == 0))
    store.save()
    again, after = Calibrating(Settings(), tmp_path), Seat()
    again.attach(BUNDLE, BOUNDS, after)
    assert after.curve is not None
    assert seat.curve is not None
    assert after.curve(0.3) == pytest.approx(seat.curve(0.3), abs=0.05)  # fitted every 2 % more
    report = again.report(BUNDLE.sha256)
    assert report is not None
    assert report.labels == 300
    new, fresh = replace(BUNDLE, version="2.0", sha256="cd" * 32), Seat()
    again.attach(new, BOUNDS, fresh)
    assert fresh.curve is None
    report = again.report(new.sha256)
    assert report is not None
    assert report.labels == 0


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"edges":[0,1],"right":[2],"counted":[1]}'])
def test_a_damaged_file_is_no_calibration(tmp_path: Path, data: bytes) -> None:
    (tmp_path / f"{BUNDLE.sha256}.json").write_bytes(data)
    store, seat = Calibrating(Settings(), tmp_path), Seat()
    store.attach(BUNDLE, BOUNDS, seat)
    report = store.report(BUNDLE.sha256)
    assert report is not None
    assert report.labels == 0
    assert seat.curve is None


def test_more_than_two_labels_are_calibrated_by_whether_the_answer_was_right() -> None:
    bundle = replace(BUNDLE, labels=("a", "b", "c"))
    store, seat = Calibrating(Settings(), Path("/nowhere")), Seat()
    store.attach(bundle, replace(BOUNDS, max_shift=1.0), seat)
    for at in range(1000):  # answers of score .9 are right half of the time
        label = at % 3
        store.count(answer(0.9, label=label, bundle=bundle), float((label + at % 2) % 3))
    assert seat.curve is not None
    assert seat.curve.of("b", {"a": 0.05, "b": 0.9, "c": 0.05}) == pytest.approx(0.5, abs=0.02)
    assert seat.curve.of("b", {}) is None


def test_old_labels_give_way(tmp_path: Path) -> None:
    store, seat = Calibrating(Settings(), tmp_path), Seat()
    store.attach(BUNDLE, replace(BOUNDS, max_shift=1.0), seat)
    for truth in (1.0, 0.0):
        for _ in range(2 * LABELS_MAX):
            store.count(answer(0.6), truth)
    report = store.report(BUNDLE.sha256)
    assert report is not None
    assert report.labels <= LABELS_MAX
    assert seat.curve is not None
    assert seat.curve(EDGES[bisect_right(EDGES, 0.6) - 1] + 1 / 32) < 0.3

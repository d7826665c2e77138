"""Labelled rows of old, weighted to look like what the devices counted."""

import numpy as np
import pytest

from edge_contract import profile as profiles
from edge_fleet.quality import cbpe, raking
from edge_fleet.quality.raking import Labelled, rake


def binned(values: np.ndarray, groups: int = 12) -> np.ndarray:
    return np.clip(((values + 3) * groups / 6).astype(np.int64), 0, groups - 1)


def world(rng: np.random.Generator, rows: int, shift: float) -> tuple[np.ndarray, ...]:
    """Two inputs; the model sees both, but trusts the second one too much."""
    x = rng.normal([shift, 2 * shift], 1.0, (rows, 2))
    chance = 1 / (1 + np.exp(-1.5 * x[:, 0] + 0.4 * x[:, 1]))
    score = 1 / (1 + np.exp(-1.5 * x[:, 0] - 0.4 * x[:, 1]))
    true = rng.random(rows) < chance
    cells = np.stack([binned(x[:, 0]), binned(x[:, 1])], axis=1)
    return cells, score, true


def margins(cells: np.ndarray) -> list[np.ndarray]:
    return [np.bincount(column, minlength=12) for column in cells.T]


def test_the_weights_have_the_margins_asked_for(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells, _, _ = world(rng, 5000, 0.0)
    counts = margins(world(rng, 2000, 0.3)[0])
    raked = rake(cells, counts)
    assert raked.weights.sum() == pytest.approx(1)
    assert (raked.weights >= 0).all()
    assert raked.residual < 1e-3
    for at, counted in enumerate(counts):
        known = np.bincount(cells[:, at], minlength=12)
        target = raking.smoothed(counted, known)
        found = np.bincount(cells[:, at], weights=raked.weights, minlength=12)
        assert found == pytest.approx(target, abs=2e-3)
        assert target == pytest.approx(counted / counted.sum(), abs=5e-3 + raked.uncovered)
    squares = (raked.weights**2).sum()
    assert raked.effective_rows == pytest.approx(1 / squares)
    assert 100 < raked.effective_rows < 5000


def test_counts_like_the_reference_leave_the_weights_alone(seed: int) -> None:
    cells, _, _ = world(np.random.default_rng(seed), 1000, 0.0)
    raked = rake(cells, margins(cells))
    assert raked.weights == pytest.approx(np.full(1000, 1e-3))
    assert raked.effective_rows == pytest.approx(1000)


def test_without_counts_too(seed: int) -> None:
    cells, _, _ = world(np.random.default_rng(seed), 1000, 0.0)
    raked = rake(cells, [np.zeros(12, dtype=np.int64)] * 2)
    assert raked.effective_rows == pytest.approx(1000)
    assert rake(cells[:0], margins(cells)).refusal


def test_where_inputs_moved_it_is_nearer_than_the_scores_alone(seed: int) -> None:
    """Scores are right on the whole of the reference and wrong on what the shift brings."""
    rng = np.random.default_rng(seed)
    errors: dict[str, list[float]] = {"raked": [], "score": []}
    aucs: list[float] = []
    for _ in range(12):
        cells, score, true = world(rng, 8000, 0.0)
        later_cells, later_score, later_true = world(rng, 4000, 0.35)
        said, later_said = (score >= 0.5).astype(int), (later_score >= 0.5).astype(int)
        real = np.mean(later_said == later_true)
        monitor = _score_monitor()
        own = np.minimum((score * 16).astype(int), 15) + 16 * said
        counts = profiles.count_scores(monitor, later_said.astype(np.int64), later_score)
        raked = rake(np.column_stack([cells, own]), [*margins(later_cells), counts[:-1]])
        labelled = Labelled(true.astype(float), said.astype(float), 2, score)
        found = {e.figure: e for e in raking.estimate(labelled, raked, rng)}
        truth = np.zeros((2, 2, 16), dtype=np.int64)
        np.add.at(truth, (true.astype(int), said, np.minimum((score * 16).astype(int), 15)), 1)
        scores = cbpe.estimate(monitor, counts, cbpe.from_labelled(monitor, truth), rng)
        errors["raked"].append(abs(found["accuracy"].value - real))
        errors["score"].append(abs(scores[0].value - real))
        aucs.append(found["auc"].value)
        assert found["accuracy"].low <= found["accuracy"].value <= found["accuracy"].high
    assert np.mean(errors["raked"]) < 0.6 * np.mean(errors["score"])
    assert np.mean(errors["raked"]) < 0.015
    assert all(0.5 < each < 1 for each in aucs)


def _score_monitor() -> profiles.Monitor:
    edges = tuple(np.linspace(0, 1, 17).tolist())
    return profiles.Monitor(
        name="prediction", kind="score", source="output", edges=edges, labels=2, counts=(0,) * 33
    )


def test_errors_of_a_regression_follow_the_inputs(seed: int) -> None:
    """The error grows with x; the window moved to where it is large."""
    rng = np.random.default_rng(seed)
    x, later = rng.normal(size=6000), rng.normal(0.8, 1.0, 6000)
    noise = 0.2 + np.abs(x)
    labelled = Labelled(true=x + noise * rng.normal(size=6000), predicted=x)
    cells = binned(x)[:, None]
    raked = rake(cells, [np.bincount(binned(later), minlength=12)])
    found = {e.figure: e for e in raking.estimate(labelled, raked, rng)}
    real = np.mean((0.2 + np.abs(later)) * np.sqrt(2 / np.pi))
    before = np.abs(labelled.true - labelled.predicted).mean()
    assert abs(found["mae"].value - real) < 0.3 * abs(before - real)
    assert found["mae"].low < real < found["mae"].high or abs(found["mae"].value - real) < 0.06
    assert abs(found["bias"].value) < 0.15
    assert found["rmse"].value > found["mae"].value


def test_its_interval_covers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside = 0
    for _ in range(60):
        x = rng.normal(size=1500)
        chance = 0.6 + 0.3 * np.tanh(x)
        right = rng.random(1500) < chance
        later = rng.normal(0.5, 1.0, 20_000)
        raked = rake(binned(x)[:, None], [np.bincount(binned(later), minlength=12)])
        labelled = Labelled(np.ones(1500), right.astype(float), 2)
        found = raking.estimate(labelled, raked, rng)[0]
        inside += found.low <= np.mean(0.6 + 0.3 * np.tanh(later)) <= found.high
    assert inside >= 50


def test_a_window_like_no_labelled_row_is_refused(seed: int) -> None:
    cells = np.zeros((1000, 1), dtype=np.int64)
    raked = rake(cells, [np.array([90, 10])])
    assert raked.uncovered == pytest.approx(0.1)
    labelled = Labelled(np.zeros(1000), np.zeros(1000), 2)
    for each in raking.estimate(labelled, raked, np.random.default_rng(seed)):
        assert each.value is None
        assert "like no labelled reference row" in each.refused


def test_few_effective_rows_are_refused(seed: int) -> None:
    """Nearly all of the window is like thirty of a thousand rows."""
    cells = np.array([[0]] * 970 + [[1]] * 30)
    raked = rake(cells, [np.array([10, 9_990])])
    assert raked.effective_rows < 40
    labelled = Labelled(np.zeros(1000), np.zeros(1000))
    for each in raking.estimate(labelled, raked, np.random.default_rng(seed)):
        assert each.value is None
        assert "at least 100" in each.refused

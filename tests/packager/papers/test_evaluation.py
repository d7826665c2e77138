"""The counts behind the charts: of the right rows, in the right cells, bounded."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from edge_pack.answers import Answers
from edge_pack.papers.evaluation import (
    CALIBRATION_BINS,
    LABELS_MAX,
    Evaluation,
    evaluate,
)


def _classified(seed: int, labels: int, rows: int = 400) -> tuple[Answers, np.ndarray]:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(labels), rows)
    said = scores.argmax(axis=1)
    truth = np.where(rng.random(rows) < 0.6, said, rng.integers(0, labels, rows))
    return Answers(said.astype(np.int64), scores), truth.astype(np.float64)


def test_confusion_is_scikit_learns() -> None:
    answers, truth = _classified(1, 4)
    found = evaluate("classification", (0, 1, 2, 3), answers, truth)
    assert found.rows == 400 and found.confusion is not None
    assert answers.labels is not None
    expected = confusion_matrix(truth, answers.labels, labels=range(4)).tolist()
    assert [list(row) for row in found.confusion.counts] == expected


def test_rows_without_truth_and_labels_that_the_model_never_learned() -> None:
    answers, truth = _classified(2, 3)
    truth[:10], truth[10:17] = np.nan, -1
    found = evaluate("classification", ("a", "b", "c"), answers, truth)
    assert found.rows == 390 and found.confusion is not None
    assert found.confusion.unknown == 7
    assert sum(map(sum, found.confusion.counts)) == 383


def test_many_labels_are_counted_together() -> None:
    answers, truth = _classified(3, 200, 3000)
    found = evaluate("classification", tuple(range(200)), answers, truth).confusion
    assert found is not None
    assert len(found.labels) == len(found.counts) == LABELS_MAX
    assert found.others == 200 - LABELS_MAX + 1 and found.labels[-1] == f"{found.others} others"
    assert sum(map(sum, found.counts)) == 3000


def test_calibration_of_two_labels_is_scikit_learns() -> None:
    answers, truth = _classified(4, 2, 2000)
    found = evaluate("classification", ("no", "yes"), answers, truth).calibration
    assert found is not None and found.label == "yes" and answers.scores is not None
    came, said = calibration_curve(truth, answers.scores[:, 1], n_bins=CALIBRATION_BINS)
    kept = [i for i, count in enumerate(found.counts) if count]
    assert [found.came[i] for i in kept] == pytest.approx(came.tolist(), abs=1e-5)
    assert [found.said[i] for i in kept] == pytest.approx(said.tolist(), abs=1e-5)
    assert sum(found.counts) == 2000


def test_calibration_of_more_labels_is_of_the_predicted_one() -> None:
    answers, truth = _classified(5, 3)
    found = evaluate("classification", (1, 2, 3), answers, truth).calibration
    assert found is not None and found.label == "" and sum(found.counts) == 400
    right = sum(round(c * n) for c, n in zip(found.came, found.counts, strict=True))
    assert answers.labels is not None and right == int((answers.labels == truth).sum())


def test_residuals_and_the_grid_hold_every_row() -> None:
    rng = np.random.default_rng(6)
    truth = rng.normal(size=300)
    values = truth + rng.normal(size=300) * 0.1
    found = evaluate("regression", (), Answers(values=values[:, None]), truth)
    assert found.residuals is not None and found.scatter is not None
    assert sum(found.residuals.counts) == sum(map(sum, found.scatter.counts)) == 300
    assert found.residuals.edges[0] == pytest.approx((values - truth).min(), rel=1e-4)
    on_line = sum(found.scatter.counts[i][i] for i in range(len(found.scatter.counts)))
    assert on_line > 150  # predictions follow the truth, so the diagonal is full


@pytest.mark.parametrize("value", [0.0, 5.0, -1e9])
def test_one_value_for_all_rows_is_drawn(value: float) -> None:
    same = np.full(4, value)
    found = evaluate("regression", (), Answers(values=same[:, None]), same)
    assert found.residuals is not None and sum(found.residuals.counts) == 4
    assert found.scatter is not None and sum(map(sum, found.scatter.counts)) == 4


def test_differences_fall_into_decades() -> None:
    found = evaluate(
        "tensors", (), Answers(values=np.zeros((6, 1))), None,
        np.array([0.0, 1e-12, 2e-9, 0.02, 1.0, np.inf]),
    )  # fmt: skip
    assert found.compared == 6 and found.rows == 0 and len(found.differences) == 12
    assert [i for i, count in enumerate(found.differences) if count] == [0, 1, 2, 9, 11]
    assert found.differences[11] == 2


def test_no_truth_is_no_chart() -> None:
    answers, truth = _classified(7, 2)
    assert evaluate("classification", (0, 1), answers, truth * np.nan) == Evaluation()
    assert evaluate("classification", (0, 1), answers, None) == Evaluation()

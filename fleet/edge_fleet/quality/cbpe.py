"""Quality without labels: what the scores say of themselves, from their histogram.

Guards: the only thing taken on trust is the calibration, and whose it is stands in the result.

Confidence-based performance estimation (NannyML's CBPE): a calibrated score is the chance of being
right, so the expected confusion matrix of a window is a sum over score bins. Arrays, as the profile
counts them: ``scores [..., predicted label, bin]``; a row is counted by the score of its predicted
label, or with two labels by the score of the last one.

What the histogram cannot give: with more than two labels the scores of the other labels are not
counted, so there is no area under the ROC curve, and without labelled reference rows no recall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_contract.profile import Monitor
from edge_fleet.quality import figures
from edge_fleet.quality.estimates import BLIND, Estimate, refuse

Floats = NDArray[np.float64]

ROWS_MIN = 50
"""Fewer rows in a window say nothing of its quality."""
REFERENCE_ROWS_MIN = 200
"""Labelled rows for a calibration of its own; with fewer the scores are taken as they are."""
PRIOR_ROWS = 1.0
"""Each cell of the calibration begins with one row at the score's own word."""
DRAWS = 200


@dataclass(frozen=True)
class Calibration:
    """The chance of each true label in a score cell.

    Attributes:
        rows: ``[true label, predicted label, bin]``: labelled rows, the prior's row among them; a
            chance is a row's share of its cell.
        edges: of the score bins. measured: it rests on labelled rows, not on the scores' word.
    """

    rows: Floats
    edges: Floats
    measured: bool

    @property
    def chance(self) -> Floats:
        """P(true label | predicted label, bin), ``[true label, predicted label, bin]``."""
        return np.asarray(self.rows / self.rows.sum(axis=0))


def from_scores(monitor: Monitor) -> Calibration:
    """Scores taken at their word: a bin's chance is its middle; other labels share the rest."""
    labels, bins = monitor.labels, len(monitor.edges) - 1
    edges = np.asarray(monitor.edges)
    middle = np.clip((edges[1:] + edges[:-1]) / 2, 1e-6, 1 - 1e-6)
    rows = np.empty((labels, labels, bins))
    if labels == 2:
        rows[0], rows[1] = 1 - middle, middle
    else:
        rows[:] = (1 - middle) / max(labels - 1, 1)
        for label in range(labels):
            rows[label, label] = middle
    return Calibration(rows * PRIOR_ROWS, edges, measured=False)


def from_labelled(monitor: Monitor, truth: NDArray[np.int64]) -> Calibration:
    """From labelled reference rows ``[true label, predicted label, bin]``.

    Histogram binning (Zadrozny and Elkan 2001) with one row of prior a cell. With fewer than
    ``REFERENCE_ROWS_MIN`` rows the scores are taken at their word.
    """
    prior = from_scores(monitor)
    if truth.shape != prior.rows.shape:
        raise ValueError(f"labelled rows of shape {truth.shape}, expected {prior.rows.shape}")
    if truth.sum() < REFERENCE_ROWS_MIN:
        return prior
    return Calibration(prior.rows + truth, prior.edges, measured=True)


def from_answers(monitor: Monitor, answers: NDArray[np.int64]) -> Calibration:
    """From late labels ``[wrong or right, predicted label, bin]``, for a model of two labels."""
    if monitor.labels != 2:
        raise ValueError("whose label a wrong answer should have had is known of two labels only")
    wrong, right = answers
    truth = np.empty((2, *wrong.shape), dtype=np.int64)
    for predicted in (0, 1):
        truth[predicted, predicted], truth[1 - predicted, predicted] = (
            right[predicted],
            wrong[predicted],
        )
    return from_labelled(monitor, truth)


def scores_of(monitor: Monitor, counts: NDArray[np.int64]) -> Floats:
    """A score monitor's counts ``[..., cells]`` as ``[..., predicted label, bin]``."""
    regular = np.asarray(counts, dtype=np.float64)[..., : monitor.regular]
    return regular.reshape(*regular.shape[:-1], monitor.labels, -1)


def expected(scores: Floats, chance: Floats) -> dict[str, Floats]:
    """The figures that ``scores [..., labels, bins]`` make likely under ``chance``."""
    return figures.of_confusion(np.einsum("...pb,...tpb->...tp", scores, chance))


def expected_auc(scores: Floats, chance: Floats, edges: Floats) -> Floats:
    """The area under the ROC curve that is likely, for two labels."""
    positive = np.einsum("...pb,...pb->...b", scores, chance[..., 1, :, :])
    return figures.auc_of_bins(positive, scores.sum(axis=-2) - positive, edges)


def estimate(
    monitor: Monitor,
    counts: NDArray[np.int64],
    calibration: Calibration,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[Estimate, ...]:
    """Accuracy, precision, recall, F1 and AUC of one window ``[cells]``, or why not.

    The interval is the calibration's own uncertainty (a Dirichlet distribution a cell); where the
    scores are taken at their word there is none.
    """
    names = ("accuracy", "precision", "recall", "f1", "auc")
    scores = scores_of(monitor, counts)
    rows, bins = float(scores.sum()), scores.shape[-1]
    if bins < 2:
        why = "the model gives no scores"
        return tuple(refuse(name, "score", why, rows) for name in names)
    if rows < ROWS_MIN:
        why = f"{rows:.0f} rows with a score, at least {ROWS_MIN} are needed"
        return tuple(refuse(name, "score", why, rows) for name in names)
    found = _figures(scores, calibration.chance, calibration.edges)
    drawn: dict[str, Floats] = {}
    if calibration.measured:
        gamma = rng.standard_gamma(
            np.broadcast_to(calibration.rows, (DRAWS, *calibration.rows.shape))
        )
        drawn = _figures(scores, gamma / gamma.sum(axis=1, keepdims=True), calibration.edges)
    result = []
    for name in names:
        why = _why_not(name, monitor.labels, calibration, found)
        if why:
            result.append(refuse(name, "score", why, rows))
            continue
        low = high = None
        if drawn:
            low, high = np.quantile(drawn[name], [(1 - level) / 2, (1 + level) / 2]).tolist()
        result.append(
            Estimate(
                figure=name, method="score", value=float(found[name]), low=low, high=high,
                level=level, rows=rows, blind=BLIND["score"],
            )
        )  # fmt: skip
    return tuple(result)


def _figures(scores: Floats, chance: Floats, edges: Floats) -> dict[str, Floats]:
    found = expected(scores, chance)
    if scores.shape[-2] == 2:
        found["auc"] = expected_auc(scores, chance, edges)
    return found


def _why_not(name: str, labels: int, calibration: Calibration, found: dict[str, Floats]) -> str:
    if name == "auc" and labels != 2:
        return (
            "devices count the predicted label's score alone; with more than two labels the"
            " area under the curve needs all of them"
        )
    if name in ("recall", "f1") and labels != 2 and not calibration.measured:
        return (
            "which label a wrong answer should have had is known from labelled reference rows only"
        )
    if np.isnan(found[name]):
        return "no row for it in this window"
    return ""

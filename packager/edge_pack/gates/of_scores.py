"""Figures of probabilities, and of each bootstrap resample. Pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_pack.gates.case import Case, Ints, peer
from edge_pack.gates.resample import Floats, Resamples

ECE_BINS = 15
_EPSILON = float(np.finfo(np.float64).eps)
"""What scikit-learn clips a probability to before its logarithm."""
_ROWWISE_MAX = 20_000
"""Rows times labels up to which the area under the curve is resampled row by row."""


def _scored(case: Case) -> tuple[Ints, Floats, NDArray[np.bool_]]:
    """Truth and scores of all rows, and which of them have a label that the model knows."""
    assert case.truth is not None and case.scores is not None
    return case.truth, case.scores, case.truth < case.labels


def losses(case: Case) -> tuple[Floats, NDArray[np.bool_]]:
    truth, scores, known = _scored(case)
    picked = scores[np.arange(len(truth)), np.where(known, truth, 0)]
    return -np.log(np.clip(picked, _EPSILON, 1.0)), known


def brier_terms(case: Case) -> tuple[Floats, NDArray[np.bool_]]:
    """Squared distance from the true corner; half of it for two labels (Brier 1950)."""
    truth, scores, known = _scored(case)
    apart = scores - (truth[:, None] == np.arange(case.labels))
    return (apart**2).sum(axis=1) / (2 if case.labels == 2 else 1), known


_Terms = Callable[[Case], tuple[Floats, NDArray[np.bool_]]]


def mean_of(terms: _Terms) -> Callable[[Case], float | None]:
    def figure(case: Case) -> float | None:
        each, known = terms(case)
        return float(each[known].mean()) if known.any() else None

    return figure


def mean_replicas(terms: _Terms) -> Callable[[Case, Resamples], Floats]:
    def replicas(case: Case, resamples: Resamples) -> Floats:
        each, known = terms(case)
        total = resamples.sums(np.where(known, each, 0.0))
        return np.asarray(total / resamples.sums(known.astype(np.float64)))

    return replicas


def _gaps(case: Case) -> tuple[Floats, Ints, NDArray[np.bool_]]:
    """Confidence less outcome, and the bin of equal mass of each row's confidence.

    Two labels: the positive one's probability against its occurrence (Naeini et al. 2015);
    more: the predicted label's against being right (Guo et al. 2017). Bins of equal mass, ties
    together, bias less than bins of equal width (Kumar et al. 2019).
    """
    truth, scores, known = _scored(case)
    if case.labels == 2:
        confidence, outcome = scores[:, 1], truth == 1
    else:
        best = scores.argmax(axis=1)
        confidence, outcome = scores[np.arange(len(truth)), best], truth == best
    ordered = np.sort(confidence[known])
    rank = np.searchsorted(ordered, confidence)
    bins = np.minimum(rank * ECE_BINS // max(len(ordered), 1), ECE_BINS - 1)
    return np.where(known, confidence - outcome, 0.0), bins.astype(np.int64), known


def calibration(case: Case) -> float | None:
    gaps, bins, known = _gaps(case)
    if not known.any():
        return None
    return float(np.abs(np.bincount(bins, gaps, ECE_BINS)).sum() / known.sum())


def calibration_replicas(case: Case, resamples: Resamples) -> Floats:
    gaps, bins, known = _gaps(case)
    apart = np.abs(resamples.tallies(bins, ECE_BINS, gaps)).sum(axis=1)
    return np.asarray(apart / resamples.sums(known.astype(np.float64)))


def _one_against_rest(case: Case) -> list[tuple[NDArray[np.bool_], Floats]]:
    """(which rows are positive, their scores) for the last of two labels, or for each label."""
    truth, scores, known = _scored(case)
    chosen = [1] if case.labels == 2 else range(case.labels)
    return [
        (truth[known] == label, scores[known, label])
        for label in chosen
        if 0 < np.count_nonzero(truth[known] == label) < np.count_nonzero(known)
    ]


def auc(case: Case) -> float | None:
    area = peer("roc_auc_score")
    found = [float(area(positive, score)) for positive, score in _one_against_rest(case)]
    return float(np.mean(found)) if found else None


def auc_replicas(case: Case, resamples: Resamples) -> Floats:
    known = _scored(case)[2]
    pairs = _one_against_rest(case)
    cell = resamples.cell[known]
    if resamples.rowwise and len(known) * len(pairs) <= _ROWWISE_MAX:
        weights = resamples.weights[:, known]
        found = [_auc_of_weights(weights, positive, score) for positive, score in pairs]
    else:
        there = Resamples(cell, resamples.weights, rowwise=False)
        found = [_auc_of_placements(there, positive, score) for positive, score in pairs]
    return _mean_of_known(np.asarray(found))


def _mean_of_known(found: Floats) -> Floats:
    """The mean over the first axis of what is no NaN, NaN where nothing is known."""
    counts = np.sum(~np.isnan(found), axis=0)
    unknown = np.full(counts.shape, np.nan)
    return np.asarray(np.divide(np.nansum(found, axis=0), counts, out=unknown, where=counts > 0))


def _auc_of_weights(weights: Floats, positive: NDArray[np.bool_], score: Floats) -> Floats:
    """Area under the curve with each row as often as its weight says; ties count half."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    drawn, of_last = weights[:, order], positive[order]
    above = np.add.reduceat(drawn * of_last, starts, axis=1)
    below = np.add.reduceat(drawn * ~of_last, starts, axis=1)
    beaten = np.cumsum(below, axis=1) - below / 2
    return np.asarray((above * beaten).sum(axis=1) / (above.sum(axis=1) * below.sum(axis=1)))


def _auc_of_placements(resamples: Resamples, positive: NDArray[np.bool_], score: Floats) -> Floats:
    """To first order in the resampling: the mean placement of the positives among the negatives
    and the reverse (DeLong et al. 1988), as good as exact at the sizes it is used for."""
    above, below = np.sort(score[positive]), np.sort(score[~positive])
    placed = np.empty(len(score))
    placed[positive] = _share_below(below, score[positive])
    placed[~positive] = 1 - _share_below(above, score[~positive])
    area = placed[positive].mean()
    total = np.full(len(resamples.weights), -area)
    for side in (positive, ~positive):
        weight = side.astype(np.float64)
        total += resamples.sums(placed * weight) / resamples.sums(weight)
    return np.asarray(np.clip(total, 0.0, 1.0))


def _share_below(ordered: Floats, values: Floats) -> Floats:
    """Share of ``ordered`` that is less than each value, ties counted half."""
    left, right = np.searchsorted(ordered, values), np.searchsorted(ordered, values, "right")
    return np.asarray((left + right) / (2 * len(ordered)))

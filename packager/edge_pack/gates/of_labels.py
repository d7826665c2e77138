"""Figures of predicted labels, and of each bootstrap resample. Pure.

Two labels: precision, recall and F1 are of the last label, the positive one; more labels: their
plain mean over the labels that occur (macro).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_pack.gates.case import Case, Ints, peer
from edge_pack.gates.resample import Floats, Resamples


def _labelled(case: Case) -> tuple[Ints, Ints]:
    assert case.truth is not None and case.said is not None
    return case.truth, case.said


def _counts(case: Case, resamples: Resamples) -> tuple[Floats, Floats, Floats]:
    """Right, said and true rows by label, [resamples, labels + 2] each."""
    truth, said = _labelled(case)
    size = case.labels + 2
    right = (truth == said).astype(np.float64)
    return (
        resamples.tallies(truth, size, right),
        resamples.tallies(said, size),
        resamples.tallies(truth, size),
    )


def accuracy(case: Case) -> float | None:
    return float(peer("accuracy_score")(*_labelled(case)))


def accuracy_replicas(case: Case, resamples: Resamples) -> Floats:
    truth, said = _labelled(case)
    right = resamples.sums((truth == said).astype(np.float64))
    return np.asarray(right / resamples.sums(np.ones(len(truth))))


def balanced(case: Case) -> float | None:
    return float(peer("balanced_accuracy_score")(*_labelled(case)))


def balanced_replicas(case: Case, resamples: Resamples) -> Floats:
    right, _, true = _counts(case, resamples)
    return _mean_where(right / true, true > 0)


def _mean_where(figures: Floats, there: NDArray[np.bool_]) -> Floats:
    return np.asarray(np.where(there, figures, 0.0).sum(axis=1) / there.sum(axis=1))


def of_labels(name: str) -> Callable[[Case], float | None]:
    def figure(case: Case) -> float | None:
        truth, said = _labelled(case)
        if case.labels == 2:
            return float(peer(name)(truth == 1, said == 1, zero_division=math.nan))
        return float(peer(name)(truth, said, average="macro", zero_division=0))

    return figure


_Ratio = Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]


def ratio_replicas(ratio: _Ratio) -> Callable[[Case, Resamples], Floats]:
    def replicas(case: Case, resamples: Resamples) -> Floats:
        right, said, true = _counts(case, resamples)
        above, below = ratio(right, said, true)
        if case.labels == 2:
            return np.asarray(above[:, 1] / below[:, 1])
        return _mean_where(np.where(below > 0, above / below, 0.0), said + true > 0)

    return replicas

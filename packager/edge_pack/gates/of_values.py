"""Figures of a regression's values, and of each bootstrap resample. Pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_pack.gates.case import Case, peer
from edge_pack.gates.resample import Floats, Resamples


def _valued(case: Case) -> tuple[Floats, Floats]:
    assert case.target is not None and case.value is not None
    return case.target, case.value


def _errors(case: Case) -> Floats:
    target, value = _valued(case)
    return value - target


def of_values(name: str) -> Callable[[Case], float | None]:
    return lambda case: float(peer(name)(*_valued(case)))


def rmse_replicas(case: Case, resamples: Resamples) -> Floats:
    errors = _errors(case)
    return np.sqrt(resamples.sums(errors**2) / resamples.sums(np.ones(len(errors))))


def mae_replicas(case: Case, resamples: Resamples) -> Floats:
    errors = _errors(case)
    return np.asarray(resamples.sums(np.abs(errors)) / resamples.sums(np.ones(len(errors))))


def r2(case: Case) -> float | None:
    target, value = _valued(case)
    if len(target) < 2 or np.ptp(target) == 0:
        return None
    return float(peer("r2_score")(target, value))


def r2_replicas(case: Case, resamples: Resamples) -> Floats:
    target = _valued(case)[0]
    centred = target - target.mean()  # offsets of 1e6 would cancel to nothing
    count = resamples.sums(np.ones(len(target)))
    total = resamples.sums(centred**2) - resamples.sums(centred) ** 2 / count
    left = resamples.sums(_errors(case) ** 2)
    return np.where(total > 0, 1 - left / total, np.nan)


def median_replicas(case: Case, resamples: Resamples) -> Floats:
    """The median of a resample is an order statistic of the sample, at the position of a beta
    variable (Efron 1979, section 3): drawn as such, whatever the number of rows."""
    ordered = np.sort(np.abs(_errors(case)))
    count, draws = len(ordered), len(resamples.weights)
    rng = np.random.default_rng(count)
    middle = (count + 1) // 2
    first = rng.beta(middle, count - middle + 1, draws)
    low = ordered[np.minimum((first * count).astype(int), count - 1)]
    if count % 2:
        return np.asarray(low)
    second = first + (1 - first) * rng.beta(1, count - middle, draws)
    return np.asarray((low + ordered[np.minimum((second * count).astype(int), count - 1)]) / 2)


def mean_replicas(case: Case, resamples: Resamples) -> Floats:
    """The mean value of each resample."""
    assert case.value is not None
    return np.asarray(resamples.sums(case.value) / resamples.sums(np.ones(len(case.value))))

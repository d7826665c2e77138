"""Is the new version worse than the old one? Evidence from two samples at every look. Pure.

Guards: while the new version's mean is at most what the old one's allows, the evidence reaches
1 / alpha ever with probability alpha at most, however often one looks and however the two samples
grow: nothing has to be fixed before, nothing has to be kept between two looks.

An outcome lies in [0, 1] and weighs 1, whatever it was counted from: a share of a window's calls, a
device's share of rows. A bet c on "the mean is above m" is worth 1 - c + c x / m for each outcome
x: at most 1 in the mean while it is not (Waudby-Smith and Ramdas, JRSS B 86, 2024); the mean over
fixed bets is worth as much. For each m that the old version's mean may have, the worth of bets
"the new mean is above what m allows" times that of bets "the old mean is below m" is such a
process, too. One that rules out every m has shown that the new mean is above what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Allowed = Callable[[Floats], Floats]

BETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""As shares of the largest bet that cannot lose all."""
STEPS = 64
"""Outcomes are rounded to so many steps, to the side that is in the new version's favour."""
_PLACES = 1 / (1 + np.exp(-np.linspace(-12, 12, 161)))
_PARTS = 16
_BISECTIONS = 30


@dataclass(frozen=True)
class Outcomes:
    """Outcomes ``values`` in [0, 1], each seen ``times`` times: arrays of one length."""

    values: Floats
    times: Floats

    @property
    def size(self) -> int:
        """How many."""
        return int(self.times.sum())

    @property
    def mean(self) -> float | None:
        """None without outcomes."""
        total = self.times.sum()
        return float(self.values @ self.times / total) if total else None

    def mirrored(self) -> Outcomes:
        """1 - x for each x."""
        return Outcomes(1 - self.values, self.times)

    def rounded(self, *, up: bool) -> Outcomes:
        """To multiples of 1 / ``STEPS``; a share of 0 or 1 stays one."""
        scaled = self.values * STEPS
        near = np.ceil(scaled - 1e-9) if up else np.floor(scaled + 1e-9)
        values, where = np.unique(near / STEPS, return_inverse=True)
        return Outcomes(values, np.asarray(np.bincount(where, self.times, len(values)), np.float64))


def outcomes(values: ArrayLike, times: ArrayLike | None = None) -> Outcomes:
    """Each seen once, or ``times``. Values outside of [0, 1] are a fault of the caller."""
    found = np.asarray(values, dtype=np.float64).reshape(-1)
    if found.size and not (found.min() >= 0 and found.max() <= 1):
        raise ValueError(f"outcomes from {found.min()} to {found.max()}, expected 0 to 1")
    seen = np.ones(len(found)) if times is None else np.asarray(times, dtype=np.float64)
    return Outcomes(found, seen)


def counted(some: float, of: float) -> Outcomes:
    """``some`` of ``of`` rows: so many ones and zeros."""
    return Outcomes(np.array([1.0, 0.0]), np.array([float(some), float(of - some)]))


def above(found: Outcomes, mean: Floats) -> Floats:
    """log evidence that the mean is above each of ``mean [...]``.

    0 where that is 1 or more; infinite where it is below 0, for then there is nothing to show.
    """
    mean = np.asarray(mean, dtype=np.float64)
    held = np.clip(mean, 1e-12, 1.0)[..., None, None]
    bets = np.asarray(BETS)[:, None]
    each = np.log1p(bets * (found.values / held - 1))
    worth = each @ found.times
    total = np.logaddexp.reduce(worth, axis=-1) - math.log(len(BETS))
    return np.asarray(np.where(mean >= 1, 0.0, np.where(mean < 0, np.inf, total)))


def below(found: Outcomes, mean: Floats) -> Floats:
    """log evidence that the mean is below each of ``mean [...]``, as ``above`` has it."""
    return above(found.mirrored(), 1 - np.asarray(mean, dtype=np.float64))


def worse(new: Outcomes, old: Outcomes, allowed: Allowed) -> float:
    """log evidence that the mean of ``new`` is above ``allowed`` of the mean of ``old``.

    ``allowed`` does not fall. What is returned is never more than the smallest evidence over all
    means that ``old`` may have: between two neighbours the one's lowest and the other's lowest are
    taken together.
    """
    new, old = new.rounded(up=False), old.rounded(up=True)
    places = np.concatenate([[0.0], _PLACES, [1.0]])
    low, exact = _between(new, old, allowed, places)
    finer = [
        np.linspace(places[at], places[at + 1], _PARTS + 1)
        for at in np.flatnonzero(low < exact.min())
    ]
    rest = low[low >= exact.min()]
    again = [_between(new, old, allowed, some)[0].min() for some in finer]
    return float(min([*again, *rest.tolist()]))


def _between(
    new: Outcomes, old: Outcomes, allowed: Allowed, places: Floats
) -> tuple[Floats, Floats]:
    """At most the evidence between each two places, and the evidence at each place."""
    risen, fallen = above(new, allowed(places)), below(old, places)
    return risen[1:] + fallen[:-1], risen + fallen


def interval(new: Outcomes, old: Outcomes, alpha: float) -> tuple[float, float]:
    """The mean of ``new`` less that of ``old`` lies within at every look, but for ``alpha``."""
    return _least(new, old, alpha / 2), -_least(old, new, alpha / 2)


def _least(new: Outcomes, old: Outcomes, alpha: float) -> float:
    """The largest difference that ``new`` is shown to exceed; -1: none."""
    shown, not_shown = -1.0, 1.0
    if not new.size or not old.size:
        return shown
    for _ in range(_BISECTIONS):
        middle = (shown + not_shown) / 2
        if worse(new, old, more_by(middle)) >= -math.log(alpha):
            shown = middle
        else:
            not_shown = middle
    return shown


def more_by(limit: float) -> Allowed:
    """Above the old mean by at most ``limit``, which may be below 0."""
    return lambda mean: mean + limit


def united(log_e: list[float]) -> float:
    """Evidence that one of several nulls fails: the mean of theirs. log; -inf for none."""
    if not log_e:
        return -math.inf
    return float(np.logaddexp.reduce(log_e)) - math.log(len(log_e))

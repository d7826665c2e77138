"""Counts with noise: what a window tells of any one row is bounded.

Guards: rows that are equal but for one give the same noisy counts with nearly the same probability:
the release is (epsilon, delta)-differentially private, by way of zero-concentrated privacy of rho,
which adds up over windows. One row replaced by another moves two groups of each monitor by one
each, so the counts of m monitors by sqrt(2 m); noise of variance m / rho covers that. The number of
rows, and how long calls took, are told as they are. Noise is drawn by whole numbers alone, exactly:
float noise gives rows away by its last bits (Mironov, CCS 2012). Pure; ``randbelow`` is the only
chance, and has to be a secure one.

Cells are taken together to about ``GROUPS`` groups of equal reference rows before noise is added,
and spread out again as the reference is: fewer groups, less noise. Rare cells (missing values, new
categories) vanish in a larger one: with noise, the fleet sees how values move, not those.

Source: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020:
algorithms 1 to 3, theorem 4; Bun, Steinke, "Concentrated Differential Privacy", TCC 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from edge_contract.profile import Monitor, Profile

GROUPS = 8
"""Eight bins of equal mass still show a shift of a quarter of a standard deviation."""
FACTOR_MAX = 4.0
"""A window waits for more rows while noise makes the variance more than so many times larger."""

RandBelow = Callable[[int], int]
"""A whole number from 0 to below its argument, all equally likely: ``secrets.randbelow``."""


def rho_of(epsilon: float, delta: float) -> float:
    """The rho that gives (epsilon, delta): epsilon = rho + 2 sqrt(rho ln(1/delta)), solved."""
    log = math.log(1 / delta)
    return (math.sqrt(log + epsilon) - math.sqrt(log)) ** 2


def epsilon_of(rho: float, delta: float) -> float:
    """What rho means at delta."""
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def variance(profile: Profile, rho: float) -> Fraction:
    """Of the noise on each group; at least 1/1000."""
    return max(
        Fraction(len(profile.monitors)) / Fraction(rho).limit_denominator(10**9), Fraction(1, 1000)
    )


def factor(profile: Profile, rows: int, rho: float) -> float:
    """How many times larger the variance of a share is, at most; infinite for no rows.

    A group holds a share P of the rows: n P by chance, and the noise on top. A detector whose
    evidence is divided by it keeps its promise: see docs/decisions/0032.
    """
    least = min((_least_share(monitor) for monitor in profile.monitors), default=1.0)
    return 1 + float(variance(profile, rho)) / (rows * least) if rows else math.inf


def rows_needed(profile: Profile, rho: float) -> int:
    """The fewest rows of a window that is worth its noise."""
    least = min((_least_share(monitor) for monitor in profile.monitors), default=1.0)
    return math.ceil(float(variance(profile, rho)) / (least * (FACTOR_MAX - 1)))


def noised(
    profile: Profile, counts: NDArray[np.int64], rows: int, rho: float, randbelow: RandBelow
) -> NDArray[np.int64]:
    """Noisy counts in the profile's cells: none below 0, each monitor's adding up to ``rows``."""
    spread = variance(profile, rho)
    told: list[NDArray[np.int64]] = []
    for monitor, at in zip(profile.monitors, profile.offsets(), strict=True):
        own = counts[at : at + monitor.cells]
        cells = groups(monitor)
        noisy = [int(own[one].sum()) + discrete_gaussian(spread, randbelow) for one in cells]
        told.append(_spread(monitor, cells, _onto_simplex(np.array(noisy, dtype=np.float64), rows)))
    return np.concatenate(told) if told else counts


def groups(monitor: Monitor) -> list[list[int]]:
    """The monitor's cells, each in one group; none holds few of the reference rows."""
    rows = np.asarray(monitor.counts, dtype=np.float64)
    share = rows / max(rows.sum(), 1.0)
    regular = monitor.regular
    match monitor.kind:
        case "quantile" | "lattice":
            chains = [[regular, *range(regular), regular + 1]]
        case "score":
            bins = len(monitor.edges) - 1
            chains = [list(range(a * bins, (a + 1) * bins)) for a in range(monitor.labels)]
        case "category":
            chains = [[cell] for cell in range(regular)]
    cut = [one for chain in chains for one in _cut(chain, share)]
    named = {cell for one in cut for cell in one}
    loose = [cell for cell in range(monitor.cells) if cell not in named]
    large = [one for one in cut if share[one].sum() >= 0.5 / GROUPS]
    loose += [cell for one in cut if one not in large for cell in one]
    if not large:
        return [sorted(loose)]
    if share[loose].sum() >= 0.5 / GROUPS:
        large.append(loose)
    else:
        min(large, key=lambda one: float(share[one].sum())).extend(loose)
    return large


def _cut(chain: list[int], share: NDArray[np.float64]) -> list[list[int]]:
    """Neighbours taken together, to parts of about 1 / ``GROUPS``."""
    own = share[chain]
    parts = max(1, round(GROUPS * float(own.sum())))
    middle = (np.cumsum(own) - own / 2) / (own.sum() or 1.0)
    which = np.minimum((middle * parts).astype(int), parts - 1)
    return [
        [cell for cell, part in zip(chain, which.tolist(), strict=True) if part == one]
        for one in sorted(set(which.tolist()))
    ]


def _least_share(monitor: Monitor) -> float:
    total = max(sum(monitor.counts), 1)
    shares = [sum(monitor.counts[cell] for cell in one) / total for one in groups(monitor)]
    return max(min(shares), 1 / total)


def _onto_simplex(noisy: NDArray[np.float64], rows: int) -> NDArray[np.int64]:
    """The nearest whole numbers that are not negative and add up to ``rows``.

    Source: Held, Wolfe, Crowder 1974: what is left after the same is taken from all.
    """
    down = np.sort(noisy)[::-1]
    excess = (np.cumsum(down) - rows) / np.arange(1, len(down) + 1)
    take = excess[np.flatnonzero(down > excess)[-1]] if rows else down[0]
    return _whole(np.maximum(noisy - take, 0.0), rows)


def _whole(parts: NDArray[np.float64], rows: int) -> NDArray[np.int64]:
    """Whole numbers in these proportions that add up to ``rows``."""
    total = parts.sum()
    ends = np.rint(rows * np.cumsum(parts) / total) if total > 0 else np.zeros(len(parts))
    if total <= 0:
        ends[-1] = rows
    return np.diff(ends.astype(np.int64), prepend=0)


def _spread(monitor: Monitor, cells: list[list[int]], told: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each group's rows over its cells, as the reference has them."""
    reference = np.asarray(monitor.counts, dtype=np.float64)
    counts = np.zeros(monitor.cells, dtype=np.int64)
    for one, rows in zip(cells, told.tolist(), strict=True):
        weights = reference[one] if reference[one].any() else np.ones(len(one))
        counts[one] = _whole(weights, rows)
    return counts


# -- exact sampling, by whole numbers -----------------------------------------------------------


def discrete_gaussian(spread: Fraction, randbelow: RandBelow) -> int:
    """A whole number z with probability proportional to exp(-z^2 / (2 spread)). Algorithm 3."""
    scale = math.isqrt(math.floor(spread)) + 1
    while True:
        drawn = _discrete_laplace(scale, randbelow)
        off = abs(drawn) - spread / scale
        if _bernoulli_exp(off * off / (2 * spread), randbelow):
            return drawn


def _discrete_laplace(scale: int, randbelow: RandBelow) -> int:
    """Proportional to exp(-|z| / scale). Algorithm 2."""
    while True:
        rest = randbelow(scale)
        if not _bernoulli_exp(Fraction(rest, scale), randbelow):
            continue
        whole = 0
        while _bernoulli_exp(Fraction(1), randbelow):
            whole += 1
        size = rest + scale * whole
        negative = randbelow(2) == 1
        if not (negative and size == 0):  # else 0 would come twice as often
            return -size if negative else size


def _bernoulli_exp(gamma: Fraction, randbelow: RandBelow) -> bool:
    """True with probability exp(-gamma). Algorithm 1."""
    while gamma > 1:
        if not _bernoulli_exp_small(Fraction(1), randbelow):
            return False
        gamma -= 1
    return _bernoulli_exp_small(gamma, randbelow)


def _bernoulli_exp_small(gamma: Fraction, randbelow: RandBelow) -> bool:
    times = 1
    while randbelow(gamma.denominator * times) < gamma.numerator:
        times += 1
    return times % 2 == 1

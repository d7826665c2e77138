"""One-shot tests of binned counts against the profile, for a report that is looked at once.

Guards: what is promised holds for binned and tied values, for a reference that is itself a
sample, and for rows that are not independent. Not for looking again every hour: that is what the
e-detectors are for (``edetector``), because a p-value read repeatedly goes below any level.

Every test takes a monitor and counts ``[..., cells]`` of one or many devices, and answers with
arrays ``[...]``. Both sides are samples: with n rows counted, N rows in the reference and a design
effect d, a difference of shares has the variance of m = 1 / (d (1/n + 1/N)) rows.

What holds with bins:

- Values within a bin are ties. Anderson-Darling and Neyman's test have their null distribution
  computed for exactly these bins, so ties cost power and no calibration.
- Kolmogorov-Smirnov has the distribution of untied values: with ties its p-value is too large,
  never too small. Lattices of a few values make it very cautious.
- The power-divergence family (Pearson, G, Cressie-Read) is chi-square only where each cell
  expects some rows: cells are pooled until both samples expect ``POOL_ROWS`` (Cochran 1954).
  Small cells: Cressie and Read's 2/3 keeps closest to its distribution (Read and Cressie 1988).
- PSI, Jensen-Shannon and Wasserstein are distances, sizes of a change without a null
  distribution: no level is promised for them, and under no change they grow as rows get fewer.
- The design effect divides the statistic (Rao and Scott 1984, first order). It is a heuristic,
  simulated and not proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

from edge_contract.profile import Monitor
from edge_fleet.drift import tails
from edge_fleet.drift.components import (
    Component,
    Floats,
    components_of,
    group_probabilities,
    groups_of,
)

POOL_ROWS = 5.0
"""Least rows that a pooled cell expects in either sample."""
G_TEST = 0.0
PEARSON = 1.0
CRESSIE_READ = 2.0 / 3.0

Counts = NDArray[np.int64] | Floats


@dataclass(frozen=True)
class Result:
    """A test's answer, arrays ``[...]``: statistic, p-value, and the effect in its own unit."""

    statistic: Floats
    p: Floats
    effect: Floats


@dataclass(frozen=True)
class Samples:
    """Two samples over the same groups.

    Attributes:
        reference: counts ``[groups]``. window: counts ``[..., groups]``.
        design_effect: how many rows count as one independent row; >= 1.
    """

    reference: Floats
    window: Floats
    design_effect: float = 1.0

    @cached_property
    def rows(self) -> Floats:
        """m, the independent rows that the difference of shares is worth; 0 without rows."""
        n, many = self.window.sum(axis=-1), float(self.reference.sum())
        if not many:
            return np.zeros_like(n)
        return np.asarray(n * many / (n + many) / self.design_effect)

    @cached_property
    def shares(self) -> tuple[Floats, Floats]:
        """Shares of both samples; a sample without rows has none (zeros)."""
        totals = self.window.sum(axis=-1, keepdims=True)
        return self.reference / max(self.reference.sum(), 1.0), self.window / np.maximum(totals, 1)

    @cached_property
    def difference(self) -> Floats:
        """Shares of the window less those of the reference, ``[..., groups]``; 0 without rows."""
        before, after = self.shares
        return np.where(self.rows[..., None] > 0, after - before, 0.0)


def ordered(monitor: Monitor, counts: Counts) -> Samples:
    """The samples over the monitor's ordered groups, as ``components.groups_of`` has them.

    Values under or over the range rank outermost; missing values and their like are left out.
    A category has no order: no groups.
    """
    groups = groups_of(monitor)
    inside = groups >= 0
    many = int(groups.max(initial=-1)) + 1
    into = np.zeros((monitor.cells, many))
    into[np.flatnonzero(inside), groups[inside]] = 1.0
    reference = np.asarray(monitor.counts, dtype=np.float64) @ into
    return Samples(reference, np.asarray(counts, dtype=np.float64) @ into, monitor.design_effect)


def cells(monitor: Monitor, counts: Counts, only: slice | None = None) -> Samples:
    """The samples over the monitor's cells, or over some of them."""
    only = only or slice(None)
    reference = np.asarray(monitor.counts, dtype=np.float64)[only]
    return Samples(
        reference, np.asarray(counts, dtype=np.float64)[..., only], monitor.design_effect
    )


def power_divergence(
    samples: Samples, power: float = G_TEST, *, minimum_effect: float = 0.0
) -> Result:
    """The power-divergence test of homogeneity: 0 is G, 1 Pearson, 2/3 Cressie and Read.

    Args:
        power: above -1, so that an empty cell has a finite term.
        minimum_effect: the hypothesis is "Cohen's w is at most this", by a noncentral chi-square.

    The effect is Cohen's w, the root of chi-square a row.
    """
    if power <= -1:
        raise ValueError(f"a power of {power} has no finite value for an empty cell")
    reference, window = _pooled(samples)
    n, many = window.sum(axis=-1, keepdims=True), reference.sum(axis=-1, keepdims=True)
    share = (reference + window) / np.maximum(n + many, 1.0)
    total = _divergence(window, n * share, power) + _divergence(reference, many * share, power)
    statistic = total / samples.design_effect
    degrees = np.maximum((share > 0).sum(axis=-1) - 1, 0)
    p = tails.chi_square(statistic, np.maximum(degrees, 1), samples.rows * minimum_effect**2)
    p = np.where((degrees > 0) & (samples.rows > 0), p, 1.0)
    effect = np.sqrt(np.maximum(statistic, 0.0) / np.maximum(samples.rows, 1e-300))
    return Result(statistic, p, np.where(samples.rows > 0, effect, 0.0))


def _divergence(seen: Floats, expected: Floats, power: float) -> Floats:
    """2 / (power (power + 1)) * sum of seen ((seen / expected)^power - 1); its limit at 0."""
    ratio = np.divide(seen, expected, out=np.ones_like(seen), where=expected > 0)
    if power == 0:
        return np.asarray(2.0 * special.xlogy(seen, ratio).sum(axis=-1))
    terms = seen * (ratio**power - 1.0) if power > 0 else _negative(seen, ratio, power)
    return np.asarray(2.0 / (power * (power + 1.0)) * terms.sum(axis=-1))


def _negative(seen: Floats, ratio: Floats, power: float) -> Floats:
    """seen * (ratio^power - 1), where 0 * infinity is 0 (the power of seen is above 0)."""
    safe = np.where(ratio > 0, ratio, 1.0)
    return np.where(ratio > 0, seen * (safe**power - 1.0), 0.0)


def _pooled(samples: Samples) -> tuple[Floats, Floats]:
    """Both samples ``[..., groups]`` with small groups pooled; groups that went away hold 0.

    Neighbours are pooled, from the reference's largest cell to its smallest: the small ones end
    together. Which ones depends on the margins alone, never on how the two samples differ.
    """
    order = np.argsort(-samples.reference, kind="stable")
    reference, window = samples.reference[order], samples.window[..., order]
    flat = window.reshape(-1, window.shape[-1])
    n, many = flat.sum(axis=1), float(reference.sum())
    smaller = np.minimum(n, many) / samples.design_effect
    expected = (flat + reference) * (smaller / np.maximum(n + many, 1.0))[:, None]
    group = _grouped(expected, POOL_ROWS)
    row = np.broadcast_to(np.arange(len(flat))[:, None], flat.shape)
    new_window, new_reference = np.zeros_like(flat), np.zeros_like(flat)
    np.add.at(new_window, (row, group), flat)
    np.add.at(new_reference, (row, group), np.broadcast_to(reference, flat.shape))
    return new_reference.reshape(window.shape), new_window.reshape(window.shape)


def _grouped(expected: Floats, least: float) -> NDArray[np.int64]:
    """For ``[rows, cells]`` the group of each cell; what is left over joins the last full one."""
    group = np.zeros(expected.shape, dtype=np.int64)
    now, held = np.zeros(len(expected), dtype=np.int64), np.zeros(len(expected))
    for cell in range(expected.shape[1]):
        group[:, cell] = now
        held += expected[:, cell]
        full = held >= least
        now += full
        held[full] = 0.0
    return np.minimum(group, np.maximum(now - 1, 0)[:, None])


def neyman(
    monitor: Monitor, counts: Counts, *, degree: int = 4, minimum_effect: float = 0.0
) -> Result:
    """Neyman's smooth test: mean, spread, skew and shape of the ordered values.

    Args:
        minimum_effect: the hypothesis is "the components moved by at most this many standard
            deviations together", by a noncentral chi-square; 0 is "not at all".

    The effect is the length of the vector of components, in standard deviations.
    Source: Neyman 1937; Rayner, Thas, Best, "Smooth Tests of Goodness of Fit", 2009.
    """
    samples = ordered(monitor, counts)
    some = [c for c in components_of(monitor) if 0 < c.degree <= degree]
    if not some:
        return _nothing(samples.rows)
    moved = samples.difference @ np.stack([_by_group(monitor, c) for c in some], axis=1)
    squares = (moved**2).sum(axis=-1)
    statistic = samples.rows * squares
    p = tails.chi_square(statistic, len(some), samples.rows * minimum_effect**2)
    return Result(statistic, np.where(samples.rows > 0, p, 1.0), np.sqrt(squares))


def _by_group(monitor: Monitor, component: Component) -> Floats:
    groups = groups_of(monitor)
    values = np.zeros(int(groups.max()) + 1)
    values[groups[component.active]] = component.values[component.active]
    return values


def anderson_darling(monitor: Monitor, counts: Counts) -> Result:
    """The two-sample Anderson-Darling test in its form for ties, calibrated for these bins.

    The statistic is A2akN of Scholz and Stephens (JASA 82, 1987, eq. 7). Under no change it is a
    sum of chi-squares weighted by the eigenvalues of its quadratic form over these very bins. The
    effect is the statistic a row, rooted.
    """
    samples = ordered(monitor, counts)
    if samples.difference.shape[-1] < 2:
        return _nothing(samples.rows)
    n, many = samples.window.sum(axis=-1, keepdims=True), float(samples.reference.sum())
    share = (samples.window + samples.reference) / np.maximum(n + many, 1.0)
    weight = _darling_weights(share)
    apart = np.cumsum(samples.difference, axis=-1) - samples.difference / 2
    total = n[..., 0] + many
    finite = (total - 1) / np.maximum(total, 1.0)
    statistic = finite * samples.rows * (weight * apart**2).sum(axis=-1)
    p = tails.weighted_chi_squares(statistic, _darling_eigenvalues(group_probabilities(monitor)))
    rows = np.maximum(samples.rows, 1e-300)
    return Result(statistic, np.where(samples.rows > 0, p, 1.0), np.sqrt(statistic / rows))


def _darling_weights(share: Floats) -> Floats:
    """h / (H (1 - H) - h / 4) with H the mid-rank; 0 for an empty or an only group."""
    rank = np.cumsum(share, axis=-1) - share / 2
    below = rank * (1 - rank) - share / 4
    usable = (share > 0) & (below > 1e-12)
    return np.divide(share, below, out=np.zeros_like(share), where=usable)


def _darling_eigenvalues(share: Floats) -> Floats:
    half = np.tril(np.ones((len(share), len(share)))) - np.eye(len(share)) / 2
    covariance = half @ (np.diag(share) - np.outer(share, share)) @ half.T
    root = np.sqrt(_darling_weights(share))
    return np.asarray(np.linalg.eigvalsh(root[:, None] * covariance * root))


def kolmogorov_smirnov(monitor: Monitor, counts: Counts) -> Result:
    """The greatest distance between the distributions at the bins' edges; too cautious on ties.

    The p-value is Kolmogorov's for untied values: an upper bound here. The effect is the distance.
    """
    samples = ordered(monitor, counts)
    if samples.difference.shape[-1] < 2:
        return _nothing(samples.rows)
    distance = np.abs(np.cumsum(samples.difference, axis=-1)).max(axis=-1)
    p = special.kolmogorov(np.sqrt(samples.rows) * distance)
    return Result(distance, np.where(samples.rows > 0, p, 1.0), distance)


def population_stability(samples: Samples) -> Floats:
    """PSI: both Kullback-Leibler divergences added; half a row is added to each cell. No level."""
    reference, window = samples.reference + 0.5, samples.window + 0.5
    before = reference / reference.sum()
    after = window / window.sum(axis=-1, keepdims=True)
    psi = ((after - before) * np.log(after / before)).sum(axis=-1)
    return np.asarray(np.where(samples.rows > 0, psi, 0.0))


def jensen_shannon(samples: Samples) -> Floats:
    """The Jensen-Shannon distance: 0 for the same shares, 1 for shares without overlap."""
    before, after = samples.shares
    middle = (before + after) / 2
    divergence = (special.rel_entr(before, middle) + special.rel_entr(after, middle)).sum(axis=-1)
    distance = np.sqrt(np.maximum(divergence, 0.0) / (2 * np.log(2)))
    return np.asarray(np.where(samples.rows > 0, distance, 0.0))


def wasserstein(monitor: Monitor, counts: Counts) -> Floats:
    """How far the mass moved, in the feature's own unit, each bin's rows at its middle.

    A value out of range counts at the nearest bin: the distance of a far shift is a lower bound.
    """
    samples = ordered(monitor, counts)
    edges = np.asarray(monitor.edges)
    if samples.difference.shape[-1] < 2:
        return np.zeros_like(samples.rows)
    places = edges if monitor.kind == "lattice" else (edges[:-1] + edges[1:]) / 2
    apart = np.abs(np.cumsum(samples.difference, axis=-1))[..., :-1]
    return np.asarray(apart @ np.diff(places))


def share_above(
    monitor: Monitor, counts: Counts, at: NDArray[np.int64], *, tolerance: float = 0.0
) -> Result:
    """Has the share of rows in the cells ``at`` risen by more than ``tolerance``? ``[...]``.

    For rare cells (missing, unseen): the window's count, given both counts, is compared with a
    binomial, which needs no least expected count (Przyborowski and Wilenski 1940). The effect is
    the difference of shares.
    """
    reference = np.asarray(monitor.counts, dtype=np.float64)
    values = np.asarray(counts, dtype=np.float64)
    n, many = values.sum(axis=-1), float(reference.sum())
    seen, known = values[..., at].sum(axis=-1), float(reference[at].sum())
    effect = np.where(n > 0, seen / np.maximum(n, 1.0) - known / max(many, 1.0), 0.0)
    effective = monitor.design_effect
    p = tails.at_least(
        seen / effective, np.asarray((known + tolerance * many) / effective), n / (n + max(many, 1))
    )
    return Result(seen, np.where(n > 0, p, 1.0), effect)


def _nothing(rows: Floats) -> Result:
    """No test is possible: nothing can differ."""
    return Result(np.zeros_like(rows), np.ones_like(rows), np.zeros_like(rows))

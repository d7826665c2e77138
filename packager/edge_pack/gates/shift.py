"""How far a reference distribution moved between two profiles, from their counts alone. Pure.

Two measures, both over the cells of the older monitor, missing and out-of-range cells included:

    js    Jensen-Shannon divergence in bits, 0 (equal) to 1 (disjoint) (Lin 1991)
    psi   population stability index, the symmetric Kullback-Leibler divergence in nats, with half
          a row added to each cell so that an empty one stays finite; by custom 0.1 is a small
          shift and 0.25 a large one (Siddiqi 2006, Credit Risk Scorecards, chapter 10)

The newer profile has bins of its own: its counts are spread evenly within each of them. So a
small figure (js under about 0.01 with 32 bins) may be the bins' doing.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract.profile import Monitor, Profile

Floats = NDArray[np.float64]


class Shift(Struct, frozen=True, kw_only=True):
    """One monitor of both profiles. ``kind``: number, category or score.

    ``same_bins``: the two were counted in the same cells, so nothing was spread.
    """

    name: str
    kind: str
    js: float
    psi: float
    same_bins: bool


def between(a: Profile, b: Profile) -> tuple[Shift, ...]:
    """The monitors of both profiles that are of one kind and differ, most first."""
    old = {(monitor.source, monitor.name): monitor for monitor in a.monitors}
    same_directions = a.projections == b.projections
    found = []
    for monitor in b.monitors:
        if monitor.source == "projection" and not same_directions:
            continue  # a first direction of other rows is another direction
        before = old.get((monitor.source, monitor.name))
        cells = None if before is None else _aligned(before, monitor)
        if before is None or cells is None:
            continue
        js, psi = _divergences(*cells)
        if js > 0:
            kind = before.kind if before.kind in ("category", "score") else "number"
            found.append(
                Shift(
                    name=monitor.name,
                    kind=kind,
                    js=float(f"{js:.4g}"),
                    psi=float(f"{psi:.4g}"),
                    same_bins=_same_cells(before, monitor),
                )
            )
    return tuple(sorted(found, key=lambda shift: (-shift.js, shift.name)))


def _same_cells(a: Monitor, b: Monitor) -> bool:
    return (a.kind, a.edges, a.categories, a.others, a.labels) == (
        b.kind, b.edges, b.categories, b.others, b.labels,
    )  # fmt: skip


def _aligned(a: Monitor, b: Monitor) -> tuple[Floats, Floats] | None:
    """Both counts in the same cells; None where the two count different things."""
    if _same_cells(a, b):
        return np.asarray(a.counts, dtype=np.float64), np.asarray(b.counts, dtype=np.float64)
    numbers = ("quantile", "lattice")
    if a.kind in numbers and b.kind in numbers:
        return _numbers(a, b)
    if a.kind == b.kind == "category":
        return _categories(a, b)
    if a.kind == b.kind == "score" and a.labels == b.labels:
        return _scores(a, b)
    return None


def _numbers(a: Monitor, b: Monitor) -> tuple[Floats, Floats]:
    """In cells of common edges: those of the quantiles, or each value of two lattices."""
    if a.kind == b.kind == "lattice":
        values = np.union1d(a.edges, b.edges)
        parts = [_on_values(monitor, values) for monitor in (a, b)]
        return parts[0], parts[1]
    edges = np.asarray(a.edges if a.kind == "quantile" else b.edges)
    parts = [_in_bins(monitor, edges) for monitor in (a, b)]
    return parts[0], parts[1]


def _on_values(monitor: Monitor, values: Floats) -> Floats:
    counts = np.asarray(monitor.counts, dtype=np.float64)
    placed = np.zeros(len(values))
    placed[np.searchsorted(values, monitor.edges)] = counts[: monitor.regular]
    return np.concatenate([placed, counts[monitor.regular :]])


def _in_bins(monitor: Monitor, edges: Floats) -> Floats:
    """Below, the bins, above; then the monitor's missing and infinite cells."""
    counts = np.asarray(monitor.counts, dtype=np.float64)
    regular, specials = counts[: monitor.regular], counts[monitor.regular :]
    own = np.asarray(monitor.edges)
    if monitor.kind == "lattice":
        where = np.searchsorted(edges, own, side="right")
        where[own == edges[-1]] = len(edges) - 1  # the last bin is closed
        placed = np.bincount(where, regular, minlength=len(edges) + 1)
    else:
        share = np.interp(edges, own, np.concatenate([[0.0], np.cumsum(regular)]))
        placed = np.diff(np.concatenate([[0.0], share, [regular.sum()]]))
    under, over, off, missing, infinite = specials
    placed[0] += under
    placed[-1] += over
    return np.concatenate([placed, [off, missing, infinite]])


def _categories(a: Monitor, b: Monitor) -> tuple[Floats, Floats]:
    names = sorted({*a.categories, *b.categories})
    parts = []
    for monitor in (a, b):
        counts = dict(zip(monitor.categories, monitor.counts, strict=False))
        rest = list(monitor.counts[monitor.regular :])
        parts.append(np.array([*(counts.get(name, 0) for name in names), *rest], dtype=np.float64))
    return parts[0], parts[1]


def _scores(a: Monitor, b: Monitor) -> tuple[Floats, Floats]:
    """Label by label, in the older one's score bins."""
    edges = np.asarray(a.edges)
    parts = []
    for monitor in (a, b):
        own, counts = np.asarray(monitor.edges), np.asarray(monitor.counts, dtype=np.float64)
        rows = counts[: monitor.regular].reshape(monitor.labels, -1)
        summed = np.concatenate([np.zeros((monitor.labels, 1)), rows.cumsum(axis=1)], axis=1)
        spread = np.array([np.diff(np.interp(edges, own, each)) for each in summed])
        parts.append(np.concatenate([spread.ravel(), counts[monitor.regular :]]))
    return parts[0], parts[1]


def _divergences(a: Floats, b: Floats) -> tuple[float, float]:
    """(Jensen-Shannon in bits, population stability index in nats)."""
    p, q = a / max(a.sum(), 1), b / max(b.sum(), 1)
    middle = (p + q) / 2
    js = (_relative(p, middle) + _relative(q, middle)) / 2
    there = (a + b) > 0
    smooth = [(part[there] + 0.5) / (part[there] + 0.5).sum() for part in (a, b)]
    psi = float(((smooth[0] - smooth[1]) * np.log(smooth[0] / smooth[1])).sum())
    return max(js, 0.0) if js > 1e-12 else 0.0, psi


def _relative(p: Floats, q: Floats) -> float:
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())

"""Counts that may leave the fleet: no figure is of fewer than ``k`` rows.

Guards: what is given out is a partition of a monitor's cells, each part with the rows of all its
cells together: at least ``k``, or none. Parts add up to the rows of the window, so nothing is left
to subtract: a small cell is never *withheld*, which the total would give back, but merged. What a
part was made of is not given out; nor is anything of fewer than ``k`` rows in all.

Neighbouring bins merge with each other; categories, special cells and whole labels into one part
``other``. A count of none stays: nobody is in it. It still tells something of everybody; where that
is too much, noise on the device is the means (``docs/privacy.md``).

Pure. The rule is the minimum frequency rule of tables: Hundepool et al., Statistical Disclosure
Control (2012), chapters 4 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.profile import Monitor, Profile

K = 10
"""So many rows at least, unless the user wants other. Offices of statistics take 3 to 10."""


class Part(Struct, frozen=True):
    """Cells of one monitor that are told as one.

    Attributes:
        cells: their indices. rows: of all of them.
        ordered: ``cells`` are in the order of values, with none between them left out.
    """

    cells: tuple[int, ...]
    rows: int
    ordered: bool


def parts(monitor: Monitor, counts: NDArray[np.int64], k: int) -> tuple[Part, ...]:
    """The finest partition that the merging finds, in the order of values.

    Args:
        counts: rows in each of the monitor's cells, none below 0.
        k: the least rows of a part that is not empty; 0 and 1 leave every cell for itself.

    Returns: () where all rows together are fewer than ``k`` and not none. Raises InputFault for
    counts of another length or below 0.
    """
    if len(counts) != monitor.cells or (len(counts) and int(counts.min()) < 0):
        raise InputFault(f"{len(counts)} counts for the {monitor.cells} cells of {monitor.name!r}")
    rows: list[int] = counts.tolist()
    merged = [_neighbours(line, rows, k) for line in _chains(monitor)]
    return _pooled(monitor, list(chain.from_iterable(merged)), k)


def safe_counts(monitor: Monitor, counts: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Counts of all cells that tell no more than ``parts`` does.

    The rows of a part are spread over its cells as the reference's are, rounded so that they add
    up: what is computed from them is a function of the parts alone. All zero where nothing may be
    told.
    """
    reference = np.asarray(monitor.counts, dtype=np.float64)
    told = np.zeros(monitor.cells, dtype=np.int64)
    for part in parts(monitor, counts, k):
        cells = list(part.cells)
        weights = reference[cells] if reference[cells].any() else np.ones(len(cells))
        ends = np.rint(part.rows * np.cumsum(weights) / weights.sum()).astype(np.int64)
        told[cells] = np.diff(ends, prepend=0)
    return told


def safe_vector(profile: Profile, counts: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """``safe_counts`` of every monitor of a profile, side by side."""
    told = [
        safe_counts(monitor, counts[at : at + monitor.cells], k)
        for monitor, at in zip(profile.monitors, profile.offsets(), strict=True)
    ]
    return np.concatenate(told) if told else counts


def name_of(part: Part, names: Sequence[str]) -> str:
    """The part for a person, given a name for each cell of its monitor."""
    if len(part.cells) == 1:
        return names[part.cells[0]]
    if part.ordered:
        return f"{names[part.cells[0]]} ... {names[part.cells[-1]]}"
    return "other: " + ", ".join(names[cell] for cell in part.cells)


def bounds(monitor: Monitor, part: Part) -> tuple[float | None, float | None]:
    """The least and the greatest value that its cells may hold; None: it has no such bound."""
    if monitor.kind not in ("quantile", "lattice") or not part.ordered:
        return None, None
    last = 0 if monitor.kind == "lattice" else 1
    edges, cells = monitor.edges, part.cells
    below, above = monitor.regular in cells, monitor.regular + 1 in cells
    inner = [cell for cell in cells if cell < monitor.regular]
    lower = None if below else edges[inner[0]] if inner else edges[-1]
    upper = None if above else edges[inner[-1] + last] if inner else edges[0]
    return lower, upper


def _chains(monitor: Monitor) -> list[list[int]]:
    """Cells that have an order, in it; a cell without neighbours is a chain of its own."""
    regular = monitor.regular
    match monitor.kind:
        case "quantile" | "lattice":
            line = [regular, *range(regular), regular + 1]  # under, the values, over
            rest = range(regular + 2, monitor.cells)
        case "score":
            bins = len(monitor.edges) - 1
            lines = [list(range(a * bins, (a + 1) * bins)) for a in range(monitor.labels)]
            return [*lines, *([cell] for cell in range(regular, monitor.cells))]
        case "category":
            return [[cell] for cell in range(monitor.cells)]
    return [line, *([cell] for cell in rest)]


def _neighbours(line: list[int], of: Sequence[int], k: int) -> list[Part]:
    """Merge the smallest part with its smaller neighbour until none is small, or one is left.

    ``of``: rows of every cell.
    """
    cells: list[tuple[int, ...]] = [(cell,) for cell in line]
    rows, ordered = [of[cell] for cell in line], len(line) > 1
    while len(rows) > 1 and (least := min((size for size in rows if 0 < size < k), default=0)):
        at = rows.index(least)
        sides = [side for side in (at - 1, at + 1) if 0 <= side < len(rows)]
        filled = [side for side in sides if rows[side]] or sides
        low = min(at, min(filled, key=rows.__getitem__))
        cells[low : low + 2] = [cells[low] + cells[low + 1]]
        rows[low : low + 2] = [rows[low] + rows[low + 1]]
    return [Part(which, size, ordered) for which, size in zip(cells, rows, strict=True)]


def _pooled(monitor: Monitor, found: list[Part], k: int) -> tuple[Part, ...]:
    """What is still small goes into one part, with the next smallest until that is not small."""
    pool = [part for part in found if _small(part, k)]
    if not pool:
        return tuple(found)
    other = monitor.regular if monitor.kind == "category" else -1
    rest = [part for part in found if not _small(part, k)]
    pool += [part for part in rest if part.cells == (other,)]
    rest = [part for part in rest if part.cells != (other,)]
    while (rows := sum(part.rows for part in pool)) < k:
        more = min((part for part in rest if part.rows), key=lambda part: part.rows, default=None)
        if more is None:
            return ()
        rest.remove(more)
        pool.append(more)
    cells = tuple(sorted(chain.from_iterable(part.cells for part in pool)))
    return (*rest, Part(cells, rows, ordered=False))


def _small(part: Part, k: int) -> bool:
    return 0 < part.rows < k

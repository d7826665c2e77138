"""Directions that are monitored beside the features, so that a lost correlation shows.

Guards: directions are fitted to one half of the reference rows and counted on the other, in
alternating blocks of time: on the rows that they were fitted to, the widest look wider and the
narrowest narrower than they are on any other rows, and every device would seem to have drifted
(with 20 features and 400 rows by a third of a standard deviation). The same rows give the same
bytes on any processor: signs are fixed, figures rounded, directions without a spread left out.

The directions are principal components of the standardised numbers, whitened (Jolliffe 2002,
"Principal Component Analysis", chapter 2): half of them the widest, and half the narrowest, along
which two features that say the same cease to agree. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from edge_contract import projection as projections
from edge_contract import tensor_figures
from edge_contract.projection import GROUPS_MAX, PROJECTIONS_MAX, Projection, Projector

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 8
"""Of a direction: a lost correlation takes 450 rows, with 12 or 32 bins 345, but 5 or 19 more bytes
each in every record."""
ROWS_MIN = 200
DISTINCT_MIN = 64
"""Fewer values are a lattice whose points rounding would move."""
BLOCKS = 16
LEAST_VARIANCE = 1e-4
"""Of the mean variance: along a narrower direction float32 moves rows as far as the world does."""
LEAST_SPREAD = 1e-9
"""Of the mean: a number that varies less is constant but for its rounding."""
ROWS_A_GROUP = 10
"""With fewer rows a column the narrowest directions are noise."""
_PART_ELEMENTS = 2**20


def halves(rows: int, order: Ints | None) -> tuple[Ints, Ints]:
    """Positions of the rows that directions are fitted to, and of those that are counted."""
    inner = np.arange(rows) if order is None else order
    blocks = [np.asarray(part) for part in np.array_split(inner, min(BLOCKS, max(rows, 2)))]
    return np.concatenate(blocks[0::2]), np.concatenate(blocks[1::2])


def of_features(
    columns: Mapping[str, Floats], order: Ints | None
) -> tuple[Projection, Floats] | None:
    """Directions through number features, and every row's projections ``[rows, directions]``.

    Args:
        columns: float64 by name, NaN where missing; all of one length.

    None where there are too few rows or features that vary.
    """
    rows = len(next(iter(columns.values()), ()))
    if rows < ROWS_MIN:
        return None
    fitted, counted = halves(rows, order)
    moments = {name: _moments(values[fitted]) for name, values in columns.items()}
    names = tuple(
        name
        for name, (mean, std) in moments.items()
        if np.isfinite(std) and std > LEAST_SPREAD * abs(mean)
    )
    if len(names) < 2:
        return None
    table = np.column_stack([columns[name] for name in names])
    means = tuple(_digits(moments[name][0]) for name in names)
    scales = tuple(_digits(moments[name][1]) for name in names)
    plain = Projection(
        inputs=names,
        elements=len(names),
        means=means,
        scales=scales,
        group=-(-len(names) // GROUPS_MAX),
        directions=1,
        matrix="",
    )
    z = projections.standardised(table[fitted], np.array(means), 1 / np.array(scales))
    found = projections.grouped(z, plain.group)
    return _kept(plain, found, lambda projector: projector(table), counted)


def of_tensor(
    name: str, array: NDArray[np.generic], order: Ints | None
) -> tuple[Projection, Floats] | None:
    """Directions through the elements of a tensor's rows, as ``of_features``."""
    rows = len(array)
    elements = _width(array)
    if rows < ROWS_MIN or elements < 2:
        return None
    fitted, counted = halves(rows, order)
    group = -(-elements // GROUPS_MAX)
    parts = list(samples(array[fitted]))
    total = sum(part.size for part in parts)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = sum(float(part.sum(dtype=np.float64)) for part in parts) / total
        spread = sum(float(np.square(part - mean, dtype=np.float64).sum()) for part in parts)
    std = float(np.sqrt(spread / total))
    if not np.isfinite(std) or std <= LEAST_SPREAD * abs(mean):
        return None
    mean, std = _digits(mean), _digits(std)
    found = np.concatenate(
        [
            projections.grouped(
                projections.standardised(part, np.array([mean]), np.array([1 / std])), group
            )
            for part in parts
        ]
    )
    plain = Projection(
        tensor=name,
        elements=elements,
        means=(mean,),
        scales=(std,),
        group=group,
        directions=1,
        matrix="",
    )
    return _kept(
        plain,
        found,
        lambda projector: np.concatenate([projector(part) for part in samples(array)]),
        counted,
    )


def samples(array: NDArray[np.generic]) -> Iterator[NDArray[np.float32]]:
    """The elements that are looked at, some rows at a time."""
    step = max(1, _PART_ELEMENTS // max(_width(array), 1))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        sample = tensor_figures.sample(part, len(part))
        assert sample is not None
        yield sample


def _width(array: NDArray[np.generic]) -> int:
    """Elements of a row that are looked at."""
    whole = array.size // max(len(array), 1)
    return -(-whole // max(tensor_figures.step_of(whole), 1))


def _kept(
    plain: Projection, fitted: Floats, project: Callable[[Projector], Floats], counted: Ints
) -> tuple[Projection, Floats] | None:
    """The projection with those directions whose projections take many values."""
    matrix = principal(fitted)
    while len(matrix):
        projection = _with(plain, matrix)
        projected = project(Projector(projection))
        varied = [len(np.unique(column)) >= DISTINCT_MIN for column in projected[counted].T]
        if all(varied):
            return projection, projected
        matrix = matrix[np.array(varied)]
    return None


def _with(plain: Projection, matrix: Floats) -> Projection:
    return Projection(
        tensor=plain.tensor,
        inputs=plain.inputs,
        elements=plain.elements,
        means=plain.means,
        scales=plain.scales,
        group=plain.group,
        directions=len(matrix),
        matrix=projections.pack(matrix),
    )


def principal(z: Floats) -> Floats:
    """At most 20 whitened principal components of ``z [rows, columns]``, ``[k, columns]``."""
    centred = z - z.mean(axis=0)
    variances, vectors = np.linalg.eigh(centred.T @ centred / max(len(z), 1))
    there = variances > LEAST_VARIANCE * max(float(variances.mean()), 0.0)
    where = np.flatnonzero(there)[::-1]  # the widest first
    if len(where) > PROJECTIONS_MAX:
        widest = PROJECTIONS_MAX
        if len(z) >= ROWS_A_GROUP * z.shape[1]:
            widest //= 2
        where = np.concatenate([where[:widest], where[len(where) - PROJECTIONS_MAX + widest :]])
    chosen = vectors[:, where].T / np.sqrt(variances[where])[:, None]
    return np.asarray(chosen * _signs(chosen)[:, None])


def _signs(matrix: Floats) -> Floats:
    """Of the first entry of each row that is at least half as large as the largest."""
    size = np.abs(matrix)
    first = np.argmax(size >= 0.5 * size.max(axis=1, keepdims=True), axis=1)
    return np.asarray(np.sign(matrix[np.arange(len(matrix)), first]))


def _moments(values: Floats) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    with np.errstate(over="ignore", invalid="ignore"):
        return (float(finite.mean()), float(finite.std())) if finite.size else (0.0, 0.0)


def _digits(figure: float) -> float:
    """Six: a direction needs no more, and they are the same on every processor."""
    return float(f"{figure:.6g}")

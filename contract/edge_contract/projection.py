"""Directions through many numbers at once: where a lost correlation shows that no margin shows.

Guards: packager and device project with the same function, so that they differ in float64's last
digit at most, which lies near no edge; values of any size give a finite figure or a missing one;
no matrix grows with the inputs, which are averaged in groups before it is applied.

A row of inputs x becomes z = clip((x - means) / scales, -8, 8), missing and infinite ones 0 (the
mean); z is averaged over groups of successive inputs; the matrix times that are the projections,
whose deviation over the reference is 1. A row of which more than half is missing has none. Pure.
"""

from __future__ import annotations

import base64
import binascii
import math

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract.errors import InputFault

Floats = NDArray[np.float64]

PROJECTIONS_MAX = 20
GROUPS_MAX = 256
"""Columns of the matrix: 20 projections of so many are 10 KB in the bundle."""
CLIP = 8.0
"""Standard deviations: one wild value does not turn every direction towards itself."""
MISSING_MAX = 0.5
"""Share of a row's inputs that may be missing."""
LOADINGS_MAX, LOADING_LEAST = 4, 0.5
"""So many features name a direction: those with at least half the largest weight."""
_STORED = np.dtype("<f2")
"""Eleven bits are more than a direction estimated from some thousand rows deserves."""


class Projection(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Some directions, each of which is a monitor of the source ``projection``.

    Attributes:
        tensor: the input tensor that is projected, row by row; "": the number features.
        inputs: names of those features, in the matrix's order; () for a tensor.
        elements: how many inputs there are: features, or elements of a tensor's sampled row.
        means, scales: of each input, or one for all of them; scales are above 0.
        group: how many successive inputs are averaged; the last group may hold fewer.
        directions: how many. matrix: base64 of little-endian float16 [directions, groups].
    """

    tensor: str = ""
    inputs: tuple[str, ...] = ()
    elements: int
    means: tuple[float, ...]
    scales: tuple[float, ...]
    group: int = 1
    directions: int
    matrix: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the monitors, one a direction."""
        prefix = f"{self.tensor}:" if self.tensor else ""
        return tuple(f"{prefix}pc{at}" for at in range(1, self.directions + 1))

    @property
    def groups(self) -> int:
        """Columns of the matrix."""
        return -(-self.elements // self.group)


def pack(matrix: Floats) -> str:
    """The matrix as a projection holds it."""
    return base64.b64encode(matrix.astype(_STORED).tobytes()).decode()


def check(projection: Projection) -> None:
    """Raise InputFault when the parts of a projection do not fit together."""
    name = projection.tensor or "the features"
    wide = (1, projection.elements)
    sound = (
        1 <= projection.directions <= PROJECTIONS_MAX
        and projection.elements >= 1
        and projection.group >= 1
        and projection.groups <= GROUPS_MAX
        and len(projection.means) in wide
        and len(projection.scales) in wide
        and bool(projection.tensor) != bool(projection.inputs)
        and len(projection.inputs) in (0, projection.elements)
    )
    if not sound:
        raise InputFault(f"the projection of {name} is inconsistent in itself")
    if min(projection.scales) <= 0:
        raise InputFault(f"the projection of {name} has a scale that is not above 0")
    _matrix(projection)


def loadings(projection: Projection, name: str) -> tuple[str, ...]:
    """What the direction ``name`` looks at most, the heaviest first, at most ``LOADINGS_MAX``.

    Features whose weight, of values in standard deviations, is at least half the largest; the
    tensor's name where it is a tensor's direction.
    """
    if projection.tensor:
        return (projection.tensor,)
    weights = np.abs(_matrix(projection)[projection.names.index(name)])
    by_input = np.repeat(weights, projection.group)[: projection.elements]
    order = np.argsort(-by_input, kind="stable")[:LOADINGS_MAX].tolist()
    heavy = LOADING_LEAST * float(by_input.max())
    return tuple(projection.inputs[at] for at in order if by_input[at] >= heavy)


def _matrix(projection: Projection) -> Floats:
    try:
        raw = base64.b64decode(projection.matrix, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputFault("the matrix of a projection is not base64") from error
    shape = (projection.directions, projection.groups)
    if len(raw) != shape[0] * shape[1] * _STORED.itemsize:
        raise InputFault(f"the matrix of a projection has {len(raw)} bytes for {shape} numbers")
    matrix = np.frombuffer(raw, dtype=_STORED).reshape(shape).astype(np.float64)
    if not np.isfinite(matrix).all():
        raise InputFault("the matrix of a projection holds a number that is not finite")
    return matrix


class Projector:
    """Applies one projection; made once, used for every row."""

    def __init__(self, projection: Projection) -> None:
        self._elements = projection.elements
        self._means = np.asarray(projection.means)
        self._factors = 1.0 / np.asarray(projection.scales)
        self._group = projection.group
        self._transposed = np.ascontiguousarray(_matrix(projection).T)
        self.directions = projection.directions

    def __call__(self, rows: NDArray[np.floating]) -> Floats:
        """The projections ``[rows, directions]`` of ``rows [rows, elements]``, NaN: missing.

        Rows of another length, as a tensor of free shape may have, are missing.
        """
        if rows.shape[1] != self._elements:
            return np.full((len(rows), self.directions), np.nan)
        found = grouped(standardised(rows, self._means, self._factors), self._group)
        projected = found @ self._transposed
        if not math.isfinite(float(rows.sum(dtype=np.float64))):
            lacking = (~np.isfinite(rows)).mean(axis=1) > MISSING_MAX
            projected[lacking] = np.nan
        return projected


def standardised(rows: NDArray[np.floating], means: Floats, factors: Floats) -> Floats:
    """(rows - means) * factors within +-8, float64; what is missing or infinite is 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        z: Floats = np.subtract(rows, means, dtype=np.float64)
        z *= factors
        if not math.isfinite(float(z.sum())):
            z[~np.isfinite(rows)] = 0.0
    return np.clip(z, -CLIP, CLIP, out=z)


def grouped(z: Floats, group: int) -> Floats:
    """Means over groups of successive columns, ``[rows, groups]``."""
    if group == 1:
        return z
    starts = np.arange(0, z.shape[1], group)
    sizes = np.diff(np.append(starts, z.shape[1]))
    return np.asarray(np.add.reduceat(z, starts, axis=1) / sizes)

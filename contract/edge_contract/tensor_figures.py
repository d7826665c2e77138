"""What is counted of a whole tensor: a few figures of each row, for models without features.

Guards: packager and device look at the same elements of a row and compute the same float64
figures; a row of any size costs at most ``ELEMENTS_MAX`` elements of time and memory. Pure.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

ELEMENTS_MAX = 16_384
"""Of a larger row every k-th element is looked at: a camera's frame is as bright as its sample."""
FIGURES = ("mean", "std", "min", "max", "zeros", "saturated")
"""Of a row's elements; the last two are shares: equal to 0, and at or over ``Tensor.top``."""


class Tensor(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One input tensor of which figures are counted, each a monitor of the source ``tensor``.

    Attributes:
        name: of the tensor.
        top: the greatest element in the reference rows: where a camera or a converter saturates.
    """

    name: str
    top: float

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the monitors, one a figure."""
        return tuple(f"{self.name}:{figure}" for figure in FIGURES)


def sample(array: NDArray[np.generic], rows: int) -> NDArray[np.float32] | None:
    """The elements that are looked at, float32 ``[rows, elements]``, a copy.

    None where the tensor has another number of rows, or none, or holds text.
    """
    if not rows or array.ndim < 1 or len(array) != rows or array.dtype.kind not in "biuf":
        return None
    flat = array.reshape(rows, -1)
    step = step_of(flat.shape[1])
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(flat[:, ::step]).astype(np.float32)


def step_of(elements: int) -> int:
    """Every which element of a row is looked at: odd, so that it meets all columns of an image."""
    step = -(-elements // ELEMENTS_MAX)
    return step if step <= 1 else step | 1


def figures(values: NDArray[np.float32], top: float) -> NDArray[np.float64]:
    """``FIGURES`` of each row of a sample, float64 ``[rows, 6]``; NaN where an element is."""
    found = np.full((len(values), len(FIGURES)), np.nan)
    if not values.shape[1]:
        return found
    with np.errstate(invalid="ignore", over="ignore"):
        found[:, 0] = values.mean(axis=1, dtype=np.float64)
        found[:, 1] = values.std(axis=1, dtype=np.float64)
    found[:, 2] = values.min(axis=1)
    found[:, 3] = values.max(axis=1)
    found[:, 4] = np.count_nonzero(values == 0, axis=1) / values.shape[1]
    found[:, 5] = np.count_nonzero(values >= np.float32(top), axis=1) / values.shape[1]
    return found

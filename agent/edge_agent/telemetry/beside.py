"""What is counted beside features and outputs: directions through them, figures of tensors.

Guards: a call is kept as a copy of at most ``tensor_figures.ELEMENTS_MAX`` elements a row, so that
nobody can alter what is counted and memory is bounded; small calls are worked on together, large
ones at once, in parts. Costs nothing for a profile that has neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract import tensor_figures
from edge_contract.errors import InputFault
from edge_contract.profile import Profile
from edge_contract.projection import Projector

Floats = NDArray[np.float64]
Taken = tuple["Floats | NDArray[np.float32] | None", ...]
"""Of one call: a sample of each tensor, or, of a large call, the figures themselves (float64)."""

LARGE = 4096
"""Elements of a call from which on nothing is gained by waiting for others."""
PART = 2**20


class Beside:
    """Computes the values of the monitors whose source is ``projection`` or ``tensor``.

    Args:
        numbers: the number features, in the order of the window's rows.
        large: elements of a call that is worked on at once, ``part`` elements at a time.

    Attributes:
        columns: by source and monitor's name, the column of ``values``.
        tensors: whole tensors are looked at, so that ``take`` is needed.

    Raises InputFault when a projection's input is no number feature.
    """

    def __init__(
        self, profile: Profile, numbers: Sequence[str], *, large: int = LARGE, part: int = PART
    ) -> None:
        self._large, self._part = large, part
        self.columns: dict[tuple[str, str], int] = {}
        self._of_features: list[tuple[NDArray[np.int64], Projector]] = []
        for one in profile.projections:
            if not one.tensor:
                unknown = sorted(set(one.inputs).difference(numbers))
                if unknown:
                    raise InputFault(f"the profile projects {unknown[0]!r}, no number feature")
                where = np.array([numbers.index(name) for name in one.inputs])
                self._of_features.append((where, Projector(one)))
                self._add("projection", one.names)
        self._of_tensors: list[_Seen] = []
        tops = {tensor.name: tensor for tensor in profile.tensors}
        projected = {one.tensor: one for one in profile.projections if one.tensor}
        for name in dict.fromkeys([*tops, *projected]):
            tensor, projection = tops.get(name), projected.get(name)
            seen = _Seen(
                name,
                tensor.top if tensor else None,
                Projector(projection) if projection else None,
            )
            self._of_tensors.append(seen)
            self._add("tensor", tensor.names if tensor else ())
            self._add("projection", projection.names if projection else ())
        self.tensors = bool(self._of_tensors)

    def _add(self, source: str, names: Sequence[str]) -> None:
        for name in names:
            self.columns[source, name] = len(self.columns)

    def take(self, feeds: Mapping[str, NDArray[Any]], rows: int) -> Taken:
        """What is kept of one call of ``rows`` rows until ``values`` is asked for."""
        arrays = [feeds.get(seen.name) for seen in self._of_tensors]
        if sum(array.size for array in arrays if array is not None) < self._large:
            return tuple(_sample(array, rows) for array in arrays)
        return tuple(
            np.concatenate([seen.figures(part) for part in _parts(array, rows, self._part)])
            if (array := arrays[at]) is not None and _counts(array, rows)
            else None
            for at, seen in enumerate(self._of_tensors)
        )

    def values(
        self, numbers: NDArray[np.float64], taken: Sequence[Taken], rows: Sequence[int]
    ) -> Floats:
        """One column a monitor, ``[rows, columns]``, NaN: missing.

        Args:
            numbers: ``[rows, number features]``. taken, rows: of the calls that these are.
        """
        parts = [project(numbers[:, where]) for where, project in self._of_features]
        for at, seen in enumerate(self._of_tensors):
            parts.append(seen.of_calls([each[at] for each in taken], rows))
        return np.concatenate(parts, axis=1)


class _Seen(Struct, frozen=True):
    """One tensor: its name, where it saturates if figures are wanted, its directions if any."""

    name: str
    top: float | None
    project: Projector | None

    @property
    def width(self) -> int:
        figures = len(tensor_figures.FIGURES) if self.top is not None else 0
        return figures + (self.project.directions if self.project is not None else 0)

    def figures(self, sample: NDArray[np.float32]) -> Floats:
        parts = []
        if self.top is not None:
            parts.append(tensor_figures.figures(sample, self.top))
        if self.project is not None:
            parts.append(self.project(sample))
        return np.concatenate(parts, axis=1)

    def of_calls(
        self, taken: Sequence[Floats | NDArray[np.float32] | None], rows: Sequence[int]
    ) -> Floats:
        """The figures of many calls; samples of one length are worked on together."""
        found = np.full((sum(rows), self.width), np.nan)
        starts = np.cumsum([0, *rows])
        alike: dict[int, list[int]] = {}
        for at, one in enumerate(taken):
            if one is None:
                continue
            if one.dtype == np.float64:
                found[starts[at] : starts[at + 1]] = one
            else:
                alike.setdefault(one.shape[1], []).append(at)
        for calls in alike.values():
            samples = [one for at in calls if (one := taken[at]) is not None]
            where = np.concatenate([np.arange(starts[at], starts[at + 1]) for at in calls])
            found[where] = self.figures(np.concatenate(samples).astype(np.float32, copy=False))
        return found


def _sample(array: NDArray[Any] | None, rows: int) -> NDArray[np.float32] | None:
    return None if array is None else tensor_figures.sample(array, rows)


def _counts(array: NDArray[Any], rows: int) -> bool:
    """It has a row for each row of the call, and numbers in them."""
    return rows > 0 and array.ndim > 0 and len(array) == rows and array.dtype.kind in "biuf"


def _parts(array: NDArray[Any], rows: int, elements: int) -> Iterator[NDArray[np.float32]]:
    """Samples of a tensor, some rows at a time."""
    width = min(array.size // max(rows, 1), tensor_figures.ELEMENTS_MAX)
    step = max(1, elements // max(width, 1))
    for start in range(0, rows, step):
        part = array[start : start + step]
        sample = tensor_figures.sample(part, len(part))
        assert sample is not None
        yield sample

"""What every row of a file shows of each column, gathered piece by piece in bounded memory.

Guards: what a manifest says of ranges, missing values and categories holds for all rows, also
for those that no step after this one sees; a stray word in any row is found. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.tabular.cells import number_of, text_of
from edge_pack.tabular.grid import Grid

CATEGORIES_MAX = 10_000
CATEGORIES_OF_ALL_MAX = 1_000_000
"""Distinct texts remembered of one column, and of all columns together."""


@dataclass(frozen=True)
class Facts:
    """One column over all rows. Row numbers count from 1.

    Attributes:
        rows: how many there are.
        minimum, maximum: of the finite numbers; None where there are none.
        resolution: the step of their decimal grid, or None.
        missing: cells that a number column counts as missing; first_missing: the first one's row.
        empty: cells that a text column counts as missing; first_empty: the first one's row.
        stray: row and content of the first cell that is no number, or None.
        infinite: row and value of the first infinite number, or None.
        texts: the distinct texts; None when there are more than 10,000.
    """

    rows: int
    minimum: float | None
    maximum: float | None
    resolution: float | None
    missing: int
    first_missing: int | None
    empty: int
    first_empty: int | None
    stray: tuple[int, str] | None
    infinite: tuple[int, float] | None
    texts: frozenset[str] | None


class Gathering:
    """One column's facts while its pieces come, first rows first."""

    def __init__(self, texts_max: int = CATEGORIES_MAX) -> None:
        self._rows = 0
        self._minimum, self._maximum = math.inf, -math.inf
        self._grid = Grid()
        self._missing = self._empty = 0
        self._first_missing: int | None = None
        self._first_empty: int | None = None
        self._stray: tuple[int, str] | None = None
        self._infinite: tuple[int, float] | None = None
        self._texts: set[Any] | None = set()
        self._texts_max = texts_max

    def __len__(self) -> int:
        """How many rows were looked at."""
        return self._rows

    def add(self, cells: Any) -> list[tuple[str, int]]:
        """The next cells: float64, an object array of text, or Arrow text.

        Returns the positions in them that are worth keeping: of a new least or greatest number,
        of the first missing cell.
        """
        size = len(cells)
        found: list[tuple[str, int]] = []
        self._add_texts(cells, found)
        if self._stray is None:
            values, stray = _numbers(cells)
            if stray is not None:
                self._stray = (self._rows + stray[0] + 1, stray[1])
                values = values[: stray[0]]
            self._add_numbers(values, found)
        self._rows += size
        return found

    def _add_numbers(self, values: NDArray[np.float64], found: list[tuple[str, int]]) -> None:
        known = np.isfinite(values)
        finite = values if known.all() else values[known]
        if finite.size != values.size:
            empty = np.flatnonzero(np.isnan(values))
            if empty.size and self._first_missing is None:
                self._first_missing = self._rows + int(empty[0]) + 1
                found.append(("missing", int(empty[0])))
            self._missing += int(empty.size)
            if empty.size + finite.size != values.size and self._infinite is None:
                at = int(np.flatnonzero(np.isinf(values))[0])
                self._infinite = (self._rows + at + 1, float(values[at]))
        if not finite.size:
            return
        least, greatest = float(finite.min()), float(finite.max())
        if least < self._minimum:
            self._minimum = least
            found.append(("least", int(np.argmax(values == least))))
        if greatest > self._maximum:
            self._maximum = greatest
            found.append(("greatest", int(np.argmax(values == greatest))))
        self._grid.add(finite)

    def _add_texts(self, cells: Any, found: list[tuple[str, int]]) -> None:
        empty = _empty(cells)
        if empty.size:
            self._empty += int(empty.size)
            if self._first_empty is None:
                self._first_empty = self._rows + int(empty[0]) + 1
                found.append(("empty", int(empty[0])))
        if self._texts is None:
            return
        self._texts |= _distinct(cells)
        if len(self._texts) > self._texts_max:
            self._texts = None

    def facts(self) -> Facts:
        """What was gathered so far."""
        known = self._minimum <= self._maximum
        texts = None
        if self._texts is not None:
            texts = frozenset(t for cell in self._texts if (t := text_of(cell)) is not None)
        return Facts(
            rows=self._rows,
            minimum=self._minimum if known else None,
            maximum=self._maximum if known else None,
            resolution=self._grid.step,
            missing=self._missing,
            first_missing=self._first_missing,
            empty=self._empty,
            first_empty=self._first_empty,
            stray=self._stray,
            infinite=self._infinite,
            texts=texts,
        )


def _is_numpy(cells: Any) -> bool:
    return isinstance(cells, np.ndarray)


def _numbers(cells: Any) -> tuple[NDArray[np.float64], tuple[int, str] | None]:
    """The cells as numbers, up to and without the first that is none (its position, content)."""
    if not _is_numpy(cells):
        return _arrow_numbers(cells)
    if cells.dtype.kind == "f":
        return np.asarray(cells, dtype=np.float64), None
    listed = cells.tolist()
    try:  # the common case, ten times faster: every cell a plain number
        if "_" not in "".join(listed):
            return np.array([float(cell) for cell in listed], dtype=np.float64), None
    except (ValueError, TypeError):
        pass
    values = np.empty(len(listed))
    for position, cell in enumerate(listed):
        value = number_of(cell)
        if value is None:
            return values[:position], (position, str(cell))
        values[position] = value
    return values, None


def _arrow_numbers(cells: Any) -> tuple[NDArray[np.float64], tuple[int, str] | None]:
    """Arrow's own parser where it takes every cell; it reads no text that ``float`` does not."""
    import pyarrow as pa  # noqa: PLC0415  only reached with Arrow's own arrays
    import pyarrow.compute as pc  # noqa: PLC0415

    for given in (cells, None):
        try:
            plain = cells if given is not None else pc.if_else(pc.equal(cells, ""), None, cells)
            return plain.cast(pa.float64()).to_numpy(zero_copy_only=False), None
        except pa.ArrowInvalid:
            continue
    coded = cells.dictionary_encode()
    distinct = coded.dictionary.to_pylist()
    listed = [number_of(cell) for cell in distinct]
    codes = coded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    table = np.array([math.nan if v is None else v for v in listed] + [math.nan])
    bad = np.array([v is None for v in listed] + [False])
    at = np.flatnonzero(bad[codes]) if bad.any() else np.empty(0, dtype=np.int64)
    values = table[codes]
    if at.size:
        return values[: at[0]], (int(at[0]), str(distinct[int(codes[at[0]])]))
    return values, None


def _empty(cells: Any) -> NDArray[np.int64]:
    """Positions of cells that are missing as text."""
    if not _is_numpy(cells):
        import pyarrow.compute as pc  # noqa: PLC0415

        flags = pc.fill_null(pc.equal(cells, ""), True)
        if not pc.any(flags).as_py():
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(flags.to_numpy(zero_copy_only=False))
    if cells.dtype.kind == "f":
        return np.flatnonzero(np.isnan(cells))
    listed = cells.tolist()
    if "" not in listed and None not in listed:
        return np.empty(0, dtype=np.int64)
    return np.array([i for i, cell in enumerate(listed) if cell is None or cell == ""])


def _distinct(cells: Any) -> set[Any]:
    if not _is_numpy(cells):
        return set(cells.dictionary_encode().dictionary.to_pylist())
    if cells.dtype.kind == "f":
        return set(np.unique(cells[~np.isnan(cells)]).tolist())
    return set(cells.tolist())


def texts_max(width: int) -> int:
    """How many distinct texts each of ``width`` columns may be remembered with."""
    return min(CATEGORIES_MAX, CATEGORIES_OF_ALL_MAX // max(width, 1))

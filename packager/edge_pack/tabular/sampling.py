"""Which rows of a file too large to keep are kept: whole blocks, evenly apart, in order.

Guards: the same file gives the same rows; neighbouring rows stay neighbours, so that serial
correlation can be seen in them; memory is bounded by the number of cells, not by the file. The
rows with each column's least, greatest and first missing value are kept besides, for what is
built from the kept rows must hold at the ends of the range. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS_MAX = 200_000
CELLS_MAX = 3_000_000
"""Text cells of Python take about 60 bytes: 180 MB."""
_BLOCKS = 32
_ENDS_CELLS = 400_000


class Sampler:
    """Takes pieces of rows, first rows first, and keeps at most ``rows_max`` of them.

    Blocks of equal length are all kept until there are too many; then every second one goes, and
    of the later ones only each second, fourth, ... is kept.
    """

    def __init__(self, width: int, *, rows_max: int = ROWS_MAX, cells_max: int = CELLS_MAX) -> None:
        self._rows_max = max(2, min(rows_max, cells_max // max(width, 1)))
        self._block = max(1, self._rows_max // _BLOCKS)
        self._stride = 1
        self._kept: dict[int, list[list[NDArray[Any]]]] = {}
        self._kept_rows = 0
        self._rows = 0
        self._ends: dict[tuple[int, str], tuple[int, list[Any]]] = {}
        self._ends_max = max(8, _ENDS_CELLS // max(width, 1))

    def add(self, columns: Sequence[Any], ends: Sequence[tuple[int, str, int]]) -> None:
        """The next rows.

        Args:
            columns: float64, object arrays of text, or Arrow text, of one length.
            ends: (column, what, position) of rows to keep besides; a later row of the same
                column and kind takes the place of the earlier one.
        """
        size = len(columns[0])
        for column, what, position in ends:
            key = (column, what)
            if key in self._ends or len(self._ends) < self._ends_max:
                row = [_cell(cells, position) for cells in columns]
                self._ends[key] = (self._rows + position, row)
        start = 0
        while start < size:
            block = (self._rows + start) // self._block
            stop = min(size, (block + 1) * self._block - self._rows)
            if block % self._stride == 0:
                piece = [as_array(cells[start:stop]) for cells in columns]
                self._kept.setdefault(block, []).append(piece)
                self._kept_rows += stop - start
                self._thin()
            start = stop
        self._rows += size

    def _thin(self) -> None:
        while self._kept_rows > self._rows_max:
            self._stride *= 2
            for block in [b for b in self._kept if b % self._stride]:
                self._kept_rows -= sum(len(piece[0]) for piece in self._kept.pop(block))

    @property
    def whole(self) -> bool:
        """Whether every row was kept."""
        return self._kept_rows == self._rows

    def columns(self) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
        """The kept rows by column, and their positions in the file, ascending.

        The pieces are given up on the way, so that there is one copy of them.
        """
        positions = [
            np.arange(block * self._block, block * self._block + sum(len(p[0]) for p in pieces))
            for block, pieces in sorted(self._kept.items())
        ]
        at = np.concatenate(positions) if positions else np.empty(0, dtype=np.int64)
        besides = dict(self._ends.values())
        extra = sorted(besides.keys() - set(at.tolist()))
        order = np.argsort(np.concatenate([at, np.array(extra, dtype=np.int64)]), kind="stable")
        pieces = [piece for _, group in sorted(self._kept.items()) for piece in group]
        self._kept = {}
        found = []
        for column in range(len(pieces[0]) if pieces else 0):
            parts = [piece[column] for piece in pieces]
            for piece in pieces:
                piece[column] = _NOTHING
            if extra:
                more = np.empty(len(extra), dtype=parts[0].dtype)
                more[:] = [besides[row][column] for row in extra]
                parts.append(more)
            joined = np.concatenate(parts)
            found.append(joined[order] if extra else joined)
        return found, np.concatenate([at, np.array(extra, dtype=np.int64)])[order]


_NOTHING = np.empty(0)


def as_array(cells: Any) -> NDArray[Any]:
    """A copy of the cells as numpy has them; equal texts of one piece share their memory."""
    if isinstance(cells, np.ndarray):
        return cells.copy()
    coded = cells.dictionary_encode()
    distinct = np.empty(len(coded.dictionary) + 1, dtype=object)
    distinct[:-1] = coded.dictionary.to_pylist()
    codes = coded.indices.fill_null(len(distinct) - 1).to_numpy(zero_copy_only=False)
    return np.asarray(distinct[codes], dtype=object)


def _cell(cells: Any, position: int) -> Any:
    cell = cells[position]
    return cell if isinstance(cells, np.ndarray) else cell.as_py()

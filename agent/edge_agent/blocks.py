"""Rows without end, a block at a time: memory stays bounded however many there are. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edge_contract.errors import InputFault

BLOCK_ROWS = 1000
"""A block's arrays stay within a processor's cache; larger ones are no faster."""

_ROW = re.compile(r"^row (\d+): ")


def split(rows: Any, size: int = BLOCK_ROWS) -> Iterator[tuple[int, Any]]:
    """Blocks of ``rows`` for ``Model.predict``, each with the number of its first row.

    Raises InputFault for what holds no rows one by one.
    """
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        yield from ((start, rows[start : start + size]) for start in range(0, len(rows), size))
    elif hasattr(rows, "columns") and hasattr(rows, "__getitem__"):
        for start in range(0, len(rows), size):
            yield start, _cut(rows, start, size)
    elif isinstance(rows, Iterable) and not isinstance(rows, Mapping | str | bytes):
        left, start = iter(rows), 0
        while block := list(itertools.islice(left, size)):
            yield start, block
            start += len(block)
    else:
        raise InputFault(
            f"a {type(rows).__name__} does not hold rows one by one",
            advice="Pass a table, a 2-D array, or a list or generator of rows.",
        )


def renumbered(error: InputFault, start: int) -> InputFault:
    """The error of a block whose first row is row ``start``, naming the row by the whole."""
    found = _ROW.match(error.what)
    if found is None:
        return error
    what = f"row {start + int(found[1])}: {error.what[found.end() :]}"
    return InputFault(what, advice=error.advice)


def _cut(table: Any, start: int, size: int) -> Any:
    """Rows of a table by position: pandas has ``iloc``; polars and Arrow have ``slice``."""
    if hasattr(table, "iloc"):
        return table.iloc[start : start + size]
    return table.slice(start, size)

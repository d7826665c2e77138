"""Puts rows in order of time by a column of numbers or ISO 8601 times."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_pack.tables import Table

EPOCH_S = (1e8, 1e10)
"""Numbers in this range are taken for seconds since 1970 (1973 to 2286); others only order."""


def order(table: Table, column: str) -> NDArray[np.int64]:
    """Positions of the rows from the earliest to the latest; rows of equal time keep theirs.

    Raises InputFault naming the row of a cell that is no time.
    """
    return np.argsort(seconds_of(table, column), kind="stable")


def are_clock_times(table: Table, column: str, seconds: NDArray[np.float64]) -> bool:
    """Whether hours of the day can be read off the times: a plain counter has none."""
    low, high = EPOCH_S
    return not table.is_numeric(column) or bool(((seconds > low) & (seconds < high)).all())


def seconds_of(table: Table, column: str) -> NDArray[np.float64]:
    """The time of each row: numbers as they are, ISO 8601 as seconds since 1970-01-01 UTC.

    A time without a zone counts as UTC.

    Raises InputFault naming the row of a cell that is no time.
    """
    if table.is_numeric(column):
        seconds = table.numbers(column)
    else:
        seconds = np.array(
            [
                _seconds(cell, column, table.row_number(position))
                for position, cell in enumerate(table.texts(column))
            ]
        )
    empty = np.flatnonzero(np.isnan(seconds))
    if len(empty):
        raise InputFault(
            f"time column {column!r}, row {table.row_number(int(empty[0]))}: the time is missing",
            advice="Every row needs its time, or leave out --time-column.",
        )
    return seconds


def _seconds(cell: str | None, column: str, row: int) -> float:
    if cell is None:
        return float("nan")
    try:
        moment = datetime.fromisoformat(cell.strip())
    except ValueError:
        raise InputFault(
            f"time column {column!r}, row {row}: {cell[:60]!r} is neither a number nor a time",
            advice="Write times as 2025-03-01T12:30:00Z or as seconds.",
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

"""Groups of rows by one column, so that a figure can be told for each. Pure.

Text, and numbers of few values, make a group a value; other numbers are cut into quartiles.
Groups beyond the largest few are one group together; missing values are a group by themselves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.manifest import Slice
from edge_pack.tables import Table

GROUPS_MAX = 12
"""A person reads so many lines; a manifest holds them with room to spare."""
ROWS_MIN = 30
"""Below this an interval of a share is wider than +-0.18: a gate would judge chance."""
NAME_MAX = 60
OTHER, MISSING = "(other)", "(missing)"


@dataclass(frozen=True)
class Group:
    """A slice, and the positions of its rows."""

    slice: Slice
    rows: NDArray[np.int64]


def cut(table: Table, column: str, judged: NDArray[np.bool_]) -> list[Group]:
    """The groups of one column, text by name, quartiles by value; the missing ones last.

    Args:
        judged: [rows], which rows figures are computed on; only they are counted.

    Raises InputFault when the table has no such column.
    """
    if column not in table.columns:
        listed = ", ".join(repr(name) for name in list(table.columns)[:8])
        raise InputFault(
            f"--slice {column!r}: {table.path} has no such column",
            advice=f"It has {listed}." if listed else "Its rows have no columns to slice by.",
        )
    if not table.is_numeric(column):
        return _named(column, table.texts(column), judged)
    numbers = table.numbers(column)
    if len(np.unique(numbers[np.isfinite(numbers)])) <= GROUPS_MAX:
        return _named(column, table.texts(column), judged)
    return _quartiles(column, numbers, judged)


def _named(column: str, cells: NDArray[np.object_], judged: NDArray[np.bool_]) -> list[Group]:
    items = cells.tolist()
    frequency = Counter(item for item in items if item is not None)
    ranked = sorted(frequency, key=lambda item: (-frequency[item], item))
    if len(ranked) > GROUPS_MAX:
        ranked = ranked[: GROUPS_MAX - 1]
    codes = {item: code for code, item in enumerate(sorted(ranked))}
    other, missing = len(codes), len(codes) + 1
    where = np.array([missing if i is None else codes.get(i, other) for i in items])
    titles = [*_titles(sorted(ranked)), OTHER, MISSING]
    return [
        _group(column, title, np.flatnonzero((where == code) & judged))
        for code, title in enumerate(titles)
        if (where == code).any()
    ]


def _titles(values: list[str]) -> list[str]:
    """Names that a terminal can show, each different."""
    found: list[str] = []
    for value in values:
        title = "".join(sign if sign.isprintable() else "?" for sign in value.strip())
        title = title[:NAME_MAX] or "(blank)"
        while title in found:
            title += "~"
        found.append(title)
    return found


def _quartiles(column: str, numbers: NDArray[np.float64], judged: NDArray[np.bool_]) -> list[Group]:
    there = np.isfinite(numbers)
    edges = np.unique(np.quantile(numbers[there], [0.25, 0.5, 0.75], method="inverted_cdf"))
    where = np.searchsorted(edges, numbers)  # a value on an edge belongs below it
    where[~there] = len(edges) + 1
    groups: list[Group] = []
    for code in range(len(edges) + 1):
        inside = where == code
        if inside.any():
            span = (float(numbers[inside].min()), float(numbers[inside].max()))
            title = f"q{len(groups) + 1}"
            groups.append(_group(column, title, np.flatnonzero(inside & judged), span))
    if not there.all():
        groups.append(_group(column, MISSING, np.flatnonzero(~there & judged)))
    return groups


def _group(
    column: str, title: str, rows: NDArray[np.int64], span: tuple[float, float] | None = None
) -> Group:
    low, high = span or (None, None)
    piece = Slice(
        name=f"{column}={title}",
        column=column,
        group=title,
        rows=len(rows),
        minimum=low,
        maximum=high,
        gated=len(rows) >= ROWS_MIN,
    )
    return Group(piece, rows)

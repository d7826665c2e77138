"""Reads the rows that a model is checked on: CSV, Parquet or NPZ, as they would reach a device.

Guards: numbers stay float64 as written, never rounded on the way in; text where a number is
expected is named by column and row; nothing is guessed silently. A file of any size is read in
pieces: every row is looked at, and of a large one a bounded part is kept. CSV and NPZ need the
base install only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_pack.tabular import cells, sampling
from edge_pack.tabular.cells import MISSING_NUMBERS
from edge_pack.tabular.csv_ import Csv
from edge_pack.tabular.facts import Facts, Gathering, texts_max
from edge_pack.tabular.feed import digest_of, open_feed
from edge_pack.tabular.npz_ import Npz
from edge_pack.tabular.parquet_ import Parquet
from edge_pack.tabular.sampling import Sampler

__all__ = ["MISSING_NUMBERS", "Facts", "Table", "pages", "read"]


@dataclass(frozen=True)
class Table:
    """Columns of equal length, and whole tensors for models that take those.

    Attributes:
        columns: by name; float64, or object arrays of text as written (None: missing).
        rows: length of every column.
        tensors: arrays of any rank by name, from an NPZ file.
        unnamed: the columns had no names in the file; they were called x0, x1, ...
        drawn: nobody gave it: it was drawn from the model's own shapes.
        positions: where each row stands in the file, from 0; None: the rows are the file's.
        total_rows: of the file; 0 where nobody counted more than ``rows``.
        facts: what all rows of the file show of each column.
    """

    path: Path
    sha256: str
    rows: int
    columns: Mapping[str, NDArray[Any]]
    tensors: Mapping[str, NDArray[Any]]
    unnamed: bool = False
    drawn: bool = False
    positions: NDArray[np.int64] | None = None
    total_rows: int = 0
    facts: Mapping[str, Facts] = field(default_factory=dict)

    @property
    def part(self) -> bool:
        """Whether the file holds more rows than these."""
        return self.total_rows > self.rows

    def row_number(self, position: int) -> int:
        """What a person calls the row: its number in the file, from 1."""
        return int(self.positions[position] if self.positions is not None else position) + 1

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Column ``name`` as float64 [rows], NaN where missing.

        Raises InputFault naming column and row at the file's first cell that is no number.
        """
        column = self.columns[name]
        if column.dtype.kind == "f":
            return np.asarray(column, dtype=np.float64)
        known = self.facts.get(name)
        if known is not None and known.stray is not None:
            raise cells.stray(known.stray[1], name, known.stray[0])
        listed = column.tolist()
        try:  # the common case, ten times faster: every cell a plain number
            if "_" not in "".join(listed):
                return np.array([float(cell) for cell in listed], dtype=np.float64)
        except (ValueError, TypeError):
            pass
        values = np.empty(self.rows)
        for position, cell in enumerate(listed):
            value = cells.number_of(cell)
            if value is None:
                raise cells.stray(cell, name, self.row_number(position))
            values[position] = value
        return values

    def infinite(self, name: str, values: NDArray[np.float64]) -> tuple[int, float] | None:
        """Row number and value of the file's first infinite number in a column of numbers."""
        known = self.facts.get(name)
        if known is not None:
            return known.infinite
        found = np.flatnonzero(np.isinf(values))
        return (self.row_number(int(found[0])), float(values[found[0]])) if len(found) else None

    def arranged(self, names: Sequence[str], keep: Sequence[str]) -> Table:
        """The same with the columns ``names`` first, in that order, then those of ``keep``.

        For a model that takes columns by place and whose papers name them. Raises InputFault for
        a name that the table lacks.
        """
        lacking = [name for name in names if name not in self.columns]
        if lacking:
            raise InputFault(
                f"{self.path} lacks {', '.join(map(repr, lacking[:6]))}, which the model's MLflow "
                "signature names",
                advice=f"It has {', '.join(map(repr, list(self.columns)[:6]))}.",
            )
        order = dict.fromkeys([*names, *(name for name in keep if name in self.columns)])
        return replace(self, columns={name: self.columns[name] for name in order})

    def texts(self, name: str) -> NDArray[np.object_]:
        """Column ``name`` as text [rows], None where missing; whole numbers without a dot."""
        column = self.columns[name]
        out = np.empty(self.rows, dtype=object)
        out[:] = [cells.text_of(cell) for cell in column.tolist()]
        return out

    def is_numeric(self, name: str) -> bool:
        """Whether every cell of the column is a number or missing."""
        try:
            self.numbers(name)
        except InputFault:
            return False
        return True


def read(path: Path, *, rows_max: int = sampling.ROWS_MAX) -> Table:
    """The table in ``path``, by its suffix.

    A file of up to ``rows_max`` rows (200,000) and 3 million cells is kept whole. Of a larger one
    whole blocks of rows evenly apart are kept, in order, besides the rows at the ends of each
    column's range; ``facts`` tells what all rows show.

    Raises:
        InputFault: no such file, empty, not of its kind, a column name twice, a ragged row.
        MachineFault: Parquet on an install without pyarrow.
    """
    with _opened(path) as (source, digest):
        _check_names(path, source.header)
        if not source.header and not source.tensors:
            raise InputFault(f"{path} has no columns")
        sampler, gatherings = _gather(source, rows_max)
        total = len(gatherings[0]) if gatherings else 0
        total = total or max((len(t) for t in source.tensors.values() if t.ndim), default=0)
        if total == 0:
            raise InputFault(f"{path} has no rows", advice="Give at least one row of data.")
        whole = sampler.whole
        columns, positions = sampler.columns()
        return Table(
            path=path,
            sha256=digest(),
            rows=len(positions) if columns else total,
            columns=dict(zip(source.header, columns, strict=False)),
            tensors=source.tensors,
            unnamed=source.unnamed,
            positions=None if whole else positions,
            total_rows=total,
            facts={n: g.facts() for n, g in zip(source.header, gatherings, strict=True)},
        )


def pages(path: Path) -> Iterator[Table]:
    """All rows of the file, in order: one table, or many where it is too large to keep.

    Raises InputFault as ``read`` does, before the first page.
    """
    table = read(path)
    if not table.part:
        yield table
        return
    start = 0
    with _opened(path) as (source, _digest):
        for piece in source.pieces():
            rows = len(piece[0])
            yield Table(
                path=path,
                sha256=table.sha256,
                rows=rows,
                columns={
                    name: sampling.as_array(column)
                    for name, column in zip(source.header, piece, strict=True)
                },
                tensors={},
                unnamed=table.unnamed,
                positions=np.arange(start, start + rows),
            )
            start += rows


class _Source(Protocol):
    """A file of rows while it is read."""

    @property
    def header(self) -> Sequence[str]: ...
    @property
    def tensors(self) -> Mapping[str, NDArray[Any]]: ...
    @property
    def unnamed(self) -> bool: ...
    def pieces(self) -> Iterator[list[Any]]: ...


_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".npz", ".parquet", ".pq")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[_Source, Callable[[], str]]]:
    """The file's reader by its suffix, and its SHA-256 once it was read."""
    name = path.name.lower()
    if name.endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz")):
        with open_feed(path) as feed:
            yield Csv(path, feed), feed.digest
    elif name.endswith((".parquet", ".pq")):
        yield Parquet(path), lambda: digest_of(path)
    elif name.endswith(".npz"):
        yield Npz(path), lambda: digest_of(path)
    else:
        raise InputFault(
            f"{path} is none of the kinds of data file this reads ({path.suffix or 'no suffix'})",
            advice=f"Expected one of: {', '.join(_SUFFIXES)}.",
        )


def _gather(source: _Source, rows_max: int) -> tuple[Sampler, list[Gathering]]:
    """Every row is looked at; some are kept."""
    width = len(source.header)
    sampler = Sampler(width, rows_max=rows_max)
    gatherings = [Gathering(texts_max(width)) for _ in range(width)]
    for piece in source.pieces():
        ends = [
            (column, what, position)
            for column, cells_ in enumerate(piece)
            for what, position in gatherings[column].add(cells_)
        ]
        sampler.add(piece, ends)
    return sampler, gatherings


def _check_names(path: Path, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for position, name in enumerate(names, start=1):
        if not name:
            raise InputFault(f"{path}: column {position} has no name in the header")
        if name in seen:
            raise InputFault(
                f"{path}: column name {name!r} stands twice", advice="Rename one of them."
            )
        seen.add(name)

"""Reads the rows that a model is checked on: CSV, Parquet or NPZ, as they would reach a device.

Guards: numbers stay float64 as written, never rounded on the way in; text where a number is
expected is named by column and row; nothing is guessed silently. CSV and NPZ need the base
install only.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_pack.extras import need

DATA_MAX_BYTES = 2 * 1024**3
MISSING_NUMBERS = frozenset({"", "nan", "na", "n/a", "null", "none"})
"""What a cell of a number column may say for "missing", compared without case and blanks."""
_TRUTH = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Table:
    """Columns of equal length, and whole tensors for models that take those.

    Attributes:
        columns: by name; float64, or object arrays of text as written (None: missing).
        rows: length of every column.
        tensors: arrays of any rank by name, from an NPZ file.
        unnamed: the columns had no names in the file; they were called x0, x1, ...
        drawn: nobody gave it: it was drawn from the model's own shapes.
    """

    path: Path
    sha256: str
    rows: int
    columns: Mapping[str, NDArray[Any]]
    tensors: Mapping[str, NDArray[Any]]
    unnamed: bool = False
    drawn: bool = False

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Column ``name`` as float64 [rows], NaN where missing.

        Raises InputFault naming column and row at the first cell that is no number.
        """
        column = self.columns[name]
        if column.dtype.kind == "f":
            return np.asarray(column, dtype=np.float64)
        cells = column.tolist()
        try:  # the common case, ten times faster: every cell a plain number
            if "_" not in "".join(cells):
                return np.array([float(cell) for cell in cells], dtype=np.float64)
        except (ValueError, TypeError):
            pass
        return np.array(
            [_number(cell, name, row) for row, cell in enumerate(cells, start=1)],
            dtype=np.float64,
        )

    def texts(self, name: str) -> NDArray[np.object_]:
        """Column ``name`` as text [rows], None where missing; whole numbers without a dot."""
        column = self.columns[name]
        out = np.empty(self.rows, dtype=object)
        out[:] = [_text(cell) for cell in column.tolist()]
        return out

    def is_numeric(self, name: str) -> bool:
        """Whether every cell of the column is a number or missing."""
        try:
            self.numbers(name)
        except InputFault:
            return False
        return True


def read(path: Path) -> Table:
    """The table in ``path``, by its suffix.

    Raises:
        InputFault: no such file, empty, not of its kind, a column name twice, a ragged row.
        MachineFault: Parquet on an install without pyarrow.
    """
    suffix = path.suffix.lower()
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".npz": _read_npz,
               ".parquet": _read_parquet, ".pq": _read_parquet}  # fmt: skip
    if suffix not in readers:
        raise InputFault(
            f"{path} is none of the kinds of data file this reads ({suffix or 'no suffix'})",
            advice=f"Expected one of: {', '.join(sorted(readers))}.",
        )
    data = read_bounded(path, DATA_MAX_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    columns, tensors, unnamed = readers[suffix](path, data)
    rows = {len(column) for column in columns.values()}
    if len(rows) > 1:
        raise InputFault(f"{path} has columns of different lengths: {sorted(rows)}")
    count = rows.pop() if rows else max((len(t) for t in tensors.values() if t.ndim), default=0)
    if count == 0:
        raise InputFault(f"{path} has no rows", advice="Give at least one row of data.")
    return Table(path, digest, count, columns, tensors, unnamed)


_Parts = tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]], bool]


def _read_csv(path: Path, data: bytes) -> _Parts:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputFault(
            f"{path} is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}",
            advice="Save it as UTF-8.",
        ) from error
    if not text.strip():
        raise InputFault(f"{path} is empty", advice="Expected a header line and rows.")
    first = text[: text.find("\n")] if "\n" in text else text
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        _check_names(path, header)
        rows = []
        for number, row in enumerate((row for row in reader if row), start=1):
            if len(row) != len(header):
                raise InputFault(
                    f"{path}: row {number} has {len(row)} cells, the header has {len(header)}",
                    advice="Quote cells that hold the delimiter.",
                )
            rows.append(row)
    except csv.Error as error:
        raise InputFault(f"{path} is not readable CSV: {error}") from error
    return dict(zip(header, _object_columns(rows, len(header)), strict=True)), {}, False


def _object_columns(rows: Sequence[Sequence[str]], width: int) -> list[NDArray[Any]]:
    if not rows:
        return [np.empty(0, dtype=object) for _ in range(width)]
    return [np.array(cells, dtype=object) for cells in zip(*rows, strict=True)]


def _read_parquet(path: Path, data: bytes) -> _Parts:
    arrow = need("pyarrow", "reading Parquet")
    parquet = need("pyarrow.parquet", "reading Parquet")
    try:
        table = parquet.read_table(arrow.BufferReader(data))
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise InputFault(f"{path} is not a readable Parquet file: {error}") from error
    _check_names(path, table.column_names)
    columns = {
        name: _arrow_column(arrow, table.column(name), path, name) for name in table.column_names
    }
    return columns, {}, False


def _arrow_column(arrow: Any, column: Any, path: Path, name: str) -> NDArray[Any]:
    types = arrow.types
    kind = column.type
    if types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return np.array(
            [math.nan if cell is None else float(cell) for cell in column.to_pylist()],
            dtype=np.float64,
        )
    if types.is_timestamp(kind) or types.is_date(kind):
        seconds = column.cast(arrow.timestamp("us")).cast(arrow.int64()).to_pylist()
        return np.array(
            [math.nan if cell is None else cell / 1e6 for cell in seconds], dtype=np.float64
        )
    if types.is_decimal(kind) or types.is_null(kind):
        return np.array(
            [math.nan if cell is None else float(cell) for cell in column.to_pylist()],
            dtype=np.float64,
        )
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        out = np.empty(len(column), dtype=object)
        out[:] = column.to_pylist()
        return out
    raise InputFault(
        f"{path}: column {name!r} is of type {kind}, which is neither a number nor text",
        advice="Drop it or turn it into numbers or text.",
    )


def _read_npz(path: Path, data: bytes) -> _Parts:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputFault(
            f"{path} is not a readable NPZ file: {error}",
            advice="Write it with numpy.savez; object arrays cannot be read safely.",
        ) from error
    if "X" not in arrays or arrays["X"].ndim != 2:
        return {}, arrays, False
    table = arrays["X"]
    names = [str(name) for name in arrays.get("columns", np.array([])).ravel().tolist()]
    unnamed = not names
    names = names or [f"x{i}" for i in range(table.shape[1])]
    if len(names) != table.shape[1]:
        raise InputFault(f"{path}: X has {table.shape[1]} columns but {len(names)} names")
    if "y" in arrays:
        names.append("y")
    _check_names(path, names)
    columns = {
        name: _plain(table[:, i], path, name) for i, name in enumerate(names[: table.shape[1]])
    }
    if "y" in arrays:
        columns["y"] = _plain(arrays["y"].ravel(), path, "y")
    return columns, arrays, unnamed


def _plain(column: NDArray[Any], path: Path, name: str) -> NDArray[Any]:
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    if column.dtype.kind in "US":
        out = np.empty(len(column), dtype=object)
        out[:] = [str(cell) for cell in column.tolist()]
        return out
    raise InputFault(f"{path}: column {name!r} is of type {column.dtype}, not numbers or text")


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


def _number(cell: object, name: str, row: int) -> float:
    if cell is None:
        return math.nan
    if isinstance(cell, float):
        return cell
    text = str(cell).strip()
    lowered = text.lower()
    if lowered in MISSING_NUMBERS:
        return math.nan
    if lowered in _TRUTH:
        return _TRUTH[lowered]
    try:
        if "_" in text:  # Python reads 1_000 as a number; no one else does
            raise ValueError
        return float(text)
    except ValueError:
        raise InputFault(
            f"column {name!r}, row {row}: {text[:80]!r} is not a number",
            advice="Correct the cell, or leave it empty if the value is missing.",
        ) from None


def _text(cell: object) -> str | None:
    if cell is None or cell == "":
        return None
    if isinstance(cell, float):
        if math.isnan(cell):
            return None
        return str(int(cell)) if cell.is_integer() else repr(cell)
    return str(cell)

"""Rows of CSV and NPZ files for one model, a block at a time.

Guards: memory is bounded however long a file, line or cell is; a column is found by its name; text
in a number column is never guessed at; a row that does not fit is a finding with its line and costs
no other row its answer. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import csv
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from edge_agent.blocks import BLOCK_ROWS
from edge_contract.errors import InputFault
from edge_contract.manifest import Manifest

LINE_MAX_CHARS = 16 * 1024**2
NPZ_MAX_BYTES = 4 * 1024**3
MISSING_NUMBERS = frozenset({"", "nan", "na", "n/a", "null", "none"})
"""What a number's cell may say for "missing", without case and blanks: as when it was built."""
_TRUTH = {"true": 1.0, "false": 0.0}
_EXACT = 2**53
_DELIMITERS = ",;\t"
_QUOTED = re.compile(r'"[^"]*"')
"""What lies between quotes delimits nothing."""


class Block(NamedTuple):
    """Some rows for ``Model.predict``.

    Attributes:
        places: of each row, to be named in an answer: its line in a CSV file, from 1 with the
            header; or its number, from 1.
        rows: a list of dicts, or arrays by tensor name.
        faults: rows that could not even be read, by their places.
    """

    places: Sequence[int]
    rows: Any
    faults: Mapping[int, InputFault] = {}

    def one(self, at: int) -> Any:
        """Row ``at`` of the block by itself, in a form that gives a list of one answer."""
        if isinstance(self.rows, list):
            return [self.rows[at]]
        return {name: array[at : at + 1] for name, array in self.rows.items()}


class CsvRows:
    """The rows of a CSV file: a header of feature names, ``,``, ``;`` or tab between the cells.

    Attributes:
        unused: columns that the model does not take.

    Raises InputFault when the header lacks a feature, names one twice, or there is none.
    """

    def __init__(self, stream: TextIO, manifest: Manifest) -> None:
        if not manifest.features:
            tensors = ", ".join(tensor.name for tensor in manifest.inputs)
            raise InputFault(
                f"{manifest.name} takes whole tensors, which CSV does not hold",
                advice=f"Pass an .npz file with arrays of the names {tensors}.",
            )
        lines = _Lines(stream)
        first = next(lines, "").removeprefix("\ufeff")
        if not first.strip():
            raise InputFault("the CSV file has no header", advice="Name the columns first.")
        delimiter = max(_DELIMITERS, key=_QUOTED.sub("", first).count)
        self._lines = lines
        self._reader = csv.reader(_after(first, lines), delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next(self._reader)]
        except csv.Error as error:
            raise InputFault(f"the CSV file's header cannot be read: {error}") from error
        self._width = len(header)
        self._takes = [
            (feature.name, header.index(feature.name), feature.type == "number")
            for feature in manifest.features
            if feature.name in header
        ]
        _check_header(header, manifest)
        known = {feature.name for feature in manifest.features}
        self.unused = tuple(name for name in header if name not in known)

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[Block]:
        """All rows, ``size`` at a time. Raises InputFault where the text ends to be CSV."""
        found = self._rows()
        while taken := list(islice(found, size)):
            good = [(line, row) for line, row in taken if not isinstance(row, InputFault)]
            faults = {line: row for line, row in taken if isinstance(row, InputFault)}
            yield Block([line for line, _ in good], [row for _, row in good], faults)

    def _rows(self) -> Iterator[tuple[int, dict[str, Any] | InputFault]]:
        while True:
            line = self._lines.number + 1
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                yield line, InputFault(f"line {line} cannot be read: {error}")
                continue
            if cells is None:
                return
            if cells:
                yield line, self._row(cells)

    def _row(self, cells: list[str]) -> dict[str, Any] | InputFault:
        if len(cells) != self._width:
            return InputFault(f"{len(cells)} cells, the header has {self._width}")
        row: dict[str, Any] = {}
        for name, at, number in self._takes:
            if not number:
                row[name] = cells[at] or None
                continue
            value = _number(cells[at])
            if isinstance(value, str):
                return InputFault(f"feature {name!r} is {value.strip()[:40]!r}, expected a number")
            row[name] = value
        return row


class NpzRows:
    """The rows of an NPZ file: arrays by tensor name, or columns by feature name.

    Raises InputFault when the file is none, or its arrays have not as many rows as each other.
    """

    unused: tuple[str, ...] = ()

    def __init__(self, path: Path, manifest: Manifest) -> None:
        names = {tensor.name for tensor in manifest.inputs}
        features = [feature.name for feature in manifest.features]
        arrays = _load(path, names | set(features))
        if features and set(arrays) >= set(features):
            self._arrays: dict[str, Any] = {name: arrays[name] for name in features}
            self._columns = True
        elif set(arrays) >= names:
            self._arrays, self._columns = {name: arrays[name] for name in names}, False
        else:
            missing = sorted((set(features) or names) - set(arrays))
            raise InputFault(f"{path} has no array {missing[0]!r}", advice="np.savez names them.")
        lengths = {len(array) if array.ndim else 0 for array in self._arrays.values()}
        if len(lengths) != 1:
            raise InputFault(f"{path}: arrays of different numbers of rows: {sorted(lengths)}")
        self._rows = lengths.pop()
        first = {tensor.shape[0] if tensor.shape else 0 for tensor in manifest.inputs}
        self._step = {None: BLOCK_ROWS, 1: 1}.get(first.pop(), self._rows) or 1
        if first:  # tensors that differ in it
            self._step = max(self._rows, 1)

    def blocks(self) -> Iterator[Block]:
        """All rows; those of a model with a fixed number of rows at once."""
        for start in range(0, self._rows, self._step):
            cut = {name: array[start : start + self._step] for name, array in self._arrays.items()}
            count = min(self._step, self._rows - start)
            rows = _as_dicts(cut) if self._columns else cut
            yield Block(range(start + 1, start + 1 + count), rows)


class _Lines:
    """Lines of a text stream, none longer than it may be; ``number`` of the last one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        try:
            line = self._stream.readline(LINE_MAX_CHARS)
        except UnicodeDecodeError as error:
            raise InputFault(
                f"the text behind line {self.number} is not UTF-8: {error.reason}",
                advice="Convert it: iconv -t UTF-8.",
            ) from error
        if not line:
            raise StopIteration
        if len(line) >= LINE_MAX_CHARS:
            raise InputFault(f"line {self.number + 1} is over {LINE_MAX_CHARS} characters")
        self.number += 1
        return line


def _after(first: str, lines: Iterable[str]) -> Iterator[str]:
    yield first
    yield from lines


def _check_header(header: list[str], manifest: Manifest) -> None:
    missing = [each.name for each in manifest.features if each.name not in header]
    if missing:
        shown = ", ".join(repr(name) for name in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InputFault(
            f"the header lacks {shown}{more}", advice=f"It has: {', '.join(header[:20])}."
        )
    for feature in manifest.features:
        if header.count(feature.name) > 1:
            raise InputFault(f"the header names {feature.name!r} twice")


def _number(cell: str) -> float | int | str | None:
    """A cell of a number column: None where missing, its text where it is no number."""
    try:
        value = float(cell)
    except ValueError:
        word = cell.strip().lower()
        return None if word in MISSING_NUMBERS else _TRUTH.get(word, cell)
    if "_" in cell:  # Python reads 1_000 as a number; no one else does
        return cell
    if math.isnan(value):
        return None
    if abs(value) >= _EXACT and cell.strip().lstrip("+-").isdigit():
        with contextlib.suppress(ValueError):  # of more digits than Python reads: infinite, or 0s
            return int(cell)
    return value


def _load(path: Path, names: set[str]) -> dict[str, Any]:
    try:
        if path.stat().st_size > NPZ_MAX_BYTES:
            raise InputFault(f"{path} is over the limit of {NPZ_MAX_BYTES} bytes")
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > NPZ_MAX_BYTES:
            raise InputFault(f"{path} unpacks to {size} bytes, over the limit of {NPZ_MAX_BYTES}")
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files if name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputFault(f"{path} is no NPZ file that can be read: {error}") from error


def _as_dicts(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    lists = [np.asarray(array).tolist() for array in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]

"""NPZ: a table ``X`` with its names, or one array an input tensor.

Guards: an array's size is read from its header before it is loaded, and no object in it is ever
unpickled. A table that is too large to keep is read in rows; whole tensors that are, are refused.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault

LOADED_MAX_BYTES = 512 * 1024**2
"""Arrays that are not read in rows, all together."""
_PIECE_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class _Head:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def nbytes(self) -> int:
        size = self.dtype.itemsize
        for extent in self.shape:
            size *= int(extent)
        return size


class Npz:
    """One NPZ file while it is read: ``header``, ``tensors``, then ``pieces``.

    Attributes:
        tensors: the arrays by name; without ``X`` and ``y`` where the table was read in rows.
        unnamed: the table's columns had no names.
    """

    def __init__(self, path: Path, *, loaded_max: int = LOADED_MAX_BYTES) -> None:
        self._path = path
        heads = self._heads()
        x = heads.get("X")
        self._rows_of = (len(x.shape) == 2 and x) or None if x else None
        large = sum(head.nbytes for head in heads.values()) > loaded_max
        self._streamed = large and self._rows_of is not None and not self._rows_of.fortran
        left = {n: h for n, h in heads.items() if not (self._streamed and n in ("X", "y"))}
        if (size := sum(head.nbytes for head in left.values())) > loaded_max:
            raise InputFault(
                f"{path} holds arrays of {size} bytes, over the limit of {loaded_max}",
                advice="Give a part of the rows; a table X in C order may be of any size.",
            )
        self.tensors: dict[str, NDArray[Any]] = {name: self._array(name) for name in left}
        self.unnamed = False
        self.header: list[str] = []
        if self._rows_of is not None:
            self.header = self._names(self._rows_of, "y" in heads)
        self._y = heads.get("y")

    def _heads(self) -> dict[str, _Head]:
        try:
            with zipfile.ZipFile(self._path) as packed:
                return {
                    name.removesuffix(".npy"): self._head(packed, name)
                    for name in packed.namelist()
                    if name.endswith(".npy")
                }
        except FileNotFoundError as error:
            raise InputFault(f"cannot read {self._path}: {error.strerror}") from error
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError,
                RuntimeError) as error:  # fmt: skip
            raise self._unreadable(error) from error

    def _head(self, packed: zipfile.ZipFile, name: str) -> _Head:
        with packed.open(name) as file:
            return _read_head(file)

    def _array(self, name: str) -> NDArray[Any]:
        try:
            with np.load(self._path, allow_pickle=False) as file:
                return np.asarray(file[name])
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> InputFault:
        return InputFault(
            f"{self._path} is not a readable NPZ file: {error}",
            advice="Write it with numpy.savez; object arrays cannot be read safely.",
        )

    def _names(self, x: _Head, with_y: bool) -> list[str]:
        width = x.shape[1]
        given = self.tensors.get("columns", np.array([])).ravel().tolist()
        names = [self._text(name) for name in given]
        self.unnamed = not names
        names = names or [f"x{i}" for i in range(width)]
        if len(names) != width:
            raise InputFault(f"{self._path}: X has {width} columns but {len(names)} names")
        return [*names, "y"] if with_y else names

    def pieces(self) -> Iterator[list[Any]]:
        """The columns of the next rows: float64, or object arrays of text.

        Raises InputFault when X and y differ in length, or hold neither numbers nor text.
        """
        if self._rows_of is None:
            return
        length = self._rows_of.shape[0]
        count = self._y.shape[0] if self._y is not None and self._y.shape else length
        if self._y is not None and (self._y.nbytes // self._y.dtype.itemsize) != length:
            raise InputFault(
                f"{self._path} has columns of different lengths: {sorted({length, count})}"
            )
        row_bytes = max(1, self._rows_of.nbytes // max(length, 1))
        step = max(1, _PIECE_BYTES // row_bytes)
        for x, y in zip(self._parts("X", step), self._parts("y", step), strict=False):
            columns = [self._plain(x[:, i], self.header[i]) for i in range(x.shape[1])]
            if y is not None:
                columns.append(self._plain(y.ravel(), "y"))
            yield columns

    def _parts(self, name: str, step: int) -> Iterator[Any]:
        """An array's next rows; None for ever where there is no such array."""
        if name == "y" and self._y is None:
            while True:
                yield None
        if not self._streamed:
            array = self.tensors[name]
            array = array.ravel() if name == "y" else array
            yield from (array[i : i + step] for i in range(0, len(array), step))
            return
        try:
            with zipfile.ZipFile(self._path) as packed, packed.open(f"{name}.npy") as file:
                yield from _read_rows(file, step)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise self._unreadable(error) from error

    def _plain(self, column: NDArray[Any], name: str) -> NDArray[Any]:
        if column.dtype.kind in "biuf":
            return column.astype(np.float64)
        if column.dtype.kind in "US":
            out = np.empty(len(column), dtype=object)
            out[:] = [self._text(cell) for cell in column.tolist()]
            return out
        raise InputFault(
            f"{self._path}: column {name!r} is of type {column.dtype}, not numbers or text"
        )

    def _text(self, cell: object) -> str:
        try:
            return cell.decode() if isinstance(cell, bytes) else str(cell)
        except UnicodeDecodeError as error:
            raise InputFault(
                f"{self._path}: the text {cell!r} is not UTF-8",
                advice="Write text as numpy's str, or its bytes as UTF-8.",
            ) from error


def _read_head(file: IO[bytes]) -> _Head:
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"an array of format {version}")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    return _Head(tuple(shape), dtype, fortran)


def _read_rows(file: IO[bytes], step: int) -> Iterator[NDArray[Any]]:
    head = _read_head(file)
    rest: Sequence[int] = head.shape[1:]
    row = head.dtype.itemsize * int(np.prod(rest, dtype=np.int64))
    for start in range(0, head.shape[0], step):
        count = min(step, head.shape[0] - start)
        data = file.read(count * row)
        if len(data) != count * row:
            raise EOFError("the file ends in the middle of an array")
        yield np.frombuffer(data, dtype=head.dtype).reshape(count, *rest)

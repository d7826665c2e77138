"""Parquet, piece by piece: numbers and times as float64, text as text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_pack.extras import need

ROWS = 65_536
CELLS = 2_000_000
_EXACT = 2**53


class Parquet:
    """One Parquet file while it is read: ``header``, then ``pieces``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._arrow = need("pyarrow", "reading Parquet")
        parquet = need("pyarrow.parquet", "reading Parquet")
        try:
            self._file = parquet.ParquetFile(path, memory_map=True)
        except FileNotFoundError as error:
            raise InputFault(f"cannot read {path}: {error.strerror}") from error
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise InputFault(f"{path} is not a readable Parquet file: {error}") from error
        self.tensors: dict[str, NDArray[Any]] = {}
        self.unnamed = False
        self.header: list[str] = [str(name) for name in self._file.schema_arrow.names]

    def pieces(self) -> Iterator[list[Any]]:
        """The columns of the next rows: float64, or Arrow text.

        Raises InputFault for a column that is neither numbers nor text, and for damage.
        """
        rows = max(1, min(ROWS, CELLS // max(len(self.header), 1)))
        try:
            for batch in self._file.iter_batches(batch_size=rows, use_threads=False):
                yield [self._column(batch, i) for i in range(len(self.header))]
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise InputFault(f"{self._path} is not a readable Parquet file: {error}") from error

    def _column(self, batch: Any, position: int) -> Any:
        arrow, types = self._arrow, self._arrow.types
        column = batch.column(position)
        kind = column.type
        if types.is_dictionary(kind):
            kind = kind.value_type
            column = column.cast(kind)
        if types.is_boolean(kind):
            column, kind = column.cast(arrow.int8()), arrow.int8()
        if types.is_integer(kind) or types.is_floating(kind):
            return _floats(column, 1)
        if types.is_timestamp(kind) or types.is_date(kind):
            micros = column.cast(arrow.timestamp("us"), safe=False).cast(arrow.int64())
            return _floats(micros, 1_000_000)
        if types.is_decimal(kind) or types.is_null(kind):
            cells = column.to_pylist()
            return np.array([math.nan if c is None else float(c) for c in cells], dtype=np.float64)
        if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            return column.cast(arrow.large_string())
        raise InputFault(
            f"{self._path}: column {self.header[position]!r} is of type {kind}, which is neither "
            "a number nor text",
            advice="Drop it or turn it into numbers or text.",
        )


def _floats(column: Any, per: int) -> NDArray[np.float64]:
    """The numbers divided by ``per``, each rounded once."""
    missing = None
    if column.null_count:
        missing = column.is_null().to_numpy(zero_copy_only=False)
        column = column.fill_null(0)
    raw = column.to_numpy(zero_copy_only=False)
    if per != 1 and raw.size and max(abs(int(raw.max())), abs(int(raw.min()))) > _EXACT:
        values = np.array([cell / per for cell in raw.tolist()], dtype=np.float64)
    else:
        values = raw.astype(np.float64) / per if per != 1 else raw.astype(np.float64)
    if missing is not None:
        values[missing] = math.nan
    return values

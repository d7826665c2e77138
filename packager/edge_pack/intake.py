"""What a model takes: its columns with their types, and the tensors that carry them.

Guards: features are matched by name wherever the model or the data has names; a column is text
only where the fitted model treats it as text, so a stray word in a number column is a fault and
never a category.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.manifest import Tensor
from edge_pack.tables import Table

INPUT = "input"
"""Name of the one tensor of a model that takes numbers only."""


@dataclass(frozen=True)
class Column:
    """One feature.

    Attributes:
        text: it is text, of the categories ``known`` to the model; or ``free`` text.
        lower: the model reads it in lower case.
    """

    name: str
    text: bool = False
    known: tuple[str, ...] = ()
    free: bool = False
    lower: bool = False


@dataclass(frozen=True)
class Intake:
    """Columns in the original's order, and the ONNX model's input tensors.

    ``batch``: a tensor's first axis is rows; or it is fixed at one and each sample runs alone;
    or the tensors share no row axis and run as they are.
    """

    columns: tuple[Column, ...]
    tensors: tuple[Tensor, ...]
    batch: Literal["rows", "single", "whole"] = "rows"

    def keep(self, names: set[str]) -> Intake:
        """The same without tensors that the converted model does not have."""
        return replace(self, tensors=tuple(t for t in self.tensors if t.name in names))

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that fill a tensor."""
        used = {name for tensor in self.tensors for name in tensor.features}
        return tuple(column for column in self.columns if column.name in used)


@dataclass(frozen=True)
class Rows:
    """Raw rows: float64 or text columns by feature name, or whole tensors by tensor name."""

    count: int
    columns: Mapping[str, NDArray[Any]]
    tensors: Mapping[str, NDArray[Any]]
    positions: NDArray[np.int64] | None = None
    """Where each row stands in its file, from 0; None: in this order."""

    def row_number(self, position: int) -> int:
        """What a person calls the row: its number in the file, from 1."""
        return int(self.positions[position] if self.positions is not None else position) + 1

    def take(self, where: NDArray[np.int64]) -> Rows:
        """Some of the rows, in the given order."""
        return Rows(
            len(where),
            {name: column[where] for name, column in self.columns.items()},
            {name: tensor[where] for name, tensor in self.tensors.items()},
            self.positions[where] if self.positions is not None else None,
        )

    def matrix(self) -> NDArray[np.float64]:
        """All columns side by side as float64 [rows, columns]."""
        return np.column_stack([np.asarray(c, dtype=np.float64) for c in self.columns.values()])


def held_out(table: Table, target: str, time_column: str, named: Sequence[str]) -> list[str]:
    """The data's columns that may be features, in their order.

    Args:
        target, time_column: columns that are no features, or "". A time column may still be one
            that the model was trained with by name.
        named: the names that the model was trained with, if it has any.

    Raises InputFault when there is no such column, or the target is a feature.
    """
    for name in filter(None, (target, time_column)):
        if name not in table.columns:
            raise InputFault(
                f"{table.path} has no column {name!r}", advice=f"It has {listed(table.columns)}."
            )
    if target and target in named:
        raise InputFault(
            f"the target {target!r} is among the features that the model was trained on",
            advice="Name the column with the true answers, or train without it.",
        )
    out = {target, time_column}.difference(named)
    return [name for name in table.columns if name not in out]


def read_rows(intake: Intake, table: Table) -> Rows:
    """The table's rows as the model takes them.

    Raises InputFault naming column and row for text in a number or an infinite value.
    """
    columns: dict[str, NDArray[Any]] = {}
    for column in intake.columns:
        if column.text:
            found = table.texts(column.name)
            if column.free:  # no words are a text too
                found[[item is None for item in found.tolist()]] = ""
            columns[column.name] = found
            continue
        values = table.numbers(column.name)
        if (infinite := table.infinite(column.name, values)) is not None:
            raise InputFault(
                f"column {column.name!r}, row {infinite[0]}: {infinite[1]} is infinite",
                advice="Leave the cell empty if the value is missing.",
            )
        columns[column.name] = values
    if columns:
        return Rows(table.rows, columns, {}, table.positions)
    tensors = {tensor.name: table.tensors[tensor.name] for tensor in intake.tensors}
    count = 1 if intake.batch == "whole" else len(next(iter(tensors.values())))
    return Rows(count, {}, tensors)


def whole_tensors(tensors: tuple[Tensor, ...], table: Table) -> Intake:
    """Tensors passed whole, from the NPZ file's arrays of the same names.

    Raises InputFault when one is lacking or has another shape.
    """
    missing = [tensor.name for tensor in tensors if tensor.name not in table.tensors]
    if missing:
        raise InputFault(
            f"{table.path} lacks an array for the input {listed(missing)}",
            advice=f"It has {listed(table.tensors)}.",
        )
    arrays = [table.tensors[tensor.name] for tensor in tensors]
    for tensor, array in zip(tensors, arrays, strict=True):
        rest = zip(tensor.shape[1:], array.shape[1:], strict=False)
        if len(tensor.shape) != array.ndim or any(w not in (None, g) for w, g in rest):
            raise InputFault(
                f"array {tensor.name!r} has shape {list(array.shape)}, the model takes "
                f"{[extent if extent is not None else 'any' for extent in tensor.shape]}"
            )
    lengths = {len(array) if array.ndim else 0 for array in arrays}
    first = [tensor.shape[0] if tensor.shape else 0 for tensor in tensors]
    if len(lengths) == 1 and all(extent is None for extent in first):
        return Intake((), tensors, "rows")
    if len(lengths) == 1 and all(extent == 1 for extent in first):
        return Intake((), tensors, "single")
    for tensor, array in zip(tensors, arrays, strict=True):
        if tensor.shape and tensor.shape[0] not in (None, len(array)):
            raise InputFault(
                f"array {tensor.name!r} has {len(array)} rows, the model takes {tensor.shape[0]}"
            )
    return Intake((), tensors, "whole")


def listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    """The first names, for a message."""
    shown = [repr(name) for name in list(names)[:6]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")

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
from edge_pack.sources import Estimator, Graph, Source
from edge_pack.steps import ignored_columns, reads_names, text_columns
from edge_pack.tables import Table

INPUT = "input"
"""Name of the one tensor of a model that takes numbers only."""

_DTYPES: dict[int, Any] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip
"""TensorProto.DataType (onnx.proto3) of what a device can be handed."""


@dataclass(frozen=True)
class Column:
    """One feature: its name, whether it is text, and the categories the model learned."""

    name: str
    text: bool = False
    known: tuple[str, ...] = ()


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

    def take(self, where: NDArray[np.int64]) -> Rows:
        """Some of the rows, in the given order."""
        return Rows(
            len(where),
            {name: column[where] for name, column in self.columns.items()},
            {name: tensor[where] for name, tensor in self.tensors.items()},
        )

    def matrix(self) -> NDArray[np.float64]:
        """All columns side by side as float64 [rows, columns]."""
        return np.column_stack([np.asarray(c, dtype=np.float64) for c in self.columns.values()])


def plan(source: Source, table: Table, target: str, time_column: str) -> Intake:
    """What the model takes, given the data's columns.

    Args:
        target, time_column: columns that are no features, or "". A time column may still be one
            that the model was trained with by name.

    Raises InputFault when the data lacks a column or a tensor that the model needs.
    """
    for name in filter(None, (target, time_column)):
        if name not in table.columns:
            raise InputFault(
                f"{table.path} has no column {name!r}", advice=f"It has {_listed(table.columns)}."
            )
    named = [str(name) for name in getattr(_model(source), "feature_names_in_", ())]
    if target and target in named:
        raise InputFault(
            f"the target {target!r} is among the features that the model was trained on",
            advice="Name the column with the true answers, or train without it.",
        )
    held_out = {target, time_column}.difference(named)
    available = [name for name in table.columns if name not in held_out]
    if isinstance(source, Estimator):
        return _of_estimator(source, table, available, named)
    return _of_graph(source, table, available)


def _model(source: Source) -> Any:
    return source.model if isinstance(source, Estimator) else None


def read_rows(intake: Intake, table: Table) -> Rows:
    """The table's rows as the model takes them.

    Raises InputFault naming column and row for text in a number or an infinite value.
    """
    columns: dict[str, NDArray[Any]] = {}
    for column in intake.columns:
        if column.text:
            columns[column.name] = table.texts(column.name)
            continue
        values = table.numbers(column.name)
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise InputFault(
                f"column {column.name!r}, row {infinite[0] + 1}: {values[infinite[0]]} is infinite",
                advice="Leave the cell empty if the value is missing.",
            )
        columns[column.name] = values
    if columns:
        return Rows(table.rows, columns, {})
    tensors = {tensor.name: table.tensors[tensor.name] for tensor in intake.tensors}
    count = 1 if intake.batch == "whole" else len(next(iter(tensors.values())))
    return Rows(count, {}, tensors)


def _of_estimator(
    source: Estimator, table: Table, available: list[str], named: list[str]
) -> Intake:
    model = source.model
    names = named
    width = int(getattr(model, "n_features_in_", len(names) or len(available)))
    if names and table.unnamed:
        raise InputFault(
            f"the model was trained on named columns ({_listed(names)}), but {table.path} has no "
            f"names for its {len(available)} columns",
            advice="Add an array 'columns' with the names to the NPZ file.",
        )
    if not names:
        if len(available) != width:
            raise InputFault(
                f"the model takes {width} columns, {table.path} has {len(available)}: "
                f"{_listed(available)}",
                advice="Name the answer's column with --target, and drop what is no feature.",
            )
        names = available
    missing = [name for name in names if name not in available]
    if missing:
        raise InputFault(
            f"{table.path} lacks {_listed(missing)}, which the model was trained on",
            advice=f"It has {_listed(available)}.",
        )
    texts = text_columns(model, names)
    ignored = ignored_columns(model, names)
    for name in ignored:  # nothing is known of them but what the data shows
        if not table.is_numeric(name):
            texts[name] = ()
    columns = tuple(Column(name, name in texts, texts.get(name, ())) for name in names)
    if not texts and not reads_names(model):
        tensor = Tensor(name=INPUT, dtype="float32", shape=(None, width), features=tuple(names))
        return Intake(columns, (tensor,))
    tensors = tuple(
        Tensor(
            name=column.name,
            dtype="string" if column.text else "float32",
            shape=(None, 1),
            features=(column.name,),
        )
        for column in columns
    )
    return Intake(columns, tensors)


def _of_graph(source: Graph, table: Table, available: list[str]) -> Intake:
    graph = source.proto.graph
    stored = {initializer.name for initializer in graph.initializer}
    tensors = tuple(_tensor(value) for value in graph.input if value.name not in stored)
    if not tensors:
        raise InputFault("the ONNX model has no input, so there is nothing to predict from")
    if table.columns:
        return _columns_of(tensors, table, available)
    return whole_tensors(tensors, table)


def _columns_of(tensors: tuple[Tensor, ...], table: Table, available: list[str]) -> Intake:
    """Rank-2 tensors filled from the table's columns: one for all, or one a column."""
    for tensor in tensors:
        if len(tensor.shape) != 2 or tensor.shape[0] is not None:
            shape = ", ".join("any" if extent is None else str(extent) for extent in tensor.shape)
            raise InputFault(
                f"input {tensor.name!r} has shape [{shape}]; a table's columns fill [any, columns]",
                advice="Give an .npz file with one array for each input tensor, or export the "
                "model with a dynamic first axis.",
            )
    if len(tensors) == 1:
        (tensor,) = tensors
        width = tensor.shape[1]
        if width is not None and width != len(available):
            raise InputFault(
                f"input {tensor.name!r} takes {width} columns, {table.path} has "
                f"{len(available)}: {_listed(available)}",
                advice="Name the answer's column with --target, and drop what is no feature.",
            )
        names = tuple(available)
        text = tensor.dtype == "string"
        filled = Tensor(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, features=names)
        return Intake(tuple(Column(name, text) for name in names), (filled,))
    wide = [tensor.name for tensor in tensors if tensor.shape[1] not in (1, None)]
    missing = [tensor.name for tensor in tensors if tensor.name not in available]
    if wide or missing:
        raise InputFault(
            f"the model has {len(tensors)} inputs; {_listed(wide or missing)} "
            + ("take more than one column" if wide else f"are no columns of {table.path}"),
            advice="Give an .npz file with one array for each input tensor.",
        )
    return Intake(
        tuple(Column(tensor.name, tensor.dtype == "string") for tensor in tensors),
        tuple(
            Tensor(name=t.name, dtype=t.dtype, shape=t.shape, features=(t.name,)) for t in tensors
        ),
    )


def whole_tensors(tensors: tuple[Tensor, ...], table: Table) -> Intake:
    """Tensors passed whole, from the NPZ file's arrays of the same names.

    Raises InputFault when one is lacking or has another shape.
    """
    missing = [tensor.name for tensor in tensors if tensor.name not in table.tensors]
    if missing:
        raise InputFault(
            f"{table.path} lacks an array for the input {_listed(missing)}",
            advice=f"It has {_listed(table.tensors)}.",
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


def _tensor(value: Any) -> Tensor:
    kind = value.type.tensor_type
    dtype = _DTYPES.get(kind.elem_type)
    if not value.type.HasField("tensor_type") or dtype is None:
        raise InputFault(
            f"input {value.name!r} is not a plain tensor of numbers or text",
            advice="Export the model with plain tensors as inputs.",
        )
    shape = tuple(
        int(extent.dim_value) if extent.HasField("dim_value") else None for extent in kind.shape.dim
    )
    return Tensor(name=value.name, dtype=dtype, shape=shape)


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = [repr(name) for name in list(names)[:6]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")

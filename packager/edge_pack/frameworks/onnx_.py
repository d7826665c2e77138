"""Any ONNX file: it is its own original, run as given; its arithmetic stays as exported."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edge_agent.runtime import Session
from edge_contract.errors import BuildFault, InputFault
from edge_contract.manifest import Feature, Label, Outputs, Task, Tensor
from edge_contract.ports.disk import read_bounded
from edge_pack import graphs, inference, runtimes
from edge_pack.answers import Answers
from edge_pack.extras import need
from edge_pack.intake import Column, Intake, Rows, held_out, listed, whole_tensors
from edge_pack.subject import Converted, Original
from edge_pack.tables import Table

MODEL_MAX_BYTES = 2 * 1024**3
"""Protobuf's limit, hence that of an ONNX file without external data."""

_DTYPES: dict[int, Any] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip
"""TensorProto.DataType (onnx.proto3) of what a device can be handed."""


@dataclass(frozen=True)
class Graph:
    """An ONNX model that passed onnx's own checker; ``proto`` holds any external data."""

    sha256: str
    proto: Any
    kind: ClassVar[str] = "onnx"
    hint: ClassVar[str] = ""

    def plan(self, table: Table, target: str, time_column: str) -> Intake:
        """Its input tensors, filled from the table's columns or passed whole."""
        return _plan(self.proto, table, held_out(table, target, time_column, ()))

    def original(self, intake: Intake, rows: Rows) -> GraphOriginal:
        """The file's model with ZipMap's maps replaced by the tensor they are made of."""
        proto = type(self.proto).FromString(self.proto.SerializeToString())
        labels = graphs.strip_zipmap(proto) or graphs.class_labels(proto)
        task, outputs = _meaning(proto, labels)
        session = Session(graphs.serialise(proto))
        return GraphOriginal(session, intake, task, outputs)

    def convert(
        self,
        original: Original,
        intake: Intake,
        rows: Rows,
        features: Sequence[Feature],
        floor: str,
    ) -> Converted:
        """See ``from_graph``."""
        return from_graph(self, floor)


@dataclass(frozen=True)
class GraphOriginal:
    """The file as it was given, in the runtime that its users have."""

    session: Session
    intake: Intake
    task: Task
    outputs: Outputs

    @property
    def labels(self) -> tuple[Label, ...]:
        """As the graph declares them."""
        return self.outputs.labels

    @property
    def probabilities(self) -> bool:
        """Whether there is a score a label."""
        return bool(self.outputs.scores)

    def answer(self, rows: Rows) -> Answers:
        """What the file says to raw rows."""
        return inference.answer(
            self.session, self.intake, _features(self.intake), rows, self.outputs
        )

    def timed(self, rows: Rows) -> Callable[[], object]:
        """A run of the file over the rows."""
        feeds = inference.feeds_of(self.intake, _features(self.intake), rows)
        return lambda: self.session.run(feeds)


def _features(intake: Intake) -> tuple[Feature, ...]:
    """Columns that accept anything: what rows may hold is not judged while asking."""
    return tuple(
        Feature(name=column.name, type="category" if column.text else "number", missing="allow")
        for column in intake.columns
    )


def load(path: Path) -> Graph:
    """The model in ``path``. Raises InputFault when it is damaged or no ONNX model."""
    onnx = need("onnx", "reading an .onnx file")
    data = read_bounded(path, MODEL_MAX_BYTES)
    try:
        proto = onnx.load_model_from_string(data)
        onnx.external_data_helper.load_external_data_for_model(proto, str(path.parent))
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        said = str(error).strip().splitlines()
        raise InputFault(
            f"{path} is not a valid ONNX model: {said[0][:300] if said else type(error).__name__}",
            advice="The file is damaged or cut off: export or copy it again.",
        ) from error
    return Graph(hashlib.sha256(data).hexdigest(), proto)


def from_graph(graph: Graph, floor: str) -> Converted:
    """The ONNX model with plain outputs, tidied; its arithmetic stays as exported.

    Raises BuildFault for custom operators or outputs that are no tensors.
    """
    limits = runtimes.limits_of(floor)
    proto = type(graph.proto).FromString(graph.proto.SerializeToString())
    stock_bytes = len(proto.SerializeToString())
    graphs.check_known(proto)
    labels = graphs.strip_zipmap(proto) or graphs.class_labels(proto)
    graphs.tidy(proto, ir_max=limits.ir)
    task, outputs = _meaning(proto, labels)
    return Converted(proto, task, outputs, stock_bytes)


_FLOATS = (1, 10, 11)
_LABELS = (6, 7, 8)


def _meaning(proto: Any, labels: tuple[Label, ...]) -> tuple[Task, Outputs]:
    """What the outputs of somebody's ONNX model are, by their types and shapes.

    A label a row beside float columns is a classifier; one float column is a regression; float
    columns out of a Softmax are probabilities; all else stays plain tensors.
    """
    values = list(proto.graph.output)
    for value in values:
        if not value.type.HasField("tensor_type"):
            raise BuildFault(
                f"output {value.name!r} is no tensor", advice="Export with plain tensors."
            )
    names = tuple(value.name for value in values)
    floats = [v for v in values if v.type.tensor_type.elem_type in _FLOATS]
    marks = [v for v in values if v.type.tensor_type.elem_type in _LABELS and _rank(v) <= 1]
    if len(values) == 2 and len(floats) == 1 and len(marks) == 1:
        width = _width(floats[0])
        found = labels or tuple(range(width or 0))
        if found and width in (None, len(found)):
            return "classification", Outputs(
                tensors=names, label=marks[0].name, scores=floats[0].name, labels=found
            )
    if len(values) == 1 and len(floats) == 1 and _rank(floats[0]) in (1, 2):
        width = _width(floats[0])
        if width == 1 and _maker(proto, names[0]) not in ("Softmax", "Sigmoid"):
            return "regression", Outputs(tensors=names, value=names[0])
        if width is not None and width > 1 and _maker(proto, names[0]) == "Softmax":
            return "classification", Outputs(
                tensors=names, scores=names[0], labels=labels or tuple(range(width))
            )
    return "tensors", Outputs(tensors=names)


def _maker(proto: Any, name: str) -> str:
    return next((str(n.op_type) for n in proto.graph.node if name in n.output), "")


def _rank(value: Any) -> int:
    return len(value.type.tensor_type.shape.dim)


def _width(value: Any) -> int | None:
    """Columns of a [rows, columns] output, 1 for [rows], None when the graph does not say."""
    extents = value.type.tensor_type.shape.dim
    if len(extents) == 1:
        return 1
    return int(extents[1].dim_value) if extents[1].HasField("dim_value") else None


def _plan(proto: Any, table: Table, available: list[str]) -> Intake:
    graph = proto.graph
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
                f"{len(available)}: {listed(available)}",
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
            f"the model has {len(tensors)} inputs; {listed(wide or missing)} "
            + ("take more than one column" if wide else f"are no columns of {table.path}"),
            advice="Give an .npz file with one array for each input tensor.",
        )
    return Intake(
        tuple(Column(tensor.name, tensor.dtype == "string") for tensor in tensors),
        tuple(
            Tensor(name=t.name, dtype=t.dtype, shape=t.shape, features=(t.name,)) for t in tensors
        ),
    )


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

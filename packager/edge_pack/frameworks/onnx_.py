"""Any ONNX file: it is its own original, run as given; its arithmetic stays as exported.

The original runs with the runtime's usual optimisations, as its users run it: a quantized file's
arithmetic is defined by the fused kernels, and a bundle that is slower than that is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from edge_agent.runtime import Session
from edge_contract.errors import BuildFault, InputFault
from edge_contract.manifest import Feature, Label, Tensor
from edge_contract.ports.disk import read_bounded
from edge_pack import graphs, runtimes
from edge_pack.extras import need
from edge_pack.frameworks import drawn, meaning, networks, opsets
from edge_pack.frameworks.drawn import Spec
from edge_pack.frameworks.meaning import UNDECLARED, Arrays, Declared
from edge_pack.frameworks.networks import NetworkOriginal
from edge_pack.intake import Intake, Rows, held_out, whole_tensors
from edge_pack.subject import Converted, Original
from edge_pack.tables import Table

MODEL_MAX_BYTES = 2 * 1024**3
"""Protobuf's limit, and that of one file in a bundle."""

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
    declared: Declared = UNDECLARED
    kind: ClassVar[str] = "onnx"
    hint: ClassVar[str] = ""

    @cached_property
    def given(self) -> tuple[Any, tuple[Label, ...]]:
        """The model with ZipMap's maps replaced by the tensor they are made of, and its labels."""
        proto = type(self.proto).FromString(self.proto.SerializeToString())
        return proto, graphs.strip_zipmap(proto) or graphs.class_labels(proto)

    @cached_property
    def session(self) -> Session:
        """The model as given, loaded. Raises InputFault when this runtime cannot."""
        return Session(graphs.serialise(self.given[0]))

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """Its inputs. Raises InputFault for one that is no plain tensor, or when there is none."""
        found = tuple(_tensor(value) for value in _inputs(self.proto))
        if not found:
            raise InputFault("the ONNX model has no input, so there is nothing to predict from")
        return found

    def draw(self) -> Table:
        """Inputs by the model's own shapes and types."""
        names = {tensor.name for tensor in self.tensors}
        extents = _extents(self.proto)
        specs = []
        for value in _inputs(self.proto):
            bound, words = drawn.facts(self.proto, extents, value.name)
            dtype = _DTYPES[value.type.tensor_type.elem_type]
            specs.append(Spec(value.name, dtype, _open_extents(value), bound, words))
        assert names == {spec.name for spec in specs}
        return drawn.from_specs(specs, self.session.run)

    def plan(self, table: Table, target: str, time_column: str) -> Intake:
        """Its input tensors, filled from the table's columns or passed whole."""
        available = held_out(table, target, time_column, ())
        named = all(
            tensor.name in table.tensors and table.tensors[tensor.name].ndim == len(tensor.shape)
            for tensor in self.tensors
        )
        if table.columns and not (named and len(self.tensors) > 1):
            return networks.columns_of(self.tensors, table, available)
        takes = whole_tensors(self.tensors, table)
        return networks.with_row_axis(takes, table.tensors, self.session.run)

    def original(self, intake: Intake, rows: Rows) -> NetworkOriginal:
        """The file's own model."""
        proto, labels = self.given
        run = self.session.run
        sample = networks.sample_of(intake, rows, run)
        found = meaning.of_outputs(
            proto, sample, self.declared, labels, by_row=intake.batch != "whole"
        )
        return NetworkOriginal(run, intake, found)

    def convert(
        self,
        original: Original,
        intake: Intake,
        rows: Rows,
        features: Sequence[Feature],
        floor: str,
    ) -> Converted:
        """The model itself, tidied, with operators that the oldest runtime has."""
        assert isinstance(original, NetworkOriginal)
        sample = networks.sample_of(intake, rows, original.run)
        return tidied(self.given[0], original, sample, floor)


def tidied(proto: Any, original: NetworkOriginal, sample: Arrays, floor: str) -> Converted:
    """A network's graph as a bundle carries it.

    Args:
        sample: the original's outputs for some rows.

    Raises BuildFault for operators that no device has, or none so old.
    """
    inliner = need("onnx.inliner", "building a network")
    limits = runtimes.limits_of(floor)
    stock_bytes = proto.ByteSize()
    copied = type(proto).FromString(proto.SerializeToString())
    if copied.functions:
        copied = inliner.inline_local_functions(copied)
    copied = opsets.lower(copied, limits)
    _unlist_weights(copied)
    meaning.finish(copied, original.meaning, sample)
    graphs.tidy(copied, ir_max=limits.ir)
    return Converted(copied, original.task, original.outputs, stock_bytes)


def _unlist_weights(proto: Any) -> None:
    """Weights that are inputs too (as before IR 4) become weights only: nothing overrides them."""
    wanted = _inputs(proto)
    if len(wanted) == len(proto.graph.input):
        return
    copies = [type(value).FromString(value.SerializeToString()) for value in wanted]
    del proto.graph.input[:]
    proto.graph.input.extend(copies)
    proto.ir_version = max(proto.ir_version, 4)


def load(path: Path, declared: Declared = UNDECLARED) -> Graph:
    """The model in ``path``, with the weights that it keeps in other files.

    Raises:
        InputFault: damaged, no ONNX model, or over 2 GB with its weights; a file of weights that
            is missing or lies outside the model's folder.
        BuildFault: it needs operators that no device has.
    """
    onnx = need("onnx", "reading an .onnx file")
    if path.is_file():
        _check_size(path, path.stat().st_size)
    data = read_bounded(path, MODEL_MAX_BYTES)
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:
        raise _damaged(path, error) from error
    digest = hashlib.sha256(data)
    for file in _weight_files(path, proto):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    try:
        need("onnx.external_data_helper", "reading an .onnx file").load_external_data_for_model(
            proto, str(path.parent)
        )
    except Exception as error:
        raise _weights_fault(path, _first(error)) from error
    for tensor in proto.graph.initializer:
        tensor.ClearField("data_location")  # the same bytes wherever the weights lay
    _check(onnx, path, proto)
    return Graph(digest.hexdigest(), proto, declared)


def _check(onnx: Any, path: Path, proto: Any) -> None:
    try:
        graphs.check_known(proto)
        _check_standard(onnx, proto)
        onnx.checker.check_model(proto)
        onnx.checker.check_model(proto, full_check=True)
    except BuildFault:
        raise
    except onnx.shape_inference.InferenceError:
        return  # stricter about declared shapes than any runtime; the runtime judges next
    except Exception as error:
        raise _damaged(path, error) from error


def _check_standard(onnx: Any, proto: Any) -> None:
    """Raise BuildFault for operators in ONNX's own name that no operator set has."""
    missing = sorted(
        {
            node.op_type
            for node in graphs.every_node(proto)
            if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type, "")
        }
    )
    if missing:
        raise BuildFault(
            f"the model uses operators that onnx {onnx.__version__} does not know: "
            f"{', '.join(missing)}",
            advice="Export it with standard operators only.",
        )


def _weight_files(path: Path, proto: Any) -> list[Path]:
    """The files beside the model that hold weights, sorted by name.

    Raises InputFault for one outside its folder, one that is missing, or too much in all.
    """
    helper = need("onnx.external_data_helper", "reading an .onnx file")
    names = set()
    for tensor in helper._get_all_tensors(proto):
        if helper.uses_external_data(tensor):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            names.add(entries.get("location", ""))
    files, total = [], path.stat().st_size
    folder = path.parent.resolve()
    for name in sorted(names):
        file = path.parent / name
        if not name or Path(name).is_absolute() or not file.resolve().is_relative_to(folder):
            raise InputFault(
                f"{path} wants weights from {name!r}, which is not in its folder",
                advice="Save it again with the weights beside it, or inside it.",
            )
        if not file.is_file():
            raise _weights_fault(path, f"there is no {file}")
        files.append(file)
        total += file.stat().st_size
    _check_size(path, total)
    return files


def _check_size(path: Path, total: int) -> None:
    if total >= MODEL_MAX_BYTES:
        raise InputFault(
            f"{path} has {total / 1e9:.1f} GB with its weights; one file of a bundle holds "
            f"{MODEL_MAX_BYTES / 1e9:.1f} GB",
            advice="Export it in float16 or with int8 weights, or split it into two models.",
        )


def _weights_fault(path: Path, said: str) -> InputFault:
    return InputFault(
        f"{path} keeps its weights in another file, which cannot be read: {said}",
        advice="Copy that file too, into the same folder; or save the model with its weights "
        "inside: onnx.save(onnx.load(path), path).",
    )


def _damaged(path: Path, error: Exception) -> InputFault:
    return InputFault(
        f"{path} is not a valid ONNX model: {_first(error)}",
        advice="The file is damaged or cut off: export or copy it again.",
    )


def _first(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return said[0][:300] if said else type(error).__name__


def _inputs(proto: Any) -> list[Any]:
    """The graph's inputs that are no weights."""
    stored = {initializer.name for initializer in proto.graph.initializer}
    stored.update(item.values.name for item in proto.graph.sparse_initializer)
    return [value for value in proto.graph.input if value.name not in stored]


def _tensor(value: Any) -> Tensor:
    kind = value.type.tensor_type
    dtype = _DTYPES.get(kind.elem_type)
    if not value.type.HasField("tensor_type") or dtype is None:
        raise InputFault(
            f"input {value.name!r} is not a plain tensor of numbers or text, but "
            f"{_type_name(value)}",
            advice="Export the model with plain tensors as inputs.",
        )
    if not kind.HasField("shape"):
        raise InputFault(
            f"input {value.name!r} does not say how many axes it has",
            advice="Export the model with the shapes of its inputs, open extents included.",
        )
    shape = tuple(
        int(extent.dim_value) if extent.HasField("dim_value") else None for extent in kind.shape.dim
    )
    return Tensor(name=value.name, dtype=dtype, shape=shape)


def _type_name(value: Any) -> str:
    which = value.type.WhichOneof("value") or "no type"
    if which == "tensor_type":
        onnx = need("onnx", "reading an .onnx file")
        names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
        return f"a tensor of {names.get(value.type.tensor_type.elem_type, 'an unknown type')}"
    return str(which.removesuffix("_type"))


def _open_extents(value: Any) -> tuple[int | str, ...]:
    """Extents as numbers, open ones by their symbol or a name of their own."""
    found: list[int | str] = []
    for axis, extent in enumerate(value.type.tensor_type.shape.dim):
        if extent.HasField("dim_value"):
            found.append(int(extent.dim_value))
        else:
            found.append(extent.dim_param or f"{value.name}.{axis}")
    return tuple(found)


def _extents(proto: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of weights and of what shape inference finds, open extents as 0."""
    inference = need("onnx.shape_inference", "drawing inputs")
    inferred = inference.infer_shapes(proto)
    found = {
        value.name: tuple(int(extent.dim_value) for extent in value.type.tensor_type.shape.dim)
        for value in (*inferred.graph.value_info, *inferred.graph.input)
    }
    found.update({item.name: tuple(item.dims) for item in proto.graph.initializer})
    return found

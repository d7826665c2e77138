"""A source becomes one ONNX model with plain, named outputs, the same bytes on every machine.

Guards: what a converter cannot do is refused with the step and the way out; nothing is believed
of a conversion here, the parity gate judges it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_contract.errors import BuildFault
from edge_contract.manifest import Label, Outputs, Task
from edge_pack import graphs, runtimes, votes
from edge_pack.extras import need
from edge_pack.intake import Intake
from edge_pack.originals import Original
from edge_pack.sources import Graph
from edge_pack.steps import check_supported, is_text, walk

_CONTAINERS = ("Pipeline", "ColumnTransformer", "FeatureUnion")
LABEL, SCORES, VALUE = "label", "probabilities", "value"


@dataclass(frozen=True)
class Converted:
    """An ONNX model and what its outputs mean.

    Attributes:
        proto: float32, tidy. stock_bytes: size of what the stock converter or exporter gave.
    """

    proto: Any
    task: Task
    outputs: Outputs
    stock_bytes: int


def from_estimator(original: Original, intake: Intake, floor: str) -> Converted:
    """The estimator as ONNX, by skl2onnx.

    Raises BuildFault naming the step that does not convert, and the way out.
    """
    check_supported(original.model)
    limits = runtimes.limits_of(floor)
    proto = _convert(original.model, intake, limits)
    stock_bytes = len(proto.SerializeToString())
    graphs.strip_zipmap(proto)
    votes.count_whole(proto)
    outputs = _name_outputs(proto, original)
    graphs.keep_outputs(proto, outputs.tensors)
    graphs.tidy(proto, ir_max=limits.ir)
    proto.ir_version = _least_ir(proto, limits.ir)
    return Converted(proto, original.task, outputs, stock_bytes)


def _convert(model: Any, intake: Intake, limits: runtimes.Limits) -> Any:
    skl2onnx = need("skl2onnx", "converting scikit-learn to ONNX")
    types = need("skl2onnx.common.data_types", "converting scikit-learn to ONNX")
    _teach_zipmap()
    kinds = {"float32": types.FloatTensorType, "string": types.StringTensorType}
    initial = [(t.name, kinds[t.dtype](list(t.shape))) for t in intake.tensors]
    target = {"": min(runtimes.TARGET_ONNX, limits.onnx),
              "ai.onnx.ml": min(runtimes.TARGET_ML, limits.ml)}  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return skl2onnx.convert_sklearn(
                _eased(model), graphs.GRAPH_NAME, initial, target_opset=target
            )
    except Exception as error:
        raise _conversion_fault(model, error) from error


def _eased(model: Any) -> Any:
    """A copy without options that stop the converter and change no prediction."""
    copied = copy.deepcopy(model)
    for _, step in walk(copied):
        if type(step).__name__ == "VotingClassifier":
            step.flatten_transform = False  # shapes `transform` only
        _missing_text(step)
    return copied


def _missing_text(step: Any) -> None:
    """Tell a fitted copy that missing text arrives as "": an ONNX string is never NaN."""
    if type(step).__name__ == "SimpleImputer" and is_text(step.statistics_):
        step.missing_values = ""
    for number, known in enumerate(getattr(step, "categories_", ())):
        if is_text(known):
            plain = [item if isinstance(item, str) else "" for item in known.tolist()]
            step.categories_[number] = np.array(plain, dtype=object)


def _teach_zipmap() -> None:
    """Let LinearSVC end a pipeline: skl2onnx 1.20 sets an option on it that it refuses."""
    registration = need("skl2onnx.common._registration", "converting scikit-learn to ONNX")
    converter = registration.get_converter("SklearnLinearSVC")
    allowed = converter.get_allowed_options()
    if "zipmap" not in allowed:
        registration.register_converter(
            "SklearnLinearSVC",
            converter._fct,
            overwrite=True,
            options={**allowed, "zipmap": [True, False, "columns"]},
        )


def _conversion_fault(model: Any, error: Exception) -> BuildFault:
    supported = need("skl2onnx._supported_operators", "converting scikit-learn to ONNX")
    known = supported.sklearn_operator_name_map
    steps = [pair for pair in walk(model) if type(pair[1]).__name__ not in _CONTAINERS]
    for where, step in steps:
        if type(step) not in known:
            return BuildFault(
                f"step {where!r} ({type(step).__name__}) has no conversion to ONNX",
                advice="Replace the step with one that converts, do it before the model, or "
                "export the whole model to .onnx with its own framework and build from that.",
            )
    said = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
    listed = ", ".join(f"{where!r} ({type(step).__name__})" for where, step in steps)
    return BuildFault(
        f"skl2onnx could not convert one of the steps {listed}: {type(error).__name__}: "
        f"{said[:300]}",
        advice="Remove steps until it converts to find the one, then replace it or do it before "
        "the model.",
    )


def _name_outputs(proto: Any, original: Original) -> Outputs:
    """Fixed names for the outputs, and their meaning."""
    found = [value.name for value in proto.graph.output]
    names: Sequence[str]
    if original.task in ("regression", "tensors"):
        names = (VALUE,)
    elif original.probabilities:
        names = (LABEL, SCORES)
    else:
        names = (LABEL,)
    if len(found) < len(names):
        raise BuildFault(
            f"the converted model has the outputs {', '.join(found)}, expected {', '.join(names)}"
        )
    for old, new in zip(found, names, strict=False):
        graphs.rename_output(proto, old, new)
    tensors = tuple(names)
    if original.task == "tensors":
        return Outputs(tensors=tensors)
    if original.task == "regression":
        return Outputs(tensors=tensors, value=VALUE)
    scores = SCORES if original.probabilities else ""
    return Outputs(tensors=tensors, label=LABEL, scores=scores, labels=original.labels)


def _least_ir(proto: Any, ir_max: int) -> int:
    """The oldest representation that the operator sets came with."""
    helper = need("onnx.helper", "converting scikit-learn to ONNX")
    least = int(helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True))
    return min(max(least, _IR_OLDEST), ir_max)


_IR_OLDEST = 8
"""Loaded and ran on 1.15, 1.18 and 1.22; nothing is gained by an older one."""


def from_graph(source: Graph, floor: str) -> Converted:
    """The ONNX model with plain outputs, tidied; its arithmetic stays as exported.

    Raises BuildFault for custom operators or outputs that are no tensors.
    """
    limits = runtimes.limits_of(floor)
    proto = type(source.proto).FromString(source.proto.SerializeToString())
    stock_bytes = len(proto.SerializeToString())
    graphs.check_known(proto)
    labels = graphs.strip_zipmap(proto) or graphs.class_labels(proto)
    graphs.tidy(proto, ir_max=limits.ir)
    task, outputs = _meaning(proto, labels)
    return Converted(proto, task, outputs, stock_bytes)


def as_given(source: Graph) -> Any:
    """The file's model with ZipMap's maps replaced by the tensor they are made of, else as is."""
    proto = type(source.proto).FromString(source.proto.SerializeToString())
    graphs.strip_zipmap(proto)
    return proto


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

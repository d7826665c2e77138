"""An estimator becomes ONNX by skl2onnx and our own formulas; float64 goes in where it has to.

Guards: float32 is tried first and stays wherever it answers like the original on the given rows;
the same model and rows always take the same road. Nothing is believed of either: the parity gate
judges what comes out.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace as with_fields
from numpy.typing import NDArray

from edge_agent.runtime import Session
from edge_contract.errors import BuildFault, EdgeError, InputFault
from edge_contract.manifest import Feature, Outputs, Tensor
from edge_pack import graphs, inference, parity, probes, runtimes
from edge_pack.answers import Answers
from edge_pack.estimators.emit import DOUBLE, FLOAT, PURPOSE, STRING
from edge_pack.estimators.simplify import simplified
from edge_pack.estimators.widen import widened
from edge_pack.extras import need
from edge_pack.intake import Intake, Rows
from edge_pack.originals import EstimatorOriginal
from edge_pack.steps import walk
from edge_pack.subject import Converted

_CONTAINERS = ("Pipeline", "ColumnTransformer", "FeatureUnion")
LABEL, SCORES, VALUE = "label", "probabilities", "value"
GOOD_ENOUGH = 1e-3
"""A difference that float32 makes on plain data; a greater one is tried in float64 too."""


def convert(
    original: EstimatorOriginal,
    intake: Intake,
    rows: Rows,
    features: Sequence[Feature],
    floor: str,
) -> Converted:
    """The estimator as ONNX, by a skl2onnx that was taught our formulas.

    Raises BuildFault naming the step that does not convert, and the way out.
    """
    limits = runtimes.limits_of(floor)
    narrow = _converted(original, simplified(original.model), intake, limits)
    if not any(tensor.dtype == "float32" for tensor in intake.tensors):
        return narrow
    rows, answers = _with_probes(original, rows)
    best = _judged(narrow, answers, intake, features, rows)
    if best[0] == 0 and best[1] <= GOOD_ENOUGH:
        return narrow
    chosen = narrow
    for model in _wider(original.model, intake, rows):
        try:
            wide = _converted(original, model, _in_float64(intake), limits)
            found = _judged(wide, answers, intake, features, rows)
        except EdgeError:
            continue  # this road is closed: skl2onnx or the runtime has no float64 of a step
        if found < best:
            chosen, best = wide, found
        if best[0] == 0 and best[1] <= GOOD_ENOUGH:
            break
    return chosen


def _with_probes(original: EstimatorOriginal, rows: Rows) -> tuple[Rows, Answers]:
    """The given rows and probes around them, where the original answers those at all."""
    more = probes.join(rows, probes.draw(rows))
    try:
        answers = original.answer(more)
        inference.check_finite(answers)
    except InputFault:
        return rows, original.answer(rows)
    return more, answers


def _judged(
    converted: Converted,
    answers: Answers,
    intake: Intake,
    features: Sequence[Feature],
    rows: Rows,
) -> tuple[int, float]:
    """Labels that changed and the largest difference, on the given rows."""
    tensors = converted.tensors or intake.tensors
    takes = Intake(intake.columns, tensors, intake.batch)
    takes = takes.keep({value.name for value in converted.proto.graph.input})
    names = {column.name for column in takes.features}
    used = [feature for feature in features if feature.name in names]
    session = Session(graphs.serialise(converted.proto))
    found = inference.answer(session, takes, used, rows, converted.outputs)
    comparison = parity.compare(answers, found)
    return comparison.flips, comparison.diff_max


def _wider(model: Any, intake: Intake, rows: Rows) -> Iterator[Any]:
    """The model for float64 input: with a cast where that is safe, then in float64 throughout."""
    offsets = np.array([
        0.0 if column.text else _middle(rows.columns[column.name]) for column in intake.columns
    ])  # fmt: skip
    cast = widened(simplified(model), offsets)
    if cast is not None:
        yield cast
    yield simplified(model)


def _middle(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else 0.0


def _in_float64(intake: Intake) -> Intake:
    tensors = tuple(
        with_fields(tensor, dtype="float64") if tensor.dtype == "float32" else tensor
        for tensor in intake.tensors
    )
    return Intake(intake.columns, tensors, intake.batch)


def _converted(
    original: EstimatorOriginal, model: Any, intake: Intake, limits: runtimes.Limits
) -> Converted:
    texts = _numbered(model)
    proto = _by_skl2onnx(model, intake.tensors, limits)
    stock_bytes = len(proto.SerializeToString())
    graphs.strip_zipmap(proto)
    outputs = _name_outputs(proto, original)
    if outputs.scores:
        _scores_in_float32(proto, outputs.scores)
    if texts is not None:
        _named_labels(proto, texts)
    graphs.keep_outputs(proto, outputs.tensors)
    graphs.tidy(proto, ir_max=limits.ir)
    proto.ir_version = _least_ir(proto, limits.ir)
    return Converted(proto, original.task, outputs, stock_bytes, tensors=intake.tensors)


def _numbered(model: Any) -> NDArray[np.object_] | None:
    """Give OneVsOneClassifier numbers for its text labels, which skl2onnx writes as numbers."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    if type(last).__name__ != "OneVsOneClassifier" or last.classes_.dtype.kind in "iub":
        return None
    texts = np.array([str(label) for label in last.classes_.tolist()], dtype=object)
    last.classes_ = np.arange(len(texts))
    return texts


def _named_labels(proto: Any, texts: NDArray[np.object_]) -> None:
    """The label output as text: the names at the numbers that the model gives."""
    helper = need("onnx.helper", PURPOSE)
    numpy_helper = need("onnx.numpy_helper", PURPOSE)
    for node in proto.graph.node:
        for i, output in enumerate(node.output):
            if output == LABEL:
                node.output[i] = f"{LABEL}_number"
    proto.graph.initializer.append(numpy_helper.from_array(texts, f"{LABEL}_names"))
    inputs = [f"{LABEL}_names", f"{LABEL}_number"]
    proto.graph.node.append(helper.make_node("Gather", inputs, [LABEL], axis=0))
    for value in proto.graph.output:
        if value.name == LABEL:
            value.type.tensor_type.elem_type = STRING


def _by_skl2onnx(model: Any, tensors: Sequence[Tensor], limits: runtimes.Limits) -> Any:
    skl2onnx = need("skl2onnx", PURPOSE)
    types = need("skl2onnx.common.data_types", PURPOSE)
    kinds = {"float32": types.FloatTensorType, "string": types.StringTensorType,
             "float64": types.DoubleTensorType}  # fmt: skip
    initial = [(t.name, kinds[t.dtype](list(t.shape))) for t in tensors]
    target = {"": min(runtimes.TARGET_ONNX, limits.onnx),
              "ai.onnx.ml": min(runtimes.TARGET_ML, limits.ml)}  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return skl2onnx.convert_sklearn(model, graphs.GRAPH_NAME, initial, target_opset=target)
    except Exception as error:
        raise _fault(model, error) from error


def _fault(model: Any, error: Exception) -> BuildFault:
    supported = need("skl2onnx._supported_operators", PURPOSE)
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


def _name_outputs(proto: Any, original: EstimatorOriginal) -> Outputs:
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
            f"the converted model has the outputs {', '.join(found)}, expected {', '.join(names)}",
            advice="Wrap the model in CalibratedClassifierCV, or build without probabilities.",
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


def _scores_in_float32(proto: Any, name: str) -> None:
    """Probabilities leave as float32, whatever they were computed in."""
    if not any(value.type.tensor_type.elem_type == DOUBLE for value in proto.graph.input):
        return
    helper = need("onnx.helper", PURPOSE)
    inner = f"{name}_float64"
    for node in proto.graph.node:
        for i, output in enumerate(node.output):
            if output == name:
                node.output[i] = inner
    proto.graph.node.append(helper.make_node("Cast", [inner], [name], to=FLOAT))
    for value in proto.graph.output:
        if value.name == name:
            value.type.tensor_type.elem_type = FLOAT


def _least_ir(proto: Any, ir_max: int) -> int:
    """The oldest representation that the operator sets came with."""
    helper = need("onnx.helper", PURPOSE)
    least = int(helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True))
    return min(max(least, _IR_OLDEST), ir_max)


_IR_OLDEST = 8
"""Loaded and ran on 1.15, 1.18 and 1.22; nothing is gained by an older one."""

"""A source becomes one ONNX model with plain, named outputs, the same bytes on every machine.

Guards: what a converter cannot do is refused with the step and the way out; nothing is believed
of a conversion here, the parity gate judges it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_contract.errors import BuildFault
from edge_contract.manifest import Feature, Outputs
from edge_pack import graphs, runtimes, votes
from edge_pack.extras import need
from edge_pack.intake import Intake, Rows
from edge_pack.originals import EstimatorOriginal
from edge_pack.steps import check_supported, ignored_columns, is_text, walk
from edge_pack.subject import Converted
from edge_pack.trees import readers
from edge_pack.trees.emit import emit, outputs_of
from edge_pack.trees.form import Forest

_CONTAINERS = ("Pipeline", "ColumnTransformer", "FeatureUnion")
LABEL, SCORES, VALUE = "label", "probabilities", "value"


def from_estimator(
    original: EstimatorOriginal,
    intake: Intake,
    rows: Rows,
    features: Sequence[Feature],
    floor: str,
) -> Converted:
    """The estimator as ONNX: trees, with the steps that fold into them, by our own emitter, all
    else by skl2onnx.

    Raises BuildFault naming the step that does not convert, and the way out.
    """
    columns = intake.columns
    forest = readers.read_folded(original.model, columns, rows, named=original.named)
    if forest is not None:
        return _from_forest(forest, original, intake)
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


def _from_forest(forest: Forest, original: EstimatorOriginal, intake: Intake) -> Converted:
    names = [column.name for column in intake.columns]
    emitted = emit(forest, intake.columns, ignored_columns(original.model, names))
    outputs = outputs_of(forest)
    if original.task == "tensors":
        outputs = Outputs(tensors=outputs.tensors)
    return Converted(
        emitted.proto,
        original.task,
        outputs,
        emitted.proto.ByteSize(),
        tensors=emitted.tensors,
        forest=forest,
    )


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

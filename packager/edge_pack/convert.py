"""A source becomes one ONNX model with plain, named outputs, the same bytes on every machine.

Guards: what a converter cannot do is refused with the step and the way out; nothing is believed
of a conversion here, the parity gate judges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_contract.manifest import Feature, Outputs
from edge_pack.estimators import conversion, own
from edge_pack.estimators.lending import lent
from edge_pack.estimators.patterns import check_supported
from edge_pack.intake import Intake, Rows
from edge_pack.originals import EstimatorOriginal
from edge_pack.steps import ignored_columns, spelled_out
from edge_pack.subject import Converted
from edge_pack.trees import nested, readers
from edge_pack.trees.emit import emit, outputs_of
from edge_pack.trees.form import Forest
from edge_pack.trees.short import short_leaves


def from_estimator(
    original: EstimatorOriginal,
    intake: Intake,
    rows: Rows,
    features: Sequence[Feature],
    floor: str,
) -> Converted:
    """The estimator as ONNX: trees, with the steps that fold into them, by our own emitter, all
    else by skl2onnx and formulas of ours.

    Raises BuildFault naming the step that does not convert, and the way out.
    """
    columns = intake.columns
    forest = readers.read_folded(original.model, columns, rows, named=original.named)
    if forest is not None:
        return _from_forest(forest, original, intake)
    check_supported(original.model)
    with lent():
        nested.teach()
        own.teach()
        listed = replace(original, model=spelled_out(original.model))
        return conversion.convert(listed, intake, rows, features, floor)


def _from_forest(forest: Forest, original: EstimatorOriginal, intake: Intake) -> Converted:
    names = [column.name for column in intake.columns]
    ignored = ignored_columns(original.model, names)
    forest = short_leaves(forest)
    emitted = emit(forest, intake.columns, ignored)
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
        remake=lambda other, ml: emit(other, intake.columns, ignored, ml=ml).proto,
    )

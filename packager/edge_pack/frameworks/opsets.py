"""An ONNX model whose operator set is newer than the oldest runtime takes, made older.

Guards: where no operator that the model uses changed between the two sets, only the number
changes; else onnx's own converter does it, and the parity gate judges the outcome; an operator
that the older set lacks is named. Pure.
"""

from __future__ import annotations

from typing import Any

from edge_contract.errors import BuildFault
from edge_pack import graphs
from edge_pack.extras import need
from edge_pack.runtimes import Limits


def lower(proto: Any, limits: Limits) -> Any:
    """The model at no more than the limits' ai.onnx set.

    Raises BuildFault naming the operators that do not exist there, or that do not convert.
    """
    newest = graphs.opsets(proto).get("", 0)
    if newest <= limits.onnx:
        return proto
    changed, lacking = _compare(proto, newest, limits.onnx)
    if lacking:
        raise _too_new(newest, limits, f"{', '.join(lacking)} exist in none so old")
    if not changed:
        made = type(proto).FromString(proto.SerializeToString())
        for item in made.opset_import:
            if item.domain in ("", "ai.onnx"):
                item.version = limits.onnx
        return made
    converter = need("onnx.version_converter", "making an operator set older")
    checker = need("onnx.checker", "making an operator set older")
    try:
        made = converter.convert_version(proto, limits.onnx)
        checker.check_model(made, full_check=True)
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise _too_new(
            newest, limits, f"of {', '.join(changed)} not all convert: {said[:200]}"
        ) from error
    for kept, before in ((made.graph.input, proto.graph.input),
                         (made.graph.output, proto.graph.output)):  # fmt: skip
        if [value.name for value in kept] != [value.name for value in before]:
            raise _too_new(newest, limits, "the conversion changes its inputs or outputs")
    return made


def _compare(proto: Any, newest: int, target: int) -> tuple[list[str], list[str]]:
    """Operators that are defined otherwise in the target set, and those that it lacks."""
    defs = need("onnx.defs", "making an operator set older")
    changed, lacking = [], []
    used = {node.op_type for node in graphs.every_node(proto) if node.domain in ("", "ai.onnx")}
    for name in sorted(used):
        now = defs.get_schema(name, newest, "").since_version
        try:
            then = defs.get_schema(name, target, "").since_version
        except defs.SchemaError:
            lacking.append(name)
            continue
        if then != now:
            changed.append(name)
    return changed, lacking


def _too_new(newest: int, limits: Limits, why: str) -> BuildFault:
    release = ".".join(map(str, limits.release))
    return BuildFault(
        f"the model's operator set {newest} is newer than ONNX Runtime {release} takes "
        f"({limits.onnx}): {why}",
        advice=f"Export it with opset {limits.onnx} or less, or pass a newer --runtime where "
        "every device has one.",
    )

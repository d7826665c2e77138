"""Int8 storage for dense layers: a quarter of the bytes, float32 speed and accuracy.

A weight matrix W of MatMul or Gemm becomes int8 with one scale for each of its output columns
(symmetric, so zero stays zero): W ~ Cast(int8) * scale. The runtime folds both nodes into the
float32 matrix when it loads the model, so nothing is computed in int8. Never optimise such a
file offline: that writes the float32 matrix back.

Pure: a ModelProto in, a new one out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_pack.extras import need

INT8_MAX = 127
_NODES_BYTES = 160
"""What the two nodes and two headers cost: a matrix must save more than that."""
OPSET_MIN = 6
"""Cast takes its type as an integer from ai.onnx 6 on."""


def int8_storage(proto: Any) -> tuple[Any, int]:
    """A copy with dense weights stored as int8, and how many matrices were.

    Raises BuildFault when there was nothing to store so: a mode that changes nothing must not
    look as if it had.
    """
    helper = need("onnx.helper", "quantizing")
    numpy_helper = need("onnx.numpy_helper", "quantizing")
    copied = type(proto).FromString(proto.SerializeToString())
    graph = copied.graph
    axes = _output_axes(graph)
    changed = 0
    for initializer in list(graph.initializer):
        axis = axes.get(initializer.name)
        if axis is None or initializer.data_type != 1 or len(initializer.dims) != 2:
            continue
        weights = numpy_helper.to_array(initializer)
        if not saves(weights.shape, axis) or not np.isfinite(weights).all():
            continue
        stored, scale = quantize(weights, axis)
        name = initializer.name
        graph.initializer.remove(initializer)
        graph.initializer.append(numpy_helper.from_array(stored, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        graph.node.insert(0, helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]))
        graph.node.insert(0, helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=1))
        changed += 1
    if not changed:
        raise BuildFault(
            "int8 storage changed nothing: the model has no dense layer large enough",
            advice="Use --quantize auto or --quantize none; trees are compacted without loss "
            "in every mode.",
        )
    return copied, changed


def quantize(weights: NDArray[Any], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale for each index of ``axis``.

    Returns the int8 matrix and a float32 scale that broadcasts against it; the error of a weight
    is at most half its scale.
    """
    peak = np.abs(weights.astype(np.float64)).max(axis=1 - axis, keepdims=True)
    scale = np.where(peak > 0, peak / INT8_MAX, 1.0).astype(np.float32)
    rounded = np.rint(weights.astype(np.float64) / scale.astype(np.float64))
    return np.clip(rounded, -INT8_MAX, INT8_MAX).astype(np.int8), scale


def saves(shape: tuple[int, ...], axis: int) -> bool:
    """Whether int8 with its scales and nodes is smaller than float32."""
    return 3 * shape[0] * shape[1] > 4 * shape[axis] + _NODES_BYTES


def _output_axes(graph: Any) -> dict[str, int]:
    """Initializers read only as the right side of MatMul or Gemm: axis of the output columns.

    Subgraphs may read an outer initializer by name, so one that a control-flow node could see
    is left alone.
    """
    axes: dict[str, int] = {}
    barred = {value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        for position, name in enumerate(node.input):
            axis = _axis(node, position)
            if axis is None or axes.get(name, axis) != axis:
                barred.add(name)
            else:
                axes[name] = axis
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            return {}
    return {name: axis for name, axis in axes.items() if name not in barred}


def _axis(node: Any, position: int) -> int | None:
    if position != 1 or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "MatMul":
        return 1
    if node.op_type == "Gemm":
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return 0 if transposed else 1
    return None

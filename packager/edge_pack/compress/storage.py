"""Weights stored in fewer bytes and unfolded to float32 by the runtime when it loads the model.

A weight becomes integers with scales, or float16, followed by nodes that give the float32 tensor
back under its old name. The runtime folds those nodes at load, so nothing is computed in another
precision and nothing gets slower. Never optimise such a file offline: that writes the float32
tensor back.

Only Cast, Mul, Reshape and Slice are used, so every runtime from ai.onnx 13 on can load them:
ONNX's own int4 type needs ai.onnx 21 and ONNX Runtime 1.23. Four-bit values lie in bytes, and the
bundle's entropy coder takes the empty half away again (measured: within 1 % of packed nibbles).

Pure: a ModelProto in, a new one out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_pack import graphs
from edge_pack.extras import need

INT8_MAX = 127
INT4_MAX = 7
FLOAT16_MAX = 65504.0
BLOCK = 32
"""Four-bit weights that share a scale: what llama.cpp's Q4_0 and ONNX Runtime take as well."""
_NODE_BYTES = 80
"""What a node with its names costs: a tensor must save more than its nodes do."""
LEAST_BYTES = 256
"""No form of a smaller tensor pays for its nodes."""
OPSET_MIN = 13
"""Slice and Mul have taken their present form by then; older files keep float32."""
_FLOAT, _FLOAT16 = 1, 10


@dataclass(frozen=True)
class Layout:
    """Which axes of a weight share a scale: those from ``start`` up to ``stop``."""

    start: int
    stop: int

    def folded(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The shape as [what is before, what shares a scale, what is after]."""
        start, stop = self.start, self.stop
        return prod(shape[:start]), prod(shape[start:stop]), prod(shape[stop:])


@dataclass(frozen=True)
class _Unfold:
    """Initializers that replace a weight, and the nodes that make it again."""

    initializers: tuple[Any, ...]
    nodes: tuple[Any, ...]


_Fold = Callable[[str, NDArray[Any], Layout | None], _Unfold | None]


def int8_storage(proto: Any) -> tuple[Any, int]:
    """A copy with weights as int8 and one float32 scale for each output, and how many were.

    Dense layers, convolutions, embeddings and recurrent weights. Symmetric, so zero stays zero;
    the error of a weight is at most half its scale.

    Raises BuildFault when there was nothing to store so: a mode that changes nothing must not
    look as if it had.
    """
    return _stored(proto, _fold_int8, "int8 storage")


def int4_storage(proto: Any) -> tuple[Any, int]:
    """As ``int8_storage`` in four bits, with a float16 scale for each block of 17 to 32 weights."""
    return _stored(proto, _fold_int4, "int4 storage")


def fp16_storage(proto: Any) -> tuple[Any, int]:
    """A copy with every float32 tensor of some size as float16, and how many were.

    Raises BuildFault when there was none, or none within float16's range.
    """
    return _stored(proto, _fold_fp16, "fp16 storage")


def _stored(proto: Any, fold: _Fold, what: str) -> tuple[Any, int]:
    numpy_helper = need("onnx.numpy_helper", "quantizing")
    copied = type(proto).FromString(proto.SerializeToString())
    graph = copied.graph
    found: dict[str, _Unfold] = {}
    if graphs.opsets(copied).get("", 0) >= OPSET_MIN:
        layouts = _layouts(graph)
        barred = {value.name for value in (*graph.input, *graph.output)}
        for initializer in graph.initializer:
            if initializer.data_type != _FLOAT or initializer.name in barred:
                continue
            weights = numpy_helper.to_array(initializer)
            if not weights.size or not np.isfinite(weights).all():
                continue
            unfold = fold(initializer.name, weights, layouts.get(initializer.name))
            if unfold is not None:
                found[initializer.name] = unfold
    if not found:
        raise BuildFault(
            f"{what} changed nothing: the model has no weights that would become smaller",
            advice="Use --quantize auto or --quantize none; trees are compacted without loss "
            "in every mode.",
        )
    _put(graph, found)
    return copied, len(found)


def _put(graph: Any, found: dict[str, _Unfold]) -> None:
    """The new initializers in the old ones' place, the new nodes before all others."""
    kept = [item for item in graph.initializer if item.name not in found]
    for unfold in found.values():
        kept.extend(unfold.initializers)
    nodes = [node for unfold in found.values() for node in unfold.nodes]
    graphs.replace(graph.initializer, kept)
    graphs.replace(graph.node, [*nodes, *graph.node])


def _fold_int8(name: str, weights: NDArray[Any], layout: Layout | None) -> _Unfold | None:
    if layout is None:
        return None
    stored, scale = quantize(weights, layout)
    if weights.nbytes <= stored.nbytes + scale.nbytes + 2 * _NODE_BYTES:
        return None
    helper, tensor = _onnx()
    return _Unfold(
        (tensor(stored, f"{name}_int8"), tensor(scale, f"{name}_scale")),
        (
            helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=_FLOAT),
            helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]),
        ),
    )


def quantize(weights: NDArray[Any], layout: Layout) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale for each slice across the layout's axes.

    Returns the int8 tensor and a float32 scale that broadcasts against it.
    """
    exact = weights.astype(np.float64)
    axes = tuple(range(layout.start, layout.stop))
    scale = _scale(np.abs(exact).max(axis=axes, keepdims=True) / INT8_MAX, np.float32)
    rounded = np.rint(exact / scale.astype(np.float64))
    return np.clip(rounded, -INT8_MAX, INT8_MAX).astype(np.int8), scale


def _scale(wanted: NDArray[np.float64], dtype: Any) -> NDArray[Any]:
    """Scales in ``dtype``, 1 where they would vanish: then every weight they serve rounds to 0."""
    narrow = wanted.astype(dtype)
    return np.where(narrow > 0, narrow, 1).astype(dtype)


def _fold_int4(name: str, weights: NDArray[Any], layout: Layout | None) -> _Unfold | None:
    if layout is None:
        return None
    if np.abs(weights).max() > FLOAT16_MAX * INT4_MAX:
        return None
    before, run, after = layout.folded(weights.shape)
    size = _block(run)
    blocks = -(-run // size)
    padded = np.zeros((before, blocks * size, after))
    padded[:, :run] = weights.reshape(before, run, after)
    stored, scale = quantize_blocks(padded.reshape(before, blocks, size, after))
    nodes_bytes = 5 * _NODE_BYTES
    if 2 * weights.nbytes <= stored.nbytes + 2 * (scale.nbytes + nodes_bytes):
        return None
    helper, tensor = _onnx()
    made = [tensor(stored, f"{name}_int4"), tensor(scale, f"{name}_scale16")]
    nodes = [
        helper.make_node("Cast", [f"{name}_int4"], [f"{name}_float"], to=_FLOAT),
        helper.make_node("Cast", [f"{name}_scale16"], [f"{name}_scale"], to=_FLOAT),
        helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [f"{name}_blocks"]),
    ]
    last = f"{name}_blocks"
    if blocks * size != run:
        shape = np.array([before, blocks * size, after], dtype=np.int64)
        made += [
            tensor(shape, f"{name}_padded_shape"),
            tensor(np.array([0], dtype=np.int64), f"{name}_from"),
            tensor(np.array([run], dtype=np.int64), f"{name}_to"),
            tensor(np.array([1], dtype=np.int64), f"{name}_axis"),
        ]
        nodes.append(
            helper.make_node("Reshape", [last, f"{name}_padded_shape"], [f"{name}_padded"])
        )
        bounds = [f"{name}_from", f"{name}_to", f"{name}_axis"]
        nodes.append(helper.make_node("Slice", [f"{name}_padded", *bounds], [f"{name}_cut"]))
        last = f"{name}_cut"
    made.append(tensor(np.array(weights.shape, dtype=np.int64), f"{name}_shape"))
    nodes.append(helper.make_node("Reshape", [last, f"{name}_shape"], [name]))
    return _Unfold(tuple(made), tuple(nodes))


def quantize_blocks(
    blocks: NDArray[np.float64],
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Symmetric four-bit integers, -7 to 7, of [before, blocks, size, after], and their scales.

    Returns int8 of the same shape and float16 [before, blocks, 1, after].
    """
    scale = _scale(np.abs(blocks).max(axis=2, keepdims=True) / INT4_MAX, np.float16)
    rounded = np.rint(blocks / scale.astype(np.float64))
    return np.clip(rounded, -INT4_MAX, INT4_MAX).astype(np.int8), scale


def _block(run: int) -> int:
    """How many of ``run`` weights share a scale: at most 32, so that the last is hardly padded."""
    return -(-run // -(-run // BLOCK))


def _fold_fp16(name: str, weights: NDArray[Any], _layout: Layout | None) -> _Unfold | None:
    if weights.nbytes <= weights.nbytes // 2 + _NODE_BYTES or np.abs(weights).max() > FLOAT16_MAX:
        return None
    helper, tensor = _onnx()
    half = tensor(weights.astype(np.float16), f"{name}_half")
    return _Unfold((half,), (helper.make_node("Cast", [f"{name}_half"], [name], to=_FLOAT),))


def _onnx() -> tuple[Any, Callable[[NDArray[Any], str], Any]]:
    return need("onnx.helper", "quantizing"), need("onnx.numpy_helper", "quantizing").from_array


def _layouts(graph: Any) -> dict[str, Layout]:
    """The layout of each initializer that is read as a weight, and as nothing else.

    Subgraphs may read an outer initializer by name; one that they do is left alone.
    """
    shapes = {item.name: tuple(item.dims) for item in graph.initializer}
    found: dict[str, Layout] = {}
    barred: set[str] = set()
    for node in graph.node:
        for position, name in enumerate(node.input):
            layout = _layout(node, position, len(shapes.get(name, ())))
            if layout is None or found.get(name, layout) != layout:
                barred.add(name)
            else:
                found[name] = layout
        barred.update(graphs.reads_inside(node))
    return {name: layout for name, layout in found.items() if name not in barred}


_RECURRENT = ("LSTM", "GRU", "RNN")


def _layout(node: Any, position: int, rank: int) -> Layout | None:
    """How the weight at an input of a node shares scales: over all that one output sums."""
    if node.domain not in ("", "ai.onnx"):
        return None
    kind = node.op_type
    if kind == "MatMul" and position == 1 and rank >= 2:
        return Layout(rank - 2, rank - 1)
    if kind == "Gemm" and position == 1 and rank == 2:
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return Layout(1, 2) if transposed else Layout(0, 1)
    if kind in ("Conv", "ConvTranspose") and position == 1 and rank >= 3:
        return Layout(1, rank)
    if kind == "Gather" and position == 0 and rank == 2:
        across = any(a.name == "axis" and a.i not in (0, -2) for a in node.attribute)
        return None if across else Layout(1, 2)
    if kind in _RECURRENT and position in (1, 2) and rank == 3:
        return Layout(2, 3)
    return None

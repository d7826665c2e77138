"""A model's answers in float64, by the ONNX project's own reference implementation.

Float32 sums come out otherwise in their last digits on every kind of processor; float64 ones,
rounded to float32, do not. So expected outputs made here are the same bytes wherever a build
runs. The runtime that devices have stays the judge: where the reference does not agree with it
within half the tolerance, or cannot run the model, its own answers are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_contract.golden import Tolerance
from edge_pack.extras import need
from edge_pack.inference import Tensors

MODEL_MAX_BYTES = 16 * 1024**2
FEEDS_MAX = 2**16
"""Elements of the inputs: numpy is slow, and golden samples are few."""
_FLOAT, _DOUBLE = 1, 11


def outputs(proto: Any, feeds: Tensors, seen: Tensors, tolerance: Tolerance) -> Tensors:
    """The outputs for ``feeds``, in the types of ``seen``.

    Args:
        seen: what the runtime made of them. tolerance: what a device may differ by.
    """
    small = sum(array.size for array in feeds.values()) <= FEEDS_MAX
    if not small or proto.ByteSize() > MODEL_MAX_BYTES:
        return seen
    found = _run(proto, feeds)
    if found is None or found.keys() != seen.keys():
        return seen
    made = {}
    for name, runtime in seen.items():
        if runtime.dtype.kind != "f":
            same = np.array_equal(np.asarray(found[name]).ravel(), runtime.ravel())
            made[name] = runtime
        else:
            made[name] = np.asarray(found[name]).astype(runtime.dtype)
            same = made[name].shape == runtime.shape and np.allclose(
                made[name], runtime, rtol=tolerance.relative / 2, atol=tolerance.absolute / 2,
                equal_nan=True,
            )  # fmt: skip
        if not same:
            return seen
    return made


def _run(proto: Any, feeds: Tensors) -> Tensors | None:
    """What the reference says, or None where it cannot run the model."""
    reference = need("onnx.reference", "making golden samples")
    wide = {
        name: array.astype(np.float64) if array.dtype == np.float32 else array
        for name, array in feeds.items()
    }
    try:
        with np.errstate(all="ignore"):
            made = reference.ReferenceEvaluator(widened(proto)).run(None, wide)
    except Exception:  # noqa: BLE001  whatever an operator's implementation raises
        return None
    return dict(zip((value.name for value in proto.graph.output), made, strict=True))


def widened(proto: Any) -> Any:
    """A copy that computes in float64 wherever it computed in float32; its weights keep values."""
    copied = type(proto).FromString(proto.SerializeToString())
    _widen(copied.graph)
    return copied


def _widen(graph: Any) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == _FLOAT:
            value.type.tensor_type.elem_type = _DOUBLE
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT:
                attribute.i = _DOUBLE
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _widen(inner)


def _widen_tensor(tensor: Any) -> None:
    if tensor.data_type == _FLOAT:
        numpy_helper = need("onnx.numpy_helper", "making golden samples")
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

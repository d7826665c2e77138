"""Small ONNX networks made by hand: each holds one kind of layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Net = Callable[..., onnx.ModelProto]


def model(
    nodes: list[Any], weights: dict[str, Any], takes: list[Any], gives: list[Any]
) -> onnx.ModelProto:
    """``takes``, ``gives``: shapes of the input x and the output y, both float32."""
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, takes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, gives)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    onnx.checker.check_model(made)
    return made


def _normal(*shape: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def gemm(size: int = 70) -> onnx.ModelProto:
    """[rows, size] -> [rows, 40], Gemm as torch exports it."""
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    return model([node], {"w": _normal(40, size), "b": _normal(40)}, ["rows", size], ["rows", 40])


def matmul(size: int = 70) -> onnx.ModelProto:
    """Two MatMul with a Relu between, as skl2onnx writes them."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    weights = {"w": _normal(size, 48), "v": _normal(48, 5, seed=2)}
    return model(nodes, weights, ["rows", size], ["rows", 5])


def conv() -> onnx.ModelProto:
    """A convolution, a transposed one and a depthwise one."""
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], kernel_shape=[3, 3]),
        helper.make_node("Conv", ["p", "d"], ["q"], kernel_shape=[5, 5], group=16),
        helper.make_node("ConvTranspose", ["q", "t"], ["y"], kernel_shape=[3, 3]),
    ]
    weights = {"a": _normal(16, 3, 3, 3), "d": _normal(16, 1, 5, 5), "t": _normal(16, 4, 3, 3)}
    return model(nodes, weights, ["rows", 3, 12, 12], ["rows", 4, 8, 8])


def embedding() -> onnx.ModelProto:
    """Rows of a table picked by number, then summed."""
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "i"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["y"], axes=[1], keepdims=0),
    ]
    return model(nodes, {"table": _normal(90, 24)}, ["rows", 3], ["rows", 24])


def recurrent() -> onnx.ModelProto:
    """An LSTM over four steps."""
    node = helper.make_node("LSTM", ["x", "w", "r"], ["", "y"], hidden_size=12)
    weights = {"w": 0.3 * _normal(1, 48, 20), "r": 0.3 * _normal(1, 48, 12)}
    return model([node], weights, [4, "rows", 20], [1, "rows", 12])


NETS = {"gemm": gemm, "matmul": matmul, "conv": conv, "embedding": embedding,
        "recurrent": recurrent}  # fmt: skip


def feed(net: str, rows: int = 6) -> dict[str, Any]:
    """Inputs that the network of that name takes."""
    rng = np.random.default_rng(5)
    if net == "conv":
        return {"x": rng.normal(size=(rows, 3, 12, 12)).astype(np.float32)}
    if net == "embedding":
        return {"x": rng.integers(0, 90, (rows, 3)).astype(np.float32)}
    if net == "recurrent":
        return {"x": rng.normal(size=(4, rows, 20)).astype(np.float32)}
    return {"x": rng.normal(size=(rows, 70)).astype(np.float32)}


@pytest.fixture(params=sorted(NETS))
def net(request: pytest.FixtureRequest) -> str:
    """The name of each network in turn."""
    return str(request.param)


@pytest.fixture
def make() -> Callable[[str], onnx.ModelProto]:
    """``make(name)``: the network of that name."""
    return lambda name: NETS[name]()


@pytest.fixture(name="feed")
def feed_fixture() -> Callable[..., dict[str, Any]]:
    """``feed(name, rows)``: inputs for it."""
    return feed

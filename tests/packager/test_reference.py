"""Expected outputs are the reference implementation's, in float64, where it agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.runtime import Session
from edge_contract.golden import Tolerance
from edge_pack import graphs, reference

_TOLERANCE = Tolerance(absolute=2e-5, relative=1e-4)


def _network(op: str = "Softmax") -> Any:
    rng = np.random.default_rng(5)
    weights = {"w": rng.normal(size=(64, 8)), "b": rng.normal(size=8)}
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node(op, ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 8])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def feeds() -> dict[str, Any]:
    return {"x": np.random.default_rng(6).normal(size=(32, 64)).astype(np.float32)}


def test_outputs_are_float64_sums_in_the_runtimes_type(feeds: dict[str, Any]) -> None:
    proto = _network()
    seen = Session(graphs.serialise(proto)).run(feeds)
    found = reference.outputs(proto, feeds, seen, _TOLERANCE)["y"]
    w, b = (numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer)
    logits = feeds["x"].astype(np.float64) @ w + b
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    exact = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    assert found.dtype == np.float32
    np.testing.assert_array_max_ulp(found, exact, maxulp=1)
    assert np.abs(found - seen["y"]).max() > 0  # the runtime's own sums are rounded otherwise


@pytest.mark.parametrize("shift", [1e-3, np.nan])
def test_where_the_runtime_says_otherwise_it_is_kept(feeds: dict[str, Any], shift: float) -> None:
    proto = _network()
    seen = {"y": Session(graphs.serialise(proto)).run(feeds)["y"] + np.float32(shift)}
    assert reference.outputs(proto, feeds, seen, _TOLERANCE) is seen


def test_what_the_reference_cannot_run_is_the_runtimes(feeds: dict[str, Any]) -> None:
    proto = _network()
    seen = Session(graphs.serialise(proto)).run(feeds)
    foreign = onnx.ModelProto.FromString(proto.SerializeToString())
    foreign.graph.node[1].op_type = "NobodysOperator"
    assert reference.outputs(foreign, feeds, seen, _TOLERANCE) is seen
    large = {"x": np.zeros((reference.FEEDS_MAX // 64 + 1, 64), np.float32)}
    assert reference.outputs(proto, large, seen, _TOLERANCE) is seen

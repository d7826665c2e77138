"""Bundles that misbehave for real: endless, greedy, crashing, slow to answer, full of NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec.structs import replace
from onnx import TensorProto, helper

from edge_contract import bundle as bundles
from edge_contract import golden as goldens
from edge_contract import manifest as manifests
from edge_contract.manifest import GOLDEN_FILE, MODEL_FILE, Feature, Outputs, Tensor

NAMES = ("temp", "hum", "rpm", "volt")


def looping_onnx() -> bytes:
    """Sums its row after as many turns of a loop as ``temp`` says."""
    value, make = helper.make_tensor_value_info, helper.make_node
    body = helper.make_graph(
        [make("Identity", ["go"], ["going"]), make("Identity", ["v"], ["w"])],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("v", TensorProto.FLOAT, None),
        ],
        [value("going", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, None)],
    )
    graph = helper.make_graph(
        [
            make("ReduceMax", ["X"], ["most"], keepdims=0),
            make("Cast", ["most"], ["turns"], to=TensorProto.INT64),
            make("Loop", ["turns", "yes", "X"], ["out"], body=body),
            make("ReduceSum", ["out", "axes"], ["value"], keepdims=1),
        ],
        "looping",
        [value("X", TensorProto.FLOAT, [None, 4])],
        [value("value", TensorProto.FLOAT, [None, 1])],
        [
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
            helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def greedy_onnx() -> bytes:
    """Makes a tensor of ``temp`` numbers before it answers their mean."""
    value, make = helper.make_tensor_value_info, helper.make_node
    graph = helper.make_graph(
        [
            make("ReduceMax", ["X"], ["most"], keepdims=0),
            make("Cast", ["most"], ["size"], to=TensorProto.INT64),
            make("Reshape", ["size", "one"], ["shape"]),
            make(
                "ConstantOfShape", ["shape"], ["many"],
                value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]),
            ),
            make("ReduceMean", ["many"], ["mean"], keepdims=0),
            make("ReduceSum", ["X", "axes"], ["sum"], keepdims=1),
            make("Mul", ["sum", "mean"], ["value"]),
        ],
        "greedy",
        [value("X", TensorProto.FLOAT, [None, 4])],
        [value("value", TensorProto.FLOAT, [None, 1])],
        [
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def nan_onnx() -> bytes:
    """Answers the logarithm of a negative number, whatever it is asked."""
    value, make = helper.make_tensor_value_info, helper.make_node
    graph = helper.make_graph(
        [
            make("ReduceSumSquare", ["X"], ["square"], axes=[1], keepdims=1),
            make("Neg", ["square"], ["below"]),
            make("Log", ["below"], ["value"]),
        ],
        "nan",
        [value("X", TensorProto.FLOAT, [None, 4])],
        [value("value", TensorProto.FLOAT, [None, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def with_member(bundle: bytes, name: str, raw: bytes) -> bytes:
    """The bundle with another member, sealed as if it had always had it."""
    whole = bundles.read(bundle)
    file, stored = bundles.encode_member(name, raw)
    files = tuple(file if old.name == name else old for old in whole.manifest.files)
    data = manifests.encode(replace(whole.manifest, files=files))
    return bundles.write(data, {**whole.stored, name: stored})


def with_golden(bundle: bytes, inputs: dict[str, Any], outputs: dict[str, Any]) -> bytes:
    """The bundle with other golden samples."""
    golden = goldens.Golden(
        inputs=tuple(goldens.pack(name, value) for name, value in inputs.items()),
        outputs=tuple(goldens.pack(name, value) for name, value in outputs.items()),
        tolerance={"default": goldens.Tolerance(absolute=2e-5, relative=2e-5)},
    )
    return with_member(bundle, GOLDEN_FILE, goldens.encode(golden))


def with_budget(bundle: bytes, **budget: float) -> bytes:
    """The bundle whose manifest allows it so much: ``ram_bytes_max``, ``latency_ms_max``."""
    whole = bundles.read(bundle)
    runtime = replace(whole.manifest.runtime, **budget)
    return bundles.write(manifests.encode(replace(whole.manifest, runtime=runtime)), whole.stored)


def crashing_onnx(depth: int = 20_000) -> bytes:
    """A tree so deep that ONNX Runtime runs out of its stack while it reads it: SIGSEGV."""
    nodes = list(range(2 * depth + 1))
    inner = [node % 2 == 0 and node < 2 * depth for node in nodes]
    tree = helper.make_node(
        "TreeEnsembleRegressor", ["X"], ["value"], domain="ai.onnx.ml",
        nodes_treeids=[0] * len(nodes), nodes_nodeids=nodes, nodes_featureids=[0] * len(nodes),
        nodes_modes=["BRANCH_LEQ" if yes else "LEAF" for yes in inner],
        nodes_values=[float(node) for node in nodes],
        nodes_truenodeids=[node + 2 if yes else 0 for node, yes in zip(nodes, inner, strict=True)],
        nodes_falsenodeids=[node + 1 if yes else 0 for node, yes in zip(nodes, inner, strict=True)],
        target_treeids=[0], target_nodeids=[1], target_ids=[0], target_weights=[1.0], n_targets=1,
    )  # fmt: skip
    graph = helper.make_graph(
        [tree], "deep",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


MODELS = {
    "looping": looping_onnx, "greedy": greedy_onnx, "crashing": looping_onnx, "nan": nan_onnx,
}  # fmt: skip


def odd_bundle(
    seal: Callable[..., bytes], kind: str, version: str, golden_temp: float | None
) -> bytes:
    """A bundle around one of ``MODELS``; its golden samples are quick and small.

    Args:
        golden_temp: puts another ``temp`` into the golden samples, their outputs unchanged.
    """
    rows = np.full((4, 4), 2.0, dtype=np.float32)
    bundle = seal(
        MODELS[kind](), name="pump", version=version, task="regression",
        features=tuple(Feature(name=name) for name in NAMES),
        inputs=(Tensor(name="X", dtype="float32", shape=(None, 4), features=NAMES),),
        outputs=Outputs(tensors=("value",), value="value"),
        golden_inputs={"X": rows}, profile=None,
    )  # fmt: skip
    if kind == "crashing":
        bundle = with_member(bundle, MODEL_FILE, crashing_onnx())
    if golden_temp is None:
        return bundle
    rows[:, 0] = golden_temp
    return with_golden(bundle, {"X": rows}, {"value": rows.sum(axis=1, keepdims=True)})

"""Bundles that misbehave for real, and slots of them on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

from edge_contract import bundle as bundles
from edge_contract import golden as goldens
from edge_contract import manifest as manifests
from edge_contract.bundle import MANIFEST_MEMBER
from edge_contract.manifest import GOLDEN_FILE, Feature, Outputs, Tensor

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


def with_golden(bundle: bytes, inputs: dict[str, Any], outputs: dict[str, Any]) -> bytes:
    """The bundle with other golden samples, sealed as if it had always had them."""
    whole = bundles.read(bundle)
    golden = goldens.Golden(
        inputs=tuple(goldens.pack(name, value) for name, value in inputs.items()),
        outputs=tuple(goldens.pack(name, value) for name, value in outputs.items()),
        tolerance={"default": goldens.Tolerance(absolute=2e-5, relative=2e-5)},
    )
    file, stored = bundles.encode_member(GOLDEN_FILE, goldens.encode(golden))
    files = tuple(file if old.name == GOLDEN_FILE else old for old in whole.manifest.files)
    data = manifests.encode(replace(whole.manifest, files=files))
    return bundles.write(data, {**whole.stored, GOLDEN_FILE: stored})


@pytest.fixture(scope="session")
def odd_bundle(seal_bundle: Callable[..., bytes]) -> Callable[..., bytes]:
    """A bundle around ``looping`` or ``greedy``, with golden samples that are quick and small.

    ``golden_temp`` puts another ``temp`` into the golden samples, their outputs unchanged.
    """

    def build(kind: str, version: str = "1.0", golden_temp: float | None = None) -> bytes:
        onnx = {"looping": looping_onnx, "greedy": greedy_onnx}[kind]()
        rows = np.full((4, 4), 2.0, dtype=np.float32)
        bundle = seal_bundle(
            onnx, name="pump", version=version, task="regression",
            features=tuple(Feature(name=name) for name in NAMES),
            inputs=(Tensor(name="X", dtype="float32", shape=(None, 4), features=NAMES),),
            outputs=Outputs(tensors=("value",), value="value"),
            golden_inputs={"X": rows}, profile=None,
        )  # fmt: skip
        if golden_temp is None:
            return bundle
        rows[:, 0] = golden_temp
        return with_golden(bundle, {"X": rows}, {"value": rows.sum(axis=1, keepdims=True)})

    return build


@pytest.fixture
def lay_slot(tmp_path: Path) -> Callable[[bytes], Path]:
    """Puts a bundle's decoded files into a slot folder."""

    def lay(data: bytes) -> Path:
        bundle = bundles.read(data)
        folder = tmp_path / "slots" / bundle.digest
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST_MEMBER).write_bytes(bundle.manifest_bytes)
        for file in bundle.manifest.files:
            (folder / file.name).write_bytes(bundle.file(file.name))
        return folder

    return lay

"""ONNX files of other makers: taken as they are, tidied, and compared with the file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import skl2onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from edge_contract.errors import InputFault
from edge_contract.manifest import MODEL_FILE
from edge_pack import asking, graphs, parity, reading, sources, tables
from edge_pack.compress.candidates import Judge, refusal
from edge_pack.compress.forms import Form


def _info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _save(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    weights: dict[str, Any],
    **model: Any,
) -> Path:
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "main_graph_8f3e", inputs, outputs, stored)
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **model
    )
    onnx.save(made, path)
    return path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Two dense layers and a softmax: Gemm with transB as torch exports it, and MatMul."""
    rng = np.random.default_rng(0)
    return _save(
        tmp_path / "net.onnx",
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=1, doc_string="/home/me/a"),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], ["s"]),
            helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        ],
        [_info("x", ["batch", 16])],
        [_info("p", ["batch", 3])],
        {
            "w1": rng.normal(size=(64, 16)).astype(np.float32),
            "b1": rng.normal(size=64).astype(np.float32),
            "w2": rng.normal(size=(64, 3)).astype(np.float32),
        },
        producer_name="pytorch", doc_string="exported from /home/me",
    )  # fmt: skip


@pytest.fixture
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(rng.normal(size=(200, 16)), columns=[f"f{i}" for i in range(16)])


def test_a_network_becomes_a_classifier_in_int8(network: Path, rows: Any, pack: Any) -> None:
    built = pack(network, rows, max_flips=0.05, max_diff=0.2)
    manifest = built.manifest
    assert (manifest.task, manifest.outputs.labels) == ("classification", (0, 1, 2))
    assert (manifest.compression.mode, manifest.compression.tensors) == ("int8-storage", 2)
    assert manifest.provenance.source_type == "onnx"
    raw = reading.open_bundle(built.config.out).file(MODEL_FILE)
    assert b"/home/me" not in raw and b"pytorch" not in raw and b"main_graph" not in raw
    found = next(iter(reading.predict(built.config.out, built.config.data)))
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_stock_skl2onnx_with_its_zipmap_loses_it(wine: Any, pack: Any, tmp_path: Path) -> None:
    frame, target = wine
    model = RandomForestClassifier(8, random_state=0).fit(frame.to_numpy(), target)
    stock = skl2onnx.convert_sklearn(model, "x", [("input", FloatTensorType([None, 13]))])
    assert "ZipMap" in {node.op_type for node in stock.graph.node}
    path = tmp_path / "stock.onnx"
    onnx.save(stock, path)
    built = pack(path, frame.join(target), "kind")
    assert built.manifest.outputs.labels == ("class_0", "class_1", "class_2")
    assert "ai.onnx.ml:ZipMap" not in built.manifest.runtime.ops
    found = list(reading.predict(built.config.out, built.config.data))
    assert [one.label for one in found] == model.predict(frame.to_numpy()).tolist()
    table = [[one.probabilities[str(label)] for label in model.classes_] for one in found]
    np.testing.assert_allclose(table, model.predict_proba(frame.to_numpy()), atol=1e-5)


def test_one_float_column_is_a_regression(pack: Any, tmp_path: Path) -> None:
    path = _save(
        tmp_path / "r.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [_info("x", [None, 2])], [_info("y", [None, 1])],
        {"w": np.array([[2.0], [3.0]], np.float32)},
    )  # fmt: skip
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1.0, 0.5, 0.25]})
    built = pack(path, frame.assign(y=2 * frame.a + 3 * frame.b), "y")
    assert built.manifest.task == "regression"
    assert [one.value for one in reading.predict(built.config.out, built.config.data)] == [
        5,
        5.5,
        6.75,
    ]
    assert {m.name: m.bundle for m in built.manifest.metrics}["rmse"] == 0


def test_a_column_for_each_input(pack: Any, tmp_path: Path) -> None:
    path = _save(
        tmp_path / "two.onnx",
        [helper.make_node("Add", ["b", "a"], ["y"])],
        [_info("b", [None, 1]), _info("a", [None, 1])], [_info("y", [None, 1])], {},
    )  # fmt: skip
    frame = pd.DataFrame({"a": [1.0, 2.0], "spare": [9, 9], "b": [10.0, 20.0]})
    built = pack(path, frame)
    assert [feature.name for feature in built.manifest.features] == ["b", "a"]
    assert [one.value for one in reading.predict(built.config.out, built.config.data)] == [11, 22]


def test_whole_tensors_come_from_an_npz(pack: Any, tmp_path: Path, rows: Any) -> None:
    path = _save(
        tmp_path / "conv.onnx",
        [
            helper.make_node("Conv", ["image", "k"], ["c"]),
            helper.make_node("GlobalAveragePool", ["c"], ["p"]),
            helper.make_node("Mul", ["p", "gain"], ["y"]),
        ],
        [_info("image", ["n", 1, 8, 8]), _info("gain", ["n", 1, 1, 1])],
        [_info("y", ["n", 4, 1, 1])],
        {"k": np.random.default_rng(0).normal(size=(4, 1, 3, 3)).astype(np.float32)},
    )  # fmt: skip
    rng = np.random.default_rng(2)
    data = tmp_path / "images.npz"
    image, gain = rng.random((12, 1, 8, 8)), rng.random((12, 1, 1, 1))
    np.savez(data, image=image, gain=gain)
    built = pack(path, rows, data=data)
    assert (built.manifest.task, built.manifest.features) == ("tensors", ())
    files = [file.name for file in built.manifest.files]
    assert files == ["model.onnx", "golden.json", "profile.json"]
    (found,) = reading.predict(built.config.out, data)
    assert found.outputs["y"].shape == (12, 4, 1, 1)
    assert reading.verify(built.config.out).steps
    np.savez(data, image=image)
    with pytest.raises(InputFault, match="lacks an array for the input 'gain'"):
        pack(path, rows, data=data)
    np.savez(data, image=image[:, :, :4], gain=gain)
    with pytest.raises(InputFault, match="array 'image' has shape"):
        pack(path, rows, data=data)


def test_a_fixed_batch_of_one_runs_sample_by_sample(pack: Any, tmp_path: Path, rows: Any) -> None:
    path = _save(
        tmp_path / "one.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [_info("x", [1, 2, 3])], [_info("y", [1, 6])],
        {"shape": np.array([1, 6], np.int64)},
    )  # fmt: skip
    data = tmp_path / "x.npz"
    np.savez(data, x=np.arange(30, dtype=np.float32).reshape(5, 2, 3))
    built = pack(path, rows, data=data)
    assert built.manifest.parity.rows == 5
    found = list(reading.predict(built.config.out, data))
    assert [one.outputs["y"].tolist()[0][0] for one in found] == [0, 6, 12, 18, 24]
    with pytest.raises(InputFault, match=r"has shape \[1, 2, 3\]; a table's columns"):
        pack(path, rows)


def test_integer_inputs_refuse_fractions(pack: Any, tmp_path: Path) -> None:
    path = _save(
        tmp_path / "int.onnx",
        [helper.make_node("Cast", ["x"], ["y"], to=1)],
        [_info("x", [None, 1], TensorProto.INT64)], [_info("y", [None, 1])], {},
    )  # fmt: skip
    built = pack(path, pd.DataFrame({"n": [1, 2, 3]}))
    assert [one.value for one in reading.predict(built.config.out, built.config.data)] == [1, 2, 3]
    with pytest.raises(InputFault, match="cannot hold"):
        pack(path, pd.DataFrame({"n": [1.5]}))


def test_the_wrong_number_of_columns(network: Path, rows: Any, pack: Any) -> None:
    with pytest.raises(InputFault, match=r"takes 16 columns, .* has 15"):
        pack(network, rows.drop(columns="f3"))


def test_an_altered_model_is_caught_by_parity(network: Path, rows: Any, pack: Any) -> None:
    """A candidate whose weights were changed differs from the original: the gate sees it."""
    built = pack(network, rows, quantize="none")
    proto = onnx.load(network)
    weights = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weights[0, 0] += 3.0
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w1"))
    asked = asking.ask(sources.load(network, str), tables.read(built.config.data), built.config)
    asked = asking.to_onnx(asked, built.config)
    for model, kept in ((onnx.load(network), True), (proto, False)):
        judge = Judge(asked.model_answers, asked.answers, "classification")
        found = judge.candidate(Form("none", model))
        budget = parity.budget_of("classification", 0.001, None)
        assert found.within(budget, None) is kept
    assert "labels changed" in str(refusal(found, budget, None, len(rows), ""))


def test_nodes_nothing_needs_are_dropped() -> None:
    nodes = [
        helper.make_node("Relu", ["a"], ["x"]),
        helper.make_node("Relu", ["b"], ["y"]),
        helper.make_node("If", ["c"], ["z"], then_branch=_branch("x"), else_branch=_branch("w")),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [_info("a", [1]), _info("b", [1]), _info("c", [], TensorProto.BOOL)],
        [_info("y", [1]), _info("z", [1])],
        [numpy_helper.from_array(np.zeros(1, np.float32), name) for name in ("w", "v")],
    )  # fmt: skip
    proto = helper.make_model(graph)
    graphs.keep_outputs(proto, ["z"])
    assert [node.op_type for node in proto.graph.node] == ["Relu", "If"]
    assert [value.name for value in proto.graph.input] == ["a", "c"]
    assert [item.name for item in proto.graph.initializer] == ["w"]


def _branch(reads: str) -> Any:
    return helper.make_graph(
        [helper.make_node("Identity", [reads], ["out"])], "branch", [], [_info("out", [1])]
    )


def test_labels_keep_their_order_in_the_manifest(wine: Any, pack: Any) -> None:
    frame, target = wine
    model = LogisticRegression(max_iter=50).fit(frame / frame.max(), target)
    built = pack(model, (frame / frame.max()).join(target), "kind")
    assert list(built.manifest.outputs.labels) == model.classes_.tolist()

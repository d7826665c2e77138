"""ONNX files of every shape: built with and without data, or refused by name."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper
from rich.console import Console
from sklearn.linear_model import LogisticRegression

from edge_agent.model import Model
from edge_contract.errors import BuildFault, EdgeError, InputFault
from edge_contract.manifest import PROFILE_FILE
from edge_pack import Built, printing, reading, sources, tables

RNG = np.random.default_rng(5)


def _weights(*shape: int) -> Any:
    return (np.random.default_rng(sum(shape)).normal(size=shape) / 4).astype(np.float32)


@pytest.fixture
def dense(graph: Any, info: Any) -> Callable[..., Path]:
    """Dense layers; ``end``: operators behind them; ``width``: output columns."""

    def make(*end: str, width: int = 3, dtype: Any = np.float32, **options: Any) -> Path:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "v"], ["o0"]),
        ]
        nodes += [
            helper.make_node(op, [f"o{i}"], [f"o{i + 1}"], **({"axis": -1} if "Soft" in op else {}))
            for i, op in enumerate(end)
        ]
        return graph(
            nodes, [info("x", ["n", 6], kind)], [info(f"o{len(end)}", ["n", width], kind)],
            {"w": _weights(6, 24).astype(dtype), "v": _weights(24, width).astype(dtype)},
            **options,
        )  # fmt: skip

    return make


def _x(rows: int = 40, columns: int = 6) -> Any:
    return {"x": np.random.default_rng(rows).normal(size=(rows, columns))}


def _batch(built: Built) -> str:
    """How the rows of a build go in."""
    assert built.config.data is not None
    table = tables.read(built.config.data)
    return sources.load(Path(built.config.model), str).plan(table, "", "").batch


# -- what outputs mean ---------------------------------------------------------------------


def test_logits_stay_plain_tensors_unless_declared(dense: Any, ship: Any) -> None:
    built = ship(dense(), _x())
    assert built.manifest.task == "tensors"
    assert "--task classification --labels" in " ".join(built.notices)
    names = ("ok", "worn", "broken")
    built = ship(dense(), _x(), task="classification", labels=names, quantize="none")
    outputs = built.manifest.outputs
    assert (built.manifest.task, outputs.labels) == ("classification", names)
    assert built.manifest.parity.flips == 0 and built.manifest.parity.diff_max < 1e-4
    (found,) = Model.open(built.config.out).predict({"x": _x()["x"][:1]})
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-6)
    logits = np.maximum(_x()["x"][0] @ _weights(6, 24), 0) @ _weights(24, 3)
    wanted = np.exp(logits) / np.exp(logits).sum()
    assert list(found.probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-5)


def test_a_softmax_needs_no_declaration(dense: Any, ship: Any) -> None:
    built = ship(dense("Softmax", "Identity"), _x())
    assert (built.manifest.task, built.manifest.outputs.labels) == ("classification", (0, 1, 2))
    declared = ship(dense("Softmax"), _x(), task="classification", labels=("a", "b", "c"))
    assert "Softmax" in declared.manifest.runtime.ops
    assert declared.manifest.outputs.tensors == ("o1",)  # no second Softmax behind it


@pytest.mark.parametrize("end", [("Sigmoid",), ()])
def test_one_column_becomes_two_labels(dense: Any, ship: Any, end: tuple[str, ...]) -> None:
    built = ship(
        dense(*end, width=1), _x(), task="classification", labels=("runs", "fails"), quantize="none"
    )  # fmt: skip
    found = Model.open(built.config.out).predict({"x": _x()["x"]})
    raw = np.maximum(_x()["x"] @ _weights(6, 24), 0) @ _weights(24, 1)
    second = (1 / (1 + np.exp(-raw))).ravel()
    assert [one.probabilities["fails"] for one in found] == pytest.approx(second.tolist(), abs=1e-5)
    assert [one.label for one in found] == ["fails" if p > 0.5 else "runs" for p in second]


def test_a_sigmoid_column_is_a_probability_and_many_are_not(dense: Any, ship: Any) -> None:
    assert ship(dense("Sigmoid", width=1), _x()).manifest.task == "classification"
    assert ship(dense("Sigmoid", width=4), _x()).manifest.task == "tensors"
    assert ship(dense("Sigmoid", width=1), _x(), task="regression").manifest.task == "regression"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "classification", "labels": ("a", "b")}, "2 labels .* tells 3 apart"),
        ({"task": "regression"}, "has 3 columns, not 1"),
        ({"task": "guess"}, "'guess' is unknown"),
        ({"labels": ("a", "b", "c")}, "--labels are those of a classifier"),
        ({"task": "classification", "labels": ("1", 1, "c")}, "names a label twice"),
        ({"data": None, "target": "y"}, "there is no --data"),
    ],
)
def test_what_is_declared_must_fit(dense: Any, ship: Any, options: Any, said: str) -> None:
    with pytest.raises(InputFault, match=said):
        ship(dense(), **{"data": _x(), **options})


def test_half_and_double_precision_are_kept(dense: Any, ship: Any) -> None:
    for dtype in ("float16", "float64"):
        path = dense("Softmax", dtype=dtype)
        built = ship(path, _x())
        assert built.manifest.inputs[0].dtype == dtype
        assert built.manifest.parity.flips == 0
        declared = ship(dense(width=1, dtype=dtype), _x(), task="classification")
        assert declared.manifest.parity.diff_max < 2e-3


# -- without data --------------------------------------------------------------------------


def test_without_data_inputs_are_drawn_and_the_manifest_says_so(dense: Any, ship: Any) -> None:
    built = ship(dense("Softmax"))
    manifest = built.manifest
    assert manifest.parity.synthetic and manifest.parity.rows == 64
    assert (manifest.provenance.data_rows, manifest.provenance.data_sha256) == (0, "")
    assert PROFILE_FILE not in [file.name for file in manifest.files]
    assert "drawn from the model's own shapes" in " ".join(built.notices)
    again = ship(dense("Softmax"))
    assert again.digest == built.digest
    console = Console(file=io.StringIO(), soft_wrap=True)
    printing.show_bundle(console, reading.open_bundle(built.config.out), 1, None)
    assert "on inputs drawn from the model's own shapes" in console.file.getvalue()  # type: ignore[attr-defined]
    assert not ship(dense("Softmax"), _x()).manifest.parity.synthetic


def test_drawn_indices_stay_within_their_tables(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [
            helper.make_node("Unsqueeze", ["kind", "one"], ["k"]),
            helper.make_node("Gather", ["table", "k"], ["e3"]),
            helper.make_node("Squeeze", ["e3", "one"], ["e"]),
            helper.make_node("OneHot", ["level", "depth", "values"], ["h"], axis=-1),
            helper.make_node("ReduceSum", ["h", "one"], ["s"], keepdims=0),
            helper.make_node("Add", ["e", "s"], ["y"]),
        ],
        [info("kind", ["n"], TensorProto.INT64), info("level", ["n", "t"], TensorProto.INT64)],
        [info("y", ["n", 4])],
        {
            "table": _weights(3, 4), "one": np.array([1], np.int64),
            "depth": np.array([4], np.int64), "values": np.array([0, 1], np.float32),
        },
    )  # fmt: skip
    built = ship(path)
    assert built.manifest.parity.rows == 64 and built.manifest.parity.synthetic
    drawn = sources.load(path, str).draw()  # type: ignore[attr-defined]
    assert sorted(set(drawn.tensors["kind"].tolist())) == [0, 1, 2]
    assert int(drawn.tensors["level"].max()) == 3


def test_symbols_have_one_size_in_every_input(graph: Any, info: Any, ship: Any) -> None:
    """A key cache: the mask is as long as past and present together."""
    path = graph(
        [
            helper.make_node("Concat", ["past", "x"], ["all"], axis=1),
            helper.make_node("Unsqueeze", ["mask", "two"], ["m"]),
            helper.make_node("Mul", ["all", "m"], ["masked"]),
            helper.make_node("ReduceMean", ["masked"], ["y"], axes=[1], keepdims=0),
        ],
        [
            info("x", ["b", "t", 5]), info("past", ["b", "p", 5]),
            info("mask", ["b", "p + t"]),
        ],
        [info("y", ["b", 5])],
        {"two": np.array([2], np.int64)},
    )  # fmt: skip
    drawn = sources.load(path, str).draw().tensors  # type: ignore[attr-defined]
    assert drawn["mask"].shape[1] == drawn["x"].shape[1] + drawn["past"].shape[1]
    assert ship(path).manifest.parity.rows == 64


def test_texts_are_drawn_from_the_words_that_the_model_knows(
    graph: Any, info: Any, ship: Any
) -> None:
    path = graph(
        [
            helper.make_node(
                "LabelEncoder", ["site"], ["y"], domain="ai.onnx.ml",
                keys_strings=["graz", "lyon"], values_floats=[1.0, 2.0], default_float=0.0,
            )
        ],
        [info("site", [None, 1], TensorProto.STRING)], [info("y", [None, 1])],
        domains=["ai.onnx.ml"],
    )  # fmt: skip
    proto = onnx.load(path)
    proto.opset_import[1].version = 2
    onnx.save(proto, path)
    drawn = sources.load(path, str).draw().tensors["site"]  # type: ignore[attr-defined]
    assert {"graz", "lyon"} <= set(drawn.ravel().tolist())
    assert ship(path).manifest.task == "regression"


def test_a_convolution_gets_an_image_large_enough(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [
            helper.make_node("Conv", ["image", "k"], ["c"], strides=[4, 4]),
            helper.make_node("MaxPool", ["c"], ["m"], kernel_shape=[3, 3]),
            helper.make_node("GlobalAveragePool", ["m"], ["y"]),
        ],
        [info("image", ["n", 3, "height", "width"])], [info("y", ["n", 2, 1, 1])],
        {"k": _weights(2, 3, 5, 5)},
    )  # fmt: skip
    built = ship(path)
    assert built.manifest.parity.synthetic and built.manifest.parity.rows == 64
    assert built.manifest.inputs[0].shape == (None, 3, None, None)


def test_a_model_that_suits_no_drawn_input_asks_for_data(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [info("x", ["n", "m"])], [info("y", [7, 13])], {"shape": np.array([7, 13], np.int64)},
    )  # fmt: skip
    with pytest.raises(InputFault, match="no inputs drawn from the model's own shapes") as caught:
        ship(path)
    assert "--data FILE.npz" in caught.value.advice
    built = ship(path, {"x": np.ones((1, 91), np.float32)})
    assert not built.manifest.parity.synthetic
    assert _batch(built) == "whole"


# -- shapes of models ----------------------------------------------------------------------


def test_a_recurrent_model_with_its_state(graph: Any, info: Any, ship: Any) -> None:
    """The state's batch is its second axis: all inputs go in as they are."""
    path = graph(
        [
            helper.make_node(
                "GRU", ["x", "w", "r", "", "", "h"], ["steps", "last"], hidden_size=4
            )
        ],
        [info("x", [1, 1, 3]), info("h", [1, 1, 4])],
        [info("steps", [1, 1, 1, 4]), info("last", [1, 1, 4])],
        {"w": _weights(1, 12, 3), "r": _weights(1, 12, 4)},
    )  # fmt: skip
    built = ship(path)
    device = Model.open(built.config.out)
    state, answers = np.zeros((1, 1, 4), np.float32), []
    for _ in range(3):
        (found,) = [device.predict({"x": np.ones((1, 1, 3)), "h": state})]
        state = found.outputs["last"]
        answers.append(float(state.ravel()[0]))
    assert len(set(answers)) == 3  # the state moves on


def test_an_axis_of_time_is_not_taken_for_rows(graph: Any, info: Any, ship: Any) -> None:
    """ONNX's own LSTM has time first; split into batches it would forget."""
    path = graph(
        [helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)],
        [info("x", ["time", 1, 3])], [info("y", ["time", 1, 1, 4])],
        {"w": _weights(1, 16, 3), "r": _weights(1, 16, 4)},
    )  # fmt: skip
    built = ship(path, {"x": RNG.normal(size=(9, 1, 3))})
    assert _batch(built) == "whole" and built.manifest.parity.diff_max < 1e-3
    (found,) = reading.predict(built.config.out, built.config.data)
    assert found.outputs["y"].shape == (9, 1, 1, 4)


LOOPS = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[n, 4] x, int64 steps) => (float[n, 4] y)
<float one = {1.0}, float[4] shift = {0.5, -0.25, 0.125, 1.0}> {
  yes = Constant <value = bool {1}> ()
  doubled = Loop (steps, yes, x) <body = body (int64 i, bool go, float[n, 4] v)
    => (bool again, float[n, 4] w) {
      again = Identity (go)
      halved = Mul (v, shift)
      w = Tanh (halved)
    }>
  total = ReduceSum <keepdims = 0> (doubled)
  zero = Constant <value = float {0.0}> ()
  positive = Greater (total, zero)
  y = If (positive) <
    then_branch = yes_branch () => (float[n, 4] a) { a = Add (doubled, shift) },
    else_branch = no_branch () => (float[n, 4] b) { b = Sub (doubled, shift) }>
}
"""


def test_control_flow(tmp_path: Path, ship: Any) -> None:
    path = tmp_path / "loops.onnx"
    onnx.save(onnx.parser.parse_model(LOOPS), path)
    built = ship(path, {"x": RNG.normal(size=(5, 4)), "steps": np.array(3)})
    assert {"Loop", "If"} <= set(built.manifest.runtime.ops)
    assert built.manifest.parity.diff_max == 0
    assert ship(path).manifest.parity.synthetic


def test_several_inputs_and_outputs_of_all_types(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [
            helper.make_node("Where", ["flag", "x", "z"], ["chosen"]),
            helper.make_node("Cast", ["count"], ["c"], to=TensorProto.DOUBLE),
            helper.make_node("Add", ["chosen", "c"], ["sum"]),
            helper.make_node("ArgMax", ["sum"], ["best"], axis=1, keepdims=0),
        ],
        [
            info("x", ["n", 3], TensorProto.DOUBLE), info("flag", ["n", 3], TensorProto.BOOL),
            info("z", ["n", 3], TensorProto.DOUBLE), info("count", ["n", 1], TensorProto.UINT8),
        ],
        [info("sum", ["n", 3], TensorProto.DOUBLE), info("best", ["n"], TensorProto.INT64)],
    )  # fmt: skip
    built = ship(path)
    assert built.manifest.task == "classification"  # a label a row beside columns
    data = {
        "x": RNG.normal(size=(9, 3)), "z": RNG.normal(size=(9, 3)),
        "flag": RNG.random((9, 3)) < 0.5, "count": np.arange(9).reshape(-1, 1),
    }  # fmt: skip
    assert ship(path, data).manifest.parity.rows == 9


def test_an_input_named_x_beside_others_is_a_tensor(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [helper.make_node("Add", ["X", "b/c:0"], ["out put"])],
        [info("X", ["n", 4]), info("b/c:0", ["n", 4])], [info("out put", ["n", 4])],
    )  # fmt: skip
    built = ship(path, {"X": np.ones((5, 4)), "b/c:0": np.ones((5, 4))})
    (found,) = reading.predict(built.config.out, built.config.data)
    assert found.outputs["out put"].tolist() == [[2.0] * 4] * 5


def test_weights_that_are_inputs_too_become_weights(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [info("x", ["n", 2]), info("w", [2, 3])], [info("y", ["n", 3])],
        {"w": _weights(2, 3)}, ir=3, opset=9,
    )  # fmt: skip
    built = ship(path, _x(8, 2))
    assert [tensor.name for tensor in built.manifest.inputs] == ["x"]
    proto = onnx.load_from_string(reading.open_bundle(built.config.out).file("model.onnx"))
    assert [value.name for value in proto.graph.input] == ["x"]


def test_functions_are_unfolded(tmp_path: Path, ship: Any) -> None:
    path = tmp_path / "function.onnx"
    onnx.save(
        onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "my.own" : 1]>
        agraph (float[n, 4] x) => (float[n, 4] y) { y = my.own.Twice (x) }
        <opset_import: ["" : 17], domain: "my.own">
        Twice (a) => (b) { b = Add (a, a) }
        """),
        path,
    )
    assert ship(path).manifest.runtime.ops == ("Add",)


def test_a_table_with_a_fixed_axis_runs_sample_by_sample(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [helper.make_node("Relu", ["x"], ["y"])], [info("x", [1, 2, 3])], [info("y", [1, 2, 3])]
    )
    assert ship(path).manifest.parity.rows == 64
    built = ship(path, {"x": np.ones((5, 2, 3))}, measure=True)
    assert built.manifest.parity.rows == 5
    assert built.measured is not None and [one.batch for one in built.measured.original] == [1]


# -- operator sets -------------------------------------------------------------------------


@pytest.mark.parametrize(("opset", "ops"), [(24, ["Relu"]), (22, ["Conv"]), (25, ["Reshape"])])
def test_a_newer_operator_set_is_lowered_to_the_floor(
    graph: Any, info: Any, ship: Any, opset: int, ops: list[str]
) -> None:
    nodes = {
        "Relu": helper.make_node("Relu", ["x"], ["y"]),
        "Conv": helper.make_node("Conv", ["x", "k"], ["y"], pads=[1, 1, 1, 1]),
        "Reshape": helper.make_node("Reshape", ["x", "s"], ["y"]),
    }
    path = graph(
        [nodes[op] for op in ops], [info("x", ["n", 2, 4, 4])], [info("y", ["n", 2, 4, 4])],
        {"k": _weights(2, 2, 3, 3), "s": np.array([0, 2, 4, 4], np.int64)}, opset=opset, ir=11,
    )  # fmt: skip
    built = ship(path, runtime=">=1.18")
    assert built.manifest.runtime.opsets[""] == 21
    assert built.manifest.runtime.ir <= 10
    assert built.manifest.parity.diff_max == 0


def test_an_operator_that_no_older_set_has_is_named(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [helper.make_node("RMSNormalization", ["x", "s"], ["y"])],
        [info("x", ["n", 4])], [info("y", ["n", 4])], {"s": _weights(4)}, opset=23, ir=11,
    )  # fmt: skip
    with pytest.raises(BuildFault, match=r"set 23 is newer than .* 1.18 .*RMSNormalization"):
        ship(path, runtime=">=1.18")
    assert ship(path, runtime=">=1.23").manifest.runtime.opsets[""] == 23


def test_an_operator_set_too_old_to_run_is_refused(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [helper.make_node("Relu", ["x"], ["y"])], [info("x", ["n", 4])], [info("y", ["n", 4])],
        opset=5, ir=3,
    )  # fmt: skip
    with pytest.raises(InputFault, match="cannot load the model") as caught:
        ship(path)
    assert "opset" in caught.value.advice


# -- weights in other files ----------------------------------------------------------------


def _outside(path: Path, location: str = "weights.bin") -> Path:
    proto = onnx.load(path)
    onnx.save(
        proto, path, save_as_external_data=True, all_tensors_to_one_file=True,
        location="weights.bin", size_threshold=0,
    )  # fmt: skip
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(proto.SerializeToString())
    return path


def test_weights_beside_the_model_come_along(dense: Any, ship: Any) -> None:
    inside = ship(dense("Softmax"))
    whole = reading.open_bundle(inside.config.out).file("model.onnx")
    path = _outside(dense("Softmax"))
    built = ship(path)
    assert reading.open_bundle(built.config.out).file("model.onnx") == whole
    digest = built.manifest.provenance.source_sha256
    assert digest != hashlib.sha256(path.read_bytes()).hexdigest()
    weights = path.parent / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[3] ^= 0x01
    weights.write_bytes(data)
    assert ship(path).manifest.provenance.source_sha256 != digest


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "a/../../w.bin", ""])
def test_weights_outside_the_folder_are_refused(dense: Any, ship: Any, location: str) -> None:
    path = _outside(dense())
    (path.parent.parent / "weights.bin").write_bytes(b"\0" * 4096)
    with pytest.raises(InputFault, match=r"not in its folder"):
        ship(_outside(path, location))


def test_a_link_out_of_the_folder_is_refused(dense: Any, ship: Any) -> None:
    path = _outside(dense())
    weights = path.parent / "weights.bin"
    elsewhere = path.parent.parent / "elsewhere.bin"
    weights.rename(elsewhere)
    weights.symlink_to(elsewhere)
    with pytest.raises(InputFault, match="not in its folder"):
        ship(path)


def test_missing_or_short_weights_are_refused(dense: Any, ship: Any) -> None:
    path = _outside(dense())
    weights = path.parent / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputFault, match="keeps its weights in another file"):
        ship(path)
    weights.unlink()
    with pytest.raises(InputFault, match=r"there is no .*weights\.bin") as caught:
        ship(path)
    assert "Copy that file too" in caught.value.advice


def test_more_than_two_gigabytes_are_refused_before_they_are_read(dense: Any, ship: Any) -> None:
    path = _outside(dense())
    with (path.parent / "weights.bin").open("ab") as file:
        file.truncate(3 * 1024**3)  # sparse: takes no room
    with pytest.raises(InputFault, match=r"3\.2 GB with its weights") as caught:
        ship(path)
    assert "float16" in caught.value.advice
    with path.open("ab") as file:
        file.truncate(3 * 1024**3)
    with pytest.raises(InputFault, match=r"3\.2 GB with its weights"):
        ship(path)


# -- files that are no good ----------------------------------------------------------------


def test_a_file_cut_anywhere_is_refused_with_one_error(dense: Any) -> None:
    path = dense("Softmax")
    data = path.read_bytes()
    refused = 0
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        try:
            sources.load(path, str)
        except EdgeError as error:
            refused += 1
            assert error.advice
    assert refused == len(range(0, len(data), 7))


def test_a_file_with_any_byte_changed_never_ends_in_a_traceback(dense: Any) -> None:
    path = dense("Softmax")
    data = path.read_bytes()
    refused = 0
    for at in range(0, len(data), 11):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        try:
            sources.load(path, str).draw()  # type: ignore[attr-defined]
        except EdgeError:
            refused += 1
    assert refused > 10


def test_custom_operators_are_named(graph: Any, info: Any, ship: Any) -> None:
    for domain, said in (("my.ops", "custom operators, .*my.ops:Frob"), ("", "not know: Frob")):
        path = graph(
            [helper.make_node("Frob", ["x"], ["y"], domain=domain)],
            [info("x", ["n", 4])], [info("y", ["n", 4])], domains=[domain] if domain else [],
        )  # fmt: skip
        with pytest.raises(BuildFault, match=said):
            ship(path)


def test_inputs_that_are_no_plain_tensors_are_refused(graph: Any, info: Any, ship: Any) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    optional = helper.make_value_info(
        "o", helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [2]))
    )
    cases = [
        ([helper.make_node("SequenceLength", ["s"], ["y"])], sequence, "but sequence"),
        ([helper.make_node("OptionalGetElement", ["o"], ["y"])], optional, "but optional"),
        (
            [helper.make_node("Cast", ["b"], ["y"], to=1)],
            info("b", [2], TensorProto.BFLOAT16), "a tensor of bfloat16",
        ),
    ]  # fmt: skip
    for nodes, value, said in cases:
        kind = TensorProto.INT64 if said == "but sequence" else TensorProto.FLOAT
        shape = [] if kind == TensorProto.INT64 else [2]
        path = graph(nodes, [value], [info("y", shape, kind)], opset=18)
        with pytest.raises(InputFault, match=said):
            ship(path)
    path = graph([helper.make_node("Constant", [], ["y"], value_float=1.0)], [], [info("y", [])])
    with pytest.raises(InputFault, match="has no input"):
        ship(path)


def test_a_sequence_as_output_is_refused(graph: Any, info: Any, ship: Any) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    path = graph(
        [helper.make_node("SequenceConstruct", ["x"], ["s"])], [info("x", ["n", 4])], [sequence]
    )
    with pytest.raises(InputFault, match="output 's' of the model is a seq"):
        ship(path)


def test_an_axis_that_is_open_in_name_only_is_refused(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [info("x", ["n", 2, 2])], [info("y", ["n", 4])], {"shape": np.array([1, 4], np.int64)},
    )  # fmt: skip
    with pytest.raises(InputFault, match="takes one row at a time") as caught:
        ship(path, {"x": np.ones((6, 2, 2))})
    assert "fixed at 1" in caught.value.advice


def test_values_that_an_input_cannot_hold_are_refused(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [helper.make_node("Cast", ["x"], ["y"], to=1)],
        [info("x", ["n", 2, 2], TensorProto.UINT8)], [info("y", ["n", 2, 2])],
    )  # fmt: skip
    for value in (256.0, -1.0, 0.5, np.nan):
        with pytest.raises(InputFault, match="takes uint8, which cannot hold"):
            ship(path, {"x": np.full((3, 2, 2), value)})


def test_an_original_that_answers_nan_is_refused(graph: Any, info: Any, ship: Any) -> None:
    path = graph(
        [helper.make_node("Sqrt", ["x"], ["y"])], [info("x", ["n", 2, 2])], [info("y", ["n", 2, 2])]
    )
    with pytest.raises(InputFault, match="the original model answers nan for row 2"):
        ship(path, {"x": np.array([np.ones((2, 2)), -np.ones((2, 2)), np.ones((2, 2))])})
    assert ship(path).manifest.parity.synthetic  # drawn again, positive


# -- models that are no networks -------------------------------------------------------------


def test_other_models_need_data_and_state_their_own_task(ship: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], ["a", "b"]), path)
    with pytest.raises(InputFault, match="--data is missing: a joblib model does not say"):
        ship(path)
    rows = tmp_path / "rows.csv"
    rows.write_text("x\n0\n1\n")
    with pytest.raises(InputFault, match="--task and --labels are for networks"):
        ship(path, rows, task="classification", labels=("c", "d"))


def test_each_output_has_a_budget_of_its_own(graph: Any, info: Any, ship: Any) -> None:
    """A pressure around 101325 beside a ratio: 1 % of both together is more than either varies."""
    size, middle = np.array([350.0, 0.2]), np.array([101325.0, 0.5])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Gemm", ["t", "v", "b"], ["o"]),
    ]
    weights = {
        "w": _weights(6, 96).astype(np.float32),
        "v": (_weights(96, 2) / 5 * size).astype(np.float32),
        "b": middle.astype(np.float32),
    }
    path = graph(nodes, [info("x", ["n", 6])], [info("o", ["n", 2])], weights)
    found = Model.open(ship(path, _x(200)).config.out).predict({"x": _x(200)["x"]})
    x = _x(200)["x"].astype(np.float32)
    wanted = np.tanh(x @ weights["w"]) @ weights["v"] + weights["b"]
    said = np.asarray(found.outputs["o"])
    assert (np.abs(said - wanted).max(axis=0) <= 0.01 * wanted.std(axis=0)).all()


def test_labels_that_the_model_does_not_answer_are_not_guessed(
    graph: Any, info: Any, ship: Any
) -> None:
    """Its labels are 1, 2, 3: read as 0, 1, 2 a device would meet a 3 that nobody knows."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"], axis=1),
        helper.make_node("ArgMax", ["p"], ["at"], axis=1, keepdims=0),
        helper.make_node("Add", ["at", "one"], ["label"]),
    ]
    outputs = [info("label", ["n"], TensorProto.INT64), info("p", ["n", 3])]
    weights = {"w": _weights(6, 3), "one": np.array(1, np.int64)}
    path = graph(nodes, [info("x", ["n", 6])], outputs, weights)
    with pytest.raises(InputFault, match="a label that is none of 0, 1, 2") as caught:
        ship(path, _x())
    assert "--labels" in caught.value.advice
    built = ship(path, _x(), task="classification", labels=(1, 2, 3))
    assert Model.open(built.config.out).predict({"x": _x()["x"][:1]})[0].label in (1, 2, 3)

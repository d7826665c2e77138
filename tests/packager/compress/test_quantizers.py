"""ONNX Runtime's quantizers: what they change is right, and what they get wrong is said."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edge_agent.runtime import Session
from edge_contract.errors import BuildFault
from edge_pack import graphs
from edge_pack.compress import forms, quantizers
from edge_pack.compress.forms import Material
from edge_pack.compress.modes import COMPUTE, MODES


@pytest.mark.parametrize("mode", COMPUTE)
@pytest.mark.parametrize("net", ["gemm", "matmul", "conv"])
def test_integers_answer_nearly_as_float32_on_calibrated_rows(
    net: str, mode: Any, make: Any, feed: Any, capsys: Any
) -> None:
    proto, rows = make(net), feed(net, 64)
    material = Material(proto, [rows])
    if not forms.suits(mode, material):
        assert (net, mode) == ("conv", "int8-dynamic")  # 5 to 10 times slower than float32
        return
    before = proto.SerializeToString()
    form = forms.make(mode, material, {})
    assert proto.SerializeToString() == before and form.changed > 0
    onnx.checker.check_model(form.proto)
    plain, found = (Session(graphs.serialise(p)).run(rows)["y"] for p in (proto, form.proto))
    assert 0 < np.abs(found - plain).max() < 0.05 * np.abs(plain).max()
    assert graphs.serialise(forms.make(mode, material, {}).proto) == graphs.serialise(form.proto)
    assert form.proto.ir_version <= proto.ir_version and graphs.opsets(form.proto) == {"": 17}
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("scaled", [True, False])
def test_layers_behind_a_scaler_and_biases_with_two_axes_are_taken(scaled: bool, feed: Any) -> None:
    """What skl2onnx makes of a network: shape inference knows no Scaler, biases are [1, n]."""
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Scaler", ["x"], ["s"], domain="ai.onnx.ml", offset=[0.1], scale=[0.5]),
        helper.make_node("MatMul", ["s" if scaled else "x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ][0 if scaled else 1 :]
    weights = {
        "w": rng.normal(size=(70, 30)).astype(np.float32),
        "b": rng.normal(size=(1, 30)).astype(np.float32),
    }
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", 1, ["rows", 70])],
        [helper.make_tensor_value_info("y", 1, ["rows", 30])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    rows = feed("gemm", 32)
    plain = Session(graphs.serialise(proto)).run(rows)["y"]
    for mode in COMPUTE:
        form = forms.make(mode, Material(proto, [rows]), {})
        found = Session(graphs.serialise(form.proto)).run(rows)["y"]
        assert np.abs(found - plain).max() < 0.05 * np.abs(plain).max(), mode


_HASHED = """
import sys, hashlib
from pathlib import Path
import numpy as np, onnx
from edge_pack import graphs
from edge_pack.compress import forms
from edge_pack.compress.forms import Material
proto = onnx.load(sys.argv[1])
rows = {"x": np.load(sys.argv[2])}
for mode in sys.argv[3:]:
    form = forms.make(mode, Material(proto, [rows]), {})
    print(hashlib.sha256(graphs.serialise(form.proto)).hexdigest())
"""


def test_another_process_and_hash_seed_give_the_same_bytes(
    make: Any, feed: Any, tmp_path: Path
) -> None:
    proto, rows = make("matmul"), feed("matmul", 64)
    onnx.save(proto, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", rows["x"])
    modes = [mode for mode in MODES if not mode.startswith("trees")]
    done = subprocess.run(
        [sys.executable, "-c", _HASHED, tmp_path / "m.onnx", tmp_path / "x.npy", *modes],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "4711", "LC_ALL": "C"},
    )  # fmt: skip
    ours = [
        hashlib.sha256(
            graphs.serialise(forms.make(mode, Material(proto, [rows]), {}).proto)
        ).hexdigest()
        for mode in modes
    ]
    assert done.stdout.split() == ours


@given(st.floats(1e-30, 1e30))
def test_a_range_is_rounded_outward_by_less_than_a_percent(value: float) -> None:
    found = quantizers.outward(value)
    assert value <= found <= value * (1 + 2.0**-7)
    assert quantizers.outward(found) == found


def test_ranges_hold_every_row_and_zero_and_refuse_what_is_not_finite(make: Any, feed: Any) -> None:
    proto, rows = make("matmul"), feed("matmul", 40)
    ranges = quantizers.activation_ranges(proto, [rows, {"x": rows["x"] * 3}])
    assert set(ranges) == {"x", "h", "r", "y"}
    assert ranges["x"][0] <= 3 * rows["x"].min() and ranges["x"][1] >= 3 * rows["x"].max()
    assert ranges["r"][0] == 0.0 < ranges["r"][1]
    with pytest.raises(BuildFault, match="not finite"):
        quantizers.activation_ranges(proto, [{"x": np.full((2, 70), np.inf, np.float32)}])


def test_a_model_without_a_layer_is_said_to_have_none() -> None:
    value = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 2]) for name in "xy"
    ]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(BuildFault, match="changed nothing: there is no layer"):
        quantizers.activation_ranges(proto, [{"x": np.zeros((2, 2), np.float32)}])


def _copy(change: Callable[[Any], None]) -> Callable[[Path, Path], None]:
    def run(prepared: Path, out: Path) -> None:
        print("a quantizer prints")
        logging.getLogger("quantizer").warning("and warns")
        proto = onnx.load(str(prepared))
        change(proto)
        onnx.save(proto, str(out))

    return run


def _with_nan(proto: Any) -> None:
    proto.graph.node.add(op_type="Mark")
    proto.graph.initializer.append(numpy_helper.from_array(np.array([np.nan], np.float32), "s"))


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (lambda _prepared, _out: None, "wrote no file"),
        (_copy(lambda _proto: None), "changed nothing"),
        (_copy(_with_nan), "not finite"),
        (lambda _prepared, _out: 1 / 0, "failed: ZeroDivisionError"),
    ],
)
def test_a_quantizer_that_fails_says_so_and_leaves_nothing(
    run: Any, said: str, request: Any, capsys: Any, tmp_path: Path
) -> None:
    make, caplog = request.getfixturevalue("make"), request.getfixturevalue("caplog")
    request.getfixturevalue("monkeypatch").setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(BuildFault, match=said):
        quantizers._quantized(make("gemm"), run, "a test", ("Mark",))
    assert capsys.readouterr() == ("", "") and not caplog.records
    assert not list(tmp_path.iterdir()) and tempfile.tempdir == str(tmp_path)
    logging.getLogger("quantizer").warning("heard again")
    assert [record.message for record in caplog.records] == ["heard again"]


def test_an_old_model_is_not_quantized_by_channel(make: Any) -> None:
    proto = make("gemm")
    proto.opset_import[0].version = 11
    with pytest.raises(BuildFault, match=r"needs ai\.onnx 13"):
        quantizers.dynamic(proto)

"""Weights stored in fewer bytes: what a runtime unfolds is what was rounded, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper, numpy_helper

from edge_agent.runtime import Session
from edge_contract import bundle as bundles
from edge_contract.errors import BuildFault
from edge_pack import graphs
from edge_pack.compress import storage
from edge_pack.compress.storage import Layout

MODES = {"int8": (storage.int8_storage, 0.01), "int4": (storage.int4_storage, 0.15),
         "fp16": (storage.fp16_storage, 0.001)}  # fmt: skip

_floats = st.floats(-1e6, 1e6, width=32)


@given(arrays.arrays(np.float32, (7, 5), elements=_floats), st.sampled_from([0, 1]))
def test_a_stored_weight_is_half_a_step_off_at_most(weights: Any, axis: int) -> None:
    stored, scale = storage.quantize(weights, Layout(1 - axis, 2 - axis))
    assert stored.dtype == np.int8 and np.abs(stored.astype(int)).max() <= 127
    back = stored.astype(np.float64) * scale
    assert (np.abs(back - weights) <= scale * 0.5001 + 1e-30).all()
    assert (stored[weights == 0] == 0).all()


@given(arrays.arrays(np.float32, (2, 3, 8, 2), elements=st.floats(-4e5, 4e5, width=32)))
def test_four_bits_are_half_a_step_off_but_where_float16_rounds_the_scale(blocks: Any) -> None:
    stored, scale = storage.quantize_blocks(blocks.astype(np.float64))
    assert np.abs(stored.astype(int)).max() <= 7
    back = stored.astype(np.float64) * scale
    wide = np.finfo(np.float16)
    slack = 7 * (scale.astype(float) * float(wide.eps) + float(wide.smallest_subnormal))
    assert (np.abs(back - blocks) <= scale.astype(float) * 0.5 + slack).all()


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_layer_is_stored_and_answers_nearly_the_same(
    net: str, mode: str, make: Any, feed: Any
) -> None:
    store, off = MODES[mode]
    proto = make(net)
    found, changed = store(proto)
    onnx.checker.check_model(found)
    assert changed == sum(item.data_type == 1 and len(item.dims) > 1
                          for item in proto.graph.initializer)  # fmt: skip
    before = Session(graphs.serialise(proto)).run(feed(net))["y"]
    after = Session(graphs.serialise(found)).run(feed(net))["y"]
    assert after.dtype == np.float32 and after.shape == before.shape
    assert 0 < np.abs(after - before).max() <= off * 2 * np.abs(before).max()
    assert len(graphs.serialise(found)) < 0.65 * len(graphs.serialise(proto))
    assert graphs.serialise(store(proto)[0]) == graphs.serialise(found)


def test_the_runtime_computes_with_exactly_what_was_stored(make: Any, feed: Any) -> None:
    found, _ = storage.int8_storage(make("gemm"))
    stored = {item.name: numpy_helper.to_array(item) for item in found.graph.initializer}
    weights = stored["w_int8"].astype(np.float32) * stored["w_scale"]
    plain = make("gemm")
    plain.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    ours, theirs = (Session(graphs.serialise(p)).run(feed("gemm"))["y"] for p in (found, plain))
    assert (ours == theirs).all()


def test_four_bit_values_lose_their_empty_half_on_the_wire() -> None:
    """Against the same values packed two in a byte, in the bundle's own codec."""
    weights = np.random.default_rng(0).normal(size=(128, 256)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [], [], [numpy_helper.from_array(weights, "w")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    found, _ = storage.int4_storage(proto)
    wire = len(bundles.encode_member("model.onnx", graphs.serialise(found))[1])
    values = numpy_helper.to_array(found.graph.initializer[0]).ravel().astype(np.uint8) & 15
    packed = (values[::2] << 4) | values[1::2]
    kept = found.graph.initializer[0]
    kept.CopyFrom(numpy_helper.from_array(packed, "w_int4"))
    assert wire < 1.02 * len(bundles.encode_member("model.onnx", graphs.serialise(found))[1])
    assert wire < 0.16 * weights.nbytes


def test_a_run_that_no_block_divides_is_padded(feed: Any) -> None:
    weights = np.random.default_rng(1).normal(size=(67, 30)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    takes = helper.make_tensor_value_info("x", 1, ["rows", 67])
    gives = helper.make_tensor_value_info("y", 1, ["rows", 30])
    graph = helper.make_graph(
        [node], "g", [takes], [gives], [numpy_helper.from_array(weights, "w")]
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found, _ = storage.int4_storage(proto)
    eye = np.eye(67, dtype=np.float32)
    back = Session(graphs.serialise(found)).run({"x": eye})["y"]
    assert np.abs(back - weights).max() <= np.abs(weights).max() / 7 * 0.51


@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_be_stored_so_stays_as_it_is(mode: str) -> None:
    store, _ = MODES[mode]
    wide = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    broken = wide.copy()
    broken[0, 0] = np.nan
    cases = {
        "small": (np.ones((3, 2), np.float32), 17),
        "old": (wide, 11),
        "nan": (broken, 17),
        "huge": (wide * np.float32(1e30), 17) if mode != "int8" else (broken, 17),
    }
    for name, (weights, opset) in cases.items():
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        graph = helper.make_graph([node], "g", [], [], [numpy_helper.from_array(weights, "w")])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        with pytest.raises(BuildFault, match="changed nothing"):
            store(proto)
            pytest.fail(name)


def test_constant_and_vanishing_weights_stay_finite(feed: Any, make: Any) -> None:
    for value in (0.0, 3.5, 1e-45, -1e-38):
        proto = make("gemm")
        weights = np.full((40, 70), value, dtype=np.float32)
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
        for store, _ in MODES.values():
            found, plain = (
                Session(graphs.serialise(each)).run(feed("gemm"))["y"]
                for each in (store(proto)[0], proto)
            )
            assert np.allclose(found, plain, rtol=1e-2, atol=1e-4), value


def test_a_weight_that_a_branch_reads_too_is_left_alone() -> None:
    weights = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    inner = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["o"])], "b", [],
        [helper.make_tensor_value_info("o", 1, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [], [], [numpy_helper.from_array(weights, "w")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(BuildFault, match="changed nothing"):
        storage.int8_storage(proto)

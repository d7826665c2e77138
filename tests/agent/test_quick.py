"""The quick way answers as the general one does, to the bit, from any number of threads."""

from __future__ import annotations

import struct
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent import Model
from edge_agent.runtime import FAILURES, Session
from edge_contract import bundle as bundles
from edge_contract.errors import InputFault, MachineFault

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}


def general(model: Model) -> Model:
    """The same model without its quick way."""
    model._quick = None
    return model


@pytest.mark.parametrize("kind", ["text labels", "a value"])
def test_both_ways_answer_alike(kind, tiny_bundle, regression_bundle) -> None:
    bundle = bundles.read((tiny_bundle if kind == "text labels" else regression_bundle)())
    fast, slow = Model.from_bundle(bundle), general(Model.from_bundle(bundle))
    assert fast._quick is not None
    rng = np.random.default_rng(5)
    for values in rng.normal(size=(50, 4)) * 10.0 ** rng.integers(-3, 4, size=(50, 1)):
        row = dict(zip(ROW, values.tolist(), strict=True))
        assert fast.predict(row) == slow.predict(row)
        array = values[None].astype(np.float32)
        assert fast.predict(array) == slow.predict(array)


def test_answers_of_many_threads_do_not_mix(tiny_bundle) -> None:
    model = Model.from_bundle(bundles.read(tiny_bundle()))
    rows = [dict(zip(ROW, [i / 7, -i / 5, i, 0.0], strict=True)) for i in range(40)]
    right = [model.predict(row) for row in rows]
    wrong: list[int] = []
    together = threading.Barrier(8)

    def ask(shift: int) -> None:
        together.wait()
        for turn in range(400):
            at = (turn * 7 + shift) % len(rows)
            if model.predict(rows[at]) != right[at]:
                wrong.append(at)

    threads = [threading.Thread(target=ask, args=(shift,)) for shift in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_answer_stays_when_the_next_is_given(tiny_bundle) -> None:
    model = Model.from_bundle(bundles.read(tiny_bundle()))
    first = model.predict(ROW)
    kept = first.label, dict(first.probabilities)
    model.predict({**ROW, "temp": -50.0})
    assert (first.label, first.probabilities) == kept


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ROW, "temp": float("nan")}, "temp"),
        ({**ROW, "temp": 1e39}, "temp"),
        ({**ROW, "temp": "warm"}, "temp"),
        ({**ROW, "extra": 1.0}, "extra"),
        (dict.fromkeys(("temp", "hum", "rpm"), 0.0), "volt"),
    ],
)
def test_what_is_wrong_is_said_by_the_general_way(row, said, tiny_bundle) -> None:
    model = Model.from_bundle(bundles.read(tiny_bundle()))
    with pytest.raises(InputFault, match=said):
        model.predict(row)
    assert model.predict(ROW) == general(Model.from_bundle(bundles.read(tiny_bundle()))).predict(
        ROW
    )


def test_a_closed_model_answers_no_more(tiny_bundle) -> None:
    model = Model.from_bundle(bundles.read(tiny_bundle()))
    model.predict(ROW)
    model.close()
    with pytest.raises(MachineFault, match="closed"):
        model.predict(ROW)


def not_negative() -> bytes:
    """The numbers of a row that are not negative: as many as there are."""
    nodes = [
        helper.make_node("GreaterOrEqual", ["x", "zero"], ["kept"]),
        helper.make_node("Reshape", ["kept", "flat"], ["mask"]),
        helper.make_node("Compress", ["x", "mask"], ["y"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [
            numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zero"),
            numpy_helper.from_array(np.array([-1]), "flat"),
        ],
    )
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(made, opset_imports=[opset], ir_version=8).SerializeToString())


def test_an_output_of_another_length_is_no_answer() -> None:
    bind = Session(not_negative()).bind("x", (1, 4), np.dtype(np.float32))
    assert bind is not None
    bound = bind()
    struct.pack_into("4f", bound.buffer, 0, 1.0, 2.0, 3.0, 4.0)
    assert bound.run()[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    struct.pack_into("4f", bound.buffer, 0, -1.0, 2.0, 3.0, 4.0)
    with pytest.raises(FAILURES):
        bound.run()


def test_only_what_it_was_told_is_bound() -> None:
    session = Session(not_negative())
    assert session.bind("z", (1, 4), np.dtype(np.float32)) is None
    assert session.bind("x", (1, 5), np.dtype(np.float32)) is None
    session.close()
    assert session.bind("x", (1, 4), np.dtype(np.float32)) is None


def counting() -> bytes:
    """Counts up to the row's first number: endless when that is large."""
    int64, flag, number = TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["going"]),
            helper.make_node("Add", ["sum", "one"], ["more"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", int64, []),
            helper.make_tensor_value_info("go", flag, []),
            helper.make_tensor_value_info("sum", number, [1]),
        ],
        [
            helper.make_tensor_value_info("going", flag, []),
            helper.make_tensor_value_info("more", number, [1]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["turns"], to=int64),
        helper.make_node("Loop", ["turns", "true", "zero"], ["y"], body=body),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", number, [None, 4])],
        [helper.make_tensor_value_info("y", number, [1])],
        [
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zero"),
            numpy_helper.from_array(np.ones(1, dtype=np.float32), "one"),
        ],
    )
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(made, opset_imports=[opset], ir_version=8).SerializeToString())


def test_an_endless_run_is_interrupted_and_not_begun_again() -> None:
    session = Session(counting())
    bind = session.bind("x", (1, 4), np.dtype(np.float32))
    assert bind is not None
    bound = bind()
    struct.pack_into("4f", bound.buffer, 0, 3.0, 0.0, 0.0, 0.0)
    assert bound.run()[0].tolist() == [3.0]
    said: list[Exception] = []
    begun = threading.Event()

    def endless() -> None:
        struct.pack_into("4f", bound.buffer, 0, 1e15, 0.0, 0.0, 0.0)
        begun.set()
        try:
            bound.run()
        except MachineFault as error:
            said.append(error)

    thread = threading.Thread(target=endless)
    thread.start()
    begun.wait()
    while thread.is_alive():  # the run may begin just after an interruption
        session.interrupt()
        thread.join(0.05)
    assert "interrupted" in str(said[0])
    struct.pack_into("4f", bound.buffer, 0, 2.0, 0.0, 0.0, 0.0)
    assert bound.run()[0].tolist() == [2.0]

"""Ensembles: the plan is checked before anything runs; the answers are those of a chain by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from edge_agent import Model
from edge_agent.ensemble import Ensemble, EnsembleSeat, Spec
from edge_agent.live import Live, NoSuchVersion
from edge_contract import bundle as bundles
from edge_contract.errors import InputFault, MachineFault
from edge_contract.manifest import Feature, Outputs, Tensor

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}


def linear(
    seal: Callable[..., bytes],
    name: str,
    features: tuple[str, ...],
    weights: list[float],
    *,
    version: str = "1.0",
    text: str = "",
) -> Model:
    """A real bundle that answers a weighted sum of its features, +10 where ``text`` is "good"."""
    from onnx import TensorProto, helper

    n = len(features)
    nodes = [helper.make_node("MatMul", ["X", "w"], ["sum" if text else "value"])]
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, n])]
    if text:
        nodes += [
            helper.make_node(
                "LabelEncoder", ["label"], ["bonus"], domain="ai.onnx.ml",
                keys_strings=["good"], values_floats=[10.0], default_float=0.0,
            ),
            helper.make_node("Add", ["sum", "bonus"], ["value"]),
        ]  # fmt: skip
        inputs.append(helper.make_tensor_value_info("label", TensorProto.STRING, [None, 1]))
    graph = helper.make_graph(
        nodes, name, inputs, [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [n, 1], weights)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    declared = tuple(Feature(name=each) for each in features)
    tensors = (Tensor(name="X", dtype="float32", shape=(None, n), features=features),)
    golden = {"X": np.zeros((2, n), np.float32)}
    if text:
        declared += (Feature(name=text, type="category", categories=("bad", "good")),)
        tensors += (Tensor(name="label", dtype="string", shape=(None, 1), features=(text,)),)
        golden["label"] = np.array([["bad"], ["good"]], dtype=object)
    data = seal(
        onnx, name=name, version=version, task="regression", features=declared, inputs=tensors,
        outputs=Outputs(tensors=("value",), value="value"), golden_inputs=golden, profile=None,
    )  # fmt: skip
    return Model.from_bundle(bundles.read(data))


class Counter:
    """A strict observer."""

    def __init__(self) -> None:
        self.answered: list[int] = []
        self.refusals: list[int] = []

    def observe(self, batch, labels, scores, latency_ns: int) -> None:
        self.answered.append(batch.rows)

    def refused(self, rows: int, code: str = "") -> None:
        self.refusals.append(rows)

    def failed(self, rows: int, code: str = "") -> None:
        raise AssertionError("no model fails here")


@pytest.fixture
def pump(tiny_bundle) -> Model:
    return Model.from_bundle(bundles.read(tiny_bundle()))


@pytest.fixture
def wear(seal_bundle) -> Model:
    """From what ``pump`` answers, and the age that comes with the request."""
    return linear(seal_bundle, "wear", ("p_good", "age"), [2.0, 1.0], text="state")


FEEDS = {"wear.p_good": "pump.probability_good", "wear.state": "pump.label"}


@pytest.fixture
def chain(pump: Model, wear: Model) -> Ensemble:
    return Ensemble.of({"wear": wear, "pump": pump}, FEEDS, name="chain")


def by_hand(pump: Model, wear: Model, row: dict) -> float:
    first = pump.predict({key: row[key] for key in ROW})
    second = {"p_good": first.probabilities["good"], "age": row["age"], "state": first.label}
    value = wear.predict(second).value
    assert value is not None
    return value


def test_one_models_answer_is_anothers_feature(chain: Ensemble, pump: Model, wear: Model) -> None:
    rng = np.random.default_rng(9)
    rows = [dict(zip((*ROW, "age"), rng.normal(size=5).tolist(), strict=True)) for _ in range(40)]
    expected = [by_hand(pump, wear, row) for row in rows]
    found = [p.value for p in chain.predict(rows)]
    assert found == pytest.approx(expected, abs=1e-5)
    assert {bool(value > 5) for value in found} == {True, False}, "both labels reached the second"
    assert chain.predict(rows[0]).value == pytest.approx(expected[0], abs=1e-5)
    table = pd.DataFrame(rows)
    assert chain.predict(table) == chain.predict(rows)
    names = [feature.name for feature in chain.manifest.features]
    assert chain.predict(table[names].to_numpy()) == chain.predict(rows)
    assert list(chain.predict_many(rows)) == chain.predict(rows)
    assert asyncio.run(chain.apredict(rows)) == chain.predict(rows)
    assert [p.value for p in chain.predict(rows)] == chain.infer(rows)["value"][:, 0].tolist()
    assert set(names) == {*ROW, "age"}
    assert chain.manifest.version == "1.0-1.0"
    assert "<Model chain 1.0-1.0: regression of 5 features" in repr(chain)


def test_each_model_counts_what_it_is_asked(chain: Ensemble, pump: Model, wear: Model) -> None:
    pump.observer, wear.observer = first, second = Counter(), Counter()
    row = {**ROW, "age": 3.0}
    chain.predict(row)
    chain.predict([row, row])
    assert first.answered == second.answered == [1, 2]
    with pytest.raises(InputFault, match=r"^feature 'age' is missing"):
        chain.predict(ROW)
    with pytest.raises(InputFault, match="row 1: feature 'rpm' is infinite"):
        chain.predict([row, {**row, "rpm": float("inf")}])
    assert first.answered == second.answered == [1, 2], "a request that is wrong asks no model"
    with pytest.raises(InputFault, match=r"^feature 'age' is 1e\+39, .* \(in wear\)"):
        chain.predict({**row, "age": 1e39})
    assert second.refusals == [1]


def test_three_models_run_in_the_order_that_their_feeds_ask_for(pump: Model, seal_bundle) -> None:
    first = linear(seal_bundle, "first", ("a",), [2.0])
    both = linear(seal_bundle, "both", ("x", "y", "a"), [1.0, 1.0, 100.0])
    second = linear(seal_bundle, "second", ("x",), [10.0])
    ensemble = Ensemble.of(
        {"both": both, "second": second, "first": first},
        {"both.y": "second.value", "second.x": "first.value", "both.x": "first.value"},
    )
    assert ensemble.predict({"a": 1.0}).value == 2 + 20 + 100
    assert [f.name for f in ensemble.manifest.features] == ["a"], "asked once, for two models"


CASES: list[tuple[list[str], dict[str, str], str, str]] = [
    (["pump", "wear"], {"wear.p_good": "pump.score", "pump.temp": "wear.value"}, "", "a cycle"),
    (["pump", "wear"], {"wear.age": "wear.value"}, "", "a cycle: wear feeds wear"),
    (["pump", "pump"], {"pump.temp": "pump.score"}, "", "names one twice"),
    (["pump", "wear"], {"wear.p": "pump.score"}, "", "wear has no input 'p'; it has p_good, age"),
    (["pump", "wear"], {"wear.age": "pump.value"}, "", "pump has no such output; it has label"),
    (["pump", "wear"], {"wear.age": "pump.probability_ugly"}, "", "no such output"),
    (["pump", "wear"], {"wear.age": "pump.label"}, "", "is a text, the feature a number"),
    (["pump", "wear"], {"wear.state": "pump.score"}, "", "is a number, the feature a category"),
    (["pump", "wear"], {"fan.age": "pump.score"}, "", "begins with no model of the ensemble"),
    (["pump", "wear"], {"wear.age": "score"}, "", "begins with no model of the ensemble"),
    (["pump", "wear"], {"wear.age": "pump.score"}, "fan", "is none of pump, wear"),
    (["pump", "wear"], {"wear.age": "pump.score"}, "pump", "model 'wear' feeds no other"),
    (["pump", "wear"], {"wear.X": "pump.score"}, "", "fed by a model whose answers are tensors"),
    (["pump"], {"pump.temp": "pump.score"}, "", "Expected `array` of length >= 2"),
    (["pump", "wear"], {}, "", "Expected `object` of length >= 1"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[3][:40])
def test_what_could_not_work_is_refused_before_anything_runs(
    pump: Model, wear: Model, case: tuple[list[str], dict[str, str], str, str]
) -> None:
    models, feeds, answer, said = case
    with pytest.raises(InputFault) as caught:
        spec = {"models": models, "feeds": feeds, "answer": answer}
        if len(set(models)) < len(models):
            Ensemble("e", Spec(**{**spec, "models": tuple(models)}), {"pump": pump})
        else:
            made = {"pump": pump, "wear": wear}
            Ensemble.of({m: made[m] for m in models}, feeds, answer=answer)
    assert said in caught.value.what


def tensors(seal: Callable[..., bytes], name: str, source: str, target: str, width: int) -> Model:
    """Doubles a tensor ``[rows, width]``."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Add", [source, source], [target])], name,
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(target, TensorProto.FLOAT, [None, width])],
    )  # fmt: skip
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = seal(
        onnx.SerializeToString(), name=name, task="tensors", features=(),
        inputs=(Tensor(name=source, dtype="float32", shape=(None, width)),),
        outputs=Outputs(tensors=(target,)), profile=None,
        golden_inputs={source: np.ones((1, width), np.float32)},
    )  # fmt: skip
    return Model.from_bundle(bundles.read(data))


def test_a_tensor_feeds_a_tensor_and_a_table_models_only_one(pump: Model, seal_bundle) -> None:
    eye = tensors(seal_bundle, "eye", "image", "vector", 4)
    twice = tensors(seal_bundle, "twice", "vector", "wide", 4)
    whole = Ensemble.of(
        {"eye": eye, "twice": twice, "pump": pump},
        {"twice.vector": "eye.vector", "pump.X": "twice.wide"},
    )
    image = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    assert whole.predict({"image": image}) == pump.predict({"X": image * 4})
    with pytest.raises(InputFault, match=r"shape \[3, 3\], expected \[any, 4\]"):
        whole.predict({"image": image[:, :3]})
    with pytest.raises(InputFault, match="dict of arrays by tensor name: image"):
        whole.predict([1.0, 2.0, 3.0, 4.0])
    narrow = tensors(seal_bundle, "narrow", "image", "vector", 3)
    with pytest.raises(InputFault, match=r"is float32 \[any, 3\], the input float32 \[any, 4\]"):
        Ensemble.of({"narrow": narrow, "pump": pump}, {"pump.X": "narrow.vector"})
    with pytest.raises(InputFault, match="has no output 'vectors'; it has vector"):
        Ensemble.of({"narrow": narrow, "pump": pump}, {"pump.X": "narrow.vectors"})
    with pytest.raises(InputFault, match="no such output"):
        Ensemble.of({"narrow": narrow, "pump": pump}, {"pump.temp": "narrow.vector"})


def test_a_request_cannot_hold_features_and_tensors(pump: Model, seal_bundle) -> None:
    eye = tensors(seal_bundle, "eye", "image", "vector", 1)
    mix = tensors(seal_bundle, "mix", "vector", "wide", 1)
    total = linear(seal_bundle, "total", ("v",), [1.0])
    more = linear(seal_bundle, "more", ("v", "u"), [1.0, 1.0])
    assert Ensemble.of({"eye": eye, "mix": mix}, {"mix.vector": "eye.vector"})
    fine = Ensemble.of({"eye": eye, "total": total}, {"total.X": "eye.vector"})
    assert fine.predict({"image": np.ones((1, 1), np.float32)})[0].value == 2.0
    with pytest.raises(InputFault, match="would hold features"):
        Ensemble.of(
            {"eye": eye, "total": total, "more": more},
            {"total.X": "eye.vector", "more.v": "total.value"},
        )


# -- in an agent -----------------------------------------------------------------------------------


SPEC = Spec(models=("pump", "wear"), feeds=FEEDS)


def test_a_seat_answers_with_what_its_models_are_at_the_moment(
    pump: Model, wear: Model, seal_bundle
) -> None:
    seats = {"pump": Live("pump", pump), "wear": Live("wear")}
    seat = EnsembleSeat("chain", SPEC, seats)
    row = {**ROW, "age": 3.0}
    assert seat.model is None
    with pytest.raises(MachineFault, match="model 'wear' is not installed"):
        seat.predict(row)
    seats["wear"].swap(wear)
    assert seat.predict(row).value == pytest.approx(by_hand(pump, wear, row), abs=1e-5)
    assert seat.model is not None
    assert seat.model.manifest.name == "chain"
    with seat.use("1.0-1.0") as model, pytest.raises(NoSuchVersion), seat.use("2.0"):
        assert model is seat.model
    newer = linear(seal_bundle, "wear", ("p_good", "age"), [0.0, 7.0], version="2.0", text="state")
    with seat.use() as before:
        seats["wear"].swap(newer)
        assert before.predict(row).value == pytest.approx(by_hand(pump, wear, row), abs=1e-5)
    assert list(seat.loaded) == ["1.0-2.0"]
    assert seat.predict(row).value == pytest.approx(by_hand(pump, newer, row), abs=1e-5)
    assert seat.loaded_as(before.digest) is None


def test_models_that_no_longer_fit_answer_nothing_and_fit_again(
    pump: Model, wear: Model, seal_bundle, caplog
) -> None:
    seats = {"pump": Live("pump", pump), "wear": Live("wear", wear)}
    seat = EnsembleSeat("chain", SPEC, seats)
    row = {**ROW, "age": 3.0}
    seat.predict(row)
    seats["wear"].swap(linear(seal_bundle, "wear", ("p_good", "age"), [1.0, 1.0], version="2.0"))
    for _ in range(3):
        with pytest.raises(MachineFault, match="wear has no input 'state'"):
            seat.predict(row)
    assert seat.model is None
    assert caplog.text.count("has no input 'state'") == 1, "said once, not at each request"
    again = linear(seal_bundle, "wear", ("p_good", "age"), [1.0, 1.0], version="3.0", text="state")
    seats["wear"].swap(again)
    assert seat.predict(row).value is not None

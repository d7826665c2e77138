"""A bundle answers: from a file, from a slot, by name, from many threads, counted once."""

from __future__ import annotations

import asyncio
import platform
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_agent import Model, Prediction
from edge_contract import bundle as bundles
from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault, MachineFault

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}


class Counter:
    """A strict observer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.latencies: list[int] = []

    def observe(self, batch, labels: Sequence[int], scores: Sequence[float], ns: int) -> None:
        assert len(labels) == len(scores) == batch.rows
        assert ns > 0
        self.calls.append(("answered", batch.rows))
        self.latencies.append(ns)

    def refused(self, rows: int, code: str = "") -> None:
        self.calls.append(("refused", rows))

    def failed(self, rows: int, code: str = "") -> None:
        self.calls.append(("failed", rows))


@pytest.fixture
def pump(tiny_bundle) -> Model:
    return Model.from_bundle(bundles.read(tiny_bundle()))


def unpack(bundle: Bundle, folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / bundles.MANIFEST_MEMBER).write_bytes(bundle.manifest_bytes)
    for file in bundle.manifest.files:
        (folder / file.name).write_bytes(bundle.file(file.name))
    return folder


def test_a_file_a_bundle_and_a_slot_answer_alike(tiny_bundle, tmp_path: Path) -> None:
    data = tiny_bundle()
    path = tmp_path / "pump.edgepack"
    path.write_bytes(data)
    bundle = bundles.read(data)
    models = [
        Model.open(path),
        Model.open(str(path)),
        Model.from_bundle(bundle),
        Model.from_slot(unpack(bundle, tmp_path / "slot")),
    ]
    assert len({model.digest for model in models}) == 1
    assert {model.digest for model in models} == {bundle.digest}
    answers = [model.predict(ROW) for model in models]
    assert all(answer == answers[0] for answer in answers)
    for model in models:
        assert model.profile is not None
        assert model.profile.rows == 400
        assert list(model.check_golden()) == []


def test_one_row_gives_one_prediction_many_give_a_list(pump: Model) -> None:
    one = pump.predict(ROW)
    assert isinstance(one, Prediction)
    assert one.label in ("bad", "good")
    assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert pump.predict([ROW, ROW]) == [one, one]
    assert pump.predict(list(ROW.values())) == one
    assert pump.predict(np.array([list(ROW.values())] * 3)) == [one] * 3


def test_the_label_is_scikit_learns_own(pump: Model) -> None:
    rows = np.random.default_rng(11).normal(size=(500, 4))
    raw = pump.run({"X": rows.astype(np.float32)})
    found = pump.predict(rows)
    assert [p.label for p in found] == raw["label"].tolist()
    np.testing.assert_array_equal(
        [list(p.probabilities.values()) for p in found], raw["probabilities"]
    )


def test_the_threshold_of_the_manifest_moves_the_label(tiny_bundle) -> None:
    strict = Model.from_bundle(bundles.read(tiny_bundle(threshold=0.99)))
    rows = np.random.default_rng(5).normal(size=(300, 4))
    for prediction in strict.predict(rows):
        assert prediction.label == ("good" if prediction.probabilities["good"] >= 0.99 else "bad")


def test_a_regression_and_a_model_with_text(regression_bundle, mixed_bundle) -> None:
    flow = Model.from_bundle(bundles.read(regression_bundle()))
    assert flow.predict(ROW).value == pytest.approx(3 * 0.5 - 0.0, abs=1e-4)
    assert flow.predict(ROW).label is None
    site = Model.from_bundle(bundles.read(mixed_bundle()))
    lyon, paris = site.predict([{"temp": 1, "hum": 0, "site": s} for s in ("lyon", "paris")])
    assert lyon.label == 1
    assert lyon.probabilities["1"] > paris.probabilities["1"], "the category reached the model"
    assert site.predict({"temp": 1, "hum": 0, "site": "never seen"}).label in (0, 1)


def test_text_that_is_no_utf8_is_the_callers_fault(mixed_bundle) -> None:
    """A fault of the machine's would count against the version."""
    site = Model.from_bundle(bundles.read(mixed_bundle()))
    row = {"temp": 1, "hum": 0, "site": "lyon"}
    with pytest.raises(InputFault, match="holds text that is no UTF-8"):
        site.predict({**row, "site": "\ud800"})
    assert site.predict(row).label == 1


def test_a_model_of_whole_tensors(seal_bundle) -> None:
    from onnx import TensorProto, helper

    from edge_contract.manifest import Outputs, Tensor

    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2, 2])
            for name in ("a", "b")
        ],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [None, 2, 2])],
    )
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {name: np.ones((1, 2, 2), dtype=np.float32) for name in ("a", "b")}
    data = seal_bundle(
        onnx.SerializeToString(),
        name="adder",
        task="tensors",
        features=(),
        inputs=tuple(Tensor(name=n, dtype="float32", shape=(None, 2, 2)) for n in ("a", "b")),
        outputs=Outputs(tensors=("sum",)),
        golden_inputs=feeds,
        profile=None,
    )
    model = Model.from_bundle(bundles.read(data))
    model.observer = counter = Counter()
    assert list(model.check_golden()) == []
    prediction = model.predict(feeds)
    np.testing.assert_array_equal(prediction.outputs["sum"], np.full((1, 2, 2), 2))
    assert counter.calls == [("answered", 1)]


def test_every_call_is_counted_once(pump: Model) -> None:
    pump.observer = counter = Counter()
    pump.predict(ROW)
    pump.predict([ROW] * 5)
    for bad in ({"temp": 1}, [ROW, {"temp": 1}], "text"):
        with pytest.raises(InputFault):
            pump.predict(bad)
    pump.close()
    with pytest.raises(MachineFault):
        pump.predict(ROW)
    assert counter.calls == [
        ("answered", 1), ("answered", 5), ("refused", 1), ("refused", 2), ("refused", 1),
        ("failed", 1),
    ]  # fmt: skip


def test_a_model_that_answers_nan_has_failed(mixed_bundle) -> None:
    model = Model.from_bundle(bundles.read(mixed_bundle(missing="allow", impute=False)))
    model.observer = counter = Counter()
    with pytest.raises(MachineFault, match="answered nan for row 1"):
        model.predict([{"temp": t, "hum": 0, "site": "lyon"} for t in (0.0, None)])
    assert counter.calls == [("failed", 2)]


def test_golden_samples_that_differ_are_named(tiny_bundle) -> None:
    spoilt = Model.from_bundle(bundles.read(tiny_bundle(golden_shift=1e-3)))
    (finding,) = spoilt.check_golden()
    assert "'probabilities' differs" in finding
    assert spoilt.check_golden(platform.machine()) == [finding]


def test_a_damaged_slot_is_refused_with_the_files_name(tiny_bundle, tmp_path: Path) -> None:
    bundle = bundles.read(tiny_bundle())
    for i, file in enumerate(bundle.manifest.files):
        folder = unpack(bundle, tmp_path / str(i))
        data = bytearray((folder / file.name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / file.name).write_bytes(data)
        with pytest.raises(InputFault, match=f"{file.name} is not what its manifest names"):
            Model.from_slot(folder)
        (folder / file.name).unlink()
        with pytest.raises(InputFault, match=file.name):
            Model.from_slot(folder)


def test_what_is_no_bundle_is_refused(tmp_path: Path, tiny_bundle) -> None:
    with pytest.raises(InputFault, match="cannot read"):
        Model.open(tmp_path / "none.edgepack")
    path = tmp_path / "half.edgepack"
    path.write_bytes(tiny_bundle()[:3000])
    with pytest.raises(InputFault):
        Model.open(path)


def test_a_manifest_that_is_not_the_models_is_refused(seal_bundle, tiny_bundle) -> None:
    import msgspec

    from edge_contract.manifest import Tensor

    bundle = bundles.read(tiny_bundle())
    names = tuple(feature.name for feature in bundle.manifest.features)
    for tensor, says in [
        (Tensor(name="Z", dtype="float32", shape=(None, 4), features=names), "the model has"),
        (Tensor(name="X", dtype="float64", shape=(None, 4), features=names), "in the manifest"),
    ]:
        manifest = msgspec.structs.replace(bundle.manifest, inputs=(tensor,))
        with pytest.raises(InputFault, match=says):
            Model.from_bundle(Bundle(manifest, b"", bundle.stored))


def test_async_answers_are_the_same(pump: Model) -> None:
    async def ask() -> list:
        return await asyncio.gather(*(pump.apredict(ROW) for _ in range(20)))

    assert asyncio.run(ask()) == [pump.predict(ROW)] * 20


def test_many_threads_get_their_own_rows_answers(pump: Model) -> None:
    rows = np.random.default_rng(2).normal(size=(8, 4))
    expected = [pump.predict(row) for row in rows]
    wrong: list[int] = []

    def work(i: int) -> None:
        named = dict(zip(ROW, rows[i].tolist(), strict=True))
        wrong.extend(i for _ in range(200) if pump.predict(named) != expected[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []

"""Keras 3 models: asked through predict, exported by Keras, exact; or refused by name."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("h5py")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

from edge_agent.model import Model  # noqa: E402
from edge_contract.errors import InputFault  # noqa: E402
from edge_contract.manifest import MODEL_FILE  # noqa: E402
from edge_pack import reading, sources  # noqa: E402

L = keras.layers


def _save(folder: Path, *layers: Any, name: str = "net") -> Path:
    keras.utils.set_random_seed(4)
    model = keras.Sequential(list(layers))
    path = folder / f"{name}.keras"
    model.save(path)
    return path


def _rows(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def test_a_dense_classifier_on_a_table(ship: Any, tmp_path: Path) -> None:
    path = _save(
        tmp_path, keras.Input((6,), name="readings"), L.Dense(32, activation="relu"),
        L.Dropout(0.5), L.Dense(3, activation="softmax", name="kind"),
    )  # fmt: skip
    data = tmp_path / "rows.csv"
    pd.DataFrame(_rows(90, 6), columns=[f"s{i}" for i in range(6)]).to_csv(data, index=False)
    built = ship(path, data, quantize="none")
    manifest = built.manifest
    assert (manifest.task, manifest.outputs.tensors) == ("classification", ("kind",))
    assert (manifest.inputs[0].name, len(manifest.features)) == ("readings", 6)
    assert manifest.provenance.source_type == "keras" and manifest.parity.flips == 0
    raw = reading.open_bundle(built.config.out).file(MODEL_FILE)
    assert b"pytorch" not in raw and b".py" not in raw
    model = keras.saving.load_model(path)
    wanted = model.predict(_rows(90, 6)[:5].astype(np.float32), verbose=0)
    found = Model.open(built.config.out).predict(_rows(90, 6)[:5])
    np.testing.assert_allclose([list(one.probabilities.values()) for one in found], wanted, 1e-5)


def test_images_series_and_tokens(ship: Any, tmp_path: Path) -> None:
    image = _save(
        tmp_path, keras.Input((8, 8, 3), name="image"), L.Conv2D(4, 3, activation="relu"),
        L.BatchNormalization(), L.MaxPooling2D(), L.GlobalAveragePooling2D(), L.Dense(2),
    )  # fmt: skip
    built = ship(image, {"image": _rows(9, 8, 8, 3)}, task="classification", labels=("ok", "bad"))
    assert built.manifest.parity.flips == 0
    tokens = _save(
        tmp_path, keras.Input((7,), dtype="int32", name="ids"), L.Embedding(20, 4), L.GRU(5),
        L.Dense(1, activation="sigmoid"), name="tokens",
    )  # fmt: skip
    built = ship(tokens)
    assert built.manifest.parity.synthetic and built.manifest.task == "classification"
    drawn = sources.load(tokens, str).draw().tensors["ids"]  # type: ignore[attr-defined]
    assert (int(drawn.min()), int(drawn.max())) == (0, 19)


def test_open_steps_are_fixed_to_the_data(ship: Any, tmp_path: Path) -> None:
    """Keras's exporter would unroll the LSTM over one step, and answer wrongly ever after."""
    path = _save(tmp_path, keras.Input((None, 5), name="series"), L.LSTM(8), L.Dense(1))
    built = ship(path, {"series": _rows(9, 7, 5)}, quantize="none")
    assert built.manifest.inputs[0].shape == (None, 7, 5)
    assert built.manifest.parity.diff_max < 1e-4
    wanted = keras.saving.load_model(path).predict(_rows(9, 7, 5), verbose=0).ravel()
    found = Model.open(built.config.out).predict({"series": _rows(9, 7, 5)})
    np.testing.assert_allclose([one.value for one in found], wanted, atol=1e-5)


def test_several_inputs_and_outputs(ship: Any, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    left, right = keras.Input((6,), name="left"), keras.Input((3,), name="right side")
    joined = L.Concatenate()([L.Dense(8, activation="relu")(left), right])
    ends = [L.Dense(3, activation="softmax", name="kind")(joined), L.Dense(1, name="load")(joined)]
    for inputs in ([left, right], {"left": left, "right side": right}):
        path = tmp_path / "two.keras"
        keras.Model(inputs, ends).save(path)
        built = ship(path, {"left": _rows(9, 6), "right side": _rows(9, 3)})
        assert built.manifest.outputs.tensors == ("kind", "load")
        assert (built.manifest.parity.rows, built.manifest.task) == (9, "tensors")
    assert ship(path).manifest.parity.synthetic


def test_what_cannot_be_packaged_is_said(ship: Any, tmp_path: Path) -> None:
    path = _save(tmp_path, keras.Input((3,)), L.Lambda(lambda x: x * 2), name="code")
    with pytest.raises(InputFault, match="holds a Lambda layer") as caught:
        ship(path, {"x": _rows(4, 3)})
    assert "--trust" in caught.value.advice
    assert ship(path, trust=True).manifest.parity.synthetic
    stateful = _save(
        tmp_path, keras.Input((4, 5), batch_size=2), L.LSTM(3, stateful=True, name="memory"),
        name="stateful",
    )  # fmt: skip
    with pytest.raises(InputFault, match="keeps a state between calls in memory"):
        ship(stateful)
    plain = _save(tmp_path, keras.Input((6,), name="x"), L.Dense(2), name="plain")
    with pytest.raises(InputFault, match=r"array 'x' has shape \[4, 7\]"):
        ship(plain, {"x": _rows(4, 7)})
    data = plain.read_bytes()
    for damaged in (data[:200], b"", data[: len(data) // 2]):
        (tmp_path / "cut.keras").write_bytes(damaged)
        with pytest.raises(InputFault, match=r"no \.keras file"):
            sources.load(tmp_path / "cut.keras", str)


CUSTOM = """
import os
os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy as np


@keras.saving.register_keras_serializable("mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return x * 2


def make():
    keras.utils.set_random_seed(2)
    return keras.Sequential([keras.Input((3,), name="x"), Twice(), keras.layers.Dense(1)])
"""


def test_a_custom_layer_is_named_and_a_factory_is_the_way_out(
    ship: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "keras_mine.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("keras_mine").make().save(tmp_path / "custom.keras")
    del sys.modules["keras_mine"]  # as on a machine that has the file alone
    assert keras.saving.get_custom_objects().pop("mine>Twice")
    with pytest.raises(InputFault, match="needs 'Twice', which is defined outside it") as caught:
        ship(tmp_path / "custom.keras", {"x": _rows(4, 3)})
    assert "my_model:make" in caught.value.advice
    built = ship(Path("keras_mine:make"), {"x": _rows(4, 3)})
    assert built.manifest.task == "regression"
    assert built.manifest.provenance.source_type == "keras"


def test_the_same_model_gives_the_same_bytes(ship: Any, tmp_path: Path) -> None:
    path = _save(tmp_path, keras.Input((6,), name="x"), L.Dense(8, activation="gelu"), L.Dense(2))
    first = ship(path).digest
    assert ship(path).digest == first

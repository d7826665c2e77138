"""Bundles of each kind that the papers and the report are made of, built once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_contract.bundle import Bundle
from edge_pack import BuildConfig, build, reading

HOSTILE = "<script>alert('x')</script>|`*_\"&"


@dataclass(frozen=True)
class Case:
    """A built bundle and its file."""

    path: Path
    bundle: Bundle


Make = Callable[..., Case]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """``make(model, frame, target, **options)``: build in a folder of its own."""

    def call(model: Any, frame: pd.DataFrame, target: str = "", **options: Any) -> Case:
        folder = options.pop("folder", None) or tmp_path_factory.mktemp("papers")
        joblib.dump(model, folder / "model.joblib")
        frame.to_csv(folder / "rows.csv", index=False)
        config = {
            "model": folder / "model.joblib", "data": folder / "rows.csv", "name": "model",
            "version": "1.0", "out": folder / "model.edgepack", "target": target,
        }  # fmt: skip
        built = build(BuildConfig(**{**config, **options}), notice=lambda _text: None)
        return Case(built.config.out, reading.open_bundle(built.config.out))

    return call


@pytest.fixture(scope="session")
def iris(make: Make) -> Case:
    """A classifier with slices, gates, licence, use, and a feature and a label that are markup."""
    bunch = load_iris(as_frame=True)
    frame = bunch.data.iloc[::2].rename(columns={bunch.data.columns[0]: HOSTILE})
    kind = bunch.target.iloc[::2].map({0: "<b>setosa</b>", 1: "versicolor", 2: "virginica"})
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, kind)
    return make(
        model, frame.join(kind.rename("kind")), "kind", licence="MIT",
        intended_use="Telling <i>irises</i> apart", require=("accuracy>=0.5",),
        slices=(str(frame.columns[1]),),
    )  # fmt: skip


@pytest.fixture(scope="session")
def forced(make: Make) -> Case:
    """A regression that missed a gate, and was sealed nonetheless; not measured."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"a": np.round(rng.normal(size=80), 2), "b": rng.integers(0, 4, 80)})
    value = frame.a * 2 + rng.normal(size=80)
    model = Ridge().fit(frame, value)
    return make(
        model, frame.join(value.rename("y")), "y", require=("r2>=0.9999",), force=True,
        measure=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """An ONNX model that takes a whole tensor and has no features."""
    folder = tmp_path_factory.mktemp("tensors")
    shape = ["n", 2, 3]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, shape)],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "net.onnx")
    np.savez(folder / "x.npz", x=np.arange(12, dtype=np.float32).reshape(2, 2, 3) - 5)
    config = BuildConfig(
        model=folder / "net.onnx", data=folder / "x.npz", name="net", version="1",
        out=folder / "net.edgepack", measure=False,
    )  # fmt: skip
    built = build(config, notice=lambda _text: None)
    return Case(built.config.out, reading.open_bundle(built.config.out))


@pytest.fixture
def git() -> Callable[..., str]:
    """``git(folder, *arguments)`` as somebody who has no settings."""

    def call(folder: Path, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", *arguments],
            cwd=folder, check=True, capture_output=True, text=True,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin", "GIT_CONFIG_GLOBAL": "/dev/null",
                 "HOME": str(folder)},
        )  # fmt: skip
        return done.stdout.strip()

    return call

"""Fitted models on data that ships with scikit-learn, and a build of any model in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_pack import BuildConfig, Built, build

Pack = Callable[..., Built]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """``pack(model, frame, target=..., **options)``: dump both, build, return the result."""

    def call(model: Any, frame: pd.DataFrame, target: str = "", **options: Any) -> Built:
        folder = options.pop("folder", tmp_path)
        folder.mkdir(exist_ok=True)
        source = folder / "model.joblib"
        if isinstance(model, Path):
            source = model
        else:
            joblib.dump(model, source)
        data = folder / "rows.csv"
        frame.to_csv(data, index=False)
        config = {
            "model": source, "data": data, "name": "model", "version": "1.0",
            "out": folder / "model.edgepack", "target": target, "measure": False,
        }  # fmt: skip
        return build(BuildConfig(**{**config, **options}))

    return call


@pytest.fixture(scope="session")
def digits() -> tuple[pd.DataFrame, pd.Series]:
    """400 rows of 64 pixels, ten labels."""
    bunch = load_digits(as_frame=True)
    return bunch.data.iloc[:400], bunch.target.iloc[:400].rename("digit")


@pytest.fixture(scope="session")
def wine() -> tuple[pd.DataFrame, pd.Series]:
    """178 rows of 13 measurements, labels as text."""
    bunch = load_wine(as_frame=True)
    return bunch.data, bunch.target.map(lambda i: bunch.target_names[i]).rename("kind")


@pytest.fixture(scope="session")
def diabetes() -> tuple[pd.DataFrame, pd.Series]:
    """442 rows of 10 features, a regression."""
    bunch = load_diabetes(as_frame=True, scaled=False)
    return bunch.data, bunch.target.rename("progression")


@pytest.fixture(scope="session")
def machines() -> tuple[pd.DataFrame, pd.Series]:
    """600 rows with two text columns, a missing value here and there, and two labels."""
    rng = np.random.default_rng(7)
    n = 600
    frame = pd.DataFrame(
        {
            "site": rng.choice(["lyon", "turin", "graz"], n),
            "temperature": np.round(rng.normal(60, 8, n), 1),
            "pump": rng.choice(["a1", "b2"], n),
            "vibration": np.round(rng.gamma(2, 0.02, n), 3),
        }
    )
    hot = frame.temperature + 20 * (frame.site == "graz") + 300 * frame.vibration
    label = pd.Series(np.where(hot > 78, "fails", "runs"), name="state")
    frame.loc[rng.choice(n, 20, replace=False), "temperature"] = np.nan
    return frame, label


@pytest.fixture(scope="session")
def digits_mlp(digits: tuple[pd.DataFrame, pd.Series]) -> Any:
    """A scaler and a small network, fitted."""
    network = MLPClassifier((48,), max_iter=60, learning_rate_init=0.01, random_state=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), network).fit(*digits)


@pytest.fixture(scope="session")
def iot() -> tuple[pd.DataFrame, pd.Series]:
    """Meter readings: large offsets at fine resolution, which float32 does not hold."""
    rng = np.random.default_rng(3)
    n = 4000
    frame = pd.DataFrame(
        {
            "meter_kwh": np.round(1_700_000 + rng.uniform(0, 40, n), 2),
            "epoch_s": np.round(1_750_000 + rng.uniform(0, 40, n), 2),
            "pressure_pa": np.round(101_325 + rng.normal(0, 3, n), 2),
        }
    )
    odd = (np.floor(frame.meter_kwh * 2) + np.floor(frame.epoch_s)) % 2
    return frame, pd.Series(odd.astype(int), name="state")


@dataclass(frozen=True)
class TreeTable:
    """Rows to train on, thousands never seen, and answers of each kind to learn.

    Columns: four of numbers, ``kind`` of text, ``code`` of whole numbers that name something.
    """

    train: pd.DataFrame
    unseen: pd.DataFrame
    two: pd.Series
    three: pd.Series
    value: pd.Series


@pytest.fixture(scope="session")
def plain_table() -> TreeTable:
    """Numbers of float64 without a grid."""

    def numbers(rng: np.random.Generator, n: int) -> dict[str, Any]:
        return {name: rng.normal(size=n) for name in ("a", "b", "c", "d")}

    return _tree_table(numbers)


@pytest.fixture(scope="session")
def iot_table() -> TreeTable:
    """Decimal grids with offsets up to 1.7e6 at 0.01: time stamps, meter readings, pressures."""

    def numbers(rng: np.random.Generator, n: int) -> dict[str, Any]:
        return {
            "meter_kwh": np.round(1_700_000 + rng.uniform(0, 40, n), 2),
            "epoch_s": np.round(1_750_000 + rng.uniform(0, 40, n), 2),
            "pressure_pa": np.round(101_325 + rng.normal(0, 3, n), 2),
            "celsius": np.round(rng.normal(20, 8, n), 1),
        }

    return _tree_table(numbers)


def _tree_table(numbers: Callable[[np.random.Generator, int], dict[str, Any]]) -> TreeTable:
    rng = np.random.default_rng(11)

    def rows(n: int) -> pd.DataFrame:
        codes = {"kind": rng.choice(["a", "b", "c", "d"], n), "code": rng.integers(0, 6, n)}
        return pd.DataFrame({**numbers(rng, n), **codes}).astype({"code": float})

    train, unseen = rows(800), rows(4000)
    first, second = train.iloc[:, 0], train.iloc[:, 1]
    odd = np.floor(first * 2) + np.floor(second) + 2 * (train.kind == "b") + train.code
    return TreeTable(
        train,
        unseen,
        (odd % 2).astype(int).rename("y"),
        (odd % 3).map({0: "low", 1: "mid", 2: "high"}).rename("y"),
        (odd % 7 + 0.3 * train.iloc[:, 3]).rename("y"),
    )

"""The models that are compared, and their rows: half to learn from, half that nobody saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler

EPOCHS = 30


@dataclass(frozen=True)
class Case:
    """A model to make, the kind of its rows (meters, plain, digits, images), and its library."""

    name: str
    make: Callable[[], Any]
    rows: str
    library: str = "sklearn"


def cases(*, quick: bool) -> list[Case]:
    """Linear models, networks, and trees; ``quick`` has fewer trees and no large network."""
    trees, rounds = (20, 20) if quick else (60, 100)
    large = [] if quick else [Case("MLP 4.5 MB", lambda: _network(1024, 1024), "digits")]
    return [
        Case("logistic, meters", lambda: _scaled(LogisticRegression()), "meters"),
        Case("power transform, meters",
             lambda: make_pipeline(PowerTransformer(), LogisticRegression()), "meters"),
        Case("MLP 110 kB", lambda: _network(132, 132), "digits"),
        *large,
        Case("CNN 110 kB", _cnn, "images", "torch"),
        Case("random forest", lambda: RandomForestClassifier(trees, random_state=0), "plain"),
        Case("random forest, meters",
             lambda: _scaled(RandomForestClassifier(trees, random_state=0)), "meters"),
        Case("extra trees", lambda: ExtraTreesClassifier(trees, random_state=0), "plain"),
        Case("gradient boosting",
             lambda: GradientBoostingClassifier(n_estimators=rounds, random_state=0), "plain"),
        Case("HistGB",
             lambda: HistGradientBoostingClassifier(max_iter=rounds, random_state=0), "plain"),
        Case("HistGB, categorical",
             lambda: HistGradientBoostingClassifier(max_iter=rounds, categorical_features=[0],
                                                    random_state=0), "plain"),
        Case("XGBoost", lambda: _xgboost(rounds), "plain", "xgboost"),
        Case("LightGBM", lambda: _lightgbm(rounds), "plain", "lightgbm"),
        Case("CatBoost", lambda: _catboost(rounds), "plain", "catboost"),
    ]  # fmt: skip


def _scaled(model: Any) -> Any:
    return make_pipeline(StandardScaler(), model)


def _network(*widths: int) -> Any:
    return _scaled(MLPClassifier(widths, max_iter=20, random_state=0))


def _xgboost(rounds: int) -> Any:
    from xgboost import XGBClassifier  # noqa: PLC0415  an optional library, as those below

    return XGBClassifier(n_estimators=rounds, max_depth=6, n_jobs=1)


def _lightgbm(rounds: int) -> Any:
    from lightgbm import LGBMClassifier  # noqa: PLC0415

    return LGBMClassifier(n_estimators=rounds, n_jobs=1, verbose=-1)


def _catboost(rounds: int) -> Any:
    from catboost import CatBoostClassifier  # noqa: PLC0415

    return CatBoostClassifier(
        iterations=rounds, depth=6, verbose=False, thread_count=1, allow_writing_files=False
    )


def _cnn() -> Any:
    from torch import manual_seed, nn  # noqa: PLC0415

    manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(512, 42), nn.ReLU(), nn.Linear(42, 10), nn.Softmax(-1),
    )  # fmt: skip


def train(module: Any, images: Any, answers: Any) -> Any:
    """Some epochs over float32 images ``[n, 1, 8, 8]``; the module, ready to answer."""
    torch: Any = import_module("torch")  # an optional library
    torch.manual_seed(0)
    inputs, wanted = torch.tensor(images), torch.tensor(answers)
    step = torch.optim.Adam(module.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for at in torch.randperm(len(inputs)).split(64):
            step.zero_grad()
            torch.nn.functional.nll_loss(module(inputs[at]).log(), wanted[at]).backward()
            step.step()
    return module.eval()


def rows_of(kind: str, *, quick: bool) -> tuple[pd.DataFrame, pd.Series]:
    """Rows and labels of a kind: digits, plain measurements, or meter readings."""
    if kind in ("digits", "images"):
        table = load_digits(as_frame=True)
        return table.data, table.target.rename("answer")
    rng = np.random.default_rng(17)
    count = 1500 if quick else 6000
    if kind == "meters":
        frame = pd.DataFrame({
            "meter_kwh": np.round(1_700_000 + rng.uniform(0, 40, count), 2),
            "epoch_s": np.round(1_750_000 + rng.uniform(0, 40, count), 2),
            "pressure_pa": np.round(101_325 + rng.normal(0, 3, count), 2),
        })  # fmt: skip
        odd = (np.floor(frame.meter_kwh / 4) + np.floor(frame.epoch_s / 7)) % 2
        return frame, odd.astype(int).rename("answer")
    frame = pd.DataFrame(np.round(rng.gamma(3, 2, (count, 10)), 2)).add_prefix("x")
    frame["x0"] = rng.integers(0, 12, count)
    value = frame.x1 - frame.x2 + (frame.x0 % 3) * 2 + 0.2 * frame.x3 * frame.x4
    value += rng.normal(0, 1, count)
    return frame, (value > value.median()).astype(int).rename("answer")


def as_images(frame: pd.DataFrame) -> Any:
    """Rows of 64 pixels as float32 images ``[n, 1, 8, 8]``."""
    return frame.to_numpy(dtype=np.float32).reshape(-1, 1, 8, 8)

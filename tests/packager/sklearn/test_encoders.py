"""Categories that are numbers, before models that are no trees; outputs side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from edge_agent.model import Model


def _ordinal(missing: float = np.nan, unknown: float = -1) -> OrdinalEncoder:
    return OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=unknown, encoded_missing_value=missing
    )


ENCODERS = {
    "one-hot": OneHotEncoder(handle_unknown="ignore"),
    "one-hot, first dropped": OneHotEncoder(handle_unknown="ignore", drop="first"),
    "one-hot of integers": OneHotEncoder(handle_unknown="ignore", dtype=np.int64),
    "ordinal": _ordinal(-2),
    "ordinal, missing as unknown": _ordinal(-1),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("step", [1.0, 0.1])
def test_numbers_are_categories_by_their_value(name: str, step: float, pack: Any) -> None:
    """A fraction, a missing value and one out of range are told as scikit-learn tells them."""
    rng = np.random.default_rng(0)
    code = np.where(rng.random(300) < 0.2, np.nan, rng.integers(0, 4, 300) * step)
    frame = pd.DataFrame({
        "code": code, "site": rng.choice(["graz", "lyon"], 300), "level": rng.normal(size=300),
    })  # fmt: skip
    target = pd.Series(((np.isnan(code) | (code == 2 * step)) ^ (frame.level > 1)).astype(int))
    columns = make_column_transformer((ENCODERS[name], ["code", "site"]), remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression(C=100)).fit(frame, target)
    built = pack(model, frame.assign(fault=target), "fault", quantize="none")
    asked = pd.DataFrame({"code": [0, 2 * step, 2.5 * step, 9, -1, np.nan], "level": 0.0})
    asked.insert(1, "site", "lyon")
    device = Model.open(built.config.out)
    found = [
        device.predict({**row, "code": None if np.isnan(row["code"]) else row["code"]})
        for row in asked.to_dict("records")
    ]
    said = [one.probabilities["1"] for one in found]
    assert said == pytest.approx(model.predict_proba(asked)[:, 1], abs=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        MLPRegressor(hidden_layer_sizes=(8,), max_iter=20, random_state=0),
        TransformedTargetRegressor(LinearRegression(), transformer=StandardScaler()),
        TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_outputs_stand_side_by_side(model: Any, wine: Any, pack: Any) -> None:
    frame, _ = wine
    both = frame.iloc[:, [0, 2]].to_numpy() * [1, -1] + [0, 9]
    built = pack(model.fit(frame, both), frame, quantize="none")
    assert built.manifest.parity.diff_max < 1e-3
    (value,) = Model.open(built.config.out).predict(dict(frame.iloc[0])).outputs.values()
    assert np.ravel(value) == pytest.approx(model.predict(frame[:1])[0], abs=1e-3)

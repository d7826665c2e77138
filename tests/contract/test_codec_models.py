"""Models as skl2onnx writes them come back byte for byte, and forests take a tenth of the way."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import zstandard
from skl2onnx import to_onnx
from sklearn import datasets, ensemble, linear_model, neural_network, tree
from sklearn.preprocessing import StandardScaler

from edge_contract.codec import decode, encode

LOADERS = {
    "digits": datasets.load_digits,
    "cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
}

# model, data, share of the stock file that it may take: 10 % above what was measured with
# scikit-learn 1.9 and libzstd 1.5.7, as tables differ a little from version to version.
FORESTS = {
    "random forest": (ensemble.RandomForestClassifier(60, random_state=0), "digits", 0.0125),
    "binary forest": (ensemble.RandomForestClassifier(60, random_state=0), "cancer", 0.068),
    "forest regressor": (ensemble.RandomForestRegressor(30, random_state=0), "diabetes", 0.047),
    "boosting": (
        ensemble.GradientBoostingClassifier(n_estimators=8, random_state=0),
        "digits",
        0.086,
    ),
    "histogram boosting": (
        ensemble.HistGradientBoostingRegressor(max_iter=60, random_state=0),
        "diabetes",
        0.105,
    ),
    "isolation forest": (
        ensemble.IsolationForest(n_estimators=20, random_state=0),
        "cancer",
        0.094,
    ),
    "decision tree": (tree.DecisionTreeClassifier(random_state=0), "digits", 0.038),
}
OTHERS = {
    "network": (neural_network.MLPClassifier((64, 32), max_iter=15, random_state=0), "digits"),
    "linear": (linear_model.LogisticRegression(max_iter=50), "digits"),
    "scaler": (StandardScaler(), "cancer"),
}
MODELS = {name: FORESTS[name][:2] for name in FORESTS} | OTHERS


@cache
def stock(name: str) -> bytes:
    """The model as skl2onnx writes it."""
    model, data = MODELS[name]
    rows, labels = LOADERS[data](return_X_y=True)
    model.fit(rows, labels)
    options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
    opsets = {"": 15, "ai.onnx.ml": 3}
    converted = to_onnx(model, rows[:1].astype(np.float32), options=options, target_opset=opsets)
    return bytes(converted.SerializeToString())


@cache
def packed(name: str) -> bytes:
    return encode(stock(name))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_byte_for_byte(name: str) -> None:
    data = stock(name)
    assert decode(packed(name), size_max=len(data)) == data


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_no_model_is_larger_than_plain_zstd(name: str) -> None:
    plain = zstandard.ZstdCompressor(level=19).compress(stock(name))
    assert len(packed(name)) <= len(plain) + 10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORESTS)
def test_a_forest_takes_a_small_share_of_its_file(name: str) -> None:
    share = len(packed(name)) / len(stock(name))
    assert share < FORESTS[name][2], f"{share:.4f} of {len(stock(name))} bytes"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["binary forest", "network"])
def test_a_truncated_model_comes_back_as_truncated(name: str) -> None:
    data = stock(name)
    for length in range(0, len(data), len(data) // 12):
        assert decode(encode(data[:length]), size_max=length) == data[:length]

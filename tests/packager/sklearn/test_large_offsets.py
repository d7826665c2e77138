"""Meter readings through scalers, linear, kernel and neural models: float32 where it holds them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, OneClassSVM


def _network() -> MLPClassifier:
    return MLPClassifier((16,), max_iter=60, random_state=0)


CLASSIFIERS = {
    "power": lambda: make_pipeline(PowerTransformer(), LogisticRegression()),
    "standard": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "alone": LogisticRegression,
    "imputed": lambda: make_pipeline(SimpleImputer(), StandardScaler(), SVC()),
    "linear svc": lambda: make_pipeline(MinMaxScaler(), LinearSVC()),
    "network": lambda: make_pipeline(StandardScaler(), _network()),
    "neighbours": KNeighborsClassifier,
    "bayes": GaussianNB,
    "quadratic": QuadraticDiscriminantAnalysis,
    "components": lambda: make_pipeline(PCA(2), LogisticRegression()),
    "bins": lambda: make_pipeline(KBinsDiscretizer(5), LogisticRegression()),
    "splines": lambda: make_pipeline(SplineTransformer(), LogisticRegression()),
    "quantiles": lambda: make_pipeline(QuantileTransformer(n_quantiles=50), LogisticRegression()),
    "products": lambda: make_pipeline(RobustScaler(), PolynomialFeatures(2), LogisticRegression()),
}
OTHERS = {
    "line": LinearRegression,
    "ridge": lambda: make_pipeline(StandardScaler(), Ridge()),
    "kernel": lambda: make_pipeline(StandardScaler(), SVR()),
    "clusters": lambda: KMeans(4, random_state=0, n_init=1),
    "mixture": lambda: GaussianMixture(3, random_state=0),
    "outliers": lambda: make_pipeline(StandardScaler(), OneClassSVM(nu=0.1)),
}


@pytest.fixture(scope="module")
def meters(iot: Any) -> tuple[pd.DataFrame, pd.Series]:
    """600 of the readings, with a label that a smooth model can learn."""
    frame = iot[0].iloc[:600]
    label = (np.floor(frame.meter_kwh / 4) + np.floor(frame.epoch_s / 7)) % 2
    return frame, label.astype(int).rename("state")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_label_flips(name: str, meters: Any, pack: Any) -> None:
    frame, target = meters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = CLASSIFIERS[name]().fit(frame, target)
        parity = pack(model, frame.join(target), "state", quantize="none").manifest.parity
    assert parity.flips == 0
    assert parity.diff_max < 1e-3


@pytest.mark.parametrize("name", OTHERS)
def test_values_stay(name: str, meters: Any, pack: Any) -> None:
    frame, _ = meters
    model = OTHERS[name]().fit(frame, np.sin(frame.pressure_pa) + frame.meter_kwh - 1.7e6)
    parity = pack(model, frame, quantize="none").manifest.parity
    assert parity.flips == 0
    assert parity.diff_max < 1e-3


def test_columns_of_a_mixed_table(meters: Any, pack: Any) -> None:
    frame, target = meters
    mixed = frame.assign(site=np.where(frame.index % 3, "graz", "lyon"))
    numbers = make_pipeline(SimpleImputer(), PowerTransformer())
    columns = ColumnTransformer(
        [("numbers", numbers, list(frame)), ("site", OneHotEncoder(), ["site"])]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(mixed, target)
    built = pack(model, mixed.join(target), "state", quantize="none")
    assert built.manifest.parity.flips == 0
    assert {tensor.dtype for tensor in built.manifest.inputs} == {"float64", "string"}


def test_plain_data_stays_in_float32(wine: Any, pack: Any) -> None:
    frame, target = wine
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, target)
    built = pack(model, frame.join(target), "kind", quantize="none")
    assert [tensor.dtype for tensor in built.manifest.inputs] == ["float32"]

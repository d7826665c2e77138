"""A bundle answers like its original: on every kind of model that converts."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from edge_pack import reading

CLASSIFIERS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
    "tree": DecisionTreeClassifier(random_state=0),
    "forest": RandomForestClassifier(20, random_state=0),
    "extra trees": ExtraTreesClassifier(20, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=8, random_state=0),
    "hist boosting": HistGradientBoostingClassifier(max_iter=8, random_state=0),
    "ada": AdaBoostClassifier(n_estimators=8, random_state=0),
    "bagging": BaggingClassifier(n_estimators=5, random_state=0),
    "network": make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=300, random_state=0)),
    "pca": make_pipeline(StandardScaler(), PCA(5), GaussianNB()),
    "svc": make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)),
    "linear svc": make_pipeline(StandardScaler(), LinearSVC(random_state=0)),
    "bare linear svc": LinearSVC(random_state=0),
    "voting": VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=3))]),
    "stacking": StackingClassifier([("a", GaussianNB())], LogisticRegression(max_iter=500)),
    "calibrated": CalibratedClassifierCV(GaussianNB(), cv=3),
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classifiers_keep_every_label(kind: str, wine: Any, pack: Any) -> None:
    frame, target = wine
    model = CLASSIFIERS[kind].fit(frame, target)
    built = pack(model, frame.join(target), "kind")
    assert built.manifest.task == "classification"
    assert built.manifest.parity.flips == 0
    stored_as_is = built.manifest.compression.mode == "none"
    assert built.manifest.parity.diff_max < (1e-3 if stored_as_is else 0.05)
    found = list(reading.predict(built.config.out, built.config.data))
    assert [one.label for one in found] == model.predict(frame).tolist()
    if hasattr(model, "predict_proba"):
        table = [[one.probabilities[label] for label in model.classes_] for one in found]
        np.testing.assert_allclose(
            table, model.predict_proba(frame), atol=1e-4 if stored_as_is else 0.05
        )
    accuracy = next(m for m in built.manifest.metrics if m.name == "accuracy")
    share = float(np.mean(model.predict(frame) == target))
    assert accuracy.original == pytest.approx(share, rel=1e-4)
    assert reading.verify(built.config.out).signature == "none"


REGRESSORS = {
    "linear": LinearRegression(),
    "ridge": make_pipeline(StandardScaler(), Ridge()),
    "forest": RandomForestRegressor(20, random_state=0),
    "boosting": GradientBoostingRegressor(n_estimators=10, random_state=0),
    "hist boosting": HistGradientBoostingRegressor(max_iter=10, random_state=0),
    "network": make_pipeline(
        StandardScaler(), MLPRegressor(hidden_layer_sizes=(16,), max_iter=300, random_state=0)
    ),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", REGRESSORS)
def test_regressors_keep_their_values(kind: str, diabetes: Any, pack: Any) -> None:
    frame, target = diabetes
    model = REGRESSORS[kind].fit(frame, target)
    built = pack(model, frame.join(target), "progression")
    assert built.manifest.task == "regression"
    found = [one.value for one in reading.predict(built.config.out, built.config.data)]
    np.testing.assert_allclose(found, model.predict(frame), rtol=1e-2, atol=1e-2 * target.std())
    names = [metric.name for metric in built.manifest.metrics]
    assert names == ["rmse", "mae", "r2", "median_ae"]


def _mixed(last: Any) -> Any:
    return make_pipeline(
        ColumnTransformer(
            [
                ("n", make_pipeline(SimpleImputer(), StandardScaler()), ["temperature"]),
                ("t", OneHotEncoder(handle_unknown="ignore"), ["site", "pump"]),
                ("v", "passthrough", ["vibration"]),
            ]
        ),
        last,
    )


@pytest.mark.parametrize(
    "last",
    [LogisticRegression(max_iter=500), GradientBoostingClassifier(n_estimators=10)],
    ids=["logistic", "boosting"],
)
def test_text_and_numbers_side_by_side(last: Any, machines: Any, pack: Any) -> None:
    frame, target = machines
    model = _mixed(last).fit(frame, target)
    built = pack(model, frame.join(target), "state")
    manifest = built.manifest
    types = {feature.name: feature.type for feature in manifest.features}
    assert types == {
        "site": "category", "temperature": "number", "pump": "category", "vibration": "number",
    }  # fmt: skip
    missing = {feature.name: feature.missing for feature in manifest.features}
    assert missing["temperature"] == "allow" and missing["vibration"] == "refuse"
    assert manifest.features[0].categories == ("graz", "lyon", "turin")
    assert manifest.features[1].resolution == 0.1
    assert manifest.parity.flips == 0
    found = list(reading.predict(built.config.out, built.config.data))
    assert [one.label for one in found] == model.predict(frame).tolist()


@pytest.mark.parametrize("imputed", [True, False], ids=["imputed", "a category of its own"])
def test_text_may_be_missing(imputed: bool, machines: Any, pack: Any) -> None:
    frame, target = machines
    frame = frame.astype({"site": object})
    frame.loc[::9, "site"] = np.nan
    encoder = OneHotEncoder(handle_unknown="ignore")
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), encoder) if imputed else encoder
    model = make_pipeline(
        ColumnTransformer([("t", text, ["site", "pump"]), ("v", "passthrough", ["vibration"])]),
        LogisticRegression(max_iter=500),
    ).fit(frame, target)
    built = pack(model, frame.join(target), "state")
    feature = built.manifest.features[0]
    assert (feature.name, feature.missing) == ("site", "allow")
    assert feature.categories == ("graz", "lyon", "turin")
    assert built.manifest.parity.flips == 0 and built.manifest.parity.diff_max < 1e-5
    found = list(reading.predict(built.config.out, built.config.data))
    assert [one.label for one in found] == model.predict(frame).tolist()


def test_a_time_column_may_be_one_the_model_was_shown(machines: Any, pack: Any) -> None:
    frame, target = machines
    frame = frame.assign(at=np.arange(len(frame))[::-1])
    model = make_pipeline(
        ColumnTransformer([("v", StandardScaler(), ["vibration"])]), LogisticRegression()
    ).fit(frame, target)
    built = pack(model, frame.join(target), "state", time_column="at")
    assert [feature.name for feature in built.manifest.features] == ["vibration"]


def test_columns_that_the_model_drops_are_no_features(machines: Any, pack: Any) -> None:
    frame, target = machines
    model = make_pipeline(
        ColumnTransformer([("n", StandardScaler(), ["vibration"])]), LogisticRegression()
    ).fit(frame, target)
    built = pack(model, frame.join(target), "state")
    assert [feature.name for feature in built.manifest.features] == ["vibration"]
    assert [tensor.features for tensor in built.manifest.inputs] == [("vibration",)]
    found = list(reading.predict(built.config.out, built.config.data))
    assert [one.label for one in found] == model.predict(frame).tolist()


def test_trees_answer_where_values_are_missing(machines: Any, pack: Any) -> None:
    frame, target = machines
    numbers = frame[["temperature", "vibration"]]
    model = HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(numbers, target)
    built = pack(model, numbers.join(target), "state")
    assert built.manifest.parity.flips == 0
    found = list(reading.predict(built.config.out, built.config.data))
    assert [one.label for one in found] == model.predict(numbers).tolist()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([0, 1], (0, 1)), ([False, True], (False, True)), ([10, 20], (10, 20))],
    ids=["int", "bool", "gaps"],
)
def test_labels_keep_their_type(labels: list[Any], expected: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    truth = np.array(labels)[(target == "class_1").astype(int)]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, truth)
    built = pack(model, frame.assign(y=truth), "y")
    assert built.manifest.outputs.labels == expected
    found = [one.label for one in reading.predict(built.config.out, built.config.data)]
    assert found == model.predict(frame).tolist()
    assert {metric.name for metric in built.manifest.metrics} >= {
        "accuracy",
        "recall",
        "roc_auc",
        "log_loss",
    }


def test_clusters_and_outliers_are_labels(wine: Any, pack: Any, tmp_path: Path) -> None:
    frame, _ = wine
    clusters = make_pipeline(StandardScaler(), KMeans(3, random_state=0, n_init=3)).fit(frame)
    built = pack(clusters, frame)
    assert (built.manifest.task, built.manifest.outputs.labels) == ("clustering", (0, 1, 2))
    found = [one.label for one in reading.predict(built.config.out, built.config.data)]
    assert found == clusters.predict(frame).tolist()

    outliers = IsolationForest(n_estimators=20, random_state=0).fit(frame.to_numpy())
    built = pack(outliers, frame, folder=tmp_path / "outliers")
    assert (built.manifest.task, built.manifest.outputs.labels) == ("outliers", (-1, 1))
    found = [one.label for one in reading.predict(built.config.out, built.config.data)]
    assert found == outliers.predict(frame.to_numpy()).tolist()


def test_a_model_of_several_values_is_packaged_as_tensors(diabetes: Any, pack: Any) -> None:
    frame, target = diabetes
    model = LinearRegression().fit(frame, np.column_stack([target, -target]))
    built = pack(model, frame)
    assert built.manifest.task == "tensors"
    (found,) = reading.predict(built.config.out, built.config.data)
    np.testing.assert_allclose(found.outputs["value"], model.predict(frame), rtol=1e-3)


def test_an_array_trained_model_takes_its_names_from_the_data(wine: Any, pack: Any) -> None:
    frame, target = wine
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame.to_numpy(), target)
    built = pack(model, frame.join(target), "kind")
    assert [feature.name for feature in built.manifest.features] == list(frame.columns)


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_the_same_rows_give_the_same_model_from_any_file(
    suffix: str, wine: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = wine
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, target)
    from_csv = pack(model, frame.join(target), "kind")
    other = tmp_path / f"other{suffix}"
    if suffix == ".npz":
        np.savez(
            other,
            X=frame.to_numpy(),
            columns=np.array(frame.columns, dtype=str),
            y=target.to_numpy(dtype=str),
        )
        name = "y"
    else:
        frame.join(target).to_parquet(other)
        name = "kind"
    from_other = pack(model, frame.join(target), name, data=other)
    assert from_other.manifest.files == from_csv.manifest.files
    assert from_other.manifest.features == from_csv.manifest.features
    csv = [one.label for one in reading.predict(from_csv.config.out, from_csv.config.data)]
    assert [one.label for one in reading.predict(from_other.config.out, other)] == csv


@pytest.mark.parametrize("suffix", [".pkl", ".skops"])
def test_pickle_and_skops_are_sources_too(
    suffix: str, wine: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = wine
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, target)
    path = tmp_path / f"model{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(model))
    else:
        skops.io.dump(model, path)
    built = pack(path, frame.join(target), "kind")
    assert built.manifest.provenance.source_type == {".pkl": "pickle", ".skops": "skops"}[suffix]
    assert any("runs code" in notice for notice in built.notices) == (suffix == ".pkl")


def test_a_constant_and_an_empty_column_are_no_obstacle(wine: Any, pack: Any) -> None:
    frame, target = wine
    frame = frame.assign(constant=1.0, empty=np.nan)
    model = make_pipeline(
        SimpleImputer(keep_empty_features=True), DecisionTreeClassifier(random_state=0)
    ).fit(frame, target)
    built = pack(model, frame.join(target), "kind")
    feature = {feature.name: feature for feature in built.manifest.features}
    assert (feature["constant"].minimum, feature["constant"].maximum) == (1.0, 1.0)
    assert (feature["empty"].minimum, feature["empty"].missing) == (None, "allow")
    assert built.manifest.parity.flips == 0


def test_numbers_as_categories_stay_numbers(pack: Any) -> None:
    frame = pd.DataFrame({"gear": [1, 2, 3, 1, 2, 3] * 20, "load": np.arange(120) % 7})
    target = pd.Series((frame.gear == 2).astype(int), name="y")
    model = make_pipeline(
        ColumnTransformer([("gear", OneHotEncoder(), ["gear"])], remainder="passthrough"),
        LogisticRegression(),
    ).fit(frame, target)
    built = pack(model, frame.join(target), "y")
    assert {feature.type for feature in built.manifest.features} == {"number"}
    assert built.manifest.parity.flips == 0

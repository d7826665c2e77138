"""No label of any of scikit-learn's tree models changes on raw rows that nobody saw before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

from edge_pack.intake import Column, Rows
from edge_pack.steps import text_columns
from edge_pack.trees import readers

DIFF_MAX = 5e-7
"""Of a probability: one rounding of float64 to float32 and one link computed in float32."""

CLASSIFIERS = {
    "tree": DecisionTreeClassifier(random_state=0),
    "extra tree": ExtraTreeClassifier(max_depth=8, random_state=0),
    "forest": RandomForestClassifier(10, random_state=0),
    "shallow forest": RandomForestClassifier(8, max_depth=4, random_state=0),
    "extra trees": ExtraTreesClassifier(5, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=8, max_depth=4, random_state=0),
    "hist boosting": HistGradientBoostingClassifier(max_iter=6, random_state=0),
}
REGRESSORS = {
    "tree": DecisionTreeRegressor(random_state=0),
    "extra tree": ExtraTreeRegressor(random_state=0),
    "forest": RandomForestRegressor(5, random_state=0),
    "extra trees": ExtraTreesRegressor(3, random_state=0),
    "boosting": GradientBoostingRegressor(n_estimators=8, random_state=0),
    "huber": GradientBoostingRegressor(n_estimators=10, loss="huber", random_state=0),
    "from zero": GradientBoostingRegressor(n_estimators=10, init="zero", random_state=0),
    "hist boosting": HistGradientBoostingRegressor(max_iter=6, random_state=0),
    "monotonic": HistGradientBoostingRegressor(max_iter=9, monotonic_cst=[1, -1, 0, 0]),
}


@pytest.fixture(params=["plain", "iot"])
def table(request: Any) -> Any:
    return request.getfixturevalue(f"{request.param}_table")


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[:, :4]


def some_missing(frame: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    return frame.mask(rng.random(frame.shape) < 0.05)


@pytest.mark.parametrize("scaled", [False, True], ids=["raw", "scaled"])
@pytest.mark.parametrize("answer", ["two", "three"])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classifiers(kind: str, answer: str, scaled: bool, table: Any, exact: Any) -> None:
    model = CLASSIFIERS[kind]
    model = make_pipeline(StandardScaler(), model) if scaled else model
    model.fit(numbers(table.train), getattr(table, answer))
    found = exact(model, numbers(table.train), numbers(table.unseen))
    assert found.rows == 4000
    assert found.flips == 0 and found.diff_max < DIFF_MAX


@pytest.mark.parametrize("scaled", [False, True], ids=["raw", "scaled"])
@pytest.mark.parametrize("kind", REGRESSORS)
@pytest.mark.slow
def test_regressors(kind: str, scaled: bool, table: Any, exact: Any) -> None:
    model = REGRESSORS[kind]
    model = make_pipeline(StandardScaler(), model) if scaled else model
    model.fit(numbers(table.train), table.value)
    assert exact(model, numbers(table.train), numbers(table.unseen)).diff_max < DIFF_MAX


@pytest.mark.parametrize("loss", ["poisson", "gamma", "quantile", "absolute_error"])
def test_losses_with_a_link(loss: str, iot_table: Any, exact: Any) -> None:
    model = HistGradientBoostingRegressor(max_iter=10, loss=loss, quantile=0.7)
    model = make_pipeline(RobustScaler(), model)
    model.fit(numbers(iot_table.train), iot_table.value.abs() + 1)
    assert exact(model, numbers(iot_table.train), numbers(iot_table.unseen)).diff_max < 5e-6


def test_exponential_loss(iot_table: Any, exact: Any) -> None:
    model = GradientBoostingClassifier(n_estimators=10, loss="exponential", random_state=0)
    model.fit(numbers(iot_table.train), iot_table.two)
    found = exact(model, numbers(iot_table.train), numbers(iot_table.unseen))
    assert found.flips == 0 and found.diff_max < DIFF_MAX


@pytest.mark.parametrize("scaled", [False, True], ids=["raw", "scaled"])
@pytest.mark.parametrize("contamination", ["auto", 0.1])
def test_isolation_forest(contamination: Any, scaled: bool, table: Any, exact: Any) -> None:
    """Its threshold is the score of a training row: rows that lie exactly on it are common."""
    model: Any = IsolationForest(
        n_estimators=25, max_features=0.5, contamination=contamination, random_state=0
    )
    model = make_pipeline(MinMaxScaler(), model) if scaled else model
    model.fit(numbers(table.train))
    everything = pd.concat([numbers(table.train), numbers(table.unseen)], ignore_index=True)
    assert exact(model, numbers(table.train), everything).flips == 0


STEPS = {
    "min max": MinMaxScaler(),
    "max abs": MaxAbsScaler(),
    "robust": RobustScaler(),
    "quantile": QuantileTransformer(n_quantiles=100, random_state=0),
    "normal quantile": QuantileTransformer(n_quantiles=50, output_distribution="normal"),
    "power": PowerTransformer(),
    "bins": KBinsDiscretizer(30, encode="ordinal", random_state=0),
    "binarizer": Binarizer(threshold=20.0),
    "falling": FunctionTransformer(np.negative),
    "two scalers": make_pipeline(StandardScaler(), "passthrough", MinMaxScaler()),
    "union": FeatureUnion([("raw", "passthrough"), ("scaled", StandardScaler())]),
    "selection": make_pipeline(StandardScaler(), VarianceThreshold(), SelectKBest(k=2)),
    "columns by name": ColumnTransformer(
        [("last", MinMaxScaler(), [3]), ("first", StandardScaler(), [1, 0])], remainder="drop"
    ),
}


@pytest.mark.parametrize(
    ("step", "trees"),
    [(step, "forest") for step in STEPS]
    + [(step, "hist boosting") for step in ("quantile", "power", "falling", "columns by name")],
)
@pytest.mark.filterwarnings("ignore")
def test_steps_fold(step: str, trees: str, iot_table: Any, exact: Any) -> None:
    model = make_pipeline(STEPS[step], CLASSIFIERS[trees])
    model.fit(numbers(iot_table.train), iot_table.two)
    found = exact(model, numbers(iot_table.train), numbers(iot_table.unseen))
    assert found.flips == 0 and found.diff_max < DIFF_MAX


MISSING = {
    "forest": CLASSIFIERS["forest"],
    "scaler, forest": make_pipeline(StandardScaler(), CLASSIFIERS["forest"]),
    "hist boosting": CLASSIFIERS["hist boosting"],
    "imputer, boosting": make_pipeline(SimpleImputer(), CLASSIFIERS["boosting"]),
    "imputer with indicator": make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True),
        StandardScaler(),
        CLASSIFIERS["extra trees"],
    ),
    "indicator beside": make_pipeline(
        FeatureUnion([("values", SimpleImputer()), ("holes", MissingIndicator())]),
        CLASSIFIERS["tree"],
    ),
}


@pytest.mark.parametrize("kind", MISSING)
def test_missing_values(kind: str, iot_table: Any, exact: Any) -> None:
    train, unseen = some_missing(numbers(iot_table.train)), some_missing(numbers(iot_table.unseen))
    model = MISSING[kind].fit(train, iot_table.three)
    found = exact(model, train, unseen)
    assert found.flips == 0 and found.diff_max < DIFF_MAX


SENTINELS: dict[str, tuple[str, Any]] = {
    "a number": ("celsius", SimpleImputer(missing_values=-999)),
    "an indicated number": ("celsius", SimpleImputer(missing_values=-999, add_indicator=True)),
    "an indicator": ("celsius", MissingIndicator(missing_values=-999)),
    "a text": (
        "kind",
        make_pipeline(
            SimpleImputer(missing_values="?", strategy="most_frequent"),
            OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        ),
    ),
}


@pytest.mark.parametrize("kind", SENTINELS)
def test_a_value_that_stands_for_missing_is_not_folded(kind: str, iot_table: Any) -> None:
    """The steps turn back at it, and the given rows need not show it."""
    train = iot_table.train[["kind", "celsius"]].copy()
    train.loc[::5, "celsius"] = -999.0
    train.loc[::7, "kind"] = "?"
    column, steps = SENTINELS[kind]
    other = OrdinalEncoder() if column == "celsius" else "passthrough"
    parts = make_column_transformer((steps, [column]), remainder=other)
    model = make_pipeline(parts, CLASSIFIERS["tree"]).fit(train, iot_table.two)
    clean = train[(train.celsius != -999) & (train.kind != "?")]
    rows = Rows(len(clean), {name: clean[name].to_numpy() for name in clean}, {})
    columns = [Column("kind", text=True), Column("celsius")]
    assert readers.read_folded(model, columns, rows, named=True) is None


ENCODERS = {
    "one-hot": OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    "one-hot without the first": OneHotEncoder(drop="first", sparse_output=False),
    "one-hot with the rare in one": OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=3, sparse_output=False
    ),
    "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "target": TargetEncoder(random_state=0),
    "imputed": make_pipeline(
        SimpleImputer(strategy="most_frequent"),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    ),
}


@pytest.mark.parametrize(
    ("encoder", "trees", "missing"),
    [(encoder, "forest", True) for encoder in ENCODERS]
    + [(encoder, "hist boosting", False) for encoder in ("one-hot", "ordinal", "target")],
)
@pytest.mark.filterwarnings("ignore")
def test_categories(encoder: str, trees: str, missing: bool, iot_table: Any, exact: Any) -> None:
    """Text and numbers that name something, each beside scaled numbers; unknown ones come too."""
    train, unseen = iot_table.train, iot_table.unseen.copy()
    if missing:
        train, unseen = some_missing(train), some_missing(unseen)
    if getattr(ENCODERS[encoder], "handle_unknown", "ignore") != "error":
        unseen.loc[::9, "kind"] = "never seen"
        unseen.loc[::7, "code"] = 77.5
    model = make_pipeline(
        make_column_transformer(
            (ENCODERS[encoder], ["kind", "code"]),
            (make_pipeline(SimpleImputer(), StandardScaler()), ["meter_kwh", "celsius"]),
            ("passthrough", ["pressure_pa"]),
        ),
        CLASSIFIERS[trees],
    ).fit(train, iot_table.three)
    found = exact(model, train, unseen)
    assert found.flips == 0 and found.diff_max < DIFF_MAX


@pytest.mark.parametrize("answer", ["two", "three"])
def test_categorical_splits(answer: str, table: Any, exact: Any) -> None:
    train, unseen = some_missing(table.train), some_missing(table.unseen)
    unseen.loc[::9, "kind"] = "never seen"
    unseen.loc[::7, "code"] = 77.5
    model = HistGradientBoostingClassifier(max_iter=6, categorical_features=["code", "kind"])
    model.fit(train, getattr(table, answer))
    found = exact(model, train, unseen)
    assert found.flips == 0 and found.diff_max < DIFF_MAX


def test_a_number_that_is_both_a_category_and_a_quantity(iot_table: Any, exact: Any) -> None:
    frame = iot_table.train[["code", "celsius"]]
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), ["code"]),
            (StandardScaler(), ["code", "celsius"]),
        ),
        CLASSIFIERS["forest"],
    ).fit(frame, iot_table.two)
    assert exact(model, frame, iot_table.unseen[["code", "celsius"]]).flips == 0


@pytest.mark.parametrize("first", ["few", "all"])
def test_two_encoders_of_one_column(first: str, iot_table: Any, exact: Any) -> None:
    """Each knows categories of its own; the given rows need not show them all."""
    train, unseen = iot_table.train[["kind", "celsius"]], iot_table.unseen[["kind", "celsius"]]
    kinds = sorted(set(train.kind))
    few = OneHotEncoder(categories=[kinds[:2]], handle_unknown="ignore", sparse_output=False)
    every = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encoders = (few, every) if first == "few" else (every, few)
    model = make_pipeline(
        make_column_transformer(*((each, ["kind"]) for each in encoders), remainder="passthrough"),
        CLASSIFIERS["tree"],
    ).fit(train, iot_table.three)
    assert text_columns(model, list(train)) == {"kind": tuple(kinds)}
    found = exact(model, train[train.kind.isin(kinds[:2])], unseen)
    assert found.flips == 0 and found.diff_max < DIFF_MAX


def test_the_best_of_a_search(iot_table: Any, exact: Any) -> None:
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))
    search = GridSearchCV(model, {"decisiontreeclassifier__max_depth": [3, 9]}, cv=2)
    search.fit(numbers(iot_table.train), iot_table.two)
    assert exact(search, numbers(iot_table.train), numbers(iot_table.unseen)).flips == 0


SETS = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}


@pytest.mark.parametrize("scaled", [False, True], ids=["raw", "scaled"])
@pytest.mark.parametrize("kind", ["tree", "forest", "boosting", "hist boosting"])
@pytest.mark.parametrize("name", SETS)
def test_shipped_sets(name: str, kind: str, scaled: bool, exact: Any) -> None:
    bunch = SETS[name](as_frame=True)
    train, target = bunch.data[::2], bunch.target[::2]
    model = CLASSIFIERS[kind]
    if name == "digits":  # 1,797 rows of ten labels
        train, target = train[::3], target[::3]
        if kind == "boosting":
            model = GradientBoostingClassifier(n_estimators=2, random_state=0)
    model = make_pipeline(StandardScaler(), model) if scaled else model
    model.fit(train, target)
    found = exact(model, train, bunch.data)
    assert found.flips == 0 and found.diff_max < DIFF_MAX


@pytest.mark.parametrize("kind", ["forest", "boosting", "hist boosting"])
def test_shipped_regression(kind: str, exact: Any) -> None:
    bunch = datasets.load_diabetes(as_frame=True, scaled=False)
    model = make_pipeline(StandardScaler(), REGRESSORS[kind]).fit(
        bunch.data[::2], bunch.target[::2]
    )
    assert exact(model, bunch.data[::2], bunch.data).diff_max < DIFF_MAX


@pytest.mark.parametrize("kind", ["tree", "forest", "extra trees"])
def test_several_values_a_row(kind: str, exact: Any) -> None:
    bunch = datasets.load_linnerud(as_frame=True)
    model = make_pipeline(StandardScaler(), REGRESSORS[kind]).fit(bunch.data, bunch.target)
    found = exact(model, bunch.data, bunch.data)
    sizes = bunch.target.abs().max() / bunch.target.std()  # a waist varies by a tenth of itself
    assert found.diff_max < sizes.max() * np.finfo(np.float32).eps

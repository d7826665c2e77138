"""Models that are odd or broken: they build, or a message says what and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from sklearn.tree import DecisionTreeClassifier

from edge_agent import Model
from edge_contract.errors import BuildFault, EdgeError, InputFault


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """120 rows of three numbers, two texts, a truth value and a code."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(np.round(rng.normal(size=(120, 3)), 2), columns=list("abc"))
    return frame.assign(
        site=rng.choice(["u", "v", "w"], 120), ok=rng.random(120) > 0.5,
        code=rng.integers(0, 4, 120),
    )  # fmt: skip


LABELS = {
    "floats": (0.0, 1.0), "truth values": (False, True), "empty": ("", "b"),
    "odd": ("a b\n,\"'", "\u00fc\u2713"), "long": ("x" * 5000, "y"),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_every_kind(name: str, rows: pd.DataFrame, pack: Any) -> None:
    numbers = rows[list("abc")]
    low, high = LABELS[name]
    target = np.where(rows.a > 0, high, low)
    built = pack(LogisticRegression().fit(numbers, target), numbers, quantize="none")
    assert set(built.manifest.outputs.labels) == {low, high}
    assert built.manifest.parity.flips == 0


def test_one_against_one_with_labels_of_text(rows: pd.DataFrame, pack: Any) -> None:
    numbers = rows[list("abc")]
    model = OneVsOneClassifier(LogisticRegression()).fit(numbers, rows.site)
    built = pack(model, numbers, quantize="none")
    assert built.manifest.outputs.labels == ("u", "v", "w")
    assert built.manifest.parity.flips == 0


def test_one_class(rows: pd.DataFrame, pack: Any) -> None:
    numbers, same = rows[list("abc")], np.zeros(len(rows), dtype=int)
    assert pack(GaussianNB().fit(numbers, same), numbers).manifest.outputs.labels == (0,)
    network = MLPClassifier((3,), max_iter=400).fit(numbers, same)
    with pytest.raises(InputFault, match="2 probabilities a row for 1 labels") as fault:
        pack(network, numbers)
    assert "two classes" in fault.value.advice


def test_several_labels_a_row(rows: pd.DataFrame, pack: Any) -> None:
    numbers = rows[list("abc")]
    both = np.column_stack([rows.a > 0, rows.b > 0]).astype(int)
    model = OneVsRestClassifier(LogisticRegression()).fit(numbers, both)
    with pytest.raises(BuildFault, match="2 labels a row"):
        pack(model, numbers)


def test_no_features(rows: pd.DataFrame, pack: Any) -> None:
    model = DummyClassifier().fit(np.zeros((120, 0)), rows.a > 0)
    with pytest.raises(InputFault, match="takes no columns"):
        pack(model, rows[["a"]])


def test_features_that_the_manifest_cannot_hold(pack: Any) -> None:
    rng = np.random.default_rng(1)
    names = [f"sensor_{i}_of_the_long_line" for i in range(2500)]
    wide = pd.DataFrame(np.round(rng.normal(size=(30, len(names))), 2), columns=names)
    model = LogisticRegression(max_iter=5).fit(wide, wide.iloc[:, 0] > 0)
    with pytest.raises(InputFault, match=r"2500 features take .* whose limit is 122880") as fault:
        pack(model, wide)
    assert "fewer features" in fault.value.advice


@pytest.mark.parametrize("kept", [False, True])
def test_constant_and_empty_columns(kept: bool, rows: pd.DataFrame, pack: Any) -> None:
    frame = rows[list("abc")].assign(same=1.0, none=np.nan)
    imputer = SimpleImputer(keep_empty_features=kept)
    model = make_pipeline(imputer, StandardScaler(), LogisticRegression())
    built = pack(model.fit(frame, rows.a > 0), frame, quantize="none")
    assert built.manifest.parity.flips == 0


ENCODERS = {
    "plain": OneHotEncoder(),
    "ignore": OneHotEncoder(handle_unknown="ignore"),
    "drop first": OneHotEncoder(drop="first"),
    "drop if binary": OneHotEncoder(drop="if_binary"),
    "ordinal": OrdinalEncoder(),
    "ordinal unknown": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "target": TargetEncoder(cv=3),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_text_columns_by_every_encoder(name: str, rows: pd.DataFrame, pack: Any) -> None:
    frame = rows[["a", "site", "b"]]
    columns = ColumnTransformer([("text", ENCODERS[name], ["site"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(frame, rows.a > 0)
    parity = pack(model, frame, quantize="none").manifest.parity
    assert parity.flips == 0 and parity.diff_max < 1e-4


@pytest.mark.parametrize("last", [LogisticRegression(), DecisionTreeClassifier(max_depth=3)])
def test_columns_picked_from_a_name_to_a_name(last: Any, rows: pd.DataFrame, pack: Any) -> None:
    columns = ColumnTransformer(
        [("n", StandardScaler(), slice("a", "c")), ("t", OneHotEncoder(), slice("site", "site"))]
    )
    model = make_pipeline(columns, last).fit(rows, rows.a > 0)
    built = pack(model, rows.drop(columns=["ok"]).assign(ok=1), quantize="none")
    assert built.manifest.parity.flips == 0
    known = {feature.name: feature.categories for feature in built.manifest.features}
    assert known["site"] == ("u", "v", "w") and "code" not in known


def test_column_transformers_side_by_side(rows: pd.DataFrame, pack: Any) -> None:
    parts = [
        ("n", ColumnTransformer([("n", StandardScaler(), slice("a", "c"))])),
        ("t", ColumnTransformer([("t", OneHotEncoder(sparse_output=False), [3])])),
    ]
    model = make_pipeline(FeatureUnion(parts), DecisionTreeClassifier(max_depth=3))
    model.fit(rows[["a", "b", "c", "site"]], rows.a > 0)
    assert pack(model, rows, quantize="none").manifest.parity.flips == 0


@pytest.mark.parametrize("picked", [["ok"], ["code"], ["ok", "site"], ["code", "site"]])
def test_truth_values_and_codes_as_categories(
    picked: list[str], rows: pd.DataFrame, pack: Any
) -> None:
    columns = ColumnTransformer([("c", OneHotEncoder(), picked), ("n", StandardScaler(), ["a"])])
    model = make_pipeline(columns, LogisticRegression()).fit(rows, rows.a > 0)
    parity = pack(model, rows, quantize="none").manifest.parity
    assert parity.flips == 0 and parity.diff_max < 1e-4


def test_categories_of_pandas(rows: pd.DataFrame, pack: Any) -> None:
    frame = rows[["a", "site"]].astype({"site": "category"})
    columns = ColumnTransformer([("c", OneHotEncoder(), ["site"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(frame, rows.a > 0)
    assert pack(model, frame, quantize="none").manifest.parity.flips == 0


@pytest.mark.parametrize("strategy", ["none", "most_frequent", "constant"])
def test_text_with_missing_values(strategy: str, rows: pd.DataFrame, pack: Any) -> None:
    frame = rows[["a", "site"]].astype({"site": object})
    frame.loc[::7, "site"] = np.nan
    encoder: Any = OneHotEncoder(handle_unknown="ignore")
    if strategy != "none":
        encoder = make_pipeline(SimpleImputer(strategy=strategy, fill_value="?"), encoder)
    columns = ColumnTransformer([("c", encoder, ["site"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(frame, rows.a > 0)
    built = pack(model, frame, quantize="none")
    assert built.manifest.parity.flips == 0
    assert {f.name: f.missing for f in built.manifest.features}["site"] == "allow"


def test_a_word_that_stands_for_missing_text_is_filled_though_no_given_row_has_it(
    rows: pd.DataFrame, pack: Any, tmp_path: Path
) -> None:
    frame = rows[["a", "site"]].astype({"site": object})
    train = frame.copy()
    train.loc[::7, "site"] = "?"
    filled = SimpleImputer(missing_values="?", strategy="most_frequent")
    encoder = make_pipeline(filled, OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("c", encoder, ["site"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(train, train.site == "?")
    asked = pd.DataFrame({"a": [0.5, -0.5], "site": ["?", "?"]})
    pack(model, frame, quantize="none")
    with Model.open(tmp_path / "model.edgepack") as bundle:
        answers = bundle.predict(asked)
    for answer, wanted in zip(answers, model.predict_proba(asked)[:, 1], strict=True):
        assert [*answer.probabilities.values()][1] == pytest.approx(wanted, abs=1e-5)


def test_rare_categories_are_refused_by_name(rows: pd.DataFrame, pack: Any) -> None:
    frame = rows[["a", "site"]]
    columns = ColumnTransformer([("c", OneHotEncoder(max_categories=2), ["site"])])
    model = make_pipeline(columns, LogisticRegression()).fit(frame, rows.a > 0)
    with pytest.raises(EdgeError, match=r"\(OneHotEncoder\).*max_categories"):
        pack(model, frame)

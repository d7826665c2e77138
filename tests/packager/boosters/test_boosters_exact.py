"""Boosters keep every label on raw float64 rows that nobody has seen; the library is the judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split

from edge_contract.errors import BuildFault

Make = Callable[[int, int], pd.DataFrame]

ROWS, UNSEEN = 1500, 6000
FLOAT32 = 3e-7
"""Of a probability: the library's float32 sums (XGBoost), or our float32 answer of theirs."""


def _xgb(**options: Any) -> Any:
    return xgboost.XGBClassifier(n_estimators=30, max_depth=5, n_jobs=1, **options)


def _lgb(**options: Any) -> Any:
    return lightgbm.LGBMClassifier(n_estimators=30, verbose=-1, n_jobs=1, **options)


def _cat(**options: Any) -> Any:
    return catboost.CatBoostClassifier(
        iterations=30, depth=5, verbose=0, allow_writing_files=False, thread_count=1, **options
    )


CLASSIFIERS = {
    "xgb": _xgb,
    "xgb-dart": lambda: _xgb(booster="dart", rate_drop=0.3),
    "xgb-parallel": lambda: _xgb(num_parallel_tree=3, subsample=0.6),
    "lgb": _lgb,
    "lgb-dart": lambda: _lgb(boosting_type="dart"),
    "lgb-forest": lambda: _lgb(boosting_type="rf", bagging_freq=1, bagging_fraction=0.6),
    "lgb-no-missing": lambda: _lgb(use_missing=False),
    "cat": _cat,
    "cat-lossguide": lambda: _cat(grow_policy="Lossguide"),
    "cat-depthwise": lambda: _cat(grow_policy="Depthwise", nan_mode="Max"),
}


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("table", ["plain", "iot"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_label_flips_on_unseen_raw_rows(
    name: str, table: str, labels: int, answers_of: Any, request: Any
) -> None:
    make: Make = request.getfixturevalue(table)
    see = request.getfixturevalue("see")
    known, unseen = make(ROWS, 1), make(UNSEEN, 2)
    model = CLASSIFIERS[name]().fit(known, answers_of(known, labels))
    seen = see(model, known, unseen)
    assert seen.flips == 0
    assert seen.difference < FLOAT32


@pytest.mark.parametrize("make", [_xgb, _lgb, _cat], ids=["xgb", "lgb", "cat"])
@pytest.mark.parametrize("data", [load_breast_cancer, load_digits], ids=["cancer", "digits"])
def test_no_label_flips_on_shipped_sets(make: Any, data: Any, see: Any) -> None:
    bunch = data(as_frame=True)
    known, unseen, answers, _ = train_test_split(bunch.data, bunch.target, random_state=0)
    seen = see(make().fit(known, answers), known, unseen)
    assert seen.flips == 0
    assert seen.difference < FLOAT32


def _missing_at_zero(frame: pd.DataFrame) -> pd.DataFrame:
    """Zeros, values beside zero and missing ones in every column."""
    out = frame.copy()
    for number, name in enumerate(out.columns):
        out.loc[number::7, name] = [0.0, np.nan, 1e-38, -1e-38][number % 4]
    return out


def test_lightgbm_cuts_beside_zero_keep_their_side(plain: Make, answers_of: Any, see: Any) -> None:
    """Its thresholds of +-1e-35 part zero from everything else."""
    known = plain(ROWS, 3).clip(lower=0).round(1)
    model = _lgb(min_child_samples=3).fit(known, answers_of(known.fillna(0), 2))
    assert any(abs(float(t)) < 1e-30 for t in _thresholds(model))
    unseen = _missing_at_zero(plain(UNSEEN, 4))
    assert see(model, known, unseen).flips == 0


def _thresholds(model: Any) -> list[str]:
    lines = model.booster_.model_to_string().splitlines()
    return [t for line in lines if line.startswith("threshold=") for t in line[10:].split()]


REGRESSIONS: dict[str, Any] = {
    **{
        f"xgb {objective}": (
            xgboost.XGBRegressor, {"n_estimators": 20, "objective": objective, "n_jobs": 1, **more})
        for objective, more in (
            ("reg:squarederror", {}), ("reg:absoluteerror", {}), ("count:poisson", {}),
            ("reg:gamma", {}), ("reg:tweedie", {}), ("reg:pseudohubererror", {}),
            ("reg:quantileerror", {"quantile_alpha": 0.8}),
        )
    },
    **{
        f"lgb {objective} {boosting}": (
            lightgbm.LGBMRegressor,
            {"n_estimators": 20, "objective": objective, "verbose": -1, "boosting_type": boosting,
             "n_jobs": 1, "bagging_freq": 1, "bagging_fraction": 0.7})
        for objective in ("l2", "l1", "huber", "fair", "poisson", "quantile", "mape", "gamma",
                          "tweedie")
        for boosting in ("gbdt", "rf")
        if (objective, boosting) != ("l1", "rf")
    },
    "lgb sqrt": (
        lightgbm.LGBMRegressor,
        {"n_estimators": 20, "reg_sqrt": True, "verbose": -1, "n_jobs": 1}),
    **{
        f"cat {loss}": (
            catboost.CatBoostRegressor,
            {"iterations": 20, "loss_function": loss, "verbose": 0, "allow_writing_files": False,
             "thread_count": 1})
        for loss in ("RMSE", "MAE", "Poisson", "Tweedie:variance_power=1.5", "Quantile:alpha=0.8")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", REGRESSIONS)
def test_every_link_gives_the_library_s_values(name: str, see: Any) -> None:
    data, target = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    known, unseen, answers, _ = train_test_split(data, target, random_state=1)
    kind, options = REGRESSIONS[name]
    seen = see(kind(**options).fit(known, answers), known, unseen)
    assert seen.converted.task == "regression"
    assert seen.difference < 3e-6 * float(np.abs(seen.original.values).max())


def test_several_quantiles_are_several_values(see: Any) -> None:
    data, target = load_diabetes(return_X_y=True, as_frame=True)
    model = xgboost.XGBRegressor(
        n_estimators=10, objective="reg:quantileerror", quantile_alpha=[0.1, 0.9]
    ).fit(data, target)
    seen = see(model, data, data)
    assert seen.converted.task == "tensors"
    assert seen.graph.values is not None and seen.graph.values.shape[1] == 2
    assert seen.difference < 1e-3


def _as_categories(frame: pd.DataFrame) -> pd.DataFrame:
    out = frame.copy()
    out["site"] = pd.Categorical(out.site, sorted(set(out.site)))
    out["pump"] = pd.Categorical(out.pump, ["c3", "a1", "b2"])
    out["code"] = pd.Categorical(out.code.astype(int), [3, 5, 9, 12, 40])
    return out


@pytest.mark.parametrize("onehot", [1, 10], ids=["partitions", "one-hot"])
@pytest.mark.parametrize("labels", [2, 3])
def test_xgboost_categories_of_a_data_frame(
    labels: int, onehot: int, sites: Make, answers_of: Any, see: Any
) -> None:
    known, unseen = sites(ROWS, 5), sites(UNSEEN, 6)
    model = _xgb(enable_categorical=True, max_cat_to_onehot=onehot)
    model.fit(_as_categories(known), answers_of(known, labels))
    seen = see(model, known, unseen)
    assert seen.flips == 0
    assert seen.difference < FLOAT32
    assert seen.converted.forest.codes


@pytest.mark.parametrize("labels", [2, 3])
def test_lightgbm_categories_of_a_data_frame(
    labels: int, sites: Make, answers_of: Any, see: Any
) -> None:
    known, unseen = (
        frame.replace("oslo", "são paulo") for frame in (sites(ROWS, 7), sites(UNSEEN, 8))
    )
    model = _lgb(min_child_samples=5, cat_smooth=1, min_data_per_group=5)
    model.fit(_as_categories(known), answers_of(known, labels))
    unseen.loc[::40, "site"] = "a site that nobody has seen"
    unseen.loc[::41, "pump"] = None
    unseen.loc[::43, "code"] = 7
    unseen.loc[::47, "code"] = 9.5  # no category of a data frame
    seen = see(model, known, unseen)
    assert seen.flips == 0
    assert seen.difference < FLOAT32


def test_lightgbm_categories_of_whole_numbers(sites: Make, answers_of: Any, see: Any) -> None:
    known, unseen = sites(ROWS, 9), sites(UNSEEN, 10)
    columns = ["reading", "code"]
    model = _lgb(min_data_per_group=5)
    model.fit(known[columns].to_numpy(), answers_of(known, 2), categorical_feature=[1])
    unseen.loc[::40, "code"] = 1000
    unseen.loc[::41, "code"] = -2
    unseen.loc[::43, "code"] = np.nan
    _with_fractions(unseen)
    seen = see(model, known[columns], unseen[columns])
    assert seen.flips == 0
    assert seen.difference < FLOAT32


def _with_fractions(frame: pd.DataFrame) -> None:
    """Codes that are no whole numbers; the libraries make them whole, each in its own way."""
    for start, code in enumerate((9.5, 39.99999999999, 40.7, -0.5, 0.5, 3.2)):
        frame.loc[start::47, "code"] = code


@pytest.mark.parametrize("onehot", [1, 10], ids=["partitions", "one-hot"])
def test_xgboost_categories_of_whole_numbers(
    onehot: int, sites: Make, answers_of: Any, see: Any
) -> None:
    known, unseen = (
        frame[["reading", "code"]].copy() for frame in (sites(ROWS, 9), sites(UNSEEN, 10))
    )
    known.loc[::6, "code"] = 0.0
    unseen.loc[::40, "code"] = 1000
    unseen.loc[::41, "code"] = -2
    unseen.loc[::43, "code"] = np.nan
    _with_fractions(unseen)
    model = _xgb(enable_categorical=True, feature_types=["q", "c"], max_cat_to_onehot=onehot)
    model.fit(known.to_numpy(), answers_of(known, 2))
    seen = see(model, known, unseen)
    assert seen.flips == 0
    assert seen.difference < FLOAT32


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("native", [False, True], ids=["estimator", "native"])
def test_xgboost_with_several_labels_a_row_is_refused(
    native: bool, labels: int, plain: Make, see: Any
) -> None:
    known = plain(200, 15)
    several = (known.to_numpy()[:, -labels:] > 0).astype(int)
    if native:
        options = {"objective": "binary:logistic", "num_target": labels}
        model: Any = xgboost.train(options, xgboost.DMatrix(known, several), 2)
    else:
        model = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(known, several)
    with pytest.raises(BuildFault, match=f"predicts {labels} labels a row") as refusal:
        see(model, known, known)
    assert "one classifier for each label" in refusal.value.advice


def test_lightgbm_categories_that_are_truth_values(sites: Make, answers_of: Any, see: Any) -> None:
    known, unseen = (
        frame[["reading", "code"]].copy() for frame in (sites(ROWS, 13), sites(UNSEEN, 14))
    )
    for frame in (known, unseen):
        frame["code"] = (frame.code > 6).astype(float)
    trained = known.assign(code=pd.Categorical(known.code > 0))
    model = _lgb(min_data_per_group=5).fit(trained, answers_of(known, 2))
    assert model.booster_.pandas_categorical == [[False, True]]
    direct = model.predict_proba(unseen.assign(code=pd.Categorical(unseen.code > 0)))
    seen = see(model, known, unseen)
    assert np.abs(seen.original.scores - direct).max() == 0
    assert seen.converted.forest.codes
    strange = unseen[:200].assign(code=[2.0, np.nan, 0.5, 1.0] * 50)
    for each in (seen, see(model, known, strange)):
        assert each.flips == 0
        assert each.difference < FLOAT32


CATBOOST_CATEGORIES = {
    "one-hot": {"one_hot_max_size": 10},
    "statistics": {"max_ctr_complexity": 1, "one_hot_max_size": 2},
    "every statistic": {
        "max_ctr_complexity": 1,
        "one_hot_max_size": 2,
        "simple_ctr": ["Buckets", "Counter", "BinarizedTargetMeanValue", "Borders"],
        "counter_calc_method": "SkipTest",
    },
    "depthwise": {"max_ctr_complexity": 1, "one_hot_max_size": 2, "grow_policy": "Depthwise"},
}


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("kind", CATBOOST_CATEGORIES)
def test_catboost_categories(
    kind: str, labels: int, sites: Make, answers_of: Any, see: Any
) -> None:
    known, unseen = (
        frame.replace("oslo", "são paulo") for frame in (sites(ROWS, 11), sites(UNSEEN, 12))
    )
    model = _cat(cat_features=["site", "pump"], **CATBOOST_CATEGORIES[kind])
    model.fit(known, answers_of(known, labels))
    unseen.loc[::40, "site"] = "a site that nobody has seen"
    unseen.loc[::41, "pump"] = None
    seen = see(model, known, unseen)
    assert seen.flips == 0
    assert seen.difference < FLOAT32
    assert {codes.column for codes in seen.converted.forest.codes} == {0, 2}


def _plant(rows: int, seed: int) -> pd.DataFrame:
    """Three text columns, of which only all together say the answer, and a number."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "site": rng.choice(["lyon", "turin", "graz", "oslo", "são paulo"], rows),
            "reading": rng.normal(size=rows),
            "pump": rng.choice([f"p{i}" for i in range(9)], rows),
            "fluid": rng.choice(["oil", "water", "glycol", "air"], rows),
        }
    )
    frame.loc[rng.random(rows) < 0.05, "reading"] = np.nan
    frame.loc[rng.random(rows) < 0.05, "pump"] = None
    return frame


def _plant_answers(frame: pd.DataFrame, labels: int) -> Any:
    codes = (pd.factorize(frame[name], sort=True)[0] for name in ("site", "pump", "fluid"))
    mixed = sum(code * times for code, times in zip(codes, (3, 5, 7), strict=True)) % 4 > 1
    answers = (mixed ^ (frame.reading > 1)).to_numpy().astype(int)
    return answers + (labels == 3) * (frame.site == "graz").to_numpy()


COMBINATIONS: dict[str, dict[str, Any]] = {
    "by default": {"iterations": 300},
    "of all": {"max_ctr_complexity": 4},
    "with answers": {"max_ctr_complexity": 3, "one_hot_max_size": 4},
    "missing above": {"max_ctr_complexity": 3, "one_hot_max_size": 4, "nan_mode": "Max"},
    "ordered": {"max_ctr_complexity": 4, "boosting_type": "Ordered"},
    "every statistic": {
        "max_ctr_complexity": 4,
        "combinations_ctr": ["Buckets", "Counter", "BinarizedTargetMeanValue", "Borders"],
    },
}


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("kind", COMBINATIONS)
def test_catboost_combines_columns(kind: str, labels: int, see: Any) -> None:
    known, unseen = _plant(ROWS, 21), _plant(UNSEEN, 22)
    options = {"iterations": 60, **COMBINATIONS[kind]}
    model = catboost.CatBoostClassifier(
        verbose=0, allow_writing_files=False, thread_count=1,
        cat_features=["site", "pump", "fluid"], **options,
    ).fit(known.fillna({"pump": ""}), _plant_answers(known, labels))  # fmt: skip
    unseen.loc[::20, "site"] = "a site that nobody has seen"
    unseen.loc[::17, "pump"] = None
    unseen.loc[::13, "fluid"] = "lava"
    unseen.loc[::26, "pump"] = "p10"
    seen = see(model, known, unseen)
    assert seen.flips == 0
    assert seen.difference < FLOAT32
    assert any(len(codes.parts) > 1 for codes in seen.converted.forest.codes)

"""Boosters' estimators by class, for one that ends a scikit-learn pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_pack.frameworks import catboost_, lightgbm_, xgboost_
from edge_pack.trees.form import Forest

READERS: dict[str, Callable[[Any], Forest | None]] = {
    **dict.fromkeys(
        ("xgboost.XGBClassifier", "xgboost.XGBRegressor", "xgboost.XGBRFClassifier",
         "xgboost.XGBRFRegressor", "xgboost.XGBRanker"), xgboost_.reader,
    ),
    **dict.fromkeys(
        ("lightgbm.LGBMClassifier", "lightgbm.LGBMRegressor", "lightgbm.LGBMRanker"),
        lightgbm_.reader,
    ),
    **dict.fromkeys(
        ("catboost.CatBoostClassifier", "catboost.CatBoostRegressor", "catboost.CatBoostRanker"),
        catboost_.reader,
    ),
}  # fmt: skip
"""Package and class -> its forest, None where the data would have to say what it knows."""

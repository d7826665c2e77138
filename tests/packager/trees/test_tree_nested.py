"""Trees inside other estimators keep every label, where stock converters fail or go wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

FOREST = RandomForestClassifier(8, max_depth=4, random_state=0)
BOOSTING = GradientBoostingClassifier(n_estimators=4, random_state=0)
HIST = HistGradientBoostingClassifier(max_iter=4, random_state=0)
ALL = [("forest", FOREST), ("boosting", BOOSTING), ("hist", HIST)]

CLASSIFIERS = {
    "soft vote": VotingClassifier(ALL, voting="soft"),
    "hard vote": VotingClassifier(ALL),
    "stack": StackingClassifier(ALL[::2], LogisticRegression(max_iter=2000), cv=2),
    "calibrated": CalibratedClassifierCV(HIST, cv=2),
    "bagging": BaggingClassifier(HIST, 3, max_features=0.5, random_state=0),
    "bagged trees": BaggingClassifier(DecisionTreeClassifier(max_depth=3), 5, random_state=0),
    "ada": AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=5, random_state=0),
    "one against the rest": OneVsRestClassifier(HIST),
    "behind components": make_pipeline(PCA(4, random_state=0), FOREST),
    "other libraries": VotingClassifier(
        [
            ("x", XGBClassifier(n_estimators=4, max_depth=3, n_jobs=1)),
            ("l", LGBMClassifier(n_estimators=4, verbose=-1, n_jobs=1)),
        ],
        voting="soft",
    ),
}
REGRESSORS = {
    "vote": VotingRegressor(
        [
            ("hist", HistGradientBoostingRegressor(max_iter=5, random_state=0)),
            ("forest", RandomForestRegressor(4, random_state=0)),
        ]
    ),
    "bagging": BaggingRegressor(GradientBoostingRegressor(n_estimators=5), 3, random_state=0),
    "several values": MultiOutputRegressor(HistGradientBoostingRegressor(max_iter=4)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classifiers_in_containers(kind: str, wine: Any, pack: Any) -> None:
    frame, target = wine
    model = CLASSIFIERS[kind].fit(frame, target)
    parity = pack(model, frame.join(target), "kind", quantize="none").manifest.parity
    # A container takes float32 where that is good enough: a value may lie on a cut of one tree.
    assert parity.flips == 0 and parity.diff_max < 2e-3


@pytest.mark.parametrize("kind", REGRESSORS)
def test_regressors_in_containers(kind: str, diabetes: Any, pack: Any) -> None:
    frame, target = diabetes
    answer = np.column_stack([target, -target]) if kind == "several values" else target
    model = REGRESSORS[kind].fit(frame, answer)
    parity = pack(model, frame, quantize="none").manifest.parity
    assert parity.diff_max < 1e-5

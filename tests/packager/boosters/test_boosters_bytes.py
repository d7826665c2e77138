"""Boosters travel in few bytes: one numbering for every library, and leaves that are float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier

from edge_contract import codec
from edge_pack import graphs
from edge_pack.trees import readers
from edge_pack.trees.form import totals
from edge_pack.trees.short import short_leaves

Make = Callable[[int, int], pd.DataFrame]

MODELS = {
    "xgb": (lambda: xgboost.XGBClassifier(n_estimators=60, n_jobs=1), 0.13),
    "lgb": (lambda: lightgbm.LGBMClassifier(n_estimators=60, verbose=-1, n_jobs=1), 0.14),
    "cat": (lambda: catboost.CatBoostClassifier(
        iterations=60, verbose=0, allow_writing_files=False, thread_count=1), 0.10),
}  # fmt: skip
"""Shares of the emitted file, a fifth above what was measured."""


@pytest.mark.parametrize("name", MODELS)
def test_a_booster_travels_in_a_tenth_of_its_file(
    name: str, plain: Make, answers_of: Any, see: Any
) -> None:
    frame = plain(1500, 1)
    make, share = MODELS[name]
    seen = see(make().fit(frame, answers_of(frame, 2)), frame, frame)
    data = graphs.serialise(seen.converted.proto)
    sent = codec.encode(data)
    assert codec.decode(sent, size_max=len(data)) == data
    assert len(sent) < share * len(data), len(sent) / len(data)


@pytest.mark.parametrize("name", MODELS)
def test_nodes_stand_depth_first_with_yes_first(name: str, plain: Make, answers_of: Any) -> None:
    frame = plain(600, 2)
    forest = readers.read(MODELS[name][0]().fit(frame, answers_of(frame, 2)))
    assert forest is not None
    asks = np.flatnonzero(~forest.leaf)
    assert len(asks) > 100
    assert (forest.yes[asks] == asks + 1).all()


def test_short_leaves_move_a_total_by_less_than_a_float32_shows(
    plain: Make, answers_of: Any
) -> None:
    frame = plain(600, 3)
    model = lightgbm.LGBMClassifier(n_estimators=60, verbose=-1, n_jobs=1)
    forest = readers.read(model.fit(frame, answers_of(frame, 2)))
    assert forest is not None
    short = short_leaves(forest)
    assert (short.values != forest.values).any()
    rows = plain(2000, 4).to_numpy()
    bound = 2**-24 * np.abs(forest.values).max() * forest.trees
    assert np.abs(totals(short, rows) - totals(forest, rows)).max() < bound


def test_votes_are_not_rounded(plain: Make, answers_of: Any) -> None:
    frame = plain(300, 5).fillna(0)
    forest = readers.read(
        RandomForestClassifier(7, random_state=0).fit(frame, answers_of(frame, 3))
    )
    assert forest is not None
    assert short_leaves(forest) is forest

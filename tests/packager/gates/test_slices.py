"""Slices of rows: groups by value or quartile, names that are safe, disparities by fairlearn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from sklearn import metrics as peers

from edge_contract.errors import InputFault
from edge_pack import tables
from edge_pack.answers import Answers
from edge_pack.gates import disparity, slices
from edge_pack.gates.case import case_of
from edge_pack.gates.measures import measures
from edge_pack.gates.slices import Group


def _cut(tmp_path: Path, values: Any, judged: Any = None) -> list[Group]:
    path = tmp_path / "rows.csv"
    pd.DataFrame({"col": values, "x": 1}).to_csv(path, index=False)
    table = tables.read(path)
    everything = np.ones(table.rows, dtype=bool)
    return slices.cut(table, "col", everything if judged is None else judged)


def _shown(groups: list[Group]) -> dict[str, int]:
    return {group.slice.group: group.slice.rows for group in groups}


def test_text_makes_a_group_a_value_and_one_of_missing(tmp_path: Path) -> None:
    found = _cut(tmp_path, ["graz"] * 40 + ["lyon"] * 5 + [None] * 2)
    assert _shown(found) == {"graz": 40, "lyon": 5, "(missing)": 2}
    assert [group.slice.gated for group in found] == [True, False, False]
    assert found[1].rows.tolist() == list(range(40, 45))


def test_names_may_hold_anything_and_stay_apart(tmp_path: Path) -> None:
    values = ["a, b [old] >= 3", "line\nbreak", "line\tbreak", " x", "x", "y" * 500, "y" * 501]
    found = _cut(tmp_path, values * 2)
    names = [group.slice.group for group in found]
    assert len(set(names)) == 7 and all(name.isprintable() for name in names)
    assert "a, b [old] >= 3" in names and max(map(len, names)) <= slices.NAME_MAX + 1
    assert sum(group.slice.rows for group in found) == 14


def test_many_values_keep_the_largest_groups(tmp_path: Path) -> None:
    values = [f"v{i:02}" for i in range(40) for _ in range(i + 1)]
    found = _shown(_cut(tmp_path, values))
    assert len(found) == slices.GROUPS_MAX and found["v39"] == 40
    assert found["(other)"] == sum(range(1, 30)) and sum(found.values()) == len(values)


def test_numbers_are_cut_into_quartiles_and_few_of_them_are_values(tmp_path: Path) -> None:
    values = np.arange(100) / 10
    values[3] = np.nan
    found = _cut(tmp_path, values)
    assert [group.slice.group for group in found] == ["q1", "q2", "q3", "q4", "(missing)"]
    assert [group.slice.rows for group in found] == [25, 25, 25, 24, 1]
    assert (found[1].slice.minimum, found[1].slice.maximum) == (2.6, 5.0)
    assert _shown(_cut(tmp_path, [1, 2, 2, 3] * 3)) == {"1": 3, "2": 6, "3": 3}


def test_a_lopsided_column_has_fewer_quartiles(tmp_path: Path) -> None:
    found = _cut(tmp_path, [0.5] * 80 + list(np.linspace(1, 9, 20)))
    assert [group.slice.rows for group in found] == [80, 20]


def test_rows_that_are_not_judged_are_not_counted(tmp_path: Path) -> None:
    judged = np.arange(50) < 10
    found = _cut(tmp_path, ["a"] * 30 + ["b"] * 20, judged)
    assert _shown(found) == {"a": 10, "b": 0}


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    pd.DataFrame({"site": ["a"]}).to_csv(path, index=False)
    with pytest.raises(InputFault, match="no such column") as error:
        slices.cut(tables.read(path), "sight", np.ones(1, dtype=bool))
    assert "'site'" in error.value.advice


def test_disparities_are_fairlearns(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    truth, said = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    site = rng.choice(["graz", "lyon", "turin"], 300, p=[0.5, 0.45, 0.05])
    groups = _cut(tmp_path, site)
    assert [group.slice.gated for group in groups] == [True, True, False]
    case = case_of("classification", Answers(said), truth.astype(float), 2)
    found = {m.name: m for m in disparity.between(measures("classification"), case, case, groups)}
    large = site != "turin"
    peer = MetricFrame(
        metrics={"accuracy": peers.accuracy_score, "recall": peers.recall_score},
        y_true=truth[large], y_pred=said[large], sensitive_features=site[large],
    )  # fmt: skip
    for name in ("accuracy", "recall"):
        assert found[f"{name}_difference"].bundle == pytest.approx(
            peer.difference()[name], abs=1e-5
        )
        assert found[f"{name}_ratio"].bundle == pytest.approx(peer.ratio()[name], abs=1e-5)
        assert found[f"{name}_difference"].slice == "col"


def test_groups_without_a_figure_take_no_part(tmp_path: Path) -> None:
    """No positives in one group: its recall is not 0, it is not there."""
    groups = _cut(tmp_path, ["a"] * 40 + ["b"] * 40 + ["c"] * 40)
    truth = np.array([1.0] * 80 + [0.0] * 40)
    said = np.array([1] * 20 + [0] * 20 + [1] * 40 + [0] * 40)
    case = case_of("classification", Answers(said), truth, 2)
    found = {
        m.name: m.bundle for m in disparity.between(measures("classification"), case, case, groups)
    }
    assert found["recall_difference"] == 0.5 and found["recall_ratio"] == 0.5
    assert disparity.between(measures("classification"), case, case, groups[:1]) == []

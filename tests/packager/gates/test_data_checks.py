"""Data checks: each finds what it is for, and nothing in the real tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

from edge_pack.gates import data
from edge_pack.gates.data import Finding, Target
from edge_pack.intake import Column, Rows


def _rows(frame: pd.DataFrame) -> Rows:
    columns: dict[str, Any] = {}
    for name, column in frame.items():
        if column.dtype.kind in "biuf":
            columns[str(name)] = column.to_numpy(dtype=np.float64)
        else:
            cells = np.empty(len(column), dtype=object)
            cells[:] = [None if pd.isna(cell) else str(cell) for cell in column]
            columns[str(name)] = cells
    return Rows(len(frame), columns, {})


def _found(frame: pd.DataFrame, target: Any = None, *, continuous: bool = False) -> list[Finding]:
    columns = [Column(str(name), series.dtype.kind == "O") for name, series in frame.items()]
    truth = None
    if target is not None:
        truth = Target("y", _rows(pd.DataFrame({"y": target})).columns["y"], continuous)
    return data.inspect(_rows(frame), columns, truth)


def _table(rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    return pd.DataFrame(
        {"a": rng.normal(size=rows), "b": rng.normal(size=rows), "c": rng.choice(["u", "v"], rows)}
    )


def _target(rows: int = 200) -> Any:
    return np.random.default_rng(9).choice(["good", "bad"], rows)


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine, load_diabetes, load_iris])
def test_real_tables_raise_no_warning(load: Any) -> None:
    bunch = load(as_frame=True)
    found = _found(bunch.data, bunch.target, continuous=load is load_diabetes)
    assert [one for one in found if one.severity != "note"] == []


def test_machines_have_gaps_and_no_more_than_notes(machines: Any) -> None:
    frame, target = machines
    found = {one.check: one for one in _found(frame, target)}
    assert found["missing values"].columns == ("temperature",)
    assert "3.3%" in found["missing values"].what
    assert {one.severity for one in found.values()} == {"note"}
    repeated = int(frame.duplicated().sum())
    assert f"{repeated} of 600" in found["duplicate rows"].what


def test_a_clean_table_has_no_finding() -> None:
    assert _found(_table(), _target()) == []


def _only(found: list[Finding], check: str) -> Finding:
    assert [one.check for one in found] == [check], found
    return found[0]


def test_an_empty_column_is_a_warning() -> None:
    for empty in (np.nan, None):
        found = _only(_found(_table().assign(e=[empty] * 200), _target()), "empty column")
        assert found.severity == "warning" and found.columns == ("e",)


def test_gaps_are_a_note_and_many_of_them_a_warning() -> None:
    frame = _table()
    frame.loc[:9, "a"] = np.nan
    assert _only(_found(frame), "missing values").severity == "note"
    frame.loc[:120, "a"] = np.nan
    found = _only(_found(frame), "missing values")
    assert found.severity == "warning" and "60%" in found.what


def test_a_constant_column_is_noted_even_with_gaps() -> None:
    frame = _table().assign(k=3.5, t="same")
    frame.loc[0, "k"] = np.nan
    found = {one.check: one for one in _found(frame)}
    assert found["constant column"].columns == ("k", "t")


def test_codes_for_missing_are_seen_and_plain_numbers_are_not() -> None:
    frame = _table()
    frame.loc[:4, "a"] = -999
    assert _only(_found(frame), "code for missing").columns == ("a",)
    plain = _table().assign(a=np.arange(200) - 1.0)  # -1 among its neighbours
    assert _found(plain) == []


def test_identifiers_and_spellings() -> None:
    frame = _table().assign(i=[f"id-{n}" for n in range(200)])
    assert _only(_found(frame), "identifier").columns == ("i",)
    frame = _table()
    frame.loc[0, "c"] = "U "
    assert _only(_found(frame), "spelling").columns == ("c",)


def test_categories_that_the_model_never_learned() -> None:
    frame = _table()
    columns = [Column("a"), Column("b"), Column("c", text=True, known=("u",))]
    found = data.inspect(_rows(frame), columns, None)
    assert _only(found, "unknown category").columns == ("c",)


def test_rows_that_repeat_and_rows_that_contradict() -> None:
    frame, target = _table(), _target()
    twice = pd.concat([frame, frame.iloc[:10]], ignore_index=True)
    same = np.concatenate([target, target[:10]])
    found = _only(_found(twice, same), "duplicate rows")
    assert found.severity == "warning" and "10 of 210" in found.what
    other = np.concatenate([target, np.where(target[:10] == "bad", "good", "bad")])
    checks = {one.check: one for one in _found(twice, other)}
    assert "20 rows" in checks["contradictions"].what
    # Missing equals missing, and minus zero equals zero.
    frame.loc[0, ["a", "b", "c"]] = [np.nan, 0.0, None]
    frame.loc[1, ["a", "b", "c"]] = [np.nan, -0.0, None]
    assert any("1 of 200" in one.what for one in _found(frame) if one.check == "duplicate rows")


def test_columns_that_give_the_target_away() -> None:
    frame, target = _table(), _target()
    assert "is equal to" in _only(_found(frame.assign(z=target), target), "leak of the target").what
    coded = frame.assign(z=np.where(target == "bad", 7.0, 3.0) + frame.a / 10)
    assert "alone gives" in _only(_found(coded, target), "leak of the target").what
    named = frame.assign(z=np.where(target == "bad", "B", "G"))
    assert _only(_found(named, target), "leak of the target").columns == ("z",)
    weak = frame.assign(z=np.where(target == "bad", 1.0, 0.0) + frame.a)
    assert _found(weak, target) == []


def test_columns_that_give_a_value_away() -> None:
    frame = _table()
    value = np.exp(frame.a.to_numpy())
    assert _only(_found(frame, value, continuous=True), "leak of the target").columns == ("a",)
    noisy = value + np.random.default_rng(1).normal(size=200) / 5
    assert _found(frame, noisy, continuous=True) == []


def test_what_is_wrong_with_the_answers() -> None:
    frame = _table()
    assert _only(_found(frame, [None] * 200), "no answers").severity == "error"
    assert _only(_found(frame, ["good"] * 200), "one answer").severity == "warning"
    some = _target().astype(object)
    some[:3] = None
    assert "3 rows" in _only(_found(frame, some), "missing answers").what


def test_rows_without_columns_are_left_alone() -> None:
    assert data.inspect(Rows(2, {}, {"image": np.zeros((2, 3))}), (), None) == []

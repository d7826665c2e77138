"""Quantization, parity, golden samples, resolution, runtimes: each rule by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from edge_contract.errors import BuildFault, InputFault
from edge_contract.golden import ROWS_MAX
from edge_pack import describe, golden_build, parity, runtimes, tables
from edge_pack.answers import Answers, label_indices
from edge_pack.intake import Rows
from edge_pack.parity import Budget


def _labels(found: list[int], scores: Any = None) -> Answers:
    table = None if scores is None else np.array(scores, dtype=float)
    return Answers(np.array(found), table)


def test_flips_and_differences() -> None:
    before = _labels([0, 1, 1, 0], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.6, 0.4]])
    after = _labels([0, 0, 1, 0], [[0.9, 0.1], [0.55, 0.45], [0.2, 0.8], [0.59, 0.41]])
    found = parity.compare(before, after)
    assert (found.rows, found.flips) == (4, 1)
    assert found.diff_max == pytest.approx(0.15) == found.diff_p99
    assert [row.position for row in found.worst] == [1, 3] and found.worst[0].flipped
    assert found.within(Budget(0.25, 0.2))
    assert not found.within(Budget(0.2, 0.2)) and not found.within(Budget(0.25, 0.1))


def test_a_tie_of_the_original_is_no_flip_but_a_close_call_is() -> None:
    tied = _labels([1], [[0.5 - 1e-16, 0.5]])
    close = _labels([1], [[0.5 - 1e-9, 0.5 + 1e-9]])
    other = _labels([0], [[0.5, 0.5]])
    assert parity.compare(tied, other).flips == 0
    assert parity.compare(close, other).flips == 1
    assert parity.compare(_labels([1]), _labels([0])).flips == 1


def test_a_label_that_was_never_declared_is_a_flip() -> None:
    assert parity.compare(_labels([0, 1]), _labels([0, -1])).flips == 1


def test_values_are_measured_by_their_spread() -> None:
    before = Answers(values=np.array([[0.0], [10.0], [20.0]]))
    after = Answers(values=np.array([[0.0], [10.0], [21.0]]))
    assert parity.compare(before, after).diff_max == pytest.approx(1 / np.std([0, 10, 20]))
    flat = Answers(values=np.full((3, 1), 5.0))
    assert parity.compare(flat, Answers(values=np.full((3, 1), 5.5))).diff_max == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_finite_is_an_infinite_difference_and_is_recorded(bad: float) -> None:
    before = Answers(values=np.array([[1.0], [2.0]]))
    found = parity.compare(before, Answers(values=np.array([[1.0], [bad]])))
    assert found.diff_max == np.inf and not found.within(Budget(1, 1e300))
    assert parity.record(found, Budget(1, 1)).diff_max == 1e308
    both = Answers(values=np.array([[1.0], [bad]]))
    assert parity.compare(both, both).diff_max == 0


def test_answers_of_another_form_are_refused() -> None:
    with pytest.raises(BuildFault, match="answers 2 rows for 3"):
        parity.compare(_labels([0, 1, 1]), _labels([0, 1]))
    with pytest.raises(BuildFault, match="2 columns, the original 1"):
        parity.compare(Answers(values=np.ones((3, 1))), Answers(values=np.ones((3, 2))))


def test_labels_by_value_whatever_their_type() -> None:
    assert label_indices(np.array([1, 0, 7]), (False, True)).tolist() == [1, 0, -1]
    assert label_indices(np.array(["b", "a"]), ("a", "b")).tolist() == [1, 0]
    assert label_indices(np.array([2.0, 1.0]), (1, 2)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 4.0], 1.0),
        ([0.1, 0.2, 0.4], 0.1),
        ([10.5, 11.0, 13.5], 0.5),
        ([1_700_000.01, 1_700_000.07], 0.06),
        ([0.25, 1.0, 100.75], 0.75),
        ([3.0, 3.0], None),
        ([1 / 3, 2 / 3, 0.1], None),
        ([0.0, 1e300], None),
    ],
)
def test_resolution_is_the_greatest_common_step(values: list[float], expected: Any) -> None:
    found = describe.resolution(np.array(values))
    assert found == (None if expected is None else pytest.approx(expected))


def test_golden_rows_are_clear_cut_cover_labels_and_extremes() -> None:
    rng = np.random.default_rng(0)
    n = 500
    scores = rng.dirichlet([1, 1, 0.05], n)
    scores[:50] = [0.5, 0.5, 0.0]
    labels = scores.argmax(axis=1)
    values = rng.normal(size=n)
    values[321] = 99.0
    scores[321] = [0.9, 0.05, 0.05]
    rows = Rows(n, {"x": values}, {})
    found = golden_build.choose(rows, Answers(labels, scores), row_bytes=4)
    assert len(found) == 32 <= ROWS_MAX and len(set(found.tolist())) == 32
    assert not set(found.tolist()) & set(range(50))
    assert set(labels[found]) == set(labels[50:]) and 321 in found
    again = golden_build.choose(rows, Answers(labels, scores), row_bytes=4)
    assert again.tolist() == found.tolist()
    assert len(golden_build.choose(rows, Answers(labels, scores), row_bytes=2**19)) == 2
    assert len(golden_build.choose(rows, Answers(labels, scores), row_bytes=2**30)) == 1


@pytest.mark.parametrize(
    ("ir", "opsets", "ops", "expected"),
    [
        (8, {"": 17}, (), "1.15"),
        (8, {"": 17, "ai.onnx.ml": 3}, (), "1.15"),
        (9, {"": 20}, (), "1.17"),
        (10, {"": 17}, (), "1.18"),
        (8, {"": 9, "ai.onnx.ml": 5}, (), "1.18"),
        (8, {"ai.onnx.ml": 5}, ("ai.onnx.ml:TreeEnsemble",), "1.21"),
        (13, {"": 25}, (), "1.24"),
    ],
)
def test_the_oldest_runtime_that_can(ir: int, opsets: Any, ops: Any, expected: str) -> None:
    assert runtimes.oldest(ir, opsets, ops) == expected
    assert runtimes.check_floor(f">={expected}", ir, opsets, ops) == expected
    older = {"1.15": None, "1.17": "1.16", "1.18": "1.17", "1.21": "1.20", "1.24": "1.23"}[expected]
    if older:
        with pytest.raises(BuildFault, match=f"needs ONNX Runtime {expected}"):
            runtimes.check_floor(f">={older}", ir, opsets, ops)


def test_a_model_of_the_future_is_refused() -> None:
    with pytest.raises(BuildFault, match="newer than any"):
        runtimes.oldest(99, {"": 99}, ())
    with pytest.raises(InputFault, match=r"older than 1\.15"):
        runtimes.limits_of("1.2")


def test_cells_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffa;b;c\n1.5;NA; x y\ntrue;;\n-1e-3;nan;2\n".encode())
    table = tables.read(path)
    assert table.numbers("a").tolist() == [1.5, 1.0, -0.001]
    assert np.isnan(table.numbers("b")).all() and table.is_numeric("b")
    assert table.texts("c").tolist() == [" x y", None, "2"] and not table.is_numeric("c")
    path.write_text("a\n1_000\n")
    with pytest.raises(InputFault, match="'1_000' is not a number"):
        tables.read(path).numbers("a")


def test_columns_of_a_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame(
        {
            "i": [1, 2, 3],
            "n": pd.array([1, None, 3], dtype="Int64"),
            "b": [True, False, True],
            "s": ["x", None, "z"],
            "c": pd.Categorical(["u", "v", "u"]),
            "t": pd.to_datetime(["2025-01-01", "2025-01-02", None]),
            "l": [[1], [2], [3]],
        }
    ).drop(columns="l").to_parquet(path)
    table = tables.read(path)
    assert table.numbers("i").tolist() == [1, 2, 3] and table.numbers("b").tolist() == [1, 0, 1]
    assert np.isnan(table.numbers("n")[1]) and np.isnan(table.numbers("t")[2])
    assert table.numbers("t")[1] - table.numbers("t")[0] == 86400
    assert table.texts("s").tolist() == ["x", None, "z"]
    assert table.texts("c").tolist() == ["u", "v", "u"]
    assert table.texts("i").tolist() == ["1", "2", "3"]
    pd.DataFrame({"l": [[1], [2]]}).to_parquet(path)
    with pytest.raises(InputFault, match="neither a number nor text"):
        tables.read(path)


def test_recorded_differences_are_bounds() -> None:
    def recorded(diff: float) -> float:
        figures = parity.Comparison(rows=1, flips=0, diff_max=diff, diff_p99=diff, worst=())
        return parity.record(figures, Budget(1, 1)).diff_max

    assert [recorded(d) for d in (0.0, 3e-8, 2.1e-6, 0.0066, 0.05, 0.051)] == [
        0.0, 2e-6, 5e-6, 0.01, 0.05, 0.1,
    ]  # fmt: skip

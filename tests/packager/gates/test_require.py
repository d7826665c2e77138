"""Requirements: how they are read, what they refuse, and which figure they look at."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract.errors import InputFault
from edge_contract.manifest import Metric, Slice
from edge_pack.gates import require
from edge_pack.gates.measures import names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("roc_auc>=0.9", ("roc_auc", "", "", ">=", 0.9)),
        (" accuracy > 90 % ", ("accuracy", "", "", ">", 0.9)),
        ("roc_auc.low>=0.9", ("roc_auc", "", "low", ">=", 0.9)),
        ("recall[site=graz]>=0.8", ("recall", "site=graz", "", ">=", 0.8)),
        ("recall[site=graz].low>=0.8", ("recall", "site=graz", "low", ">=", 0.8)),
        ("accuracy_difference[site]<=5%", ("accuracy_difference", "site", "", "<=", 0.05)),
        ("f1[site=a, b [old] >= 3]>0.5", ("f1", "site=a, b [old] >= 3", "", ">", 0.5)),
        ("f1[x<=y=z].high<1e-3", ("f1", "x<=y=z", "high", "<", 1e-3)),
        ("r2>=-0.5", ("r2", "", "", ">=", -0.5)),
    ],
)
def test_a_requirement_is_read(text: str, expected: tuple[Any, ...]) -> None:
    found = require.parse(text)
    assert (found.name, found.slice, found.end, found.op) == expected[:4]
    assert found.bound == pytest.approx(expected[4])


@pytest.mark.parametrize(
    "text",
    ["", "roc_auc", ">=0.9", "roc_auc>=", "roc_auc>=high", "roc_auc=0.9", "roc_auc==0.9",
     "recall[]>=0.8", "recall[site=graz>=0.8", "a b>=1", "roc_auc>=nan", "roc_auc.mid>=1"],
)  # fmt: skip
def test_what_is_no_requirement_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputFault, match="not understood") as error:
        require.parse(text)
    assert "roc_auc>=0.9" in error.value.advice


@given(st.text(max_size=60))
def test_no_text_escapes_as_another_error(text: str) -> None:
    with contextlib.suppress(InputFault):
        require.parse(text)


@given(st.text(min_size=1, max_size=30))
def test_any_group_can_be_named(group: str) -> None:
    assert require.parse(f"recall[site={group}]>=0.8").slice == f"site={group}"


def _check(text: str, task: str = "classification") -> None:
    require.check_name(require.parse(text), names(task), task)  # type: ignore[arg-type]


def test_a_figure_of_another_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputFault, match="'rmse', which is no figure") as error:
        _check("rmse<=3")
    assert "accuracy" in error.value.advice and "calibration_error" in error.value.advice
    _check("rmse<=3", "regression")
    _check("silhouette>=0.3", "clustering")
    _check("flagged_share<=1%", "outliers")
    with pytest.raises(InputFault, match="It has none"):
        _check("accuracy>=1", "tensors")


def test_a_disparity_is_between_the_slices_of_a_column() -> None:
    _check("accuracy_difference[site]<=0.05")
    for text in ("accuracy_difference<=0.05", "accuracy_ratio[site=graz]>=0.8",
                 "accuracy_ratio[site].low>=0.8"):  # fmt: skip
        with pytest.raises(InputFault, match="one figure between the slices"):
            _check(text)


SLICES = (
    Slice(name="site=graz", column="site", group="graz", rows=80),
    Slice(name="site=turin", column="site", group="turin", rows=7, gated=False),
)
METRICS = (
    Metric(name="recall", original=0.91, bundle=0.9, low=0.85, high=0.95),
    Metric(name="recall", original=0.71, bundle=0.7, low=0.6, high=0.8, slice="site=graz"),
    Metric(name="recall", original=0.1, bundle=0.1, slice="site=turin"),
    Metric(name="recall_difference", original=0.2, bundle=0.2, slice="site"),
)


@pytest.mark.parametrize(
    ("text", "passed", "got"),
    [
        ("recall>=0.9", True, "0.9"),
        ("recall>0.9", False, "0.9"),
        ("recall.low>=0.9", False, "0.85"),
        ("recall[site=graz]>=0.8", False, "0.7"),
        ("recall[site=graz].high>=0.8", True, "0.8"),
        ("recall_difference[site]<=0.1", False, "0.2"),
        ("precision>=0.1", False, "not defined on these rows"),
        ("recall_difference[site].low<=1", False, "not defined on these rows"),
    ],
)
def test_a_gate_looks_at_the_bundles_own_figure(text: str, passed: bool, got: str) -> None:
    gate = require.judge(require.parse(text), METRICS, SLICES)
    assert gate is not None and (gate.passed, gate.got) == (passed, got)


def test_a_slice_of_few_rows_is_not_judged() -> None:
    assert require.judge(require.parse("recall[site=turin]>=0.9"), METRICS, SLICES) is None


def test_a_slice_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputFault, match="no slice 'site=rome'") as error:
        require.check_slice(require.parse("recall[site=rome]>=0.9"), SLICES, ["site"])
    assert "'site=graz'" in error.value.advice
    with pytest.raises(InputFault, match="no slice 'pump'"):
        require.check_slice(require.parse("recall_ratio[pump]>=0.9"), SLICES, ["site"])
    with pytest.raises(InputFault, match="pass --slice COLUMN"):
        require.check_slice(require.parse("recall[site=rome]>=0.9"), (), [])

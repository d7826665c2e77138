"""A cut stands between the two neighbouring values where the original's answer changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_pack.trees import cuts
from edge_pack.trees.form import LEAF, LEQ, LT, Forest

FLOATS = st.floats(allow_nan=False, width=64)
LARGEST = float(np.finfo(np.float32).max)


def stump(cut: float, test: int = LEQ, **changes: Any) -> Forest:
    """One node: the first leaf is 1, the second 0."""
    plain: dict[str, Any] = {
        "width": 1,
        "roots": np.array([0]),
        "column": np.array([0, -1, -1]),
        "test": np.array([test, LEAF, LEAF]),
        "cut": np.array([cut, 0.0, 0.0]),
        "yes": np.array([1, 1, 2]),
        "no": np.array([2, 1, 2]),
        "missing_yes": np.zeros(3, bool),
        "values": np.array([[0.0], [1.0], [0.0]]),
        "target": np.zeros(1, np.int64),
        "outputs": 1,
        "base": np.zeros(1),
        "member": np.full(3, -1),
        "cover": np.zeros(3),
    }
    return Forest(**{**plain, **changes})


@given(FLOATS, FLOATS)
def test_ordinals_keep_order_and_come_back(a: float, b: float) -> None:
    first, second = cuts.ordinal(np.array([a, b]))
    assert (first < second) == (a < b) and (first == second) == (a == b)
    assert cuts.value(np.array([first]))[0] == a


def test_neighbours_differ_by_one_across_zero() -> None:
    around = np.array([-5e-324, -0.0, 0.0, 5e-324])
    assert cuts.ordinal(around).tolist() == [-1, 0, 0, 1]


@given(FLOATS.filter(np.isfinite))
def test_a_turn_is_found_to_the_last_bit(turn: float) -> None:
    most = np.array([np.finfo(np.float64).max])
    found = cuts.bisect(lambda values: values >= turn, -most, most)
    assert found[0] == turn or turn == -most[0]


def test_a_turn_that_is_not_there() -> None:
    assert cuts.least(lambda values: values > 9, 0.0, 5.0) == np.inf
    assert cuts.least(lambda values: values > -1, 0.0, 5.0) == 0.0


@given(
    st.floats(allow_nan=False, width=64) | st.floats(allow_nan=False, width=32),
    st.sampled_from([LEQ, LT]),
    st.floats(-LARGEST, LARGEST, width=64),
)
def test_float64_cuts_fall_as_float32_comparisons_do(cut: float, test: int, far: float) -> None:
    """On the cut, beside it, beside its float32 neighbours, and anywhere."""
    forest = stump(cut, test, compares="float32")
    exact = cuts.as_float64(forest).cut[0]
    with np.errstate(over="ignore", invalid="ignore"):
        near = np.array([cut, exact, np.float32(cut), far, 0.0, -0.0])
        near = np.concatenate([near, np.nextafter(near, np.inf), np.nextafter(near, -np.inf)])
    near = near[np.abs(near) <= LARGEST]
    rounded = near.astype(np.float32).astype(np.float64)
    expected = rounded < cut if test == LT else rounded <= cut
    assert ((near <= exact) == expected).all()


@pytest.mark.parametrize("cut", [np.inf, -np.inf, 1e300, -1e300, LARGEST, -LARGEST, 1e-310, -0.0])
def test_cuts_at_the_ends(cut: float) -> None:
    rows = np.array([-LARGEST, -1e-320, -0.0, 0.0, 1e-320, LARGEST])
    for test in (LEQ, LT):
        forest = stump(cut, test, compares="float32")
        exact = cuts.as_float64(forest).cut[0]
        rounded = rows.astype(np.float32).astype(np.float64)
        expected = rounded < cut if test == LT else rounded <= cut
        assert ((rows <= exact) == expected).all()


def test_there_is_no_negative_zero_among_the_cuts() -> None:
    forest = stump(-0.0)
    assert not np.signbit(cuts.as_float64(forest).cut).any()

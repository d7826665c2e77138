"""Every value falls into exactly one cell, and into the one that the profile says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import profile
from edge_contract.errors import InputFault
from edge_contract.profile import Monitor, Profile

QUANTILE = Monitor(name="q", kind="quantile", edges=(0.0, 1.0, 2.0, 5.0), counts=(0,) * 8)
LATTICE = Monitor(name="l", kind="lattice", edges=(0.0, 0.1, 0.2, 5.0), counts=(0,) * 9)
CATEGORY = Monitor(name="c", kind="category", categories=("a", "b"), others=("z",), counts=(0,) * 5)
SCORE = Monitor(
    name="s", kind="score", source="output", labels=2, edges=(0.0, 0.5, 1.0), counts=(0,) * 5
)
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "cell"),
    [(0.0, 0), (0.99, 0), (1.0, 1), (2.0, 2), (5.0, 2), (-0.01, 3), (5.01, 4), (NAN, 6), (INF, 7)],
)
def test_a_value_falls_into_its_quantile_bin(value: float, cell: int) -> None:
    counts = profile.count_numbers(QUANTILE, np.array([value]))
    assert counts.tolist() == [int(i == cell) for i in range(8)]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (0.0, 0),
        (0.1, 1),
        (0.30000000000000004 - 0.2, 1),
        (float(np.float32(0.2)), 2),
        (5.0, 3),
        (-1.0, 4),
        (5.1, 5),
        (0.15, 6),
        (NAN, 7),
        (-INF, 8),
    ],
)
def test_a_value_falls_onto_its_lattice_point(value: float, cell: int) -> None:
    counts = profile.count_numbers(LATTICE, np.array([value]))
    assert counts.tolist() == [int(i == cell) for i in range(9)]


def test_a_lattice_of_one_value_knows_others() -> None:
    constant = Monitor(name="k", kind="lattice", edges=(7.0,), counts=(0,) * 6)
    assert profile.count_numbers(constant, np.array([7.0, 6.0, 8.0])).tolist() == [1, 1, 1, 0, 0, 0]


def test_categories_known_unlisted_unseen_and_missing_are_told_apart() -> None:
    values = ["a", "a", "b", "z", "new", None, ""]
    assert profile.count_categories(CATEGORY, values).tolist() == [2, 1, 1, 1, 2]


def test_scores_are_counted_by_label_with_the_threshold_as_an_edge() -> None:
    labels = np.array([0, 1, 1, 0, 7])
    scores = np.array([0.49, 0.5, 1.0, NAN, 0.2])
    assert profile.count_scores(SCORE, labels, scores).tolist() == [1, 0, 0, 2, 2]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=50))
def test_no_value_is_lost_or_counted_twice(values: list[float]) -> None:
    array = np.array(values, dtype=np.float64)
    for monitor in (QUANTILE, LATTICE):
        counts = profile.count_numbers(monitor, array)
        assert counts.sum() == len(values)
        assert len(counts) == monitor.cells


def test_counting_is_linear_in_the_rows() -> None:
    rng = np.random.default_rng(7)
    rows = rng.normal(2, 3, size=1000)
    whole = profile.count_numbers(QUANTILE, rows)
    parts = profile.count_numbers(QUANTILE, rows[:300]) + profile.count_numbers(
        QUANTILE, rows[300:]
    )
    assert whole.tolist() == parts.tolist()


@pytest.mark.parametrize(
    "monitor",
    [
        Monitor(name="a", kind="quantile", edges=(1.0, 0.0), counts=(1, 0, 0, 0, 0, 0)),
        Monitor(name="a", kind="quantile", edges=(0.0,), counts=(1, 0, 0, 0, 0)),
        Monitor(name="a", kind="lattice", edges=(0.0,), counts=(1, 0)),
        Monitor(name="a", kind="lattice", edges=(0.0,), counts=(2, 0, 0, 0, 0, 0)),
        Monitor(name="a", kind="score", edges=(0.0, 1.0), counts=(1,)),
        Monitor(
            name="a", kind="lattice", edges=(0.0,), counts=(1, 0, 0, 0, 0, 0), design_effect=0.5
        ),
    ],
)
def test_an_inconsistent_profile_is_refused(monitor: Monitor) -> None:
    with pytest.raises(InputFault):
        profile.decode(profile.encode(Profile(rows=1, monitors=(monitor,))))


def test_a_profile_that_monitors_one_thing_twice_is_refused() -> None:
    one = Monitor(name="a", kind="lattice", edges=(0.0,), counts=(1, 0, 0, 0, 0, 0))
    with pytest.raises(InputFault, match="twice"):
        profile.decode(profile.encode(Profile(rows=1, monitors=(one, one))))


def test_offsets_and_cells_agree() -> None:
    whole = Profile(rows=0, monitors=(QUANTILE, LATTICE, CATEGORY, SCORE))
    assert whole.offsets() == (0, 8, 17, 22)
    assert whole.cells == 27

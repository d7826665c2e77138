"""Moments, runs and error values of a tally are those of plain Python over all rows."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.telemetry.tally import SENTINELS, Tally
from edge_contract.profile import Monitor


def monitors(count: int) -> list[Monitor]:
    return [
        Monitor(name=f"n{i}", kind="quantile", edges=(-2.0, 2.0), counts=(), mean=0.5 * i, std=1.0)
        for i in range(count)
    ]


def longest(column: list[float]) -> int:
    """Equal finite values in a row."""
    runs = [len(list(same)) for value, same in itertools.groupby(column) if math.isfinite(value)]
    return max(runs, default=0)


VALUES = st.sampled_from([0.0, 1.0, -1.5, 3.25, math.nan, math.inf, -math.inf, 1e9])


@settings(max_examples=60)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=60), st.data())
def test_bulks_of_any_size_count_what_plain_python_counts(rows, data) -> None:
    tally = Tally(monitors(2))
    table = np.array(rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=5)))
    for start, end in itertools.pairwise([0, *cuts, len(rows)]):
        tally.add(table[start:end])
    seen = tally.peek()
    assert seen.moments() == tally.close().moments()
    for at in range(2):
        column = table[:, at].tolist()
        finite = [value for value in column if math.isfinite(value)]
        assert seen.count[at] == len(finite)
        assert seen.run[at] == longest(column)
        if finite:
            assert seen.mean[at] == pytest.approx(statistics.fmean(finite), rel=1e-9, abs=1e-9)
            assert seen.std[at] == pytest.approx(statistics.pstdev(finite), rel=1e-6, abs=1e-6)


def test_a_run_goes_on_from_one_period_into_the_next() -> None:
    tally = Tally(monitors(1))
    tally.add(np.array([[1.0], [2.0], [2.0]]))
    assert tally.close().run.tolist() == [2]
    tally.add(np.array([[2.0]]))
    tally.add(np.array([[2.0], [2.0], [3.0], [3.0]]))
    seen = tally.close()
    assert (seen.run.tolist(), seen.now.tolist()) == ([5], [2])
    tally.add(np.array([[4.0]]))
    assert tally.close().run.tolist() == [2]
    assert tally.close().count.tolist() == [0]


def test_error_values_count_far_beyond_the_reference_only() -> None:
    # The reference of each column reaches from -2 to 2, its spread is 1.
    tally = Tally(monitors(2))
    tally.add(np.array([[0.0, -1.0], [-999.0, 65535.0], [np.float32(-999.9), 4.0], [-999.0, 85.0]]))
    found = tally.close().sentinels
    hits = {
        (column, SENTINELS[place]): int(found[column, place])
        for column, place in zip(*np.nonzero(found), strict=True)
    }
    assert hits == {(0, -999.0): 2, (0, -999.9): 1, (1, 65535.0): 1, (1, 85.0): 1}
    assert list(SENTINELS) == sorted(SENTINELS)


def test_sums_that_overflow_are_no_fault() -> None:
    tally = Tally(monitors(1))
    tally.add(np.full((10, 1), 1e308))
    tally.add(np.full((10, 1), -1e308))
    (seen,) = tally.close().moments()
    assert seen is not None
    assert seen.run == 10

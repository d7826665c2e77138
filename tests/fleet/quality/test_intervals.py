"""Intervals against scipy, and the promise of the one that may be looked at for ever."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edge_fleet.quality.intervals import clopper_pearson, confidence_sequence, wilson


@settings(max_examples=150, deadline=None)
@given(rows=st.integers(1, 10**6), share=st.floats(0, 1), level=st.sampled_from([0.5, 0.95, 0.999]))
def test_wilson_and_clopper_pearson_are_scipys(rows: int, share: float, level: float) -> None:
    some = round(rows * share)
    for ours, theirs in ((wilson, "wilson"), (clopper_pearson, "exact")):
        low, high = ours(np.array([some]), np.array([rows]), level)
        expected = stats.binomtest(some, rows).proportion_ci(level, theirs)
        assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-8)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson, confidence_sequence])
def test_without_rows_anything_is_possible_and_extremes_stay_within(interval) -> None:
    low, high = interval(np.array([0.0, 0.0, 9.0, 2.0**40]), np.array([0.0, 9.0, 9.0, 2.0**41]))
    assert (low[0], high[0]) == (0.0, 1.0)
    assert low[1] == 0.0
    assert 0 < high[1] < 1
    assert high[2] == 1.0
    assert 0 < low[2] < 1
    assert low[3] < 0.5 < high[3]
    assert high[3] - low[3] < 1e-4


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_the_sequence_holds_at_every_look_where_wilson_does_not(seed: int, share: float) -> None:
    """1,000 labels, looked at after each of them, 300 times over."""
    rng = np.random.default_rng(seed)
    some = np.cumsum(rng.random((300, 1000)) < share, axis=1).astype(float)
    rows = np.broadcast_to(np.arange(1.0, 1001.0), some.shape)
    outside = {}
    for interval in (wilson, confidence_sequence):
        low, high = interval(some, rows)
        outside[interval] = ((low > share) | (high < share)).any(axis=1).mean()
    assert outside[confidence_sequence] <= 0.05 + 0.04  # three standard errors
    assert outside[wilson] > 0.2


def test_the_sequence_is_the_set_that_the_mixture_has_not_ruled_out() -> None:
    """By the definition: the wealth of the mixture is 20 at both ends."""
    low, high = confidence_sequence(np.array([30.0]), np.array([100.0]))
    for end in (low[0], high[0]):
        shares = (np.arange(200_000) + 0.5) / 200_000
        prior = stats.beta.pdf(shares, 0.5, 0.5)
        wealth = np.mean((shares / end) ** 30 * ((1 - shares) / (1 - end)) ** 70 * prior)
        assert wealth == pytest.approx(20, rel=1e-2)

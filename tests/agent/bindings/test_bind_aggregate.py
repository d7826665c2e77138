"""Aggregates against numpy as the oracle; windows against a plain list; memory has its bound."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.bindings.aggregate import PLAIN, band_power, figure, slope
from edge_agent.bindings.window import Window

numbers = st.floats(-1e6, 1e6, allow_nan=False)
series = st.lists(numbers, min_size=1, max_size=60).map(np.array)


def times_of(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Uneven moments, in order."""
    return np.cumsum(np.random.default_rng(seed).uniform(0.1, 2.0, len(values)))


ORACLES = {
    "mean": np.mean,
    "min": np.min,
    "max": np.max,
    "std": np.std,
    "rms": lambda values: math.sqrt(np.mean(np.square(values))),
}


@given(series, st.sampled_from(sorted(ORACLES)))
def test_each_figure_is_numpys(values: NDArray[np.float64], kind: str) -> None:
    found = figure(kind, times_of(values, 1), values, rate_hz=0.0, band=(0, 0))
    assert found == pytest.approx(float(ORACLES[kind](values)), rel=1e-9, abs=1e-6)


@given(st.lists(numbers, min_size=2, max_size=60).map(np.array), st.integers(0, 1000))
def test_the_slope_is_that_of_polyfit_wherever_time_begins(
    values: NDArray[np.float64], seed: int
) -> None:
    times = times_of(values, seed)
    found = slope(times + 1e6, values)
    expected = np.polyfit(times - times[0], values, 1)[0]
    scale = np.abs(values).max() + 1.0
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6 * scale)


def test_a_slope_needs_two_different_times() -> None:
    assert slope(np.array([1.0]), np.array([2.0])) is None
    assert slope(np.array([1.0, 1.0]), np.array([2.0, 3.0])) is None


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=130).map(np.array),
    st.lists(st.floats(0.01, 49.0), max_size=5),
)
def test_adjoining_bands_add_up_to_the_variance(
    values: NDArray[np.float64], cuts: list[float]
) -> None:
    """Parseval's theorem, whatever the number of samples and wherever the bands meet."""
    edges = [0.0, *sorted(cuts), 1e9]
    parts = [
        band_power(values, 100.0, low, high)
        for low, high in itertools.pairwise(edges)
        if low < high
    ]
    total = sum(part for part in parts if part is not None)
    assert total == pytest.approx(float(np.var(values)), rel=1e-9, abs=1e-9)


def test_a_band_holds_the_power_of_its_own_tone() -> None:
    rate_hz, count = 200.0, 400
    moments = np.arange(count) / rate_hz
    tones = 3.0 * np.sin(2 * np.pi * 10 * moments) + 0.5 * np.sin(2 * np.pi * 60 * moments) + 7.0
    assert band_power(tones, rate_hz, 5, 20) == pytest.approx(9 / 2)
    assert band_power(tones, rate_hz, 50, 70) == pytest.approx(0.25 / 2)
    assert band_power(tones, rate_hz, 70, 1e9) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_an_overflow_is_no_figure(kind: str) -> None:
    values = np.array([1.7e308, -1.7e308, 1.7e308, 1.7e308])
    found = figure(kind, np.arange(4.0), values, rate_hz=0.0, band=(0, 0))
    assert found is None or math.isfinite(found)


def test_nothing_has_a_count_and_no_other_figure() -> None:
    empty = np.empty(0)
    assert figure("count", empty, empty, rate_hz=0.0, band=(0, 0)) == 0
    assert figure("mean", empty, empty, rate_hz=0.0, band=(0, 0)) is None


@given(
    st.lists(st.tuples(st.floats(-1.0, 5.0), numbers), max_size=300),
    st.integers(1, 40),
    st.sampled_from([0.0, 3.0, 20.0]),
)
def test_a_window_is_a_list_cut_to_its_bounds(
    steps: list[tuple[float, float]], samples: int, seconds: float
) -> None:
    window = Window(samples, seconds)
    kept: list[tuple[float, float]] = []
    now = 0.0
    for i, (step, value) in enumerate(steps):
        moment = now + step
        taken = window.add(moment, value)
        assert taken == (not kept or moment >= kept[-1][0])
        if taken:
            kept = [*kept, (moment, value)][-samples:]
            now = moment
        if i % 3 == 0:
            if seconds:
                kept = [each for each in kept if each[0] > now - seconds]
            times, values = window.view(now)
            assert list(zip(times.tolist(), values.tolist(), strict=True)) == kept


def test_a_window_of_many_samples_keeps_its_bound() -> None:
    window = Window(1000, 0.0)
    for i in range(50_000):
        window.add(float(i), float(i))
    times, values = window.view(50_000.0)
    assert len(values) == 1000 and values[-1] == 49_999
    assert times[0] == 49_000
    assert window._values.nbytes <= 2 * 1000 * 8

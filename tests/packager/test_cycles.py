"""Hours and weekdays are told where the data shows them, and not where readings merely persist."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal, stats

from edge_pack import cycles

START = 1_735_689_600.0  # 2025-01-01, a Wednesday, 00:00 UTC


def _hourly(days: int) -> Any:
    return START + 3600.0 * np.arange(24 * days)


def _ar1(rng: np.random.Generator, n: int, rho: float) -> Any:
    return signal.lfilter([1], [1, -rho], rng.normal(size=n) * np.sqrt(1 - rho**2))


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, float("nan")]), max_size=40))
def test_the_longest_run_is_that_of_itertools(values: list[float]) -> None:
    runs = [len(list(run)) for value, run in groupby(values) if value == value]  # noqa: PLR0124
    assert cycles.longest_run(np.array(values)) == max(runs, default=0)


def _plain(table: Any) -> float:
    """The textbook's repeated-measures test, for levels that do not resemble their neighbours."""
    blocks, levels = table.shape
    inner = table - table.mean(axis=1, keepdims=True)
    means = inner.mean(axis=0)
    ratio = blocks * (means**2).sum() / (levels - 1)
    ratio /= ((inner - means) ** 2).sum() / ((blocks - 1) * (levels - 1))
    return float(stats.f.sf(ratio, levels - 1, (blocks - 1) * (levels - 1)))


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_readings_that_persist_are_no_cycle(rho: float) -> None:
    seconds = _hourly(60)
    tables, found = [], 0
    for seed in range(100):
        values = _ar1(np.random.default_rng(seed), len(seconds), rho)
        tables.append(values.reshape(60, 24))
        found += bool(cycles.hours(values, seconds)) + bool(cycles.weekdays(values, seconds))
    assert found == 0
    chances = np.array([cycles.chance(table) for table in tables])
    assert np.mean(chances < 0.05) <= 0.12, sorted(chances)


def test_many_readings_an_hour_are_no_more_evidence_than_their_hours() -> None:
    """Over the readings themselves the plain test finds a cycle in most streams."""
    seconds = START + 600.0 * np.arange(6 * 24 * 30)
    hour = np.arange(len(seconds)) // 6 % 24
    naive = []
    for seed in range(30):
        values = _ar1(np.random.default_rng(seed), len(seconds), 0.98)
        assert cycles.hours(values, seconds) == ()
        groups = [values[hour == at] for at in range(24)]
        naive.append(float(stats.f_oneway(*groups).pvalue) < cycles.CHANCE_MAX)
    assert np.mean(naive) > 0.5


def test_without_persistence_the_chance_is_that_of_the_textbook() -> None:
    """Greenhouse and Geisser's factor only shortens the degrees of freedom of the plain test."""
    table = np.random.default_rng(4).normal(size=(400, 6)) + 0.02 * np.arange(6)
    assert cycles.chance(table) == pytest.approx(_plain(table), rel=0.1)


def test_a_daily_cycle_in_persisting_readings_has_its_means() -> None:
    rng = np.random.default_rng(8)
    seconds = _hourly(90)
    wave = np.sin(2 * np.pi * np.arange(24) / 24)
    values = 20 + 2 * np.tile(wave, 90) + _ar1(rng, len(seconds), 0.9)
    order = rng.permutation(len(values))  # a file may be in any order
    found = np.array(cycles.hours(values[order], seconds[order]))
    assert found.shape == (24,)
    assert np.abs(found - 20 - 2 * wave).max() < 0.5
    assert cycles.weekdays(values, seconds) == ()


def test_a_weekly_cycle_is_found_from_monday_on() -> None:
    rng = np.random.default_rng(8)
    seconds = _hourly(7 * 20)
    weekday = (np.arange(len(seconds)) // 24 + 2) % 7  # the first day is a Wednesday
    values = rng.normal(size=len(seconds)) - 3.0 * (weekday >= 5)
    found = np.array(cycles.weekdays(values, seconds))
    assert found == pytest.approx([0, 0, 0, 0, 0, -3, -3], abs=0.3)
    assert cycles.hours(values, seconds) == ()


@pytest.mark.parametrize("values", [np.full(24 * 60, 3.0), np.full(24 * 60, np.nan)])
def test_what_does_not_vary_has_no_cycle(values: Any) -> None:
    assert cycles.hours(values, _hourly(60)) == ()


def test_a_few_days_or_half_days_say_nothing() -> None:
    seconds = _hourly(7)
    wave = np.sin(2 * np.pi * np.arange(len(seconds)) / 24)
    assert cycles.hours(wave, seconds) == ()
    long = _hourly(60)
    day = (np.arange(len(long)) % 24) < 12
    assert cycles.hours(np.sin(long)[day], long[day]) == ()
    far = np.array([START, START + 1e9])
    assert cycles.hours(np.tile([1.0, 2.0], 200), np.tile(far, 200)) == ()

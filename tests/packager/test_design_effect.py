"""The design effect against streams whose true variance ratio is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from edge_contract import profile as profiles
from edge_contract.manifest import PROFILE_FILE
from edge_pack import reading
from edge_pack.design_effect import estimate

SEEDS = range(30)


def _cells(values: Any, bins: int = 32) -> Any:
    return np.searchsorted(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]), values)


def _ar1(rng: np.random.Generator, n: int, rho: float) -> Any:
    noise = rng.normal(size=n) * np.sqrt(1 - rho**2)
    values = np.empty(n)
    values[0] = rng.normal()
    for i in range(1, n):
        values[i] = rho * values[i - 1] + noise[i]
    return values


def test_independent_rows_have_none() -> None:
    found = [
        estimate(_cells(np.random.default_rng(seed).normal(size=4000)), ordered=True)
        for seed in SEEDS
    ]
    assert np.mean([effect == 1 for effect in found]) >= 0.9, found
    assert max(found) < 2, found


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_a_first_order_process_has_its_textbook_value(rho: float) -> None:
    """The mean of AR(1) varies (1 + rho) / (1 - rho) times as much as that of independent rows."""
    truth = (1 + rho) / (1 - rho)
    found = [
        estimate(_cells(_ar1(np.random.default_rng(seed), 8000, rho)), ordered=True)
        for seed in SEEDS
    ]
    assert 0.7 * truth < np.median(found) < 1.7 * truth, found


def test_a_daily_cycle_is_seen_in_long_blocks() -> None:
    rng = np.random.default_rng(0)
    hours = np.arange(24 * 200)
    values = np.sin(2 * np.pi * hours / 24) + 0.3 * rng.normal(size=len(hours))
    assert estimate(_cells(values), ordered=True) > 3


def test_categories_that_come_in_runs() -> None:
    rng = np.random.default_rng(0)
    runs = np.repeat(rng.integers(0, 4, 200), 20)
    assert estimate(runs, ordered=False) > 8
    assert estimate(rng.integers(0, 4, 4000), ordered=False) < 2


def test_too_little_to_say_anything_is_1() -> None:
    assert estimate(np.zeros(5000, dtype=np.int64), ordered=True) == 1
    assert estimate(np.arange(50) // 10, ordered=True) == 1


def test_a_time_column_orders_the_reference(pack: Any) -> None:
    rng = np.random.default_rng(4)
    n = 2000
    frame = pd.DataFrame({"slow": _ar1(rng, n, 0.95), "quick": rng.normal(size=n)})
    target = (frame.slow + frame.quick).rename("y")
    model = LinearRegression().fit(frame, target)
    stamped = frame.join(target).assign(at=pd.date_range("2025-01-01", periods=n, freq="h"))
    shuffled = stamped.sample(frac=1, random_state=0)
    built = pack(model, shuffled, "y", time_column="at")
    profile = profiles.decode(reading.open_bundle(built.config.out).file(PROFILE_FILE))
    effect = {monitor.name: monitor.design_effect for monitor in profile.monitors}
    assert profile.time_ordered
    assert effect["slow"] > 10 and effect["quick"] < 2
    assert [feature.name for feature in built.manifest.features] == ["slow", "quick"]

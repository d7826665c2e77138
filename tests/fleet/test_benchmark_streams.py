"""The streams that monitors are judged on are what they say they are."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SEED = 20260
SETTINGS = ("iid", "daily", "holidays", "all")


@pytest.fixture(scope="module")
def streams() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("benchmark_streams", FOLDER / "streams.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def correlation(a: Any, b: Any) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_quiet_number_has_mean_0_and_variance_1_over_the_year(streams: Any, name: str) -> None:
    """Every fifth hour of a year, two rows an hour, of 100 devices."""
    stream = streams.Stream(streams.SETTINGS[name], seed=SEED, devices=100, rows=2)
    sums, squares, count = np.zeros(20), np.zeros(20), 0
    for _ in range(365 * 24 // 5):
        rows = stream.next_hour().numbers.reshape(-1, 20)
        sums += rows.sum(axis=0, dtype=np.float64)
        squares += (rows.astype(np.float64) ** 2).sum(axis=0)
        count += len(rows)
        stream.skip(4)  # 5 and 24 share no factor: every hour of the day, every day of the week
    mean = sums / count
    print(f"seed {SEED}: means {np.abs(mean).max():.4f}")
    # Devices' own means: .05 / sqrt(100) each; AR(1) leaves some 18,000 independent rows.
    assert np.abs(mean).max() < 0.03
    assert np.abs(squares / count - mean**2 - 1).max() < 0.03


def test_rows_depend_on_the_row_before_as_the_setting_says(streams: Any) -> None:
    for name, expected in (("iid", 0.0), ("ar1", 0.9)):
        rows = streams.reference(streams.SETTINGS[name], seed=SEED, rows=6_000, devices=4).numbers
        for lag in (1, 60):  # within an hour, and from one hour to the next
            found = correlation(rows[:, :-lag, 0], rows[:, lag:, 0])
            assert abs(found - expected**lag) < 0.04, (name, lag, found)


def test_pairs_are_correlated_and_nothing_else_is(streams: Any) -> None:
    rows = streams.reference(streams.SETTINGS["iid"], seed=SEED, rows=30_000).numbers[0]
    found = np.corrcoef(rows.T)
    expected = np.eye(20)
    for even in range(0, 20, 2):
        expected[even, even + 1] = expected[even + 1, even] = streams.CORRELATION
    assert np.abs(found - expected).max() < 0.03


def test_the_cycle_returns_every_day_and_rests_on_free_days(streams: Any) -> None:
    def of_day(name: str, day: int) -> Any:
        rows = streams.reference(
            streams.SETTINGS[name], seed=SEED, rows=24 * 60, devices=60, hour=24 * day
        ).numbers
        return rows.mean(axis=0).reshape(24, 60, 20).mean(axis=1)

    cycle = of_day("daily", 1)
    assert np.abs(cycle - of_day("daily", 8)).max() < 0.1
    assert abs(np.ptp(cycle[:, 0]) - 2) < 0.15
    _, std = streams.moments(streams.SETTINGS["holidays"])
    work, free = of_day("holidays", 1), of_day("holidays", 6)
    assert abs(np.ptp(work[:, 0]) * std - 2) < 0.2
    assert abs(np.ptp(free[:, 0]) * std - 2 * streams.FREE_AMPLITUDE) < 0.2
    assert abs((work - free).mean() * std + streams.FREE_LEVEL) < 0.05
    assert [streams.is_free(day) for day in (1, 5, 365 + 119)] == [False, True, True]


def test_devices_keep_their_own_means(streams: Any) -> None:
    setting = streams.SETTINGS["devices"]
    mine = streams.reference(setting, seed=1, rows=2_000, devices=200).numbers.mean(axis=1)
    assert abs(mine.std() - np.hypot(setting.device_std, 1 / np.sqrt(2_000))) < 0.005
    stream = streams.Stream(setting, seed=2, fleet_seed=1, devices=200, rows=2_000)
    assert correlation(mine, stream.next_hour().numbers.mean(axis=1)) > 0.7


def test_a_category_has_its_shares(streams: Any) -> None:
    letters = streams.reference(streams.SETTINGS["ar1"], seed=SEED, rows=60_000).letters[0]
    shares = np.bincount(letters[:, 3], minlength=6) / len(letters)
    assert np.abs(shares - streams.SHARES).max() < 0.02


def test_the_same_seed_gives_the_same_rows_and_another_one_others(streams: Any) -> None:
    first, again, other = (
        streams.reference(streams.SETTINGS["all"], seed=seed, rows=120, devices=3).numbers
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.isclose(first, other).any(axis=1).all()


@pytest.mark.parametrize("at", range(7))
def test_a_fault_changes_its_own_feature_from_its_own_hour_on(streams: Any, at: int) -> None:
    fault = replace(streams.FAULTS[at], hour=2, devices=2)
    setting = streams.SETTINGS["all"]
    quiet = streams.Stream(setting, seed=SEED, devices=3, rows=200)
    faulty = streams.Stream(setting, seed=SEED, devices=3, rows=200, faults=[fault])
    for hour in range(5):
        was, now = quiet.next_hour(), faulty.next_hour()
        changed = (was.numbers != now.numbers).any(axis=1)
        words = (was.letters != now.letters).any(axis=1)
        expected = np.zeros_like(words if fault.kind == "category" else changed)
        if hour >= 2:
            expected[:2, fault.feature] = True
        assert np.array_equal(words if fault.kind == "category" else changed, expected)
        assert not (changed if fault.kind == "category" else words).any()


def test_faults_are_as_large_as_they_say(streams: Any) -> None:
    setting = streams.SETTINGS["iid"]
    for fault in streams.FAULTS:
        quiet = streams.Stream(setting, seed=SEED, devices=20, rows=2_000)
        faulty = streams.Stream(setting, seed=SEED, devices=20, rows=2_000, faults=[fault])
        was, now = quiet.next_hour(), faulty.next_hour()
        before, after = was.numbers[:, :, 1], now.numbers[:, :, 1]
        match fault.kind:
            case "shift":
                assert np.allclose(after - before, fault.size, atol=1e-5)
            case "scale":
                assert abs(after.std() - fault.size) < 0.02
            case "stuck":
                assert (np.ptp(after, axis=1) == 0).all()
            case "category":
                share = (now.letters[:, :, 1] == len(streams.WORDS)).mean()
                assert abs(share - fault.size) < 0.005
            case "correlation":
                assert abs(correlation(now.numbers[:, :, 0], after)) < 0.02
                assert abs(after.mean()) < 0.02 and abs(after.std() - 1) < 0.02

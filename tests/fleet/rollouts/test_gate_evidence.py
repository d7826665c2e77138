"""Evidence of two samples: exact against scipy, a promise at every look, and no odd device."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))

from edge_contract.telemetry import LATENCY_BUCKETS, latency_bucket
from edge_fleet.rollouts import comparing, slower
from edge_fleet.rollouts.tallies import Arms, Tally, over

ALPHA = 0.05


@pytest.mark.parametrize("mean", [0.02, 0.3, 0.9])
def test_the_worth_of_bets_is_1_in_the_mean_where_the_mean_is_what_they_bet_against(
    mean: float,
) -> None:
    """Over every count of 40 rows, by scipy's probabilities."""
    rows = 40
    wrong = np.arange(rows + 1)
    chance = stats.binom.pmf(wrong, rows, mean)
    for bet in (comparing.above, comparing.below):
        worth = np.array(
            [math.exp(float(bet(comparing.counted(n, rows), np.asarray(mean)))) for n in wrong]
        )
        assert chance @ worth == pytest.approx(1.0, abs=1e-9)
        assert stats.binom.pmf(wrong, rows, mean * 0.9) @ worth != pytest.approx(1.0, abs=1e-3)


def test_evidence_is_never_more_than_the_smallest_over_all_means_of_the_old_one(
    rng: np.random.Generator, seed: int
) -> None:
    for _ in range(6):
        new, old = comparing.outcomes(rng.beta(3, 5, 40)), comparing.outcomes(rng.beta(2, 6, 60))
        limit = float(rng.uniform(0, 0.1))
        found = comparing.worse(new, old, comparing.more_by(limit))
        means = np.linspace(0, 1, 5001)
        every = comparing.above(new, means + limit) + comparing.below(old, means)
        assert found <= every.min() + 1e-9, seed
        assert found >= every.min() - 3, seed


def looks(
    rng: np.random.Generator, new: float, old: float, limit: float = 0.0, of: int = 60
) -> int | None:
    """After how many looks, 40 rows of each arm apart, it is called worse; None: never."""
    wrong = np.cumsum(rng.binomial(40, [[new], [old]], (2, of)), axis=1)
    for look in range(0, of, 3):
        rows = 40 * (look + 1)
        arms = [comparing.counted(int(wrong[arm, look]), rows) for arm in (0, 1)]
        if comparing.worse(arms[0], arms[1], comparing.more_by(limit)) >= -math.log(ALPHA):
            return look
    return None


def test_two_like_arms_are_called_unlike_with_probability_alpha_at_most_over_all_looks(
    rng: np.random.Generator, seed: int
) -> None:
    runs = 25
    false = sum(looks(rng, share, share) is not None for share in (0.05, 0.4) for _ in range(runs))
    assert false <= stats.binom.ppf(1 - 1e-6, 2 * runs, ALPHA), (seed, false)


def test_a_worse_arm_is_found_and_one_within_the_limit_is_not(
    rng: np.random.Generator, seed: int
) -> None:
    found = [looks(rng, 0.25, 0.1) for _ in range(8)]
    assert None not in found, (seed, found)
    assert sum(looks(rng, 0.12, 0.1, limit=0.05) is not None for _ in range(8)) <= 3, seed


def test_the_interval_of_a_difference_is_wider_than_that_of_one_look_and_holds_the_difference(
    rng: np.random.Generator, seed: int
) -> None:
    outside = 0
    for _ in range(12):
        new, old = int(rng.binomial(800, 0.2)), int(rng.binomial(800, 0.1))
        low, high = comparing.interval(
            comparing.counted(new, 800), comparing.counted(old, 800), ALPHA
        )
        once = 1.96 * math.sqrt(0.2 * 0.8 / 800 + 0.1 * 0.9 / 800)
        assert low < (new - old) / 800 - once / 2 and (new - old) / 800 + once / 2 < high, seed
        outside += not low <= 0.1 <= high
    assert outside <= 4, seed


def test_two_arms_that_never_failed_are_shown_to_be_close() -> None:
    low, high = comparing.interval(comparing.counted(0, 400), comparing.counted(0, 600), ALPHA)
    assert -0.05 < low < 0 < high < 0.05
    low, high = comparing.interval(comparing.counted(400, 400), comparing.counted(0, 600), ALPHA)
    assert 0.9 < low < 1 and high == 1


def test_without_a_control_nothing_is_worse() -> None:
    all_wrong, nothing = comparing.counted(1000, 1000), comparing.outcomes([])
    assert comparing.worse(all_wrong, nothing, comparing.more_by(0.0)) <= 0
    assert comparing.interval(all_wrong, nothing, ALPHA) == (-1.0, 1.0)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        comparing.outcomes([0.5, 1.5])


# -- latency -----------------------------------------------------------------------------------


def window(rng: np.random.Generator, scale: float, calls: int = 50) -> np.ndarray:
    """One window of latencies around ``scale`` ms, slow and fast ones together."""
    moment = rng.lognormal(0, 0.15)
    taken_ms = scale * moment * rng.lognormal(0, 0.4, calls)
    return np.bincount(
        [latency_bucket(int(ms * 1e6)) for ms in taken_ms], minlength=LATENCY_BUCKETS
    )


def device(rng: np.random.Generator, scale: float, windows: int) -> Tally:
    return Tally(calls=np.stack([window(rng, scale) for _ in range(windows)]))


def arms(rng: np.random.Generator, scales: dict[str, float], factors: dict[str, float]) -> Arms:
    """Devices of their own speed, ``factors`` times as slow on the new version."""
    return Arms(
        new={d: device(rng, s * factors.get(d, 1.0), 20) for d, s in scales.items()},
        own={d: device(rng, s, 48) for d, s in scales.items()},
    )


def test_the_share_over_an_edge_is_that_of_the_calls_themselves(rng: np.random.Generator) -> None:
    taken_ns = (rng.lognormal(1, 1, 4000) * 1e6).astype(int)
    calls = np.bincount([latency_bucket(int(n)) for n in taken_ns], minlength=LATENCY_BUCKETS)
    edges_ns = 1000 * 2 ** (np.arange(1, LATENCY_BUCKETS) / 2)
    exact = (taken_ns[:, None] >= edges_ns).mean(axis=0)
    np.testing.assert_allclose(over(calls[None])[0], exact, atol=1e-3)
    lower = (taken_ns[:, None] >= edges_ns / 1.5).mean(axis=0)
    np.testing.assert_allclose(over(calls[None], 2 * math.log2(1.5))[0], lower, atol=0.02)


def test_a_version_that_takes_twice_as_long_is_found_and_one_as_fast_is_not(
    rng: np.random.Generator, seed: int
) -> None:
    scales = {"d1": 2.0}
    for factor, slow in ((1.0, False), (1.2, False), (2.5, True)):
        found = slower.slower(arms(rng, scales, dict.fromkeys(scales, factor)), 1.5)
        assert (found.log_e >= -math.log(0.01)) == slow, (seed, factor, found)
        assert found.ratio == pytest.approx(factor, rel=0.25), seed
        assert (found.windows, found.devices) == (20, 1)


def test_the_ratio_is_what_is_allowed(rng: np.random.Generator, seed: int) -> None:
    """1.4 times as long, on plenty of windows, is more than 1.1 times and less than 1.6 times."""
    made = Arms(new={"d1": device(rng, 1.4, 120)}, own={"d1": device(rng, 1.0, 240)})
    assert slower.slower(made, 1.6).log_e < math.log(100) < slower.slower(made, 1.1).log_e, seed


def test_devices_of_unlike_speed_are_compared_each_with_itself(
    rng: np.random.Generator, seed: int
) -> None:
    """Ten fast devices in the past, of which only the slow one has the version now."""
    scales = {f"d{i}": 1.0 for i in range(10)} | {"old-pi": 8.0}
    found = arms(rng, scales, {})
    only = Arms(new={"old-pi": found.new["old-pi"]}, own=found.own, others=found.own)
    assert slower.slower(only, 1.5).log_e < 0, seed


def test_one_odd_device_of_three_does_not_decide_and_two_do(
    rng: np.random.Generator, seed: int
) -> None:
    scales = {"d1": 2.0, "d2": 1.0, "d3": 4.0}
    one = slower.slower(arms(rng, scales, {"d1": 6.0}), 1.5)
    two = slower.slower(arms(rng, scales, {"d1": 6.0, "d2": 6.0}), 1.5)
    assert one.log_e < -math.log(0.01) <= two.log_e, (seed, one, two)


def test_a_device_without_a_past_is_compared_with_its_own_hardware(
    rng: np.random.Generator, seed: int
) -> None:
    others = {f"o{i}": device(rng, 2.0, 8) for i in range(6)}
    fast = {f"x{i}": device(rng, 0.2, 8) for i in range(6)}
    hw = dict.fromkeys(others, "pi4") | dict.fromkeys(fast, "x86") | {"new": "pi4", "odd": "riscv"}
    for factor, slow in ((1.0, False), (3.0, True)):
        made = Arms(
            new={"new": device(rng, 2.0 * factor, 20), "odd": device(rng, 9.0, 12)},
            others=others | fast, hw=hw,
        )  # fmt: skip
        found = slower.slower(made, 1.5)
        assert (found.log_e >= -math.log(0.01)) == slow, (seed, factor)
        assert found.windows == 20, "of the other there is nothing to compare with"


def test_calls_over_the_bundles_own_budget_are_found_without_any_past(
    rng: np.random.Generator, seed: int
) -> None:
    for scale, slow in ((1.0, False), (9.0, True)):
        made = Arms(new={"d1": device(rng, scale, 12)}, latency_budget_ms=8.0)
        assert (slower.slower(made, 1.5).log_e >= -math.log(0.01)) == slow, (seed, scale)


def test_memory_is_compared_with_the_same_device_and_with_the_budget() -> None:
    new = {"a": Tally(rss_mib=(100, 100)), "b": Tally(rss_mib=(160,)), "c": Tally(rss_mib=(90,)),
           "d": Tally()}  # fmt: skip
    own = dict.fromkeys("abcd", Tally(rss_mib=(100, 101, 99)))
    assert slower.heavier(Arms(new=new, own=own)) == (1, 3)
    assert slower.heavier(Arms(new={"b": Tally(rss_mib=(120,))}, own=own)) == (0, 1)
    tight = Arms(new={"b": Tally(rss_mib=(120,))}, own=own, ram_budget_bytes=10 * 2**20)
    assert slower.heavier(tight) == (1, 1)

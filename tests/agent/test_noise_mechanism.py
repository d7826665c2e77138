"""The mechanism: its distribution, its sensitivity, what it keeps, and that drift is still seen."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from msgspec.structs import replace
from scipy import stats

from edge_agent import noise
from edge_contract import bets
from edge_contract import profile as profiles
from edge_contract.profile import Monitor, Profile

DELTA = 1e-6


@pytest.fixture
def chance() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def number(values: np.ndarray, name: str = "x") -> Monitor:
    edges = tuple(np.unique(np.quantile(values, np.linspace(0, 1, 33))).tolist())
    empty = Monitor(name=name, kind="quantile", edges=edges, counts=(0,) * (len(edges) + 4))
    return replace(
        empty, counts=tuple(profiles.count_numbers(empty, values).tolist()), mean=0.0, std=1.0
    )


_REFERENCE = np.random.default_rng(3).normal(size=20_000)
COLOUR = Monitor(
    name="colour", kind="category", categories=("a", "b", "c", "d"),
    counts=(9000, 6000, 4900, 60, 20, 0, 20),
)  # fmt: skip
SCORE = Monitor(
    name="prediction", kind="score", source="output", edges=(0.0, 0.5, 0.75, 1.0), labels=3,
    counts=(5000, 3000, 2000, 4000, 3000, 2950, 20, 20, 10, 0),
)  # fmt: skip
PROFILE = Profile(
    rows=20_000,
    monitors=(*(number(_REFERENCE, f"x{i}") for i in range(18)), COLOUR, SCORE),
)


@pytest.mark.parametrize("spread", [Fraction(1, 2), Fraction(9), Fraction(827, 10)])
def test_the_noise_is_the_discrete_gaussian(chance: random.Random, spread: Fraction) -> None:
    """Chi-square against the definition, exp(-z^2 / 2 spread), cells of five or more expected."""
    drawn = np.array([noise.discrete_gaussian(spread, chance.randrange) for _ in range(20_000)])
    reach = math.ceil(8 * math.sqrt(spread)) + 3
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * float(spread)))
    expected = weights / weights.sum() * len(drawn)
    seen = np.bincount(drawn + reach, minlength=len(expected))
    own = expected >= 5
    seen = np.append(seen[own], seen[~own].sum())
    expected = np.append(expected[own], expected[~own].sum())
    if expected[-1] < 5:
        seen = np.append(seen[:-2], seen[-2:].sum())
        expected = np.append(expected[:-2], expected[-2:].sum())
    assert stats.chisquare(seen, expected).pvalue > 1e-6


def test_epsilon_and_rho_belong_together() -> None:
    for epsilon in (0.1, 1.0, 4.0, 30.0):
        rho = noise.rho_of(epsilon, DELTA)
        assert noise.epsilon_of(rho, DELTA) == pytest.approx(epsilon)


def test_one_row_moves_no_more_than_the_noise_covers(chance: random.Random) -> None:
    """Rho of a Gaussian is (distance / deviation)^2 / 2 (Bun and Steinke, proposition 1.6)."""
    rho = noise.rho_of(4.0, DELTA)
    rng = np.random.default_rng(chance.randrange(2**32))
    for _ in range(20):
        rows = [[int(rng.integers(m.cells)) for m in PROFILE.monitors] for _ in range(2)]
        square = 0
        for monitor, one, other in zip(PROFILE.monitors, *rows, strict=True):
            groups = noise.groups(monitor)
            assert sorted(cell for group in groups for cell in group) == list(range(monitor.cells))
            square += sum((one in group) != (other in group) for group in groups)
        assert square / (2 * float(noise.variance(PROFILE, rho))) <= rho * (1 + 1e-9)


def test_two_worlds_that_differ_in_one_row_cannot_be_told_apart(chance: random.Random) -> None:
    """The released count of a group, in both worlds: no event is exp(epsilon) times likelier."""
    monitor = replace(COLOUR, counts=(10, 10, 0, 0, 0, 0, 0))
    profile = Profile(rows=20, monitors=(monitor,))
    epsilon, rows, times = 1.0, 40, 3000
    rho = noise.rho_of(epsilon, DELTA)
    seen = []
    for first in (20, 21):
        counts = np.array([first, rows - first, 0, 0, 0, 0, 0])
        draws = [
            int(noise.noised(profile, counts, rows, rho, chance.randrange)[0]) for _ in range(times)
        ]
        seen.append(np.bincount(draws, minlength=rows + 1))
    often = (seen[0] > 50) & (seen[1] > 50)
    assert often.sum() >= 8
    ratio = np.log(seen[0][often] / seen[1][often])
    error = 5 * np.sqrt(1 / seen[0][often] + 1 / seen[1][often])
    assert (np.abs(ratio) <= epsilon + error).all()


def test_noisy_counts_keep_what_every_record_keeps(chance: random.Random) -> None:
    rng = np.random.default_rng(chance.randrange(2**32))
    for rows in (1, 5, 300, 10_000):
        counts = _window(rng, rows, 0.0)
        noisy = noise.noised(PROFILE, counts, rows, noise.rho_of(4.0, DELTA), chance.randrange)
        assert noisy.min() >= 0
        totals = np.add.reduceat(noisy, PROFILE.offsets())
        assert (totals == rows).all()
        assert (noisy != counts).any()


def _window(rng: np.random.Generator, rows: int, shift: float) -> np.ndarray:
    """Counts of quiet rows; the first feature moved by ``shift`` standard deviations."""
    parts = []
    for at, monitor in enumerate(PROFILE.monitors):
        if monitor.kind == "quantile":
            values = rng.normal(size=rows) + (shift if at == 0 else 0.0)
            parts.append(profiles.count_numbers(monitor, values))
        else:
            share = np.array(monitor.counts) / PROFILE.rows
            parts.append(rng.multinomial(rows, share))
    return np.concatenate(parts)


def _levels(log_m: np.ndarray, table: bets.MonitorTable, counts: np.ndarray, divide: float):
    return np.logaddexp(log_m, 0.0) + counts @ table.log_e / divide


def test_a_quarter_sigma_is_found_in_daily_windows_and_quiet_ones_stay_quiet(
    chance: random.Random,
) -> None:
    """20 monitors, epsilon 4 a day, a prediction a minute: found always, in days; no false alarm.

    Evidence is divided by the factor that the record tells; threshold as for 20,000 streams and
    one false alarm in 30 days.
    """
    rng = np.random.default_rng(chance.randrange(2**32))
    rho, rows = noise.rho_of(4.0, DELTA), 1440
    divide = noise.factor(PROFILE, rows, rho)
    assert 1 < divide < noise.FACTOR_MAX
    tables = [bets.monitor_table(monitor) for monitor in PROFILE.monitors]
    threshold = math.log(20_000 * 30)
    days_to_find, false_alarms = [], 0
    for _ in range(12):
        log_m = [np.full(len(table.entries), -60.0) for table in tables]
        found = 0
        for day in range(1, 31):
            noisy = noise.noised(PROFILE, _window(rng, rows, 0.25), rows, rho, chance.randrange)
            for at, (table, start) in enumerate(zip(tables, PROFILE.offsets(), strict=True)):
                own = noisy[start : start + table.monitor.cells]
                log_m[at] = _levels(log_m[at], table, own, divide)
                if np.log(np.exp(log_m[at]).mean()) >= threshold:
                    if at == 0:
                        found = found or day
                    else:
                        false_alarms += 1
            if found:
                break
        days_to_find.append(found)
    print("days", days_to_find)
    assert min(days_to_find) > 0
    assert np.median(days_to_find) <= 5
    assert false_alarms == 0


@pytest.mark.slow
def test_undivided_evidence_would_break_the_promise_and_divided_evidence_keeps_it(
    chance: random.Random,
) -> None:
    """The e-value of a quiet window has a mean of at most one, with the least rows that leave."""
    rng = np.random.default_rng(chance.randrange(2**32))
    rho = noise.rho_of(4.0, DELTA)
    rows = noise.rows_needed(PROFILE, rho)
    divide = noise.factor(PROFILE, rows, rho)
    assert divide == pytest.approx(noise.FACTOR_MAX, rel=0.02)
    tables = [bets.monitor_table(monitor) for monitor in PROFILE.monitors]
    worth: list[list[np.ndarray]] = [[], []]
    for _ in range(200):
        noisy = noise.noised(PROFILE, _window(rng, rows, 0.0), rows, rho, chance.randrange)
        for table, start in zip(tables, PROFILE.offsets(), strict=True):
            log_e = noisy[start : start + table.monitor.cells] @ table.log_e
            worth[0].append(np.exp(log_e).mean())
            worth[1].append(np.exp(log_e / divide).mean())
    plain, divided = np.array(worth[0]), np.array(worth[1])
    error = 4 * divided.std() / math.sqrt(len(divided))
    print("mean e-value", plain.mean(), divided.mean(), "+-", error)
    assert divided.mean() <= 1 + error
    assert plain.mean() > 1.5

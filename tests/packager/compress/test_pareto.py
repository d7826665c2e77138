"""The rules of the choice: noise, slowness, dominance and what each aim takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_pack.compress import pareto
from edge_pack.compress.modes import OPTIMIZE
from edge_pack.compress.pareto import Point, Timing

NOISE = {1: 0.05, 256: 0.05}


def _timing(one: list[float], many: list[float] | None = None) -> Timing:
    return Timing({1: one, 256: many or [100.0] * len(one)})


BASE = _timing([10, 11, 10, 12, 10])


def test_noise_is_twice_what_float32_differs_from_itself_and_never_nothing() -> None:
    again = _timing([11, 11, 11, 12, 10], [100, 120, 120, 100, 130])
    noise = pareto.noise_of(BASE, again)
    assert noise == {1: pytest.approx(pareto.NOISE_LEAST), 256: pytest.approx(0.4)}
    assert pareto.noise_of(BASE, BASE) == {1: pareto.NOISE_LEAST, 256: pareto.NOISE_LEAST}


@pytest.mark.parametrize(
    ("one", "batch"),
    [
        ([12, 13, 12, 14, 12], 1),  # in every round, beyond noise
        ([12, 13, 12, 14, 9], None),  # one round disagrees
        ([10.2, 11.2, 10.2, 12.2, 10.2], None),  # within noise
        ([5, 6, 5, 6, 5], None),
    ],
)
def test_slower_means_beyond_noise_and_in_every_round(one: Any, batch: int | None) -> None:
    assert pareto.slower_at(BASE, _timing(one), NOISE) == batch
    assert pareto.slower_at(BASE, _timing([10, 11, 10, 12, 10], [111.0] * 5), NOISE) == 256


def test_equal_candidates_are_hardly_ever_called_slower() -> None:
    """False alarms over 2,000 draws of timings with the spread of a busy machine."""
    seed = 7
    rng = np.random.default_rng(seed)

    def draw() -> Timing:
        return Timing({1: (10 * rng.lognormal(0, 0.05, 5)).tolist()})

    alarms = 0
    for _ in range(2000):
        base, again, equal = draw(), draw(), draw()
        noise = pareto.noise_of(base, again)
        alarms += pareto.slower_at(base, equal, noise) is not None
    assert alarms < 2000 / 32, f"seed {seed}: {alarms}"


def test_a_ratio_within_noise_is_one() -> None:
    assert pareto.ratios(BASE, _timing([10.3, 11.3, 10.3, 12.3, 10.3]), NOISE)[1] == 1.0
    assert pareto.ratios(BASE, _timing([5, 5.5, 5, 6, 5]), NOISE) == {1: 0.5, 256: 1.0}


def test_memory_within_pages_is_the_same() -> None:
    assert pareto.memory_ratio(10_000_000, 10_400_000) == 1.0
    assert pareto.memory_ratio(10_000_000, 5_000_000) == 0.5
    assert pareto.memory_ratio(300_000, 500_000) == 1.0
    assert pareto.memory_ratio(None, 5) == pareto.memory_ratio(5, None) == 1.0


POINTS = [
    Point("none", 1000, {1: 1.0, 256: 1.0}, 1.0),
    Point("int8-storage", 300, {1: 1.0, 256: 1.0}, 1.0),
    Point("int8-static", 330, {1: 0.5, 256: 0.3}, 0.8),
    Point("fp16-storage", 500, {1: 1.0, 256: 1.0}, 1.0),
    Point("trees-pruned", 900, {1: 0.9, 256: 0.9}, 0.3),
]


@pytest.mark.parametrize(
    ("aim", "taken"),
    [("size", "int8-storage"), ("latency", "int8-static"), ("memory", "trees-pruned"),
     ("balanced", "int8-static")],
)  # fmt: skip
def test_each_aim_takes_its_best(aim: Any, taken: str) -> None:
    assert pareto.choose(POINTS, aim).mode == taken


@pytest.mark.parametrize("aim", OPTIMIZE)
def test_a_tie_goes_to_the_smaller_and_then_to_the_plainer(aim: Any) -> None:
    twin = Point("twin", 1000, {1: 1.0, 256: 1.0}, 1.0)
    assert pareto.choose([POINTS[0], twin], aim).mode == "none"
    assert pareto.choose([POINTS[0], POINTS[1], POINTS[3]], aim).mode == "int8-storage"


def test_dominated_names_the_better_one_and_a_front_has_no_dominated() -> None:
    assert pareto.dominated(POINTS[0], POINTS[1:]) == "int8-storage"
    assert pareto.dominated(POINTS[3], POINTS[:3]) == "int8-storage"
    for point in POINTS[1:3]:
        assert pareto.dominated(point, [p for p in POINTS if p is not point]) == ""
    assert pareto.dominated(POINTS[0], [Point("twin", 1000, {1: 1.0, 256: 1.0}, 1.0)]) == ""

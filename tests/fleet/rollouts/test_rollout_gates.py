"""Looking every minute costs nothing, and what is worse is found; too few say nothing."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parent))

from rollout_world import MINUTE_MS, began, plant

from edge_fleet.rollouts import finding, gates, plan, standing
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.order import Gate, Gates, Order
from edge_fleet.rollouts.state import Rollout

ALPHA = 0.05


def order(**named: Gate) -> Order:
    gates_of = Gates(alpha=ALPHA, **named)
    return orders.made(
        fleet="home", model="pump", version="2.0", waves=orders.waves("2,100%"), bake_s=1e6,
        gates=gates_of,
    )  # fmt: skip


def stopped(rate: float, shown: float, rng: np.random.Generator, looks: int = 150) -> int | None:
    """After how many looks evidence stops a version that shows ``shown``."""
    wrong = rows = 0
    for look in range(looks):
        n = int(rng.integers(1, 40))
        wrong, rows = wrong + int(rng.binomial(n, shown)), rows + n
        if finding.log_evidence(rate, wrong, rows) >= -math.log(ALPHA):
            return look
    return None


def test_a_version_that_keeps_its_limit_is_stopped_with_probability_alpha_at_most(
    rng: np.random.Generator, seed: int
) -> None:
    runs = 120
    for rate in (0.01, 0.1, 0.4):
        false = sum(stopped(rate, rate, rng) is not None for _ in range(runs))
        assert false <= runs * ALPHA + 4 * math.sqrt(runs * ALPHA), (seed, rate, false)


def test_a_version_that_is_worse_is_stopped(rng: np.random.Generator, seed: int) -> None:
    for rate, shown in ((0.01, 0.05), (0.1, 0.2), (0.4, 0.6)):
        looks = [stopped(rate, shown, rng) for _ in range(50)]
        assert None not in looks, (seed, rate)
        assert np.median([look for look in looks if look is not None]) < 60, (seed, rate)


def test_the_former_versions_labels_fix_what_the_new_one_is_held_to(
    rng: np.random.Generator,
) -> None:
    world = plant(rng, 20)
    rollout = world.run(began(world, order(quality=Gate(limit=0.02))), 5)
    assert rollout.rate is None, "no labels yet: nothing to compare with, and no failure"
    world.facts = {"former_labels": 1000, "former_wrong": 100, "labels": 50, "wrong": 5}
    rollout = world.run(rollout, 3)
    assert rollout.rate is not None and 0.12 < rollout.rate < 0.16
    world.facts = {"former_labels": 9000, "former_wrong": 8000, "labels": 150, "wrong": 60}
    fixed = rollout.rate
    rollout = world.run(rollout, 2)
    assert rollout.rate == fixed, "what came later does not move it"
    assert (rollout.phase, rollout.reason[:7]) == ("halted", "quality")
    assert "60 of 150 labels say wrong" in rollout.reason


@pytest.mark.parametrize("name", ["errors", "quality", "failures", "silent", "drift"])
def test_a_sample_that_is_too_small_waits_and_past_its_deadline_fails(
    name: str, rng: np.random.Generator
) -> None:
    world = plant(rng, 20)
    slow = Gate(limit=0.5, least=1000, deadline_s=20 * 60)
    rollout = world.run(began(world, order(**{name: slow})), 20)
    assert (rollout.phase, rollout.wave, rollout.baking_ms) == ("running", 0, 0)
    rollout = world.run(rollout, 2)
    assert rollout.phase == "halted"
    assert "1000 are needed, 1200 s are over" in rollout.reason


@pytest.mark.parametrize(
    ("facts", "gate"),
    [
        ({"rows": 1000, "failed": 100}, "errors"),
        ({"alarms": 1}, "drift"),
        ({"digest": "b" * 64}, "failures"),
    ],
)
def test_each_gate_stops_the_wave_and_says_why(
    facts: dict[str, object], gate: str, rng: np.random.Generator
) -> None:
    world = plant(rng, 20)
    wanted = replace(order(), digest="a" * 64)
    for name in world.seen:
        world.seen[name] = replace(world.seen[name], digest="a" * 64)
    rollout = world.run(began(world, wanted), 5)
    assert rollout.phase == "running"
    if "rows" in facts:
        world.facts = facts  # type: ignore[assignment]
    else:
        for name in rollout.members:
            world.seen[name] = replace(world.seen[name], **facts)
    rollout = world.run(rollout, 2)
    assert rollout.phase == "halted"
    assert f"{gate}: " in rollout.reason
    assert len(rollout.members) == 2


def test_a_device_that_has_not_heard_the_wish_says_nothing_of_it(rng: np.random.Generator) -> None:
    """It still shows the version as refused, from an earlier time that it was tried."""
    world = plant(rng, 20)
    rollout: Rollout = began(world, order())
    for name in world.seen:
        world.seen[name] = replace(world.seen[name], refused=True, heeds=False)
    rollout, _ = plan.step(rollout, world.reports(), world.now_ms)
    rollout, _ = plan.step(rollout, world.reports(), world.now_ms + MINUTE_MS)
    assert rollout.phase == "running"


def test_evidence_stops_a_version_at_1_over_alpha_and_no_sooner(rng: np.random.Generator) -> None:
    world = plant(rng, 20)
    rollout = world.run(began(world, order()), 3)
    limit = rollout.order.gates.errors.limit or 0.0
    where = gates.standings(rollout, world.reports(), world.now_ms)
    said = []
    for failed in range(40):
        world.facts = {"rows": 1000, "failed": failed}
        (found,) = [
            one
            for one in gates.findings(rollout, world.reports(), where, world.now_ms)
            if one.gate == "errors"
        ]
        evidence = math.exp(finding.log_evidence(limit, failed, 1000))
        assert (found.verdict == "fails") == (evidence >= 1 / ALPHA)
        said.append(found.verdict)
    assert set(said) == {"holds", "fails"}


def test_nothing_is_asked_of_a_device_that_another_rollout_holds(rng: np.random.Generator) -> None:
    world = plant(rng, 20)
    rollout, effects = plan.step(began(world, order()), world.reports(), world.now_ms)
    first = effects[0].device
    _, left = plan.step(rollout, world.reports(taken=frozenset({first})), world.now_ms)
    assert {want.device for want in left} == {want.device for want in effects} - {first}


def test_a_rollout_without_devices_lets_no_gate_pass(rng: np.random.Generator) -> None:
    """What there is to count then is of devices that run the version by another's word."""
    world = plant(rng, 20)
    world.facts = {"rows": 12900, "failed": 0}
    held = {"d0000": 1}
    first = plan.start(2, replace(order(), queue=True), world.reports(), world.now_ms, held)
    assert (first.phase, first.members) == ("queued", {})
    shown = standing.of(first, world.reports(), world.now_ms).gates
    assert {one.state for one in shown} == {"waiting"}
    assert {one.said for one in shown} == {"no device was chosen for this rollout"}
    world.facts = {"rows": 12900, "failed": 12900}
    queued = standing.of(first, world.reports(), world.now_ms).gates
    assert {one.state for one in queued} == {"waiting"}, "and none fails"
    begun = began(world, order())
    shown = standing.of(begun, world.reports(), world.now_ms).gates
    assert [one.gate for one in shown if one.state == "failed"] == ["errors"], "as the planner says"


def test_a_wave_without_devices_passes_nothing_and_holds_nothing_up(
    rng: np.random.Generator,
) -> None:
    world = plant(rng, 20)
    rollout = world.run(began(world, order()), 3)
    later = replace(rollout, wave=1)
    where = gates.standings(later, world.reports(), world.now_ms)
    installed = gates.findings(later, world.reports(), where, world.now_ms)[0]
    assert installed.said.startswith("0 of 0 devices of the wave run the version")
    assert (installed.state, installed.verdict) == ("cannot judge", "holds")

"""A healthy version reaches everybody, a bad one stops with its canaries, whatever restarts."""

import datetime
import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parent))

from rollout_world import DAY_MS, MINUTE_MS, World, began, plant

from edge_contract.errors import InputFault
from edge_fleet.rollouts import choosing, plan, state, steering
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.order import Order

OVER = frozenset({"finished", "halted", "rolled-back", "waiting"})


def order(**values: object) -> Order:
    given = {"fleet": "home", "model": "pump", "version": "2.0", **values}
    waves = orders.waves(str(given.pop("waves", "1,5%,25%,100%")))
    return orders.made(waves=waves, **given)


def test_a_healthy_version_reaches_every_device_wave_by_wave(rng: np.random.Generator) -> None:
    world = plant(rng)
    rollout, sizes = began(world, order(bake_s=600.0)), []
    for _ in range(200):
        rollout = world.run(rollout, 1)
        sizes.append(len(world.holders()))
    assert rollout.phase == "finished", rollout.reason
    assert sorted(set(sizes)) == [1, 10, 50, 200]
    assert sizes.count(1) >= 10, "each wave is looked at for its bake time"
    assert len(world.asked) == 200, "each device is asked once"


def test_a_version_that_devices_refuse_stops_with_its_canaries(rng: np.random.Generator) -> None:
    world = plant(rng)
    world.bad = set(world.seen)
    rollout = world.run(began(world, order(waves="3,100%")), 50, OVER)
    assert rollout.phase == "halted"
    assert "3 of 3 devices refuse the version" in rollout.reason
    _, effects = plan.step(rollout, world.reports(), world.now_ms)
    world.do(effects)
    assert len({want.device for want in world.asked}) == 3
    assert not world.holders(), "who has not installed it is called back"
    assert plan.step(rollout, world.reports(), world.now_ms)[1] == ()


@pytest.mark.parametrize("policy", ["rollback", "rollback-all", "wait"])
def test_what_is_done_then_is_the_orders_policy(policy: str, rng: np.random.Generator) -> None:
    world = plant(rng)
    rollout = began(world, order(waves="2,50%,100%", policy=policy))
    while rollout.wave == 0:
        rollout = world.run(rollout, 1)
    first = set(rollout.members)
    world.bad = set(world.seen) - first
    rollout = world.run(rollout, 100, OVER)
    if policy == "wait":
        assert rollout.phase == "waiting"
        assert len(world.holders()) == 100
        going = steering.resume(rollout, world.reports(), world.now_ms)
        assert "failures" in going.forgiven
    else:
        assert rollout.phase == "rolled-back"
        assert world.holders() == (first if policy == "rollback" else set())


def test_silent_devices_count_as_failures_after_their_deadline(rng: np.random.Generator) -> None:
    world = plant(rng)
    rollout = world.run(began(world, order(waves="10,100%", bake_s=7200.0)), 1)
    world.dead = set(sorted(rollout.members)[:2])
    rollout = world.run(rollout, 29, OVER)
    assert rollout.phase == "running", "not before"
    rollout = world.run(rollout, 10, OVER)
    assert rollout.phase == "halted"
    assert "2 of 10 devices are silent" in rollout.reason


def test_a_device_that_is_away_for_weeks_holds_nobody_up_and_follows_when_it_is_back(
    rng: np.random.Generator,
) -> None:
    world = plant(rng, 20)
    world.dead = {"d0003"}
    world.now_ms += DAY_MS
    world.live()
    rollout = world.run(began(world, order()), 200, OVER)
    assert rollout.phase == "finished"
    assert len(world.holders()) == 19
    world.now_ms += 30 * DAY_MS
    world.dead = set()
    world.seen["new"] = replace(world.seen["d0001"], traits={"device": "new"}, active="1.0")
    world.words["new"] = "stable"
    world.live()
    rollout = world.run(rollout, 3)
    assert rollout.phase == "finished"
    assert world.holders() == set(world.seen), "the one that joined later as well"


def test_at_most_so_many_devices_of_a_site_are_under_way_at_once(rng: np.random.Generator) -> None:
    world = plant(rng)
    rollout = began(world, order(waves="100%", per_site=2))
    for _ in range(100):
        before = dict(world.words)
        rollout = world.run(rollout, 1)
        moved = [d for d, word in world.words.items() if before[d] != word]
        for site in ("lyon", "turin", "graz"):
            assert sum(world.seen[d].traits["site"] == site for d in moved) <= 2
    assert rollout.phase == "finished"


def test_devices_are_asked_in_their_own_nights() -> None:
    zones = {"a": "Asia/Tokyo", "b": "America/New_York", "c": "no/such zone", "d": "../../etc"}
    world = World({name: {"zone": zone} for name, zone in zones.items()})
    world.now_ms = BEGAN = 1_718_409_600_000  # 2024-06-15 00:00 UTC, 09:00 in Tokyo
    world.live(0)
    rollout = began(world, order(waves="100%", slot=orders.slot("22:00-04:00")))
    at: dict[str, int] = {}
    for _ in range(24 * 60):
        rollout = world.run(rollout, 1)
        for device in world.holders() - set(at):
            at[device] = (world.now_ms - BEGAN) // MINUTE_MS - 1
    assert at == {"c": 0, "d": 0, "b": 2 * 60, "a": 13 * 60}


def test_a_person_lets_each_wave_begin_where_that_was_ordered(rng: np.random.Generator) -> None:
    world = plant(rng)
    rollout = world.run(began(world, order(waves="1,100%", approve=True)), 50, OVER)
    assert (rollout.phase, len(world.holders())) == ("waiting", 1)
    rollout = steering.resume(rollout, world.reports(), world.now_ms)
    assert rollout.forgiven == ()
    rollout = world.run(rollout, 50, OVER)
    assert (rollout.phase, len(world.holders())) == ("finished", 200)


def test_pause_asks_nothing_more_and_abort_calls_back_what_is_under_way(
    rng: np.random.Generator,
) -> None:
    world = plant(rng)
    rollout, effects = plan.step(began(world, order(waves="4,100%")), world.reports(), world.now_ms)
    world.do(effects)
    slow = sorted(rollout.members)[0]
    world.dead = {slow}
    world.live()
    paused = steering.pause(rollout, world.now_ms)
    assert world.run(paused, 20).phase == "paused"
    assert len(world.holders()) == 4
    ended = world.run(steering.abort(paused, world.reports(), world.now_ms), 2)
    assert ended.phase == "aborted"
    assert world.holders() == set(rollout.members) - {slow}
    back = world.run(steering.roll_back(ended, world.now_ms), 5)
    assert (back.phase, world.holders()) == ("rolled-back", set())
    for word in (steering.pause, steering.roll_back):
        with pytest.raises(InputFault, match="it is rolled-back, expected"):
            word(back, world.now_ms)


def test_what_matches_nothing_and_what_overlaps_is_refused(rng: np.random.Generator) -> None:
    world = plant(rng)
    with pytest.raises(InputFault, match="matches none of 200 devices"):
        began(world, order(select="site=atlantis"))
    with pytest.raises(InputFault, match=r"holds 1 of the 200 .* as d0007: number 1"):
        plan.start(2, order(), world.reports(), world.now_ms, {"d0007": 1})


def test_a_planner_cut_off_at_any_effect_loses_and_doubles_nothing(
    rng: np.random.Generator, seed: int
) -> None:
    """Kept state, and any part of its effects done before the power went."""
    world = plant(rng, 60)
    rollout = state.encode(began(world, order(bake_s=120.0)))
    for _ in range(300):
        after, effects = plan.step(state.decode(rollout), world.reports(), world.now_ms)
        if rng.random() < 0.3:
            continue  # cut before it was kept
        rollout = state.encode(after)
        world.do(effects[: int(rng.integers(0, len(effects) + 1))])
        world.live()
    after = state.decode(rollout)
    assert after.phase == "finished", (seed, after.reason)
    assert world.holders() == set(world.seen)
    assert len(world.asked) == 60


@pytest.mark.parametrize("trouble", [0.0, 0.01, 0.5, 1.0])
def test_whatever_devices_do_no_wave_begins_before_the_one_before_it_held(
    trouble: float, rng: np.random.Generator, seed: int
) -> None:
    world = plant(rng, 100)
    names = sorted(world.seen)
    world.bad = {name for name in names if rng.random() < trouble}
    rollout = began(world, order(waves="2,10%,100%", bake_s=300.0))
    for _ in range(120):
        world.dead = {name for name in names if rng.random() < 0.02}
        before = rollout
        rollout = world.run(rollout, 1)
        if rollout.wave > before.wave:
            installed = [d for d in before.members if world.seen[d].active == "2.0"]
            assert len(installed) >= 0.9 * len(before.members), seed
        assert len(rollout.members) <= (2, 10, 100)[rollout.wave], seed
    if trouble == 1.0:
        assert rollout.phase == "halted"
        assert len({want.device for want in world.asked}) == 2


def test_devices_that_cannot_run_a_version_are_named_and_never_asked(
    rng: np.random.Generator,
) -> None:
    world = plant(rng, 20)
    old = sorted(world.seen)[:5]
    for name in old:
        world.seen[name] = replace(world.seen[name], onnxruntime="1.16.3")
    world.seen["d0007"] = replace(world.seen["d0007"], ram_bytes=1000)
    needs = orders.Needs(onnxruntime="1.17", ram_bytes=2000)
    rollout = began(world, order(waves="100%", needs=needs))
    assert "6 cannot run it: d0000 needs onnxruntime 1.17, has 1.16.3" in rollout.reason
    rollout = world.run(rollout, 20, OVER)
    assert rollout.phase == "finished", rollout.reason
    assert world.holders() == set(world.seen) - {*old, "d0007"}
    world.seen["d0000"] = replace(world.seen["d0000"], onnxruntime="1.17.1")
    world.run(rollout, 3)
    assert "d0000" in world.holders(), "once it can, it follows"
    for name, seen in world.seen.items():
        world.seen[name] = replace(seen, onnxruntime="1.2")
    with pytest.raises(InputFault, match=r"none of the 20 selected devices can run pump 2.0: 20"):
        began(world, order(needs=needs))


@pytest.mark.parametrize("phase", ["paused", "waiting"])
@pytest.mark.parametrize("policy", ["halt", "rollback", "wait"])
def test_a_rollout_that_waits_is_watched_and_does_what_was_ordered(
    phase: str, policy: str, rng: np.random.Generator
) -> None:
    world = plant(rng, 40)
    by_hand = {"bake_s": 9e5} if phase == "paused" else {"approve": True}
    rollout = world.run(began(world, order(waves="10,100%", policy=policy, **by_hand)), 10, OVER)
    if phase == "paused":
        rollout = steering.pause(rollout, world.now_ms)
    rollout = world.run(rollout, 10)
    assert (rollout.phase, len(world.holders())) == (phase, 10)
    world.facts = {"rows": 1000, "failed": 500}
    rollout = world.run(rollout, 10)
    assert rollout.phase == {"halt": "halted", "rollback": "rolled-back", "wait": "waiting"}[policy]
    assert sum("rows failed" in note.said for note in rollout.notes) == 1, "noted once"


def test_a_pause_costs_no_sample_its_deadline(rng: np.random.Generator) -> None:
    world = plant(rng, 20)
    gates = orders.Gates(errors=orders.Gate(limit=0.01, least=100, deadline_s=3600))
    rollout = world.run(began(world, order(waves="100%", gates=gates)), 5)
    rollout = world.run(steering.pause(rollout, world.now_ms), 200)
    assert rollout.phase == "paused", rollout.reason
    rollout = world.run(steering.resume(rollout, world.reports(), world.now_ms), 50)
    assert rollout.phase == "running", rollout.reason
    rollout = world.run(rollout, 20, OVER)
    assert rollout.phase == "halted"
    assert "a sample of 0, 100 are needed, 3600 s are over" in rollout.reason


def test_devices_are_given_back_to_their_channel_once_that_has_the_version(
    rng: np.random.Generator,
) -> None:
    world = plant(rng, 10)
    rollout = world.run(began(world, order(waves="100%", then="channel")), 10)
    assert (rollout.phase, len(world.holders())) == ("finished", 10)
    with pytest.raises(InputFault, match=r"no channel names pump 2.0 as its stable version"):
        steering.release(rollout, world.reports(promoted=False), world.now_ms)
    kept, effects = plan.step(rollout, world.reports(promoted=False), world.now_ms)
    assert (kept.phase, effects) == ("finished", ())
    released, effects = plan.step(rollout, world.reports(promoted=True), world.now_ms)
    assert released.phase == "released"
    world.do(effects)
    assert set(world.words.values()) == {"stable"}
    assert plan.step(released, world.reports(), world.now_ms)[1] == ()
    stays = world.run(began(world, order(waves="100%")), 10)
    assert plan.step(stays, world.reports(promoted=True), world.now_ms)[0].phase == "finished"
    by_hand = steering.release(stays, world.reports(promoted=True), world.now_ms)
    assert by_hand.phase == "released"
    with pytest.raises(InputFault, match="it is released, expected"):
        steering.roll_back(by_hand, world.now_ms)


@pytest.mark.parametrize(
    ("zone", "day", "opens"),
    [
        ("Europe/Paris", "2024-03-31", "2024-03-31T00:30+00:00"),  # 01:30; at 02:00 it is 03:00
        ("Europe/Paris", "2024-10-27", "2024-10-26T23:30+00:00"),  # 01:30 of summer time
        ("America/New_York", "2024-03-10", "2024-03-10T06:30+00:00"),
        ("", "2024-03-31", "2024-03-31T01:30+00:00"),
    ],
)
def test_a_slot_is_of_the_devices_own_clock_on_days_that_are_23_or_25_hours_long(
    zone: str, day: str, opens: str
) -> None:
    """By the zone's own table of 2024, not by ours."""
    slot = orders.slot("01:30-03:30")
    begin = int(datetime.datetime.fromisoformat(f"{day}T00:00+00:00").timestamp()) - 12 * 3600
    minutes = [
        minute
        for minute in range(begin, begin + 36 * 3600, 60)
        if choosing.in_slot(slot, zone, 1000 * minute)
    ]
    first = datetime.datetime.fromisoformat(opens).timestamp()
    at = [minute for minute in minutes if minute >= first - 6 * 3600]
    assert at[0] == first
    hours = {"2024-03-31": 1, "2024-03-10": 1, "2024-10-27": 3}[day] if zone else 2
    assert len([m for m in at if m < first + 12 * 3600]) == 60 * hours


def test_each_device_waits_by_its_own_lot_and_all_of_them_within_the_spread(
    rng: np.random.Generator,
) -> None:
    world = plant(rng, 200)
    rollout = began(world, order(waves="100%", spread_s=3600.0))
    sizes = []
    for _ in range(61):
        rollout = world.run(rollout, 1)
        sizes.append(len(world.holders()))
    assert sizes[-1] == 200
    steps = np.diff([0, *sizes])
    assert steps.max() <= 15, "about 3.3 a minute, drawn by a hash"
    uniform = np.abs(np.array(sizes) / 200 - np.arange(61) / 60).max()
    assert uniform < 1.95 / np.sqrt(200) + 1 / 60, "Kolmogorov and Smirnov at 1 in 1000"

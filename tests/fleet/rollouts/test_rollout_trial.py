"""A candidate beside the live version first: a good one goes on, another never gets to a wave."""

import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parent))

from rollout_world import World, began, plant

from edge_contract import messages
from edge_contract.errors import InputFault
from edge_contract.messages import Beside, Desired
from edge_contract.telemetry import LATENCY_BUCKETS
from edge_contract.typed import convert
from edge_fleet.rollouts import facts, plan, runner, standing, steering, trying
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.order import Gates, Order, Shadowed, Trying, Wave
from edge_fleet.rollouts.state import Reports, Rollout, Want
from edge_fleet.rollouts.tallies import Arms, ShadowTally, Tally
from edge_fleet.store.rollouts import Wish

BESIDE = Beside(version="2.0", share=0.5)


def order(*, answers: bool = False, **values: object) -> Order:
    trial = Trying(share=0.5, answers=answers, on=Wave(devices=4))
    return orders.made(**{
        "fleet": "home", "model": "pump", "version": "2.0", "waves": orders.waves("2,100%"),
        "trial": trial, **values,
    })  # fmt: skip


class Shown(World):
    """Each device that runs a candidate beside the live version sends so many rows a minute."""

    differ, fail, latency_steps = 0.01, 0.0, 0
    beside: dict[str, Beside]
    tallies: dict[str, ShadowTally]
    both: dict[str, tuple[Tally, Tally]]

    def begin(self, rng: np.random.Generator) -> None:
        self.rng, self.beside, self.tallies, self.both = rng, {}, {}, {}

    def reports(self, **more: object) -> Reports:
        found = super().reports(**more)
        devices = {d: replace(s, beside=self.beside.get(d)) for d, s in found.devices.items()}
        arms = Arms(new={d: b[0] for d, b in self.both.items()},
                    own={d: b[1] for d, b in self.both.items()})  # fmt: skip
        return replace(found, devices=devices, shadows=self.tallies, arms=arms)

    def do(self, effects: tuple[Want, ...]) -> None:
        super().do(tuple(want for want in effects if want.word))
        for want in effects:
            if isinstance(want.beside, Beside):
                self.beside[want.device] = want.beside
            elif want.beside is None:
                del self.beside[want.device]

    def live(self, minutes: int = 1) -> None:
        super().live(minutes)
        for device, beside in self.beside.items():
            if device in self.dead:
                continue
            if beside.answers:
                old, new = self.both.get(device, (Tally(), Tally()))[::-1]
                self.both[device] = (
                    Tally(rows=new.rows + 40, failed=new.failed + self.rng.binomial(40, self.fail)),
                    Tally(rows=old.rows + 40),
                )
                continue
            differ, fail = self.rng.binomial(40, [self.differ, self.fail])
            calls = np.zeros((1, LATENCY_BUCKETS), dtype=np.int64)
            calls[0, 20] = 40
            one = ShadowTally(
                rows=40 - fail, failed=int(fail), agreed=int(40 - fail - min(differ, 40 - fail)),
                differed=int(min(differ, 40 - fail)), calls=np.roll(calls, self.latency_steps, 1),
                live_calls=calls,
            )  # fmt: skip
            self.tallies[device] = trying.together([self.tallies.get(device, ShadowTally()), one])


@pytest.fixture
def world(rng: np.random.Generator) -> Shown:
    made = Shown({d: s.traits for d, s in plant(rng, 30).seen.items()})
    made.begin(rng)
    return made


def test_a_candidate_that_agrees_goes_on_to_the_first_wave_and_is_then_taken_from_beside(
    world: Shown, seed: int
) -> None:
    rollout = world.run(began(world, order(bake_s=300)), 2)
    assert rollout.members == {} and world.holders() == set(), "nobody follows it yet"
    assert set(world.beside.values()) == {BESIDE} and len(world.beside) == 4
    rollout = world.run(rollout, 60, frozenset({"finished", "halted"}))
    assert rollout.phase == "finished", (seed, rollout.reason)
    assert any("holds beside the live version on 4 devices" in n.said for n in rollout.notes)
    assert world.beside == {} and len(world.holders()) == 30


def test_a_pause_costs_no_candidate_the_deadline_of_its_sample(world: Shown) -> None:
    gates = Gates(agreement=orders.Gate(limit=0.1, least=10**9, deadline_s=3600))
    rollout = world.run(began(world, order(gates=gates)), 5)
    rollout = world.run(steering.pause(rollout, world.now_ms), 200)
    assert rollout.phase == "paused", rollout.reason
    rollout = world.run(steering.resume(rollout, world.reports(), world.now_ms), 50)
    assert rollout.phase == "running", rollout.reason
    rollout = world.run(rollout, 20, frozenset({"finished", "halted"}))
    assert rollout.phase == "halted"
    assert "3600 s are over" in rollout.reason, rollout.reason


@pytest.mark.parametrize(
    ("values", "gate"),
    [
        ({"differ": 0.3}, "agreement"),
        ({"fail": 0.3}, "shadow_failures"),
        ({"latency_steps": 6}, "shadow_latency"),
    ],
)
def test_one_that_is_otherwise_is_halted_before_any_wave(
    world: Shown, values: dict[str, float], gate: str, seed: int
) -> None:
    vars(world).update(values)
    rollout = world.run(began(world, order(bake_s=7200)), 100, frozenset({"halted"}))
    assert rollout.phase == "halted", (seed, rollout)
    assert gate in rollout.reason, seed
    assert (rollout.members, world.beside, world.holders()) == ({}, {}, set())


def test_one_that_is_neither_shown_to_agree_nor_not_waits_and_fails_at_its_deadline(
    world: Shown, seed: int
) -> None:
    world.differ = 0.05  # the limit itself
    gates = Gates(alpha=1e-6, agreement=Shadowed(limit=0.05, least=0, deadline_s=1800))
    rollout = world.run(began(world, order(gates=gates)), 30)
    assert (rollout.phase, rollout.members) == ("running", {}), seed
    rollout = world.run(rollout, 3)
    assert rollout.phase == "halted", seed
    assert "not shown within 1800 s" in rollout.reason


def test_devices_that_show_nothing_let_nobody_on(world: Shown) -> None:
    world.dead = set(world.seen)
    rollout = world.run(began(world, order()), 200)
    assert (rollout.phase, rollout.members) == ("running", {})
    for name in world.seen:
        world.seen[name] = replace(world.seen[name], ended=True)
    rollout = world.run(rollout, 1)
    assert rollout.phase == "halted"
    assert "4 of 4 devices ended the candidate" in rollout.reason


@pytest.mark.parametrize(("fail", "end"), [(0.0, "finished"), (0.2, "halted")])
def test_a_candidate_that_answers_a_share_is_compared_with_the_live_one_on_the_same_devices(
    world: Shown, fail: float, end: str, seed: int
) -> None:
    world.fail = fail
    rollout = began(world, order(answers=True))
    rollout = world.run(rollout, 2)
    assert {one.answers for one in world.beside.values()} == {True}
    gates = standing.of(rollout, world.reports(), world.now_ms).gates
    errors = next(one for one in gates if one.gate == "errors")
    assert errors.interval is not None and errors.interval[0] <= fail <= errors.interval[1], seed
    assert "of the live version; the difference is" in errors.said
    rollout = world.run(rollout, 60, frozenset({"finished", "halted"}))
    assert rollout.phase == end, (seed, rollout.reason)


def test_a_person_who_aborts_or_resumes_decides(world: Shown) -> None:
    world.differ = 0.5
    rollout = world.run(began(world, order(policy="wait")), 30, frozenset({"waiting"}))
    assert rollout.phase == "waiting"
    gone = steering.abort(rollout, world.reports(), world.now_ms)
    assert {want.beside for want in plan.effects(gone, world.reports())} == {None}
    went = steering.resume(rollout, world.reports(), world.now_ms)
    assert "agreement" in went.forgiven
    went = world.run(went, 60, frozenset({"finished"}))
    assert went.phase == "finished"


def test_a_wish_keeps_what_runs_beside_other_models_and_what_a_device_follows() -> None:
    former = Desired(revision=3, models={"fan": "1.0"}, beside={"fan": Beside(version="1.1")})
    wish = Wish("d1", 3, 0, messages.encode(former))
    wish = runner.wished(wish, Want("d1", "pump", "", BESIDE), 0, 1)
    said = facts.desired_of(wish)
    assert said.models == {"fan": "1.0"} and facts.beside_of(wish, "pump") == BESIDE
    wish = runner.wished(wish, Want("d1", "pump", "2.0"), 0, 2)
    assert facts.beside_of(wish, "pump") == BESIDE, "what is not said stays"
    wish = runner.wished(wish, Want("d1", "pump", "", None), 0, 3)
    said = facts.desired_of(wish)
    assert (said.revision, said.models) == (6, {"fan": "1.0", "pump": "2.0"})
    assert set(said.beside) == {"fan"}


def test_an_older_rollout_leaves_what_a_newer_one_runs_beside_alone(world: Shown) -> None:
    older = world.run(began(world, order()), 2)
    older = steering.abort(older, world.reports(), world.now_ms)
    newer = replace(world.run(began(world, order()), 2), id=2)
    assert newer.trial is not None
    held = facts.taken(older, [older, newer])
    assert set(newer.trial.devices) <= held
    assert plan.effects(older, world.reports(taken=held)) == ()


def test_an_order_says_how_a_candidate_is_tried_and_each_mistake_is_named() -> None:
    file = convert(
        {"version": "pump@2.0", "shadow": "10%", "on": "5",
         "gates": {"latency": {"limit": 1.2, "least": 6}}},
        orders.File,
    )  # fmt: skip
    made = orders.made(**{"fleet": "home", **orders.given(file), "gates": file.gates})
    assert made.trial == Trying(share=0.1, on=Wave(devices=5))
    assert (made.gates.latency.limit, made.gates.latency.least) == (1.2, 6)
    split = orders.given(orders.texts(ab="20%"))["trial"]
    assert split == Trying(share=0.2, answers=True, on=Wave(share=0.1))
    for words, fault in (
        ({"shadow": "10%", "ab": "10%"}, "one of the two"),
        ({"on": "5"}, "one of the two"),
        ({"shadow": "5"}, "no share"),
    ):
        with pytest.raises(InputFault, match=fault):
            orders.given(orders.texts(**words))
    found = orders.with_limits(made.gates, ["latency=2", "drift=off"])
    assert (found.latency.limit, found.latency.least, found.drift.limit) == (2.0, 6, None)
    for text, fault in (("speed=2", "names no gate"), ("alpha=0.1", "names no gate"),
                        ("latency", "names no gate"), ("latency=0.5", "latency=0.5"),
                        ("drift=nan", "drift=nan"), ("errors=x", "errors=x")):  # fmt: skip
        with pytest.raises(InputFault, match=fault):
            orders.with_limits(made.gates, [text])


def test_a_rollout_that_was_kept_before_there_were_trials_reads_as_one_without() -> None:
    import msgspec

    from edge_fleet.rollouts import state

    old = orders.made(fleet="home", model="pump", version="2.0")
    fields = msgspec.to_builtins(Rollout(id=1, order=old, started_ms=1, since_ms=1))
    del fields["trial"], fields["order"]["trial"]
    for name in ("latency", "memory", "scores", "estimate", "agreement", "shadow_failures"):
        del fields["order"]["gates"][name]
    found = state.decode(msgspec.msgpack.encode(fields))
    assert found.trial is None and found.order.gates == Gates()

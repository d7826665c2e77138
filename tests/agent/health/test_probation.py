"""A proven version that ends the agent again and again is proven again, elsewhere."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from edge_agent import state as states
from edge_agent.steps import (
    Answer,
    Answering,
    Damaged,
    Evidence,
    LoadFailed,
    Phase,
    Rules,
    SelfTest,
    SelfTestFailed,
    SelfTestPassed,
    Started,
    State,
    Steady,
    Stopping,
    Tell,
    TrialRules,
    Wanted,
)
from edge_agent.update import LIVES_MAX, step
from edge_contract import messages

RULES = Rules(attempts_max=3, trial=TrialRules(requests=10, seconds=60))
V1, V2, V3 = (messages.release("pump", v, d * 64) for v, d in (("1", "b"), ("2", "c"), ("3", "d")))
REST = State(phase=Phase.COMMITTED, wanted=V2, active=V2, previous=V1)


def starts(state: State, count: int) -> State:
    """So many starts that come to no answer."""
    for _ in range(count):
        state, _ = step(state, Started(), RULES)
        assert states.decode(states.encode(state)) == state
    return state


def on_probation(before: State = REST) -> State:
    state = starts(before, 4)
    assert (state.phase, state.candidate, state.probation) == (Phase.SELF_TESTING, V2, True)
    return state


@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.TRIAL])
def test_each_start_is_counted_and_an_answer_ends_the_count(phase: Phase) -> None:
    resting = phase in (Phase.IDLE, Phase.COMMITTED)
    begun = replace(REST, phase=phase, candidate=None if resting else V3)
    state = starts(begun, 2)
    assert state.loads == 2
    state, _ = step(state, Answering(V1.sha256), RULES)
    assert state.loads == 2  # another one
    state, _ = step(state, Answering(V2.sha256), RULES)
    assert state.loads == 0


def test_a_stop_in_order_is_held_against_nobody() -> None:
    state = REST
    for _ in range(10):
        state = starts(state, 1)
        state, _ = step(state, Stopping(), RULES)
        assert state == REST


def test_after_three_the_version_before_it_answers_while_it_is_tested() -> None:
    state, effects = step(starts(REST, 3), Started(), RULES)
    assert (state.active, state.candidate, state.previous) == (V1, V2, None)
    assert [e for e in effects if not isinstance(e, Tell)] == [Answer(V1), SelfTest(V2)]
    assert "the agent ended 3 times while it loaded 2" in state.reason


def test_one_that_is_sound_is_committed_again() -> None:
    """As after a power supply that failed at each start."""
    state = on_probation()
    state, effects = step(state, SelfTestPassed(V2.sha256, "golden"), RULES)
    assert state.phase is Phase.TRIAL
    assert Answer(V2) in effects
    state, _ = step(state, Evidence(V2.sha256, 10, 0, 1.0), RULES)
    assert (state.phase, state.active, state.previous) == (Phase.COMMITTED, V2, V1)
    assert not state.probation
    assert state.quarantine == ()


def test_one_that_is_not_is_condemned_and_the_one_before_it_stays() -> None:
    state, _ = step(on_probation(), SelfTestFailed(V2.sha256, "SIGSEGV"), RULES)
    assert (state.phase, state.active) == (Phase.IDLE, V1)
    assert state.quarantined(V2)
    assert not state.probation
    assert step(state, Wanted(V2), RULES)[0].phase is Phase.IDLE


def test_one_that_ends_the_agent_in_its_trial_too_is_condemned() -> None:
    state, _ = step(on_probation(), SelfTestPassed(V2.sha256, "golden"), RULES)
    state = starts(state, 3)
    assert state.phase is Phase.ROLLING_BACK
    state, _ = step(state, Answering(V1.sha256), RULES)
    assert (state.active, state.phase) == (V1, Phase.IDLE)
    assert state.quarantined(V2)


@pytest.mark.parametrize("wanted", [None, V1, V3])
def test_what_is_wanted_waits_until_the_proof_is_over(wanted: messages.Release | None) -> None:
    """It may be all that this device has: it is not thrown away unproven."""
    state, effects = step(on_probation(), Wanted(wanted, 5), RULES)
    assert (state.phase, state.candidate, effects) == (Phase.SELF_TESTING, V2, ())
    state, _ = step(state, SelfTestPassed(V2.sha256, "golden"), RULES)
    state, _ = step(state, Evidence(V2.sha256, 10, 0, 1.0), RULES)
    assert state.active == V2
    assert state.candidate == wanted


def test_without_another_version_nothing_of_it_answers_until_it_is_proven() -> None:
    state = on_probation(replace(REST, previous=None))
    assert (state.active, state.loads) == (None, 0)
    failed, effects = step(state, SelfTestFailed(V2.sha256, "SIGSEGV"), RULES)
    assert (failed.phase, failed.active) == (Phase.IDLE, None)
    _, effects = step(state, SelfTestPassed(V2.sha256, "golden"), RULES)
    assert Answer(V2) in effects


def test_a_damaged_slot_on_probation_is_dropped_and_what_is_wanted_is_fetched() -> None:
    state, _ = step(on_probation(), Damaged(V2.sha256), RULES)
    assert (state.active, state.candidate, state.probation) == (V1, V2, False)
    assert state.phase is Phase.FETCHING


def test_when_the_one_before_it_kills_the_agent_too_both_are_found_out() -> None:
    state = starts(on_probation(), 3)
    assert (state.phase, state.candidate) == (Phase.SELF_TESTING, V1)
    assert state.active is None
    state, _ = step(state, SelfTestFailed(V1.sha256, "SIGSEGV"), RULES)
    assert state.quarantined(V1)
    assert state.candidate == V2  # still wanted, not condemned: fetched and tested


def test_no_version_below_the_floor_is_returned_to() -> None:
    raised, _ = step(REST, Wanted(V2, 1, floor="2"), RULES)
    assert (raised.floor, raised.previous) == ("2", None)
    fallen, effects = step(raised, Damaged(V2.sha256), RULES)
    assert fallen.active is None
    assert Answer(V1) not in effects
    on_trial = State(phase=Phase.TRIAL, wanted=V3, floor="3", active=V2, candidate=V3, attempts=1)
    state, _ = step(on_trial, Evidence(V3.sha256, 10, 0, 1.0), RULES)
    assert (state.active, state.previous) == (V3, None)


def test_a_version_that_no_longer_loads_leaves_its_place_to_the_factory() -> None:
    alone = replace(REST, previous=None)
    state, effects = step(alone, LoadFailed(V2.sha256, "no memory"), RULES)
    assert Answer(None) in effects
    assert state.active == V2


# -- it loads well, and ends the agent later ------------------------------------------------------


def lives(state: State, count: int, kernel: str = "this boot") -> State:
    """So many processes in which it answers, and that die."""
    for _ in range(count):
        state, _ = step(state, Started(kernel), RULES)
        assert states.decode(states.encode(state)) == state
        if state.active:
            state, _ = step(state, Answering(state.active.sha256), RULES)
    return state


def test_processes_that_die_while_it_answers_put_it_on_probation() -> None:
    state = lives(REST, LIVES_MAX)
    assert (state.phase, state.lives) == (Phase.COMMITTED, LIVES_MAX)
    state, effects = step(state, Started("this boot"), RULES)
    assert (state.active, state.candidate, state.probation) == (V1, V2, True)
    assert [e for e in effects if not isinstance(e, Tell)] == [Answer(V1), SelfTest(V2)]
    assert "the agent died 5 times in a row while 2 answered" in state.reason
    tried, _ = step(state, SelfTestPassed(V2.sha256, "golden"), RULES)
    state, _ = step(tried, Evidence(V2.sha256, 10, 0, 1.0), RULES)
    assert (state.phase, state.active, state.previous, state.lives) == (Phase.COMMITTED, V2, V1, 0)
    state = starts(tried, 3)
    assert (state.phase, bool(state.quarantined(V2))) == (Phase.ROLLING_BACK, True)


@pytest.mark.parametrize("excuse", ["power", "unknown", "steady", "stop", "alone"])
def test_an_end_that_may_be_something_else_is_not_counted(excuse: str) -> None:
    """A new run of the kernel, a process that lived for long, a stop, nothing to go back to."""
    state = replace(REST, previous=None if excuse == "alone" else V1)
    for n in range(3 * LIVES_MAX):
        kernel = {"power": f"boot {n}", "unknown": ""}.get(excuse, "this boot")
        state = lives(state, 1, kernel)
        if excuse == "steady":
            state, _ = step(state, Steady(), RULES)
        if excuse == "stop":
            state, _ = step(state, Stopping(), RULES)
        assert (state.phase, state.active) == (Phase.COMMITTED, V2)


@pytest.mark.parametrize("seed", range(50))
def test_whatever_ends_the_agent_when_no_version_is_tried_for_ever(seed: int) -> None:
    """Versions that kill any process which loads them: the starts that die are bounded."""
    import random

    rng = random.Random(seed)
    print("seed", seed)
    deadly = {r.sha256 for r in (V1, V2) if rng.random() < 0.6}
    state = replace(REST, previous=V1 if rng.random() < 0.7 else None)
    for starts_made in itertools.count(1):
        assert starts_made < 40, state
        state, effects = step(state, Started(), RULES)
        dead = False
        waiting = list(effects)
        while waiting and not dead:
            match waiting.pop(0):
                case Answer(release) if release and release.sha256 in deadly:
                    dead = True
                case Answer(release):
                    event = Answering(release.sha256 if release else "")
                    state, more = step(state, event, RULES)
                    waiting.extend(more)
                case SelfTest(release) if release.sha256 in deadly and rng.random() < 0.5:
                    state, more = step(state, SelfTestFailed(release.sha256, "SIGSEGV"), RULES)
                    waiting.extend(more)
                case SelfTest(release):
                    state, more = step(state, SelfTestPassed(release.sha256, "ok"), RULES)
                    waiting.extend(more)
        if not dead:
            break
    assert state.active is None or state.active.sha256 not in deadly

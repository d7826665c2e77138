"""The update machine: every phase with every event, and a simulated world that crashes at will."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from edge_agent import state as states
from edge_agent.steps import (
    RESTING,
    Answer,
    Answering,
    AwaitTurn,
    Cancel,
    Damaged,
    Effect,
    Event,
    Evidence,
    Fetch,
    Fetched,
    FetchFailed,
    LoadFailed,
    Online,
    Phase,
    Prune,
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
    TurnCame,
    Wanted,
    Watch,
)
from edge_agent.update import plan, step, stopgap
from edge_contract import messages
from edge_contract.messages import Release

RULES = Rules(trial=TrialRules(requests=10, seconds=60, max_error_rate=0.1, deadline_s=300))
V0, V1, V2, V3 = (
    messages.release("pump", version, digit * 64)
    for version, digit in (("0", "a"), ("1", "b"), ("2", "c"), ("3", "d"))
)


def in_phase(phase: Phase) -> State:
    """Version 1 active, 0 before it, 2 under way unless at rest; the wanted one is 2."""
    rest = phase in RESTING
    return State(
        phase=phase,
        wanted=V1 if rest else V2,
        active=V1,
        previous=V0,
        candidate=None if rest else V2,
        attempts=0 if rest or phase is Phase.FETCHING else 1,
        delay_s=8.0 if phase is Phase.FETCHING else 0.0,
    )


def events(sha256: str) -> dict[str, Event]:
    """One of each event, about ``sha256`` where it is about a digest."""
    return {
        "started": Started(),
        "steady": Steady(),
        "stopping": Stopping(),
        "online": Online(),
        "wanted": Wanted(V2),
        "fetched": Fetched(sha256),
        "fetch-failed": FetchFailed(sha256, "broker gone"),
        "refused": FetchFailed(sha256, "needs more memory", lasting=True),
        "turn": TurnCame(sha256),
        "passed": SelfTestPassed(sha256, "golden"),
        "failed": SelfTestFailed(sha256, "differs"),
        "unable": SelfTestFailed(sha256, "no process", lasting=False),
        "answering": Answering(sha256),
        "load-failed": LoadFailed(sha256, "no memory"),
        "damaged": Damaged(sha256),
        "waiting": Evidence(sha256, requests=3, failures=0, elapsed_s=5),
        "proven": Evidence(sha256, requests=10, failures=1, elapsed_s=5),
        "erring": Evidence(sha256, requests=4, failures=2, elapsed_s=5),
    }


P = Phase
# Which event about the candidate moves which phase, and where to. What is not here changes
# nothing.
CANDIDATE_MOVES: dict[tuple[Phase, str], Phase] = {
    (P.IDLE, "wanted"): P.FETCHING,
    (P.COMMITTED, "wanted"): P.FETCHING,
    (P.FETCHING, "online"): P.FETCHING,
    (P.FETCHING, "fetched"): P.STAGED,
    (P.FETCHING, "fetch-failed"): P.FETCHING,
    (P.FETCHING, "refused"): P.IDLE,
    (P.STAGED, "turn"): P.SELF_TESTING,
    (P.STAGED, "damaged"): P.FETCHING,
    (P.SELF_TESTING, "passed"): P.TRIAL,
    (P.SELF_TESTING, "failed"): P.IDLE,
    (P.SELF_TESTING, "unable"): P.SELF_TESTING,
    (P.SELF_TESTING, "damaged"): P.FETCHING,
    (P.SELF_TESTING, "stopping"): P.SELF_TESTING,
    (P.TRIAL, "load-failed"): P.ROLLING_BACK,
    (P.TRIAL, "damaged"): P.ROLLING_BACK,
    (P.TRIAL, "proven"): P.COMMITTED,
    (P.TRIAL, "erring"): P.ROLLING_BACK,
    (P.TRIAL, "stopping"): P.TRIAL,
    **{(phase, "started"): phase for phase in Phase},  # the load of the active one is counted
}
ACTIVE_MOVES: dict[tuple[Phase, str], Phase] = {
    **{(phase, "damaged"): phase for phase in Phase if phase not in RESTING},
    **{(phase, "load-failed"): phase for phase in Phase if phase not in (*RESTING, P.TRIAL)},
    # Version 0 takes over; version 1 is still wanted: fetched again when it was damaged, not
    # tried again when it is sound and does not load.
    (P.IDLE, "damaged"): P.FETCHING,
    (P.COMMITTED, "damaged"): P.FETCHING,
    (P.IDLE, "load-failed"): P.IDLE,
    (P.COMMITTED, "load-failed"): P.IDLE,
    (P.ROLLING_BACK, "answering"): P.FETCHING,  # back on 1; 2 is still wanted, not condemned
}
PREVIOUS_MOVES = {(phase, "damaged"): phase for phase in Phase}
ABOUT_NOTHING = ("started", "stopping", "online", "wanted")


@pytest.mark.parametrize(
    ("digest", "moves"),
    [(V2.sha256, CANDIDATE_MOVES), (V1.sha256, ACTIVE_MOVES), (V0.sha256, PREVIOUS_MOVES),
     (V3.sha256, {}), ("", {})],
    ids=["candidate", "active", "previous", "stranger", "nothing"],
)  # fmt: skip
@pytest.mark.parametrize("phase", list(Phase))
def test_only_the_event_that_fits_changes_a_state(
    phase: Phase, digest: str, moves: dict[tuple[Phase, str], Phase]
) -> None:
    for name, event in events(digest).items():
        if name in ABOUT_NOTHING and moves is not CANDIDATE_MOVES:
            continue
        before = in_phase(phase)
        after, effects = step(before, event, RULES)
        to = moves.get((phase, name))
        if to is None:
            assert after is before, (phase, name)
            if name not in ("started", "answering"):
                assert effects == (), (phase, name)
        else:
            assert after != before, (phase, name)
            assert after.phase is to, (phase, name)
        assert states.decode(states.encode(after)) == after


def test_every_move_in_the_tables_is_about_a_known_phase_and_event() -> None:
    names = set(events(""))
    for moves in (CANDIDATE_MOVES, ACTIVE_MOVES, PREVIOUS_MOVES):
        assert {name for _, name in moves} <= names


def kinds(effects: tuple[Effect, ...]) -> list[str]:
    return [e.kind if isinstance(e, Tell) else type(e).__name__ for e in effects]


def run(state: State, *happened: Event, rules: Rules = RULES) -> tuple[State, list[Effect]]:
    effects: list[Effect] = []
    for event in happened:
        state, more = step(state, event, rules)
        effects += more
    return state, effects


# -- the way of one update ----------------------------------------------------------------------


def test_a_first_version_is_fetched_tested_tried_and_committed() -> None:
    state, effects = run(State(), Wanted(V1))
    assert (state.phase, kinds(tuple(effects))) == (P.FETCHING, ["fetching", "Fetch"])
    state, effects = run(state, Fetched(V1.sha256))
    assert (state.phase, effects[-1]) == (P.STAGED, AwaitTurn(V1))
    state, effects = run(state, TurnCame(V1.sha256))
    assert (state.phase, state.attempts, effects) == (P.SELF_TESTING, 1, [SelfTest(V1)])
    state, effects = run(state, SelfTestPassed(V1.sha256, "golden samples reproduced"))
    assert (state.phase, state.answering, effects[-1]) == (P.TRIAL, V1, Answer(V1))
    state, effects = run(state, Answering(V1.sha256))
    assert effects[-1] == Watch(V1)
    state, effects = run(state, Evidence(V1.sha256, 10, 1, 4.0))
    assert (state.phase, state.active, state.previous) == (P.COMMITTED, V1, None)
    assert kinds(tuple(effects)) == ["committed", "Prune"]
    assert "10 requests, 1 failed" in effects[0].detail


def test_a_second_version_keeps_the_first_as_previous() -> None:
    state = in_phase(P.TRIAL)
    state, _ = run(state, Evidence(V2.sha256, 0, 0, 60.0))
    assert (state.active, state.previous, state.candidate) == (V2, V1, None)
    assert state.kept == {V1.sha256, V2.sha256}


@pytest.mark.parametrize(
    ("requests", "failures", "elapsed_s", "phase"),
    [
        (9, 0, 59, P.TRIAL),
        (10, 1, 1, P.COMMITTED),
        (9, 2, 1, P.ROLLING_BACK),  # two failures in ten are over a tenth already
        (10, 2, 1, P.ROLLING_BACK),
        (0, 0, 60, P.COMMITTED),
        (9, 1, 60, P.TRIAL),  # not without failure, not enough requests: go on
        (9, 1, 299, P.TRIAL),
        (9, 1, 300, P.ROLLING_BACK),
        (1000, 100, 5, P.COMMITTED),
        (1000, 101, 5, P.ROLLING_BACK),
    ],
)
def test_a_trial_ends_by_evidence_or_at_its_deadline(
    requests: int, failures: int, elapsed_s: float, phase: Phase
) -> None:
    state, _ = run(in_phase(P.TRIAL), Evidence(V2.sha256, requests, failures, elapsed_s))
    assert state.phase is phase


def test_a_failed_trial_goes_back_and_says_why() -> None:
    state, effects = run(in_phase(P.TRIAL), Evidence(V2.sha256, 10, 9, 5.0))
    assert (state.phase, state.answering) == (P.ROLLING_BACK, V1)
    assert Answer(V1) in effects
    state, effects = run(state, Answering(V1.sha256))
    assert (state.phase, state.active, state.candidate) == (P.IDLE, V1, None)
    assert "9 failed" in state.reason
    assert kinds(tuple(effects)) == ["rolled-back", "Prune"]
    assert [q.version for q in state.quarantine] == ["2"]
    assert "9 failed" in state.quarantine[0].reason


def test_a_failed_first_trial_leaves_nothing_answering() -> None:
    state = replace(in_phase(P.TRIAL), active=None, previous=None)
    state, effects = run(state, LoadFailed(V2.sha256, "no memory"))
    assert Answer(None) in effects
    state, _ = run(state, Answering(""))
    assert (state.phase, state.answering) == (P.IDLE, None)


# -- quarantine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        (P.FETCHING, FetchFailed(V2.sha256, "needs more memory", lasting=True)),
        (P.SELF_TESTING, SelfTestFailed(V2.sha256, "differs by 0.5")),
    ],
    ids=["refused", "self-test"],
)
def test_a_version_that_failed_is_not_tried_again_until_it_is_named_anew(
    failure: tuple[Phase, Event],
) -> None:
    phase, event = failure
    state, effects = run(replace(in_phase(phase), revision=4), event)
    assert state.phase is P.IDLE
    assert Answer(V2) not in effects
    assert not [e for e in effects if isinstance(e, Fetch)]
    again, effects = run(state, Wanted(V2, 4), Started(), Wanted(V2, 4), Online())
    assert again.phase is P.IDLE
    assert effects == [Answer(V1)]
    by_revision, _ = run(state, Wanted(V2, 5))
    assert (by_revision.phase, by_revision.quarantine) == (P.FETCHING, ())
    by_return, _ = run(state, Wanted(V1, 4), Wanted(V2, 4))
    assert (by_return.phase, by_return.candidate) == (P.FETCHING, V2)


def test_going_back_to_the_active_version_ends_in_committed() -> None:
    state, _ = run(in_phase(P.SELF_TESTING), SelfTestFailed(V2.sha256, "x"), Wanted(V1))
    assert (state.phase, state.reason) == (P.COMMITTED, "")


def test_quarantine_is_bounded_and_keeps_the_newest() -> None:
    state = State()
    for i in range(40):
        release = messages.release("pump", str(i), f"{i:064x}")
        state, _ = run(state, Wanted(release), FetchFailed(release.sha256, "refused", lasting=True))
    assert [q.version for q in state.quarantine] == [str(i) for i in range(8, 40)]
    assert states.decode(states.encode(state)) == state


# -- attempts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [P.SELF_TESTING, P.TRIAL])
def test_a_crash_loop_ends_after_three_attempts(phase: Phase) -> None:
    state = in_phase(phase)
    for attempt in (2, 3):
        state, effects = run(state, Started())
        assert (state.phase, state.attempts) == (phase, attempt)
        assert Answer(state.answering) in effects
    state, effects = run(state, Started())
    assert state.quarantined(V2)
    assert Answer(V1) in effects
    if phase is P.TRIAL:
        state, _ = run(state, Answering(V1.sha256))
    assert (state.phase, state.active) == (P.IDLE, V1)
    assert "cut off 3 times" in state.reason


@pytest.mark.parametrize("phase", [P.SELF_TESTING, P.TRIAL])
def test_an_orderly_stop_is_not_a_crash(phase: Phase) -> None:
    state = in_phase(phase)
    for _ in range(10):
        state, _ = run(state, Stopping(), Started())
    assert (state.phase, state.attempts) == (phase, 1)


def test_a_self_test_that_cannot_be_made_is_made_again_and_then_given_up() -> None:
    state, effects = run(
        in_phase(P.SELF_TESTING), *[SelfTestFailed(V2.sha256, "no process", lasting=False)] * 2
    )
    assert [e.delay_s for e in effects if isinstance(e, SelfTest)] == [2.0, 4.0]
    state, _ = run(state, SelfTestFailed(V2.sha256, "no process", lasting=False))
    assert state.phase is P.IDLE
    assert state.quarantined(V2)


def test_failed_fetches_wait_longer_and_longer_with_jitter_and_never_condemn() -> None:
    state, delays = replace(in_phase(P.FETCHING), delay_s=0.0), []
    for i in range(60):
        state, effects = run(state, FetchFailed(V2.sha256, "broker gone", jitter=(i % 2) * 0.5))
        delays += [e.delay_s for e in effects if isinstance(e, Fetch)]
    assert delays[:4] == [1.0, 3.0, 4.0, 12.0]
    assert delays[-2:] == [150.0, 225.0]
    assert state.quarantine == ()
    state, effects = run(state, Online())
    assert effects == [Fetch(V2)]


def test_only_the_first_failed_fetch_is_told() -> None:
    _, effects = run(in_phase(P.FETCHING), *[FetchFailed(V2.sha256, "gone")] * 5)
    assert sum(isinstance(e, Tell) for e in effects) == 1


# -- a change of mind ---------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [P.FETCHING, P.STAGED, P.SELF_TESTING])
@pytest.mark.parametrize("wanted", [V3, V1, None], ids=["newer", "active", "none"])
def test_before_its_trial_a_version_no_longer_wanted_is_dropped(
    phase: Phase, wanted: Release | None
) -> None:
    state, effects = run(in_phase(phase), Wanted(wanted))
    assert effects[0] == Cancel(V2.sha256)
    assert Prune() in effects
    assert state.quarantine == ()
    if wanted is V3:
        assert (state.phase, state.candidate, effects[-1]) == (P.FETCHING, V3, Fetch(V3))
    else:
        assert (state.phase in RESTING, state.active) == (True, V1)


def test_a_trial_no_longer_wanted_goes_back_and_then_on() -> None:
    state, effects = run(in_phase(P.TRIAL), Wanted(V3))
    assert (state.phase, effects[-1]) == (P.ROLLING_BACK, Answer(V1))
    state, effects = run(state, Answering(V1.sha256))
    assert (state.phase, state.candidate) == (P.FETCHING, V3)
    assert state.quarantine == ()


def test_a_first_trial_is_finished_though_another_is_wanted() -> None:
    state = replace(in_phase(P.TRIAL), active=None, previous=None)
    state, effects = run(state, Wanted(V3))
    assert (state.phase, state.answering, effects) == (P.TRIAL, V2, [])
    state, effects = run(state, Evidence(V2.sha256, 10, 0, 1.0))
    assert (state.phase, state.active, state.candidate) == (P.FETCHING, V2, V3)
    assert effects[-1] == Fetch(V3)


def test_going_down_to_the_previous_version_takes_the_same_way() -> None:
    state, _ = run(in_phase(P.COMMITTED), Wanted(V0))
    assert (state.phase, state.candidate) == (P.FETCHING, V0)
    state, _ = run(
        state, Fetched(V0.sha256), TurnCame(V0.sha256), SelfTestPassed(V0.sha256, "ok"),
        Answering(V0.sha256), Evidence(V0.sha256, 10, 0, 1.0),
    )  # fmt: skip
    assert (state.phase, state.active, state.previous) == (P.COMMITTED, V0, V1)


# -- damage -------------------------------------------------------------------------------------


def test_a_damaged_active_slot_lets_the_previous_answer_and_is_fetched_again() -> None:
    state, effects = run(in_phase(P.COMMITTED), Damaged(V1.sha256))
    assert (state.active, state.previous, state.candidate) == (V0, None, V1)
    assert state.phase is P.FETCHING
    assert effects.index(Answer(V0)) < effects.index(Fetch(V1))
    assert state.quarantine == ()


def test_the_only_slot_damaged_is_fetched_again() -> None:
    state, effects = run(replace(in_phase(P.COMMITTED), previous=None), Damaged(V1.sha256))
    assert (state.active, state.candidate) == (None, V1)
    assert {Answer(None), Fetch(V1)} <= set(effects)


def test_a_sound_active_slot_that_no_longer_loads_is_condemned_only_with_a_fallback() -> None:
    state, effects = run(in_phase(P.COMMITTED), LoadFailed(V1.sha256, "opset"))
    assert (state.active, Answer(V0) in effects) == (V0, True)
    assert state.quarantined(V1)
    alone = replace(in_phase(P.COMMITTED), previous=None)
    state, effects = run(alone, LoadFailed(V1.sha256, "opset"))
    assert (state.active, state.quarantine) == (V1, ())
    assert "opset" in state.reason


def test_damage_while_going_down_to_the_previous_version_settles_on_it() -> None:
    state = replace(in_phase(P.FETCHING), candidate=V0, wanted=V0)
    state, effects = run(state, Damaged(V1.sha256))
    assert (state.phase, state.active, state.candidate) == (P.COMMITTED, V0, None)
    assert Answer(V0) in effects


def test_a_previous_version_that_fails_now_is_no_fallback_any_more() -> None:
    going_down = replace(in_phase(P.SELF_TESTING), candidate=V0, wanted=V0)
    state, _ = run(going_down, SelfTestFailed(V0.sha256, "differs"))
    assert (state.active, state.previous) == (V1, None)
    assert state.kept == {V1.sha256}


def test_damage_to_the_active_slot_during_a_trial_leaves_the_candidate_answering() -> None:
    state, effects = run(in_phase(P.TRIAL), Damaged(V1.sha256))
    assert (state.phase, state.answering, state.active) == (P.TRIAL, V2, V0)
    assert not [e for e in effects if isinstance(e, Answer)]


# -- restart ------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", list(Phase))
def test_a_restart_plans_from_the_state_alone(phase: Phase) -> None:
    state, effects = step(in_phase(phase), Started(), RULES)
    assert effects == plan(state)
    assert effects[0] == Answer(state.answering)
    wanted = {
        P.FETCHING: Fetch(V2, 8.0), P.STAGED: AwaitTurn(V2), P.SELF_TESTING: SelfTest(V2),
    }  # fmt: skip
    assert effects[1:] == ((wanted[phase],) if phase in wanted else ())


@pytest.mark.parametrize("phase", list(Phase))
def test_a_start_that_cannot_be_persisted_lets_the_proven_release_answer(phase: Phase) -> None:
    assert stopgap(in_phase(phase)) == (Answer(V1),)
    first = replace(in_phase(phase), active=None, previous=None)
    assert stopgap(first) == (Answer(V2 if phase is P.TRIAL else None),)


# -- a world that crashes at will ---------------------------------------------------------------


class World:
    """Performs effects as the shell does, each with a chance to fail; crashes between any two."""

    def __init__(self, rng: random.Random, bad: set[str]) -> None:
        self.rng = rng
        self.bad = bad  # digests whose self-test or trial fails
        self.slots: set[str] = set()
        self.disk = states.encode(State())
        self.live = ""
        self.inbox: list[Event] = []
        self.faulty = True

    @property
    def state(self) -> State:
        return states.decode(self.disk)

    def feed(self, event: Event) -> None:
        state, effects = step(self.state, event, RULES)
        check(state)
        self.disk = states.encode(state)  # persisted before the effects
        for effect in effects:
            if self.faulty and self.rng.random() < 0.03:
                return self.crash()
            self.perform(effect)
        return None

    def crash(self) -> None:
        self.live = ""
        self.inbox = []
        self.feed(Started("this boot"))

    def unlucky(self) -> bool:
        return self.faulty and self.rng.random() < 0.2

    def perform(self, effect: Effect) -> None:
        match effect:
            case Fetch(release) if self.unlucky():
                self.inbox.append(FetchFailed(release.sha256, "gone", jitter=0.5))
            case Fetch(release):
                self.slots.add(release.sha256)
                self.inbox.append(Fetched(release.sha256))
            case AwaitTurn(release):
                self.inbox.append(TurnCame(release.sha256))
            case SelfTest(release):
                self.inbox.append(self.tested(release.sha256))
            case Answer(release):
                self.inbox.append(self.answer(release.sha256 if release else ""))
            case Watch(release):
                failures = 10 if release.sha256 in self.bad else 0
                self.inbox.append(Evidence(release.sha256, 10, failures, 1.0))
            case Prune():
                self.slots &= self.state.kept
            case Cancel(sha256):
                self.inbox = [e for e in self.inbox if getattr(e, "sha256", None) != sha256]

    def tested(self, sha256: str) -> Event:
        if sha256 not in self.slots:
            return Damaged(sha256)
        if sha256 in self.bad and self.rng.random() < 0.5:
            return SelfTestFailed(sha256, "differs")
        return SelfTestPassed(sha256, "ok")

    def answer(self, sha256: str) -> Event:
        if sha256 and sha256 not in self.slots:
            return Damaged(sha256)
        self.live = sha256
        return Answering(sha256)

    def turn(self) -> None:
        """One event: mostly what is waiting, sometimes late, twice, or out of the blue."""
        if self.faulty and self.rng.random() < 0.02:
            self.crash()
        elif self.faulty and self.slots and self.rng.random() < 0.02:
            lost = self.rng.choice(sorted(self.slots))
            self.slots.discard(lost)
            self.feed(Damaged(lost))
        elif self.inbox:
            event = self.inbox.pop(self.rng.randrange(len(self.inbox)) if self.faulty else 0)
            if self.unlucky():
                self.inbox.append(event)
            self.feed(event)


def check(state: State) -> None:
    """What holds in every state."""
    assert (state.candidate is None) == (state.phase in RESTING)
    releases = [r.sha256 for r in (state.active, state.candidate) if r]
    assert len(set(releases)) == len(releases)
    if state.active and state.previous:
        assert state.active.sha256 != state.previous.sha256
    assert state.attempts <= RULES.attempts_max or state.phase is P.FETCHING
    assert states.decode(states.encode(state)) == state


def settle(world: World, done: Callable[[], bool]) -> None:
    world.faulty = False
    world.crash()
    for _ in range(200):
        if done() and not world.inbox:
            return
        world.turn()
    raise AssertionError(f"did not settle: {world.state}, live {world.live[:1]}")


@pytest.mark.parametrize("seed", range(300))
def test_after_any_faults_the_world_settles_on_the_wanted_version(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    world = World(rng, bad={V2.sha256})
    revision = itertools.count(1)
    world.feed(Started())
    for _ in range(rng.randrange(1, 60)):
        if rng.random() < 0.15:
            wanted = rng.choice([V0, V1, V2, V3, None])
            world.feed(Wanted(wanted, next(revision)))
        world.turn()
    good = rng.choice([V0, V1, V3])
    world.feed(Wanted(good, next(revision)))
    settle(world, lambda: world.state.phase is P.COMMITTED)
    assert world.state.active == good
    assert world.live == good.sha256
    # A broken version is then wanted: it is tried, condemned, and what answered answers on.
    world.feed(Wanted(V2, next(revision)))
    settle(world, lambda: world.state.phase in RESTING and bool(world.live))
    assert world.state.active == good
    assert world.live == good.sha256
    assert world.state.quarantined(V2)
    assert world.slots >= {good.sha256}


def test_a_trial_that_fails_goes_back_to_what_answered_when_the_floor_rose() -> None:
    below = replace(in_phase(Phase.TRIAL), floor="0")
    active, candidate = below.active, below.candidate
    assert active and candidate
    raised, _ = step(below, Wanted(candidate, floor=candidate.version), RULES)
    back, effects = step(raised, LoadFailed(candidate.sha256, "no memory"), RULES)
    assert (back.phase, Answer(active) in effects) == (Phase.ROLLING_BACK, True)
    rested, _ = step(back, Answering(active.sha256), RULES)
    assert (rested.answering, rested.previous) == (active, None)

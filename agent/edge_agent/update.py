"""The update of one model as a pure machine: ``step(state, event) -> state, effects``.

Guards: a release answers requests only after its slot was verified and its self-test passed; a
release that failed is not tried again until it is named anew; what answered before keeps
answering until its successor has proven itself, and is returned to when it does not.

The shell persists the state, then performs the effects. After any restart it feeds ``Started``:
``plan`` derives from the state alone what is to be done, so nothing is ever "resumed". An event
that does not fit the state changes nothing.

It must never read a clock, a disk or a random source; what it needs of them comes in events.
"""

from __future__ import annotations

from msgspec.structs import replace

from edge_agent import trial
from edge_agent.moves import (
    condemn,
    cut,
    digest_of,
    enter,
    fall_back,
    fallback,
    plan,
    pursue,
    rest,
    roll_back,
    rolled_back,
)
from edge_agent.steps import (
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
    Step,
    Stopping,
    Tell,
    TurnCame,
    Wanted,
    Watch,
)
from edge_contract.messages import Release

ROOM_RETRY_S = 15.0
"""A proven version that did not fit into memory is tried again after this time."""
LIVES_MAX = 5
"""So many processes in a row that died while a proven version answered put it on probation."""
_NO_ROOM = "waits for room in memory"
_COUNTED = frozenset({Phase.SELF_TESTING, Phase.TRIAL})
"""Phases in which a crash may be the candidate's fault: their attempts are limited."""


def step(state: State, event: Event, rules: Rules) -> Step:
    """The next state and what to do then; the same state and nothing when ``event`` is stale."""
    if isinstance(event, Answering) and event.sha256 == digest_of(state.active):
        state = _loaded(state)
    match event:
        case Started():
            return _started(state, event.kernel, rules)
        case Steady() | Stopping():
            return _excused(state, stopping=isinstance(event, Stopping)), ()
        case Online():
            return _online(state)
        case Wanted():
            return _wanted(state, event)
        case Damaged():
            return _damaged(state, event.sha256)
        case Answering() if state.phase is Phase.ROLLING_BACK:
            return rolled_back(state) if event.sha256 == digest_of(state.active) else (state, ())
        case LoadFailed() if state.phase is not Phase.TRIAL and state.active:
            return _load_failed(state, state.active, event)
        case _ if state.candidate and event.sha256 == state.candidate.sha256:
            return _of_candidate(state, state.candidate, event, rules)
        case _:
            return state, ()


def _of_candidate(state: State, candidate: Release, event: Event, rules: Rules) -> Step:
    """What happened to the candidate moves it on, in the one phase that waits for it."""
    match state.phase, event:
        case Phase.FETCHING, Fetched():
            staged = enter(state, Phase.STAGED)
            return staged, (Tell("staged", candidate.version), AwaitTurn(candidate))
        case Phase.FETCHING, FetchFailed():
            return _fetch_failed(state, candidate, event, rules)
        case Phase.STAGED, TurnCame():
            testing = replace(enter(state, Phase.SELF_TESTING), attempts=1)
            return testing, (SelfTest(candidate),)
        case Phase.SELF_TESTING, SelfTestPassed():
            told = Tell("self-test-passed", candidate.version, cut(event.evidence), event.findings)
            trying = replace(enter(state, Phase.TRIAL, event.evidence), attempts=1)
            return trying, (told, Answer(candidate))
        case Phase.SELF_TESTING, SelfTestFailed():
            return _self_test_failed(state, candidate, event, rules)
        case Phase.TRIAL, Answering():
            return state, (Tell("trial", candidate.version), Watch(candidate))
        case Phase.TRIAL, LoadFailed():
            return roll_back(condemn(state, candidate, event.reason), event.reason)
        case Phase.TRIAL, Evidence():
            return _evidence(state, candidate, event, rules)
        case _:
            return state, ()


def stopgap(state: State) -> tuple[Effect, ...]:
    """What may be done after a start while nothing can be persisted: the proven release answers.

    A candidate does only when there is no other: its attempt could not be counted.
    """
    return (Answer(state.active or state.answering),)


# -- restart ----------------------------------------------------------------------------------


def _started(state: State, kernel: str, rules: Rules) -> Step:
    """Count what begins now; what used up its attempts is condemned, or proven again."""
    candidate = state.candidate
    if state.active and state.answering == state.active:
        version, loads = state.active.version, state.loads
        if loads >= rules.attempts_max:
            reason = f"the agent ended {loads} times while it loaded {version}"
            return _on_probation(state, state.active, reason)
        lives = state.lives if kernel and kernel == state.kernel else 0
        if lives >= LIVES_MAX and state.previous:
            reason = f"the agent died {lives} times in a row while {version} answered"
            return _on_probation(state, state.active, reason)
        state = replace(state, loads=loads + 1, lives=lives + 1, kernel=kernel)
    if candidate is None or state.phase not in _COUNTED:
        return state, plan(state)
    if state.attempts < rules.attempts_max:
        begun = replace(state, attempts=state.attempts + 1)
        return begun, plan(begun)
    reason = f"{state.phase} was cut off {state.attempts} times"
    condemned = condemn(state, candidate, reason)
    if state.phase is Phase.TRIAL:
        return roll_back(condemned, reason)
    rested, effects = rest(condemned, reason, Tell("self-test-failed", candidate.version, reason))
    return rested, (Answer(rested.answering), *effects)


def _on_probation(state: State, active: Release, reason: str) -> Step:
    """The proven release may kill the process that it is in: find out in another one.

    The one before it answers meanwhile. Power that fails at each start looks the same from here,
    so that only a test or a trial condemns it.
    """
    testing = replace(
        enter(state, Phase.SELF_TESTING, reason),
        active=state.previous,
        previous=None,
        candidate=active,
        probation=True,
        attempts=1,
        loads=1 if state.previous else 0,
        lives=0,
    )
    told = Tell("probation", active.version, testing.reason)
    return testing, (told, *plan(testing))


def _excused(state: State, *, stopping: bool) -> State:
    """A long life, and an end in order, are held against nobody."""
    if state.lives:
        state = replace(state, lives=0)
    if stopping and state.loads:
        state = replace(state, loads=state.loads - 1)
    if stopping and state.phase in _COUNTED and state.attempts:
        state = replace(state, attempts=state.attempts - 1)
    return state


# -- what is wanted ---------------------------------------------------------------------------


def _wanted(state: State, event: Wanted) -> Step:
    """Take note of what is wanted; a release that is named anew leaves quarantine."""
    wanted = event.release
    quarantine = state.quarantine
    if wanted:
        changed = wanted.sha256 != digest_of(state.wanted)
        quarantine = tuple(
            q
            for q in quarantine
            if q.sha256 != wanted.sha256 or not (changed or event.revision > q.revision)
        )
    noted = replace(
        state,
        wanted=wanted,
        revision=event.revision,
        floor=event.floor,
        previous=fallback(state.previous, event.floor),
        quarantine=quarantine,
    )
    if noted == state:
        noted = state
    return pursue(noted)


# -- before the trial -------------------------------------------------------------------------


def _online(state: State) -> Step:
    if state.candidate and state.phase is Phase.FETCHING and state.delay_s:
        return replace(state, delay_s=0.0), (Fetch(state.candidate),)
    return state, ()


def _fetch_failed(state: State, candidate: Release, event: FetchFailed, rules: Rules) -> Step:
    reason = event.reason
    if event.lasting:
        told = Tell("refused", candidate.version, cut(reason))
        return rest(condemn(state, candidate, reason), reason, told)
    attempts = state.attempts + 1
    delay_s = min(rules.backoff_min_s * 2.0 ** min(attempts - 1, 30), rules.backoff_max_s)
    delay_s *= 0.5 + event.jitter / 2
    waiting = replace(state, attempts=attempts, delay_s=delay_s, reason=cut(reason))
    first = (Tell("fetch-failed", candidate.version, cut(reason)),) if attempts == 1 else ()
    return waiting, (*first, Fetch(candidate, delay_s))


def _self_test_failed(
    state: State, candidate: Release, event: SelfTestFailed, rules: Rules
) -> Step:
    if not event.lasting and state.attempts < rules.attempts_max:
        again = replace(
            state,
            attempts=state.attempts + 1,
            delay_s=rules.backoff_min_s * 2.0 ** (state.attempts - 1),
            reason=cut(event.reason),
        )
        return again, (SelfTest(candidate, again.delay_s),)
    told = Tell("self-test-failed", candidate.version, cut(event.reason), event.findings)
    condemned = condemn(state, candidate, event.reason, event.findings)
    return rest(condemned, event.reason, told)


# -- trial and after --------------------------------------------------------------------------


def _evidence(state: State, candidate: Release, seen: Evidence, rules: Rules) -> Step:
    match trial.judge(seen, rules.trial):
        case "wait":
            return state, ()
        case "fail":
            reason = f"the trial failed: {trial.describe(seen, rules.trial)}"
            found = trial.findings(seen)
            condemned = condemn(state, candidate, reason, found)
            told = Tell("trial-failed", candidate.version, cut(reason), found)
            return roll_back(condemned, reason, told)
        case "commit":
            committed = replace(
                enter(state, Phase.COMMITTED),
                active=candidate,
                previous=fallback(state.active, state.floor),
                candidate=None,
                probation=False,
                loads=0,
                lives=0,
            )
            told = Tell(
                "committed",
                candidate.version,
                trial.describe(seen, rules.trial),
                trial.findings(seen),
            )
            pursued, effects = pursue(committed)
            return pursued, (told, Prune(), *effects)


def _loaded(state: State) -> State:
    """The proven release is in memory."""
    waited = state.reason == _NO_ROOM
    if not state.loads and not waited:
        return state
    return replace(state, loads=0, reason="" if waited else state.reason)


def _load_failed(state: State, active: Release, event: LoadFailed) -> Step:
    """The proven release no longer loads: fall back to the one before it, if there is one.

    Where memory was short nothing is wrong with it: it is tried again, as long as it takes.
    """
    if event.sha256 != active.sha256:
        return state, ()
    state = replace(state, loads=0)
    if not event.lasting:
        return _wait_for_room(state, active, event)
    reason = f"{active.version} no longer loads: {event.reason}"
    told = Tell("load-failed", active.version, cut(reason))
    if state.previous:
        return fall_back(condemn(state, active, reason), state.previous, reason, told)
    if state.phase is Phase.ROLLING_BACK:
        rested, effects = rest(state, reason, told)
        return rested, (Answer(None), *effects)
    return replace(state, reason=cut(reason)), (told, Answer(None))


def _wait_for_room(state: State, active: Release, event: LoadFailed) -> Step:
    """Try it again after a while; the fleet hears of it once."""
    again = Answer(active, ROOM_RETRY_S)
    told = Tell("load-failed", active.version, cut(event.reason))
    if state.phase is Phase.ROLLING_BACK:  # its reason is why the candidate goes
        return replace(state, attempts=1), (again,) if state.attempts else (told, again)
    if state.reason == _NO_ROOM:
        return state, (again,)
    return replace(state, reason=_NO_ROOM), (told, again)


def _damaged(state: State, sha256: str) -> Step:
    """Bytes on disk went bad: use what is sound, and fetch again what is wanted."""
    if sha256 == digest_of(state.previous):
        state = replace(state, previous=None)
    candidate, active = state.candidate, state.active
    if candidate and candidate.sha256 == sha256:
        reason = f"the slot of {candidate.version} was damaged"
        told = Tell("slot-damaged", candidate.version)
        if state.probation and state.phase is Phase.SELF_TESTING:
            return rest(state, reason, told, Cancel(sha256))
        if state.phase in (Phase.STAGED, Phase.SELF_TESTING):
            fetching = enter(state, Phase.FETCHING, reason)
            return fetching, (told, Cancel(sha256), Fetch(candidate))
        if state.phase is Phase.TRIAL:
            return roll_back(state, reason, told)
    if active and active.sha256 == sha256:
        reason = f"the slot of {active.version} was damaged"
        return fall_back(state, state.previous, reason, Tell("slot-damaged", active.version))
    return state, ()

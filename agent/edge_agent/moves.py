"""The moves of an update that more than one event leads to. Pure, as ``update`` is.

Guards: a move that ends without success leaves nothing of the candidate in the state, and goes
after what is wanted next; what is condemned is bounded, and no fallback any more.
"""

from __future__ import annotations

from msgspec.structs import replace

from edge_agent.choose import below
from edge_agent.steps import (
    BEFORE_TRIAL,
    QUARANTINE_MAX,
    REASON_MAX_CHARS,
    RESTING,
    Answer,
    AwaitTurn,
    Cancel,
    Effect,
    Fetch,
    Phase,
    Prune,
    Quarantined,
    SelfTest,
    State,
    Step,
    Tell,
)
from edge_contract.messages import Findings, Release


def plan(state: State) -> tuple[Effect, ...]:
    """What is to be done in this state, whatever happened before."""
    answer = Answer(state.answering)
    candidate = state.candidate
    match state.phase:
        case Phase.FETCHING if candidate:
            return answer, Fetch(candidate, state.delay_s)
        case Phase.STAGED if candidate:
            return answer, AwaitTurn(candidate)
        case Phase.SELF_TESTING if candidate:
            return answer, SelfTest(candidate, state.delay_s)
        case _:
            return (answer,)


def pursue(state: State) -> Step:
    """Go after what is wanted from where we are, leaving behind what is not."""
    target = _target(state)
    candidate = state.candidate
    if state.phase in RESTING:
        if target and target.sha256 != digest_of(state.active):
            fetching = replace(enter(state, Phase.FETCHING), candidate=target)
            return fetching, (Tell("fetching", target.version), Fetch(target))
        if target and state.phase is Phase.IDLE:
            return replace(state, phase=Phase.COMMITTED, reason=""), ()
        return state, ()
    if candidate is None or (target and target.sha256 == candidate.sha256):
        return state, ()
    if state.probation:
        return state, ()  # It is what we have; what is wanted instead comes after it.
    if state.phase in BEFORE_TRIAL:
        told = Tell("superseded", candidate.version)
        rested, effects = rest(state, f"{candidate.version} is no longer wanted", told)
        return rested, (Cancel(candidate.sha256), *effects)
    if state.phase is Phase.TRIAL and state.active:
        return roll_back(state, f"{candidate.version} is no longer wanted")
    return state, ()  # Rolling back ends soon; a first version's trial has nothing to go back to.


def roll_back(state: State, reason: str, *told: Effect) -> Step:
    """Let the proven release answer again; the candidate is on its way out."""
    back = enter(state, Phase.ROLLING_BACK, reason)
    version = back.candidate.version if back.candidate else ""
    return back, (*told, Tell("rolling-back", version, back.reason), Answer(back.active))


def rolled_back(state: State) -> Step:
    """The proven release answers again."""
    version = state.candidate.version if state.candidate else ""
    return rest(state, state.reason, Tell("rolled-back", version, state.reason))


def fall_back(state: State, former: Release | None, reason: str, *told: Effect) -> Step:
    """Let ``former`` take the place of ``active``, and answer unless a candidate does."""
    fallen = replace(state, active=former, previous=None, loads=0, lives=0)
    candidate = state.candidate
    if state.phase in RESTING:
        rested, effects = rest(fallen, reason, *told)
        return rested, (Answer(former), *effects)
    if candidate and candidate.sha256 == digest_of(former):
        # On the way back to the former version, which now is all there is.
        rested, effects = rest(fallen, reason, *told, Cancel(candidate.sha256))
        return rested, (Answer(former), *effects)
    if state.phase is Phase.TRIAL:
        return fallen, told
    return fallen, (*told, Answer(former))


def rest(state: State, reason: str, *told: Effect) -> Step:
    """End what was under way without success, then go after what is wanted."""
    ended = replace(enter(state, Phase.IDLE, reason), candidate=None, probation=False)
    rested, effects = pursue(ended)
    return rested, (*told, Prune(), *effects)


def enter(state: State, phase: Phase, reason: str = "") -> State:
    """The state at the beginning of ``phase``."""
    return replace(state, phase=phase, attempts=0, delay_s=0.0, reason=cut(reason))


def condemn(state: State, release: Release, reason: str, findings: Findings | None = None) -> State:
    """Not to be tried again until it is named anew."""
    entry = Quarantined(
        sha256=release.sha256,
        version=release.version,
        reason=cut(reason),
        revision=state.revision,
        findings=findings,
    )
    others = tuple(q for q in state.quarantine if q.sha256 != release.sha256)
    previous = state.previous
    if previous and previous.sha256 == release.sha256:
        previous = None
    return replace(state, quarantine=(*others, entry)[-QUARANTINE_MAX:], previous=previous)


def fallback(release: Release | None, floor: str) -> Release | None:
    """The release as what may be returned to: not below the floor."""
    return None if release is None or below(release.version, floor) else release


def _target(state: State) -> Release | None:
    wanted = state.wanted
    return None if wanted is None or state.quarantined(wanted) else wanted


def digest_of(release: Release | None) -> str:
    """Its digest, or ""."""
    return release.sha256 if release else ""


def cut(reason: str) -> str:
    """As much of it as a state keeps."""
    return reason[:REASON_MAX_CHARS]

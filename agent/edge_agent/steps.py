"""The words of an update: phases, state, events and effects. Pure values, nothing happens here.

A state is what is persisted; an event is what happened; an effect is what the shell has to do.
Every event that answers an effect carries the digest it is about, so that an answer that comes
late, twice or after a change of mind is recognised and changes nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from edge_contract.messages import Count, Findings, Release, Sha256

SCHEMA = 1
QUARANTINE_MAX = 32
REASON_MAX_CHARS = 1000

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=10**9)]


class Phase(StrEnum):
    """Where one model's update stands. ``idle`` and ``committed`` are rest.

    At rest, ``committed`` says that the wanted version was proven and answers; ``idle`` says
    that there is nothing to do or that an update ended otherwise, with the reason in the state.
    """

    IDLE = "idle"
    FETCHING = "fetching"
    STAGED = "staged"
    SELF_TESTING = "self-testing"
    TRIAL = "trial"
    COMMITTED = "committed"
    ROLLING_BACK = "rolling-back"


RESTING = frozenset({Phase.IDLE, Phase.COMMITTED})
BEFORE_TRIAL = frozenset({Phase.FETCHING, Phase.STAGED, Phase.SELF_TESTING})


class Quarantined(Struct, frozen=True, kw_only=True):
    """A digest that failed here; ``revision`` is that of ``desired`` at the time.

    ``findings``: what was measured, where something was.
    """

    sha256: Sha256
    version: str
    reason: str
    revision: Count = 0
    findings: Findings | None = None


class State(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """All that is persisted of one model's update.

    Attributes:
        wanted: what the channel and the fleet want, as last heard; ``revision`` of ``desired``.
        floor: the oldest version that may be begun; an older one is nobody's fallback. What
            answered when it was raised answers on until another one has proven itself: a trial
            that fails goes back to it, since nothing better is known than to answer.
        active: the release that was proven last. previous: the one before it.
        candidate: the release under way; None exactly at rest.
        probation: the candidate was proven once, and is proven again.
        attempts: of the present phase, counted before each is made.
        loads: starts in a row whose load of the active release did not come to its end.
        lives: starts in a row, under one run of the kernel, of processes in which the active
            release answered and that ended neither in order nor after a while. kernel: its run.
        delay_s: how long the next attempt waits.
        reason: why the state is what it is, for a person.
    """

    schema: int = SCHEMA
    phase: Phase = Phase.IDLE
    wanted: Release | None = None
    revision: Count = 0
    floor: str = ""
    active: Release | None = None
    previous: Release | None = None
    candidate: Release | None = None
    probation: bool = False
    attempts: Count = 0
    loads: Count = 0
    lives: Count = 0
    kernel: Annotated[str, Meta(max_length=64)] = ""
    delay_s: Seconds = 0.0
    reason: Annotated[str, Meta(max_length=REASON_MAX_CHARS)] = ""
    quarantine: Annotated[tuple[Quarantined, ...], Meta(max_length=QUARANTINE_MAX)] = ()

    @property
    def answering(self) -> Release | None:
        """The release whose slot answers requests; replacing this state's file activates it."""
        return self.candidate if self.phase is Phase.TRIAL else self.active

    @property
    def former(self) -> Release | None:
        """The proven release before the one that answers."""
        return self.active if self.phase is Phase.TRIAL else self.previous

    @property
    def kept(self) -> frozenset[str]:
        """Digests of the slots that must stay on disk."""
        releases = (self.active, self.previous, self.candidate)
        return frozenset(release.sha256 for release in releases if release)

    def quarantined(self, release: Release) -> Quarantined | None:
        """Why ``release`` is not tried, or None."""
        return next((q for q in self.quarantine if q.sha256 == release.sha256), None)


class TrialRules(Struct, frozen=True, kw_only=True):
    """How a trial ends: see ``edge_agent.trial.judge``."""

    requests: Annotated[int, Meta(ge=1, le=10**9)] = 100
    seconds: Annotated[float, Meta(gt=0, le=10**7)] = 600.0
    max_error_rate: Share = 0.01
    deadline_s: Annotated[float, Meta(gt=0, le=10**8)] = 3600.0


class Rules(Struct, frozen=True, kw_only=True):
    """The figures that the machine decides by.

    Attributes:
        attempts_max: of a self-test or trial that neither passes nor fails, such as a crash.
        backoff_min_s, backoff_max_s: wait after a failed fetch, doubled at each, with jitter.
    """

    attempts_max: Annotated[int, Meta(ge=1, le=100)] = 3
    backoff_min_s: Annotated[float, Meta(gt=0, le=3600)] = 2.0
    backoff_max_s: Annotated[float, Meta(gt=0, le=86400)] = 300.0
    trial: TrialRules = TrialRules()


# -- events ------------------------------------------------------------------------------------


class Started(Struct, frozen=True, tag=True):
    """The agent's process began; what was under way was cut off.

    ``kernel``: names this run of the kernel; "" where that is not known.
    """

    kernel: str = ""


class Steady(Struct, frozen=True, tag=True):
    """The process has lived for a while: how the ones before it ended is forgotten."""


class Stopping(Struct, frozen=True, tag=True):
    """The agent ends in order: the attempt under way is not the bundle's fault."""


class Online(Struct, frozen=True, tag=True):
    """The broker is reachable again: no sense in waiting any longer."""


class Wanted(Struct, frozen=True, tag=True):
    """What the channel and ``desired`` (at ``revision``) want of this model, or None.

    ``floor``: the oldest version that the channel lets run, or "".
    """

    release: Release | None
    revision: int = 0
    floor: str = ""


class Fetched(Struct, frozen=True, tag=True):
    """The whole slot is on disk and verified."""

    sha256: str


class FetchFailed(Struct, frozen=True, tag=True):
    """The fetch ended without a slot.

    ``lasting``: the bundle was refused and will be again. ``jitter``: drawn from [0, 1).
    """

    sha256: str
    reason: str
    lasting: bool = False
    jitter: float = 0.0


class TurnCame(Struct, frozen=True, tag=True):
    """The device is free to test this candidate."""

    sha256: str


class SelfTestPassed(Struct, frozen=True, tag=True):
    """The candidate reproduced its golden outputs within its limits."""

    sha256: str
    evidence: str
    findings: Findings | None = None


class SelfTestFailed(Struct, frozen=True, tag=True):
    """It did not; or, not ``lasting``, the test itself could not be made."""

    sha256: str
    reason: str
    lasting: bool = True
    findings: Findings | None = None


class Answering(Struct, frozen=True, tag=True):
    """This slot answers requests now; "" when none does."""

    sha256: str


class LoadFailed(Struct, frozen=True, tag=True):
    """An undamaged slot could not be loaded; not ``lasting``: memory was short at that moment."""

    sha256: str
    reason: str
    lasting: bool = True


class Damaged(Struct, frozen=True, tag=True):
    """A slot's bytes on disk are not what its manifest says."""

    sha256: str


class Evidence(Struct, frozen=True, tag=True):
    """What the trial saw so far: real requests answered, runtime failures, seconds.

    Attributes:
        slow: rows over ``latency_limit_ms``. stalled: requests that had to be ended.
        ram_bytes: resident memory that the agent gained by the candidate.
        latency_limit_ms, ram_limit_bytes: 0: any.
    """

    sha256: str
    requests: int
    failures: int
    elapsed_s: float
    slow: int = 0
    stalled: int = 0
    latency_p99_ms: float = 0.0
    latency_limit_ms: float = 0.0
    ram_bytes: int = 0
    ram_limit_bytes: int = 0


Event = (
    Started | Steady | Stopping | Online | Wanted | Fetched | FetchFailed | TurnCame
    | SelfTestPassed | SelfTestFailed | Answering | LoadFailed | Damaged | Evidence
)  # fmt: skip


# -- effects -----------------------------------------------------------------------------------


class Fetch(Struct, frozen=True, tag=True):
    """Bring the release's slot to disk after ``delay_s``; what is there already is not fetched."""

    release: Release
    delay_s: float = 0.0


class AwaitTurn(Struct, frozen=True, tag=True):
    """Say ``TurnCame`` once no other model is being tested."""

    release: Release


class SelfTest(Struct, frozen=True, tag=True):
    """Test the release in a process of its own after ``delay_s``."""

    release: Release
    delay_s: float = 0.0


class Answer(Struct, frozen=True, tag=True):
    """Verify and load this release and let it answer, after a while; None: nothing answers."""

    release: Release | None
    delay_s: float = 0.0


class Watch(Struct, frozen=True, tag=True):
    """Count the release's requests from now on and report ``Evidence``."""

    release: Release


class Cancel(Struct, frozen=True, tag=True):
    """Stop fetching or testing this digest; its answer is not wanted any more."""

    sha256: str


class Prune(Struct, frozen=True, tag=True):
    """Remove the slots that no state keeps."""


class Tell(Struct, frozen=True, tag=True):
    """Report that this happened; ``findings``: the evidence."""

    kind: str
    version: str
    detail: str = ""
    findings: Findings | None = None


Effect = Fetch | AwaitTurn | SelfTest | Answer | Watch | Cancel | Prune | Tell
Step = tuple[State, tuple[Effect, ...]]

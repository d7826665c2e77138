"""The shell around the update machine: read, decide, persist, act. No rule lives here.

Guards: a state is on disk before any of its effects begins; an answer is posted back to the one
loop in which all decisions are made; downloads, tests and loads each have a thread, so that none
holds up another, and none runs while the loop decides.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from edge_agent import hardware, slot, state, trial
from edge_agent.errands import Errands
from edge_agent.folder import Folder
from edge_agent.loop import Loop, Timer
from edge_agent.serving import Serving
from edge_agent.steps import (
    BEFORE_TRIAL,
    RESTING,
    Answer,
    AwaitTurn,
    Cancel,
    Effect,
    Event,
    Evidence,
    Fetch,
    Phase,
    Prune,
    Rules,
    SelfTest,
    Started,
    State,
    Steady,
    Stopping,
    Tell,
    TurnCame,
    Wanted,
    Watch,
)
from edge_agent.transfer import Transfer
from edge_agent.update import step, stopgap
from edge_agent.worker import Worker
from edge_contract.errors import EdgeError, MachineFault
from edge_contract.messages import Release

log = logging.getLogger(__name__)

PERSIST_RETRY_S = 5.0
WATCH_S = 0.5
FALLBACKS = 4
"""What may be loaded in turn at a start: candidate, active, previous, the factory's."""
STEADY_S = 600.0
"""A process that lives for so long is no part of a crash loop."""
STOP_S = 5.0
"""Work that is under way for longer when the agent stops is left to end with the process."""


class Listener(Protocol):
    """Who wants to know. Called in the loop."""

    def changed(self, model: str, now: State) -> None:
        """The model's state is another one, and on disk."""

    def told(self, model: str, tell: Tell) -> None:
        """Something happened that the fleet should hear of."""

    def progressed(self, model: str, transfer: Transfer) -> None:
        """The fetch of the candidate got on, or waits."""

    def trouble(self, error: EdgeError) -> None:
        """This machine or a peer is in the way; it is tried again."""


class _Job:
    """A fetch or test of one model under way, or waiting for its time."""

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256
        self.stop = threading.Event()
        self.timer: Timer | None = None

    def cancel(self) -> None:
        self.stop.set()
        if self.timer:
            self.timer.cancel()


class Updater:
    """Runs one update machine a model. Every method but ``start`` and ``stop``: in the loop."""

    def __init__(
        self,
        loop: Loop,
        folder: Folder,
        *,
        rules: Rules,
        errands: Errands,
        serving: Serving,
        listener: Listener,
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._rules = rules
        self._errands = errands
        self._serving = serving
        self._listener = listener
        self._states: dict[str, State] = {}
        self._wanted: dict[str, Wanted] = {}
        self._trials: dict[str, Evidence] = {}
        self._jobs: dict[str, _Job] = {}
        self._guests = 0
        """Pieces of work that ``in_turn`` took and that have not ended."""
        self._answers: dict[str, Answer] = {}
        self._turns: deque[tuple[str, str]] = deque()
        self._turn = ""
        self._stopping = False
        self._fetches = Worker("edge-fetch")
        self._tests = Worker("edge-test")
        self._loads = Worker("edge-load")
        self.also_kept: Callable[[], set[str]] = set
        """Slots that something else needs."""

    # -- from outside ------------------------------------------------------------------------

    def start(self, factory: tuple[str, ...] = ()) -> None:
        """Plan from what is on disk; return once what answered before answers again.

        ``factory``: models that the factory has bundles of, known here or not.
        """
        kernel = hardware.kernel_run()
        models = dict.fromkeys((*self._folder.known_models(), *factory))
        for model in models:
            self._loop.post(functools.partial(self.take, model, Started(kernel)))
        for _ in range(FALLBACKS):
            self._loop.ask(lambda: None)
            self._loads.drain()
        self._loop.post(lambda: self._loop.later(STEADY_S, self._lived))

    def stop(self) -> None:
        """Call off what is under way, on disk as called off, and wait until it ended."""
        self._loop.ask(self._call_off)
        for worker in (self._fetches, self._tests, self._loads):
            worker.stop(STOP_S)

    @property
    def states(self) -> Mapping[str, State]:
        """The state of each model's update."""
        return self._states

    def waits(self, model: str) -> str:
        """What the model's update waits for, in words, apart from its download; "" for nothing."""
        now, seen = self._load(model), self._trials.get(model)
        wanted = now.candidate.sha256 if now.candidate else ""
        if now.phase is Phase.TRIAL:
            known = seen and seen.sha256 == wanted
            return trial.waits(seen, self._rules.trial) if seen and known else "its first requests"
        if now.phase is Phase.STAGED:
            return "the self-test of another model"
        if now.phase in BEFORE_TRIAL and now.delay_s:
            return f"{now.delay_s:.0f} s before the next attempt"
        others = (each for name, each in self._states.items() if name != model)
        if now.phase is Phase.FETCHING and any(each.phase is Phase.FETCHING for each in others):
            return "the download of another model"
        return ""

    def take(self, model: str, event: Event) -> None:
        """Let ``event`` happen to ``model``: decide, persist, act."""
        if self._stopping:
            return
        if isinstance(event, Wanted):
            self._wanted[model] = event
        before = self._load(model)
        now, effects = step(before, event, self._rules)
        if now is not before:
            try:
                state.save(self._folder, model, now)
            except MachineFault as error:
                self._not_saved(model, event, error)
                return
            self._states[model] = now
            self._log(model, before, now)
        for effect in effects:
            self._perform(model, effect)
        if now is not before:
            self._listener.changed(model, now)
        if now.former != before.former:
            self._keep_former(model)

    def in_turn(self, kind: Literal["fetch", "test", "load"], work: Callable[[], None]) -> None:
        """Do work of another kind in the thread of the updates' own, after what waits there."""
        worker = {"fetch": self._fetches, "test": self._tests, "load": self._loads}[kind]
        self._guests += 1

        def run() -> None:
            try:
                work()
            finally:
                self._loop.post(self._guest_left)

        worker.submit(run)

    def sweep(self) -> None:
        """Remove every slot, half-slot and remainder that no state keeps.

        While anything may be fetched, half-slots stay for the next time.
        """
        busy = bool(self._jobs or self._guests)
        slot.prune(self._folder.slots, self._kept(), sweep=not busy)

    def _guest_left(self) -> None:
        self._guests -= 1

    # -- effects -----------------------------------------------------------------------------

    def _perform(self, model: str, effect: Effect) -> None:
        match effect:
            case Fetch(release, delay_s):
                tell = functools.partial(self._progressed, model)
                self._begin(
                    model,
                    release,
                    delay_s,
                    self._fetches,
                    lambda stop: self._errands.fetch(model, release, tell, stop),
                )
            case AwaitTurn(release):
                self._turns.append((model, release.sha256))
                self._loop.post(self._give_turn)
            case SelfTest(release, delay_s):
                self._turn = model
                self._begin(
                    model,
                    release,
                    delay_s,
                    self._tests,
                    lambda stop: self._errands.test(model, release, stop),
                )
            case Answer():
                self._answers[model] = effect
                load = functools.partial(self._loads.submit, lambda: self._answer(model, effect))
                if effect.delay_s:
                    self._loop.later(effect.delay_s, load)
                else:
                    load()
            case Watch(release):
                self._watch(model, release, time.monotonic())
            case Cancel(sha256):
                self._cancel(model, sha256)
            case Prune():
                self.sweep()
            case Tell():
                self._listener.told(model, effect)

    def _begin(
        self,
        model: str,
        release: Release,
        delay_s: float,
        worker: Worker,
        errand: Callable[[threading.Event], Event | None],
    ) -> None:
        """Run the errand once ``delay_s`` have passed, in place of what was under way."""
        if model in self._jobs:
            self._jobs[model].cancel()
        job = self._jobs[model] = _Job(release.sha256)

        def run() -> None:
            event = None if job.stop.is_set() else errand(job.stop)
            if event is not None:
                self._loop.post(lambda: self._ended(model, job, event))

        job.timer = self._loop.later(delay_s, lambda: worker.submit(run))

    def _ended(self, model: str, job: _Job, event: Event) -> None:
        """An errand has ended: let its outcome happen."""
        if self._jobs.get(model) is job:
            del self._jobs[model]
        self._free_turn(model)
        self.take(model, event)
        self._give_turn()

    def _answer(self, model: str, effect: Answer) -> None:
        if self._answers.get(model) is effect:  # else a newer decision follows
            event = self._errands.answer(model, effect.release)
            if event is not None:
                self._loop.post(lambda: self.take(model, event))
            self._loop.post(lambda: self._keep_former(model))

    def _keep_former(self, model: str) -> None:
        """After all that has to answer: what stays in memory beside it, if anything."""
        former = self._load(model).former
        self._loads.submit(lambda: self._errands.keep_former(model, former))

    # -- turns and watches -------------------------------------------------------------------

    def _give_turn(self) -> None:
        """Let the next one in line be tested, when nobody is."""
        while self._turns and not self._turn:
            model, sha256 = self._turns.popleft()
            self.take(model, TurnCame(sha256))

    def _watch(self, model: str, release: Release, since_s: float) -> None:
        """Report what the trial saw, again and again until it ends."""
        now = self._load(model)
        if now.phase is not Phase.TRIAL or now.candidate != release:
            return
        self._loop.later(WATCH_S, lambda: self._watch(model, release, since_s))  # whatever follows
        seen = self._serving.evidence(model, time.monotonic() - since_s)
        if seen and seen.sha256 == release.sha256:
            self._trials[model] = seen
            self.take(model, seen)

    # -- small steps -------------------------------------------------------------------------

    def _progressed(self, model: str, transfer: Transfer) -> None:
        """In the fetching thread."""
        self._loop.post(lambda: self._listener.progressed(model, transfer))

    def _cancel(self, model: str, sha256: str) -> None:
        job = self._jobs.get(model)
        if job and job.sha256 == sha256:
            job.cancel()
            del self._jobs[model]
        self._free_turn(model)
        self._loop.post(self._give_turn)

    def _free_turn(self, model: str) -> None:
        if self._turn == model:
            self._turn = ""

    def _lived(self) -> None:
        for model in list(self._states):
            self.take(model, Steady())

    def _call_off(self) -> None:
        for job in self._jobs.values():
            job.cancel()
        for model in list(self._states):
            self.take(model, Stopping())
        self._stopping = True

    def _load(self, model: str) -> State:
        if model not in self._states:
            self._states[model] = state.load(self._folder, model)
            self._serving.seat(
                model
            )  # requests hear that it is not there yet, not that it is unknown
        return self._states[model]

    def _kept(self) -> set[str]:
        own = {sha256 for each in self._states.values() for sha256 in each.kept}
        return own | self.also_kept()

    def _not_saved(self, model: str, event: Event, error: MachineFault) -> None:
        """Nothing was decided; let it happen again when the disk may take it."""
        self._listener.trouble(error)
        again = not isinstance(event, Evidence | Stopping)  # evidence comes again by itself
        if isinstance(event, Started):
            now = self._load(model)
            again = now.phase not in RESTING  # at rest there is nothing more to do than to answer
            if self._serving.seat(model).model is None:
                for effect in stopgap(now):
                    self._perform(model, effect)
        if again:
            self._loop.later(PERSIST_RETRY_S, lambda: self._again(model, event))

    def _again(self, model: str, event: Event) -> None:
        """Let happen what could not be kept, unless something else is wanted since."""
        if not isinstance(event, Wanted) or self._wanted.get(model) is event:
            self.take(model, event)

    def _log(self, model: str, before: State, now: State) -> None:
        if before.phase is now.phase and before.candidate == now.candidate:
            return
        about = now.candidate or before.candidate or now.active
        reason = f" ({now.reason})" if now.reason else ""
        version = about.version if about else "-"
        log.info("%s %s: %s -> %s%s", model, version, before.phase, now.phase, reason)

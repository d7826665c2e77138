"""Which version is tried beside the one that answers, and how it gets there and away again.

Guards: only a release that the signed pointer names is tried, and none below the floor; it is
self-tested in a process of its own before it comes into this one, and whatever goes wrong with it
leaves the live version alone; an update's own download goes first; a candidate that was ended is
not tried again until another one is wanted or the agent starts anew.

Reads the world at each tick and brings it nearer to what is wanted; there is no other state.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

from edge_agent import choose, selftest, slot
from edge_agent.folder import Folder
from edge_agent.live import Live
from edge_agent.loop import Loop
from edge_agent.model import Model
from edge_agent.selftest import Limits
from edge_agent.settings import Shadow as Settings
from edge_agent.shade import Runner, Shade
from edge_agent.split import Split
from edge_agent.steps import Phase, State, Tell
from edge_agent.tap import watch
from edge_agent.telemetry.recorder import Instant
from edge_agent.transfer import Transfer
from edge_contract.aside import Aside
from edge_contract.errors import EdgeError, MachineFault
from edge_contract.manifest import Manifest
from edge_contract.messages import Beside, Desired, Pointer, Release

log = logging.getLogger(__name__)

RETRY_S = 60.0
STOP_S = 2.0


class Fetcher(Protocol):
    """``pull.Puller``."""

    def fetch(
        self,
        model: str,
        release: Release,
        progress: Callable[[Transfer], None],
        stop: threading.Event,
    ) -> Manifest:
        """Have the release's slot on disk."""


class Updates(Protocol):
    """``updater.Updater``."""

    @property
    def states(self) -> Mapping[str, State]:
        """The state of each model's update."""

    def in_turn(self, kind: Literal["fetch", "test", "load"], work: Callable[[], None]) -> None:
        """Do work in the thread of the updates' own."""


class Seats(Protocol):
    """``serving.Serving``."""

    @property
    def models(self) -> Mapping[str, Live]:
        """Every seat by its name."""

    def beside(self, name: str, folder: Path, sha256: str) -> Model:
        """Have a slot loaded beside what answers."""

    def dismiss(self, name: str, sha256: str) -> None:
        """Let go of it."""


class Records(Protocol):
    """``telemetry.Recorder``."""

    def add(self, record: Aside) -> None:
        """Number the record and spool it."""


class _Side:
    """One version on its way beside the live one, or there."""

    def __init__(self, release: Release, *, answers: bool) -> None:
        self.release = release
        self.answers = answers
        self.stop = threading.Event()
        self.candidate: Model | None = None
        self.shade: Shade | None = None
        self.split: Split | None = None
        self.began_s = 0.0
        self.again_s: float | None = None
        """When to try once more; None: it is under way, or there."""
        self.over = ""
        """Why it is not tried again."""


class Shadows:
    """Every method: in the loop, ``stop`` apart.

    Args:
        tell: an event for the fleet. window_s: how often counts go home.
        stall_s: a run that takes longer is interrupted.
        strained: the machine is hot or short of memory: what nobody waits for rests.
    """

    def __init__(
        self,
        loop: Loop,
        folder: Folder,
        settings: Settings,
        *,
        fetcher: Fetcher,
        updates: Updates,
        serving: Seats,
        records: Records,
        limits: Limits,
        wanted: Callable[[], tuple[Pointer | None, Desired | None]],
        tell: Callable[[str, Tell], None],
        now: Callable[[], Instant],
        rng: random.Random,
        window_s: float,
        stall_s: float,
        strained: Callable[[], bool] = lambda: False,
    ) -> None:
        self._strained = strained
        self._loop = loop
        self._folder = folder
        self._settings = settings
        self._fetcher = fetcher
        self._updates = updates
        self._serving = serving
        self._records = records
        self._limits = limits
        self._wanted = wanted
        self._tell = tell
        self._now = now
        self._rng = rng
        self._window_s = window_s
        self._stall_s = stall_s
        self._runner = Runner(settings.queue)
        self._sides: dict[str, _Side] = {}
        self._stopped = False

    def kept(self) -> set[str]:
        """Slots that are needed here."""
        return {side.release.sha256 for side in self._sides.values()}

    def status(self) -> dict[str, str]:
        """What is tried beside each model, for a person."""
        return {model: _said(side) for model, side in list(self._sides.items())}

    def tick(self) -> None:
        """Come nearer to what is wanted, and pass on what was counted."""
        if self._stopped:
            return
        now = self._now()
        pointer, desired = self._wanted()
        asked = dict.fromkeys(self._settings.models, self._own())
        asked.update(desired.beside if desired else {})
        for model in {*asked, *self._sides}:
            wish = asked.get(model)
            release = choose.beside(pointer, model, wish.version) if pointer and wish else None
            self._towards(model, release, wish or Beside(), now)

    def stop(self) -> None:
        """Run no more, and leave the counts with the records."""
        self._stopped = True
        for side in self._sides.values():
            side.stop.set()
            if side.shade is not None:
                watch(side.shade.live, None)
                side.shade.candidate.interrupt()
        self._runner.stop(STOP_S)
        for side in self._sides.values():
            self._pass_on(side, self._now())

    # -- one model ---------------------------------------------------------------------------

    def _own(self) -> Beside:
        own = self._settings
        return Beside(version=own.version, share=own.share, answers=own.answers)

    def _towards(self, model: str, release: Release | None, wish: Beside, now: Instant) -> None:
        side, seat = self._sides.get(model), self._serving.models.get(model)
        live = seat.model if seat is not None else None
        here = live is not None and release is not None and release.sha256 != live.digest
        same = side is not None and (side.release, side.answers) == (release, wish.answers)
        if side is not None and not (here and same):
            self._end(model, side, now)
            side = None
        if not here or live is None or release is None:
            return
        if side is None:
            side = self._sides[model] = _Side(release, answers=wish.answers)
            self._begin(model, side)
        elif side.again_s is not None and now.monotonic_s >= side.again_s:
            self._begin(model, side)
        elif side.candidate is None and self._update_fetches():
            side.stop.set()
        elif side.candidate is not None and not side.over:
            self._run(model, side, live, wish, now)

    def _run(self, model: str, side: _Side, live: Model, wish: Beside, now: Instant) -> None:
        """It is loaded: see that it runs beside what answers now, and how."""
        if side.split is not None:
            side.split.share = wish.share
            if side.split.ended:
                self._over(model, side, side.split.ended)
            elif self._serving.models[model].loaded_as(side.release.sha256) is None:
                self._end(model, side, now)  # the seat was cleared meanwhile
            return
        shade = side.shade
        if shade is None or shade.live is not live:
            self._pass_on(side, now)
            try:
                side.shade = shade = self._shade(live, side, wish, now)
            except Exception as error:  # noqa: BLE001 - said, and in the way of nothing else
                self._over(model, side, _what(error))
                return
            watch(live, shade)
        shade.share = 0.0 if self._strained() else wish.share
        shade.check(now.monotonic_s, self._stall_s)
        if now.monotonic_s - side.began_s >= self._window_s:
            self._pass_on(side, now)
        if shade.ended:
            self._pass_on(side, now)
            self._over(model, side, shade.ended)

    def _shade(self, live: Model, side: _Side, wish: Beside, now: Instant) -> Shade:
        assert side.candidate is not None
        side.began_s = now.monotonic_s
        self._runner.start()
        return Shade(
            live, side.candidate, self._runner,
            share=wish.share, tolerance=self._settings.tolerance, rng=self._rng, now=now,
        )  # fmt: skip

    def _pass_on(self, side: _Side, now: Instant) -> None:
        record = side.shade.record(now) if side.shade is not None else None
        side.began_s = now.monotonic_s
        if record is not None:
            self._records.add(record)

    def _end(self, model: str, side: _Side, now: Instant) -> None:
        """It is no longer wanted, or has become what answers."""
        del self._sides[model]
        side.stop.set()
        self._let_go(model, side)
        self._pass_on(side, now)

    def _over(self, model: str, side: _Side, why: str) -> None:
        """It is not tried again while nothing else is wanted."""
        side.over, side.again_s = why, None
        self._let_go(model, side)
        self._tell(model, Tell("shadow-ended", side.release.version, why))

    def _let_go(self, model: str, side: _Side) -> None:
        if side.shade is not None:
            watch(side.shade.live, None)
            side.shade.end(side.over or "it is not wanted any more")
        seat, candidate = self._serving.models[model], side.candidate
        if side.split is not None:
            seat.split = side.split = None
            if seat.model is None or seat.model.digest != side.release.sha256:
                self._serving.dismiss(model, side.release.sha256)
        elif candidate is not None:
            self._runner.later(candidate.close)
        side.candidate = None

    # -- on its way --------------------------------------------------------------------------

    def _begin(self, model: str, side: _Side) -> None:
        side.again_s = None
        side.stop = threading.Event()
        self._step(model, side, "fetch")

    def _step(self, model: str, side: _Side, kind: Literal["fetch", "test", "load"]) -> None:
        """One step in its thread, then the next one, by way of the loop."""
        stop, following = side.stop, {"fetch": "test", "test": "load"}
        work = {"fetch": self._fetch, "test": self._test, "load": self._load}[kind]

        def run() -> None:
            try:
                if stop.is_set():
                    raise MachineFault("an update goes first")
                work(model, side)
            except Exception as error:  # noqa: BLE001 - said below, and never in the live one's way
                failed = error
                self._loop.post(lambda: self._failed(model, side, failed))
                return
            if kind in following:
                then: Literal["test", "load"] = "test" if kind == "fetch" else "load"
                self._loop.post(lambda: self._step(model, side, then))
            else:
                self._loop.post(lambda: self._ready(model, side))

        self._updates.in_turn(kind, run)

    def _fetch(self, model: str, side: _Side) -> None:
        self._fetcher.fetch(model, side.release, lambda _: None, side.stop)

    def _test(self, model: str, side: _Side) -> None:
        folder = self._folder.slot(side.release.sha256)
        limits = self._limits.within(slot.verify(folder, side.release.sha256).runtime)
        report = selftest.prove(folder, limits, side.stop)
        if not report.passed:
            raise _Unfit(f"the self-test failed: {report}")

    def _load(self, model: str, side: _Side) -> None:
        folder = self._folder.slot(side.release.sha256)
        if side.answers:
            side.candidate = self._serving.beside(model, folder, side.release.sha256)
        else:
            side.candidate = Model.from_slot(folder, gently=True)

    def _ready(self, model: str, side: _Side) -> None:
        if self._sides.get(model) is not side:
            if side.answers:
                self._serving.dismiss(model, side.release.sha256)
            elif side.candidate is not None:
                side.candidate.close()
            return
        if side.answers:
            wish = side.release
            side.split = Split(wish.version, salt=wish.sha256, share=0.0)
            self._serving.models[model].split = side.split
        self.tick()
        if side.over:
            return
        how = "answers its share" if side.answers else "runs in the shadow"
        self._tell(model, Tell("shadow-began", side.release.version, how))

    def _failed(self, model: str, side: _Side, error: Exception) -> None:
        if self._sides.get(model) is not side:
            return
        what = _what(error)
        if isinstance(error, _Unfit):
            self._over(model, side, what)
        else:
            log.warning("%s %s is not tried yet: %s", model, side.release.version, what)
            side.again_s = self._now().monotonic_s + RETRY_S

    def _update_fetches(self) -> bool:
        return any(state.phase is Phase.FETCHING for state in self._updates.states.values())


class _Unfit(MachineFault):
    """This version will not run on this machine."""


def _what(error: Exception) -> str:
    return error.what if isinstance(error, EdgeError) else f"unexpected error: {error!r}"


def _said(side: _Side) -> str:
    version = side.release.version
    if side.over:
        return f"{version}: {side.over}"
    if side.split is not None:
        return f"{version} answers {side.split.share:.0%}"
    if side.shade is not None:
        return f"{version} in the shadow of {side.shade.share:.0%}"
    return f"{version} is on its way"

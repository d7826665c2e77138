"""Keeps what is wanted in step with the channel's signed pointer and this device's ``desired``.

Guards: only a verified pointer changes what is wanted; a broker that cannot be reached, or lies,
changes nothing. Looks when the doorbell rings, when the broker comes back, when ``desired``
changes, and every ``poll_s`` in case a bell was not heard.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Protocol

from edge_agent import choose, state
from edge_agent.config import Config
from edge_agent.delivery import Stopped
from edge_agent.folder import Folder
from edge_agent.loop import Loop, Timer
from edge_agent.steps import Online, Wanted
from edge_agent.strain import SLOWER
from edge_agent.updater import Updater
from edge_agent.voice import Freshness
from edge_agent.worker import Worker
from edge_contract import messages
from edge_contract.errors import EdgeError, MachineFault
from edge_contract.messages import Desired, Pointer

log = logging.getLogger(__name__)

SETTLE_S = 0.1
"""Bells ring in groups: the broker repeats retained messages, a publisher publishes several."""
JITTER = 0.2
STOP_S = 1.0


class Refreshed(Protocol):
    """The signed state of the channel."""

    @property
    def pointer(self) -> Pointer | None:
        """What the channel names; None when nothing may be installed now."""

    @property
    def freshness(self) -> Freshness:
        """How far the metadata may be believed."""


class Source(Protocol):
    """Where signed metadata comes from."""

    def refresh(self, stop: threading.Event) -> Refreshed:
        """Ask the broker. Raises EdgeError, Stopped among them; then what was known stays."""

    def cached_pointer(self) -> Pointer | None:
        """The verified pointer on disk."""


class Follower:
    """Every method but ``stop``: in the loop.

    Args:
        on_error, on_change: called when looking failed, and when anything here changed.
        on_well: called when looking works again.
        strained: the machine is; then the regular look comes ``SLOWER`` times later.
    """

    def __init__(
        self,
        loop: Loop,
        folder: Folder,
        config: Config,
        *,
        source: Source,
        updater: Updater,
        rng: random.Random,
        on_error: Callable[[EdgeError], None],
        on_change: Callable[[], None],
        on_well: Callable[[], None] = lambda: None,
        strained: Callable[[], bool] = lambda: False,
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._config = config
        self._source = source
        self._updater = updater
        self._rng = rng
        self._on_error = on_error
        self._on_change = on_change
        self._on_well = on_well
        self._strained = strained
        self._worker = Worker("edge-refresh")
        self._timer: Timer | None = None
        self._looking = False
        self._again = False
        self._failures = 0
        self._stopping = False
        self._called_off = threading.Event()
        self.pointer: Pointer | None = None
        self.desired: Desired | None = None
        self.freshness: Freshness = "none"
        self.why: dict[str, str] = {}

    def start(self) -> None:
        """Decide by what is on disk, broker or not."""
        self.desired = state.load_desired(self._folder)
        self.pointer = self._source.cached_pointer()
        self.decide()

    def stop(self) -> None:
        """Look no more. A look under way, at a silent broker too, is called off."""
        self._stopping = True
        self._called_off.set()
        if self._timer:
            self._timer.cancel()
        self._worker.stop(STOP_S)

    @property
    def revision(self) -> int:
        """Of the newest ``desired``."""
        return self.desired.revision if self.desired else 0

    def online(self) -> None:
        """The broker is there: look, and wait no longer with what waits for it."""
        for model in list(self._updater.states):
            self._updater.take(model, Online())
        self.ring()

    def ring(self) -> None:
        """The doorbell: there may be something new."""
        if self._looking:
            self._again = True  # what is being read may be older than the bell
        else:
            self._look_in(SETTLE_S)

    def hear(self, payload: bytes) -> None:
        """A ``desired`` arrived; one that is not newer is ignored."""
        if not payload:
            return  # the fleet took it back; what was wanted stays wanted
        try:
            heard = messages.decode(payload, Desired)
            if not choose.newer(self.desired, heard):
                return
        except EdgeError as error:
            self._on_error(error)
            return
        try:
            state.save_desired(self._folder, heard)
        except MachineFault as error:
            self._on_error(error)  # heard all the same; the broker repeats it after a restart
        log.info("desired: revision %d, %s", heard.revision, dict(heard.models) or "stable")
        self.desired = heard
        self.decide()
        self.ring()
        self._on_change()

    def decide(self) -> None:
        """Tell each model's update what is wanted."""
        pointer = self.pointer
        if pointer is None:
            return
        known = self._updater.states
        names = dict.fromkeys((*choose.models(pointer, self._config.agent.models), *known))
        for model in names:
            choice = choose.choose(pointer, model, self.desired)
            if choice.reason and choice.reason != self.why.get(model):
                log.info("%s: %s", model, choice.reason)
            self.why[model] = choice.reason
            if choice.release or model in known:
                self._updater.take(model, Wanted(choice.release, choice.revision, choice.floor))

    # -- looking -------------------------------------------------------------------------------

    def _look_in(self, delay_s: float) -> None:
        if self._stopping:
            return
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.later(delay_s, self._look)

    def _look(self) -> None:
        if self._looking:
            self._again = True
        elif not self._stopping:
            self._looking = True
            self._worker.submit(self._refresh)

    def _refresh(self) -> None:
        """In the worker's thread."""
        try:
            found = self._source.refresh(self._called_off)
        except Stopped:
            log.info("the look for updates was called off")
        except EdgeError as error:
            failed = error
            self._loop.post(lambda: self._failed(failed))
        except Exception:
            log.exception("unexpected error while looking for updates")
            self._loop.post(lambda: self._ended(self._config.update.poll_s))
        else:
            self._loop.post(lambda: self._found(found))

    def _found(self, found: Refreshed) -> None:
        changed = found.freshness != self.freshness or found.pointer != self.pointer
        self.freshness = found.freshness
        if self._failures:
            self._on_well()
        self._failures = 0
        slower = SLOWER if self._strained() else 1
        self._ended(slower * self._config.update.poll_s)  # whatever deciding comes to, look again
        if found.pointer is not None:
            self.pointer = found.pointer
            self.decide()
        if changed:
            self._on_change()

    def _failed(self, error: EdgeError) -> None:
        update = self._config.update
        self._failures += 1
        self._on_error(error)
        wait_s = update.backoff_min_s * 2.0 ** min(self._failures - 1, 30)
        self._ended(min(wait_s, update.backoff_max_s, update.poll_s))

    def _ended(self, next_s: float) -> None:
        self._looking = False
        again, self._again = self._again, False
        jitter = 1 + JITTER * (2 * self._rng.random() - 1)
        self._look_in(SETTLE_S if again else next_s * jitter)

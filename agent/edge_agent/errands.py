"""The long work of an update, in the words of its machine: a release goes in, an event comes out.

Guards: every errand ends in an event that says how, also after a fault of ours, or in None when it
was called off; so no update ever waits for an answer that does not come.

Each blocks, and runs in a worker's thread.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Protocol

from edge_agent import selftest, slot
from edge_agent.accept import Refused
from edge_agent.factory import Factory
from edge_agent.folder import Folder
from edge_agent.memory import NoRoom
from edge_agent.selftest import Limits
from edge_agent.serving import DamagedSlot, Serving
from edge_agent.steps import (
    Answering,
    Damaged,
    Event,
    Fetched,
    FetchFailed,
    LoadFailed,
    SelfTestFailed,
    SelfTestPassed,
)
from edge_agent.transfer import Transfer
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.manifest import Manifest
from edge_contract.messages import Release

log = logging.getLogger(__name__)

Progress = Callable[[Transfer], None]


class Fetcher(Protocol):
    """Brings a release's slot to disk: what an update needs of the delivery."""

    def fetch(
        self, model: str, release: Release, progress: Progress, stop: threading.Event
    ) -> Manifest:
        """Have the slot on disk, whole and verified, when this returns.

        Raises Refused when this machine cannot run it, another EdgeError when it may work later.
        """


class Errands:
    """What the shell runs for the effects ``Fetch``, ``SelfTest`` and ``Answer``."""

    def __init__(
        self,
        folder: Folder,
        *,
        fetcher: Fetcher,
        serving: Serving,
        limits: Limits,
        rng: random.Random,
        factory: Factory | None = None,
    ) -> None:
        self._folder = folder
        self._fetcher = fetcher
        self._serving = serving
        self._limits = limits
        self._rng = rng
        self._factory = factory

    def fetch(
        self, model: str, release: Release, progress: Progress, stop: threading.Event
    ) -> Event | None:
        """Have the release's slot on disk: Fetched, FetchFailed."""
        sha256, jitter = release.sha256, self._rng.random()

        def work() -> Event | None:
            try:
                self._fetcher.fetch(model, release, progress, stop)
            except EdgeError as error:
                lasting = isinstance(error, Refused) and error.lasting
                failed = FetchFailed(sha256, error.what, lasting, jitter)
                return None if stop.is_set() else failed
            return Fetched(sha256)

        return _surely(work, lambda said: FetchFailed(sha256, said, jitter=jitter))

    def test(self, model: str, release: Release, stop: threading.Event) -> Event | None:
        """Test the release's slot: SelfTestPassed, SelfTestFailed, Damaged."""
        return _surely(
            lambda: self._test(model, release.sha256, stop),
            lambda said: SelfTestFailed(release.sha256, said, lasting=False),
        )

    def answer(self, model: str, release: Release | None) -> Event | None:
        """Let the release answer; for None the factory's bundle, or nothing.

        Answering, Damaged, LoadFailed.
        """
        sha256 = release.sha256 if release else ""
        return _surely(lambda: self._answer(model, sha256), lambda said: LoadFailed(sha256, said))

    def keep_former(self, model: str, former: Release | None) -> None:
        """Have the former release loaded beside what answers, where the settings want that.

        What cannot be loaded is not kept: nothing is decided by it.
        """
        if not self._serving.keeps_former(model):
            return
        sha256 = former.sha256 if former else ""
        try:
            folder = self._folder.slot(sha256) if sha256 else self._folder.slots
            self._serving.keep_former(model, folder, sha256)
        except EdgeError as error:
            log.warning("%s: the former version is not kept in memory: %s", model, error.what)

    def _test(self, model: str, sha256: str, stop: threading.Event) -> Event | None:
        folder = self._folder.slot(sha256)
        try:
            limits = self._limits.within(slot.verify(folder, sha256).runtime)
        except InputFault as error:
            log.warning("%s: %s", model, error.what)
            return Damaged(sha256)
        try:
            report = selftest.prove(folder, limits, stop)
        except selftest.Stopped:
            return None
        except MachineFault as error:
            return SelfTestFailed(sha256, error.what, lasting=False)
        if report.passed:
            return SelfTestPassed(sha256, str(report), report.seen(limits))
        reason = f"the self-test failed: {report}"
        lasting = report.ended != selftest.NO_ROOM
        return SelfTestFailed(sha256, reason, lasting, report.seen(limits))

    def _answer(self, model: str, sha256: str) -> Event:
        try:
            if sha256:
                self._serving.answer(model, self._folder.slot(sha256), sha256)
            elif self._factory is None or not self._serving.answer_by_factory(model, self._factory):
                self._serving.clear(model)
        except DamagedSlot as error:
            log.warning("%s: %s", model, error.what)
            return Damaged(sha256)
        except EdgeError as error:
            return LoadFailed(sha256, error.what, lasting=not isinstance(error, NoRoom))
        return Answering(sha256)


def _surely(work: Callable[[], Event | None], failed: Callable[[str], Event]) -> Event | None:
    """What ``work`` gives; after a bug in it, which must be seen, what ``failed`` makes of that."""
    try:
        return work()
    except Exception:
        log.exception("unexpected error; the agent goes on")
        return failed("unexpected error of the agent; its log has the details")

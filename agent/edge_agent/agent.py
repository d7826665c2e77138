"""The agent: models that answer, updates that prove themselves, counts that go home.

Guards: what is on disk answers before the network is touched, and whether or not there is a
broker; one agent a folder; a stop in order leaves nothing running and loses nothing counted.

What it is made of is in ``edge_agent.parts``.
"""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

from edge_agent import config as configs
from edge_agent import runtime
from edge_agent.config import Config
from edge_agent.feedback import given
from edge_agent.folder import Folder, Lock, clear_up
from edge_agent.notify import Notifier
from edge_agent.outputs import Prediction
from edge_agent.parts import Clocks, Parts
from edge_agent.report import AgentStatus
from edge_contract import messages
from edge_contract.errors import InputFault, MachineFault
from edge_contract.manifest import Label
from edge_contract.messages import LabelsTaken

log = logging.getLogger(__name__)


class Agent:
    """One device: ``start``, ``predict`` from any thread, ``stop``; or a ``with`` statement.

    Args:
        config: as ``edge_agent.config.load`` gives it.
        clocks, rng: the world's time and chance.
        notifier: the service manager's ear; None: the agent is no service.
    """

    def __init__(
        self,
        config: Config,
        *,
        clocks: Clocks | None = None,
        rng: random.Random | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.config = config
        self._notifier = notifier or Notifier()
        self._clocks = clocks or Clocks()
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._parts: Parts | None = None

    def start(self) -> None:
        """Answer from disk, then connect; returns without waiting for the broker.

        Raises:
            InputFault: the device is not enrolled, or the agent runs already.
            MachineFault: another agent runs in this folder, or it cannot be used.
        """
        if self._parts is not None:
            raise InputFault("the agent runs already")
        runtime.free_at_once()
        lock = Lock(Folder(self.config.folder))
        try:
            clear_up(Folder(self.config.folder))
            parts = Parts(self.config, self._clocks, self._rng, self._notifier)
            parts.start()
        except BaseException:
            lock.release()
            raise
        self._parts, self._lock = parts, lock
        self._notifier.ready()

    def stop(self) -> None:
        """End in order: windows to the spool, goodbye to the broker. May be called twice."""
        parts, self._parts = self._parts, None
        if parts is not None:
            self._notifier.stopping()
            try:
                parts.stop()
            finally:
                self._lock.release()

    @classmethod
    def open(cls, path: str | Path = configs.DEFAULT_PATH) -> Agent:
        """The agent whose settings are in a file; not started. Raises InputFault."""
        return cls(configs.load(Path(path), os.environ))

    def predict(self, model: str, rows: object, key: str = "") -> Prediction | list[Prediction]:
        """The answer of a model or ensemble by its name; see ``Model.predict``.

        ``key`` names what it is about, such as a machine: where a candidate answers a share, one
        key always meets the same side.

        Raises InputFault when a row does not fit or the device has no such model, MachineFault
        when it has no version yet or the agent does not run.
        """
        return self._running().serving.predict(model, rows, key=key)

    async def apredict(self, model: str, rows: object) -> Prediction | list[Prediction]:
        """As ``predict``, without holding up the event loop."""
        import asyncio  # noqa: PLC0415 - as in edge_agent.model

        return await asyncio.to_thread(self.predict, model, rows)

    def feedback(self, which: str, label: Label) -> LabelsTaken:
        """Say what an answer should have been, by the ``id`` of its prediction.

        Args:
            label: one of the model's labels, or the true value for a regression.

        Returns what became of it: see ``LabelsTaken``. Raises InputFault where the agent takes no
        labels, MachineFault when it does not run.
        """
        return given("", self._running().feedback, [messages.Label(id=which, label=label)])

    def look(self) -> None:
        """Look for updates now, not when it is next due."""
        parts = self._running()
        log.info("asked to look for updates now")
        parts.loop.post(parts.follower.ring)

    def status(self) -> AgentStatus:
        """How the agent is at this moment."""
        parts = self._running()
        return parts.loop.ask(parts.voice.status)

    def _running(self) -> Parts:
        if self._parts is None:
            raise MachineFault("the agent does not run", advice="Call start() first.")
        return self._parts

    def __enter__(self) -> Agent:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

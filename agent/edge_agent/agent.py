"""The agent: models that answer, updates that prove themselves, counts that go home.

Guards: what is on disk answers before the network is touched, and whether or not there is a
broker; one agent a folder; a stop in order leaves nothing running and loses nothing counted.

This module puts the parts together and passes on what happens between them; no rule lives here.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import clock, hardware, identity, runtime, state
from edge_agent import config as configs
from edge_agent.bindings.build import Bindings, needed
from edge_agent.config import Config
from edge_agent.doors import DoorCounts, MqttDoor, httpd
from edge_agent.doors.labels import LabelDoor
from edge_agent.ensemble import EnsembleSeat
from edge_agent.errands import Errands
from edge_agent.factory import DEFAULT_FOLDER, Factory
from edge_agent.feedback import Feedback, given
from edge_agent.folder import Folder, Lock, clear_up, next_boot
from edge_agent.follow import Follower
from edge_agent.loop import Loop
from edge_agent.model import Model, Observer
from edge_agent.notify import Notifier
from edge_agent.outbox import Outbox
from edge_agent.outputs import Prediction
from edge_agent.predictions import Answers, Noted, bundle_of
from edge_agent.pull import Puller
from edge_agent.report import AgentStatus
from edge_agent.selftest import Limits
from edge_agent.serving import Serving
from edge_agent.shadow import Shadows
from edge_agent.steps import Tell
from edge_agent.strain import LOOK_S, Strain
from edge_agent.tap import Tap
from edge_agent.telemetry import Recorder, Sender, Spool
from edge_agent.telemetry.recorder import Instant
from edge_agent.updater import Updater
from edge_agent.uplink import Uplink
from edge_agent.voice import Facts, Voice
from edge_agent.watchdog import Watchdog
from edge_contract import messages
from edge_contract.errors import InputFault, MachineFault, PeerFault
from edge_contract.manifest import Label
from edge_contract.messages import LabelsTaken
from edge_contract.ports.mqtt import Message

if TYPE_CHECKING:
    from edge_agent.doors.watch import Watcher

log = logging.getLogger(__name__)

LOOK = "the look for updates"
TICK_S = 1.0
KICK_S = 15.0
"""The sender is asked this often, though nothing happened."""
SEND_ON_STOP_S = 2.0


def version() -> str:
    """Of the installed distribution."""
    return importlib.metadata.version("edge-pack")


@dataclass(frozen=True)
class Clocks:
    """Where time comes from: seconds since 1970 UTC, a clock that never jumps, trust, a zone."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    synchronised: Callable[[], bool] = clock.synchronised
    zone: tzinfo = field(default_factory=lambda: clock.zone(os.environ))

    def now(self) -> Instant:
        """This moment."""
        return Instant(max(int(self.wall() * 1000), 0), self.monotonic(), self.synchronised())


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
        self._parts: _Parts | None = None

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
            parts = _Parts(self.config, self._clocks, self._rng, self._notifier)
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

    def _running(self) -> _Parts:
        if self._parts is None:
            raise MachineFault("the agent does not run", advice="Call start() first.")
        return self._parts

    def __enter__(self) -> Agent:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Parts:
    """What lives between start and stop."""

    def __init__(
        self, config: Config, clocks: Clocks, rng: random.Random, notifier: Notifier
    ) -> None:
        self.config = config
        self.folder = Folder(config.folder)
        self.clocks = clocks
        device = config.agent.device
        machine = hardware.read()
        self.puller = Puller(config, self.folder, machine, clocks.now, zone=clocks.zone, rng=rng)
        if not self.puller.enrolled:
            raise InputFault(
                f"device {device} is not enrolled: it trusts no publisher yet",
                advice="Run `edge-agent enroll --root FILE` once, or with its fingerprint.",
            )
        boot = next_boot(self.folder, clocks.wall())
        self.loop = Loop("edge-agent")
        self.outbox = Outbox(self.folder.outbox)
        self.uplink = Uplink(
            config,
            boot=boot,
            version=version(),
            outbox=self.outbox,
            on_message=self._received,
            on_up=lambda: self.loop.post(self._came),
            on_down=lambda _: self.loop.post(self.voice.publish),
            on_twin=self._met_twin,
            on_trouble=lambda error: self.loop.post(lambda: self.voice.trouble(error)),
            machine=identity.fingerprint(),
            rng=rng,
        )
        self.spool = Spool(self.folder.spool, max_bytes=config.telemetry.spool_bytes)
        self.sender = Sender(self.uplink.link, self.spool, config.topics.telemetry(device))
        self.answers = self._kept_answers(boot)
        self.recorder = Recorder(
            self.spool,
            device=device,
            boot=boot,
            window_s=config.telemetry.window_s,
            window_rows=config.telemetry.window_rows,
            on_record=self.sender.kick,
            latency_max_ms=config.update.latency_max_ms,
            observer=self._observer,
        )
        self.feedback = self._takes_labels()
        self.serving = Serving(
            self.recorder, clocks.now, limits=_limits(config), loading=config.loading
        )
        self.strain = Strain()
        self.voice = Voice(
            config,
            self.folder,
            boot=boot,
            version=version(),
            hardware=machine,
            facts=self._facts,
            ears=self.uplink,
            now=clocks.now,
        )
        self.factory = Factory(
            Path(config.update.factory) if config.update.factory else DEFAULT_FOLDER,
            models=config.agent.models,
            roots=self.puller.roots,
            pointer=self.puller.cached_pointer,
            tally=self.folder.factory,
            loads_max=config.update.attempts_max,
            trouble=lambda error: self.loop.post(lambda: self.voice.trouble(error)),
        )
        self.updater = Updater(
            self.loop,
            self.folder,
            rules=config.rules,
            errands=Errands(
                self.folder,
                fetcher=self.puller,
                serving=self.serving,
                limits=_limits(config),
                rng=rng,
                factory=self.factory,
            ),
            serving=self.serving,
            listener=self.voice,
        )
        self.follower = Follower(
            self.loop,
            self.folder,
            config,
            source=self.puller,
            updater=self.updater,
            rng=rng,
            on_error=lambda error: self.voice.trouble(error, LOOK),
            on_change=self.voice.publish,
            on_well=lambda: self.voice.over(LOOK),
            strained=lambda: self.strain.resting,
        )
        for name, spec in config.ensembles.items():
            self.serving.join(EnsembleSeat(name, spec, self.serving.models))
        self.shadows = Shadows(
            self.loop,
            self.folder,
            config.shadow,
            fetcher=self.puller,
            updates=self.updater,
            serving=self.serving,
            records=self.recorder,
            limits=_limits(config),
            wanted=lambda: (self.follower.pointer, self.follower.desired),
            tell=self.voice.told,
            now=clocks.now,
            rng=rng,
            window_s=config.telemetry.window_s,
            stall_s=config.update.stall_s,
            strained=lambda: self.strain.resting,
        )
        self.updater.also_kept = self.shadows.kept
        self.door = MqttDoor(
            self.uplink.link,
            config.topics,
            device,
            self.serving.answering,
            rules=config.overload.rules,
        )
        self.labels = LabelDoor(self.uplink.link, config.topics, device, self.feedback)
        self.bindings = self._bindings(boot) if needed(config) else None
        self.http = httpd.open_door(
            config, self.serving.answering, version(), self.feedback, self._figures
        )
        self.watchdog = Watchdog(
            self.loop, self.serving.models, notifier, stall_s=config.update.stall_s
        )
        self.watcher = _watcher(config, self.serving)
        self._desired = config.topics.desired(device)
        self._doorbell = config.topics.metadata("timestamp.json")

    def start(self) -> None:
        """Answer from disk, decide by what is on disk, then look for the broker."""
        self.loop.start()
        try:
            self.watchdog.start()
            self.puller.clear_up(state.fetching(self.folder))
            self.updater.start(self.factory.models)
            self.loop.ask(self.follower.start)
            self.loop.ask(self.updater.sweep)
            self.loop.post(self.voice.publish)
            self.loop.post(self._tick)
            self.loop.post(self._kick)
            self.loop.post(self._look)
            self.uplink.filters = [
                self._desired,
                self._doorbell,
                *self.door.filters,
                *self.labels.filters,
            ]
            if self.bindings is not None:
                self.bindings.start()
            if self.watcher is not None:
                self.watcher.start()
            self.uplink.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Take no more requests, call off what is under way, leave the counts on disk."""
        self.door.stop()
        if self.watcher is not None:
            self.watcher.stop()
        if self.bindings is not None:
            self.bindings.stop()
        self.labels.stop()
        if self.http is not None:
            self.http.stop()
        self.updater.stop()
        self.follower.stop()
        self.loop.ask(self.shadows.stop)
        if self.feedback is not None:
            self.feedback.flush(self.clocks.now())
        self.recorder.flush(self.clocks.now())
        self._send_off()
        self.uplink.stop()
        self.loop.ask(self.voice.farewell)
        self.watchdog.stop()
        self.loop.stop()

    # -- what happens between the parts --------------------------------------------------------

    def _received(self, message: Message) -> None:
        """In the network's thread."""
        if self.bindings is not None:
            self.bindings.handle(message)
        if message.topic == self._desired:
            self.loop.post(lambda: self.follower.hear(message.payload))
        elif message.topic == self._doorbell:
            self.loop.post(self.follower.ring)
        elif not self.labels.handle(message):
            self.door.handle(message)

    def _met_twin(self, what: str) -> None:
        """In the network's thread."""
        self.loop.post(lambda: self.voice.told("", Tell("duplicate-identity", "", what)))
        self.loop.post(lambda: self.voice.trouble(PeerFault(what)))
        self.loop.post(self.voice.publish)

    def _came(self) -> None:
        """The broker is there."""
        self.voice.publish()
        self.uplink.flush()
        self.sender.kick()
        self.follower.online()
        if self.bindings is not None:
            self.bindings.up()

    def _tick(self) -> None:
        self.recorder.tick(self.clocks.now())
        self.shadows.tick()
        if self.feedback is not None:
            self.feedback.tick(self.clocks.now())
        self.voice.tick()
        self.loop.later(TICK_S, self._tick)

    def _kick(self) -> None:
        self.sender.kick()
        self.loop.later(KICK_S, self._kick)

    def _look(self) -> None:
        now = self.clocks.now()
        told = self.strain.look(now.monotonic_s, now.wall_ms)
        if told is not None:
            self.voice.told("", told)
            self.voice.publish()
        self.loop.later(LOOK_S, self._look)

    def _figures(self) -> tuple[messages.Strain, DoorCounts]:
        return self.strain.said, self.door.counts

    def _send_off(self) -> None:
        """Give the last records a moment to arrive, when there is a broker to take them."""
        self.sender.kick()
        deadline_s = self.clocks.monotonic() + SEND_ON_STOP_S
        while self.uplink.up and self.sender.in_flight and self.clocks.monotonic() < deadline_s:
            time.sleep(0.01)

    def _kept_answers(self, boot: int) -> Answers | None:
        settings = self.config.feedback
        if not settings.keep:
            return None
        return Answers(
            self.folder.answers,
            boot=boot,
            keep=settings.keep,
            keep_s=settings.hours * 3600,
            now_s=self.clocks.wall,
        )

    def _takes_labels(self) -> Feedback | None:
        if self.answers is None:
            return None
        window_s = self.config.telemetry.window_s
        return Feedback(self.answers, self.recorder, self.clocks.now, window_s=window_s)

    def _observer(self, model: Model, window: Observer) -> Observer:
        """What a model that is put in place tells its calls to."""
        bundle = bundle_of(model.manifest, model.profile, model.digest)
        if self.answers is None or bundle is None:
            return window
        return Tap(window, Noted(self.answers, bundle))

    def _bindings(self, boot: int) -> Bindings:
        return Bindings(
            self.config, self.uplink.link, self.serving, self.clocks.now,
            boot=boot, version=version(),
        )  # fmt: skip

    def _facts(self) -> Facts:
        requests = {}
        for name in self.serving.models:
            sha256, totals = self.serving.seen(name)
            if sha256:
                requests[name] = (totals.answered, totals.failed)
        return Facts(
            states=self.updater.states,
            why=self.follower.why,
            waits={name: self.updater.waits(name) for name in self.updater.states},
            factory={name: self.serving.factory_version(name) for name in self.serving.models},
            freshness=self.follower.freshness,
            revision=self.follower.revision,
            connected=self.uplink.up,
            requests=requests,
            spool_records=len(self.spool),
            spool_bytes=self.spool.size_bytes,
            events_waiting=len(self.outbox.waiting()),
            twin=self.uplink.twin,
            strain=self.strain.said,
            beside=self.shadows.status(),
            bindings=self.bindings.reports() if self.bindings is not None else {},
        )


def _watcher(config: Config, serving: Serving) -> Watcher | None:
    """None without ``[watch]``; then nothing that reads files is imported."""
    if config.watch is None:
        return None
    from edge_agent.doors.watch import Watcher  # noqa: PLC0415

    return Watcher(config.watch, serving.answering, size_max=config.watch.file_max_bytes)


def _limits(config: Config) -> Limits:
    update = config.update
    return Limits(
        timeout_s=update.self_test_timeout_s,
        runs=update.self_test_runs,
        latency_max_ms=update.latency_max_ms,
        ram_bytes_max=update.ram_bytes_max,
    )

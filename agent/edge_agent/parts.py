"""What lives between an agent's start and its stop, and what happens between the parts.

Guards: the order in which they start and stop: what is on disk answers before the network is
touched; what was counted is on disk before the connection goes. No rule of its own.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path

from edge_agent import clock, closing, hardware, identity, pipeline, predictions, state, tap, wanted
from edge_agent.config import Config
from edge_agent.doors.every import Doors
from edge_agent.errands import Errands
from edge_agent.factory import DEFAULT_FOLDER, Factory
from edge_agent.feedback import Feedback
from edge_agent.folder import Folder, next_boot
from edge_agent.follow import Follower
from edge_agent.loop import Call, Loop
from edge_agent.notify import Notifier
from edge_agent.outbox import Outbox
from edge_agent.pull import Puller
from edge_agent.selftest import Limits
from edge_agent.serving import Serving
from edge_agent.shadow import Shadows
from edge_agent.steps import Tell
from edge_agent.strain import LOOK_S, Strain
from edge_agent.telemetry import Recorder, Sender, Spool
from edge_agent.telemetry.recorder import Instant
from edge_agent.telemetry.resources import Meter
from edge_agent.updater import Updater
from edge_agent.uplink import Uplink
from edge_agent.voice import Facts, Voice
from edge_agent.watchdog import Watchdog
from edge_contract import __version__
from edge_contract.errors import InputFault, PeerFault
from edge_contract.ports.mqtt import Message

log = logging.getLogger(__name__)

LOOK = "the look for updates"
TICK_S = 1.0
KICK_S = 15.0
"""The sender is asked this often, though nothing happened."""
SEND_ON_STOP_S = 2.0


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


class Parts:
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
            version=__version__,
            outbox=self.outbox,
            on_message=self._received,
            on_up=lambda: self.loop.post(self._came),
            on_down=lambda _: self.loop.post(self.voice.publish),
            on_twin=self._met_twin,
            on_trouble=lambda error: self.loop.post(lambda: self.voice.trouble(error)),
            machine=identity.fingerprint(),
            rng=rng,
            clock_s=clocks.monotonic,
        )
        self.spool = Spool(self.folder.spool, max_bytes=config.telemetry.spool_bytes)
        self.sender = Sender(self.uplink.link, self.spool, config.topics.telemetry(device))
        self.answers = predictions.kept(
            config.feedback, self.folder.answers, boot=boot, now_s=clocks.wall
        )
        self.calibrating = wanted.calibrating(config, self.folder)
        self.privacy = wanted.privacy(config, self.folder, clocks.now())
        self.samples = wanted.samples(config, self.folder, clocks.wall, rng)
        self.recorder = Recorder(
            self.spool,
            device=device,
            boot=boot,
            window_s=config.telemetry.window_s,
            window_rows=config.telemetry.window_rows,
            on_record=self.sender.kick,
            latency_max_ms=config.update.latency_max_ms,
            observer=lambda model, window: tap.tapped(
                model, window, self.answers, self.calibrating, self.samples
            ),
            veil=self.privacy,
            meter=Meter(self.folder.spool, resting=lambda: self.strain.resting).look,
            on_quality=lambda model, tell: self.loop.post(lambda: self.voice.told(model, tell)),
        )
        self.feedback = (
            Feedback(
                self.answers,
                self.recorder,
                clocks.now,
                window_s=config.telemetry.window_s,
                aliases={n: pipeline.order(s).answer for n, s in config.ensembles.items()},
                learner=self.calibrating,
            )
            if self.answers is not None
            else None
        )
        self.serving = Serving(
            self.recorder, clocks.now, limits=_limits(config), loading=config.loading
        )
        self.strain = Strain()
        self.voice = Voice(
            config,
            self.folder,
            boot=boot,
            version=__version__,
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
        if config.ensembles:
            from edge_agent.ensemble import EnsembleSeat  # noqa: PLC0415 - few agents have one

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
        self.watchdog = Watchdog(
            self.loop, self.serving.models, notifier, stall_s=config.update.stall_s
        )
        self.doors = Doors(
            config,
            self.uplink.link,
            self.serving,
            self.feedback,
            now=clocks.now,
            boot=boot,
            version=__version__,
            strain=lambda: self.strain.said,
        )
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
            self.loop.every(TICK_S, *self._ticking())
            self.loop.every(KICK_S, self.sender.kick)
            self.loop.every(LOOK_S, self._look)
            self.uplink.filters = [
                self._desired,
                self._doorbell,
                *self.doors.filters,
            ]
            self.doors.start()
            self.uplink.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Take no more requests, call off what is under way, leave the counts on disk."""
        closing.each(
            self.doors.stop,
            self.updater.stop,
            self.follower.stop,
            lambda: self.loop.ask(self.shadows.stop),
            self._put_down,
            self._send_off,
            self.uplink.stop,
            self.doors.stop_labels,
            self._put_down,  # what came while the last records went
            lambda: self.loop.ask(self.voice.farewell),
            self.watchdog.stop,
            self.loop.stop,
        )

    # -- what happens between the parts --------------------------------------------------------

    def _received(self, message: Message) -> None:
        """In the network's thread."""
        self.doors.hear(message)
        if message.topic == self._desired:
            self.loop.post(lambda: self.follower.hear(message.payload))
        elif message.topic == self._doorbell:
            self.loop.post(self.follower.ring)
        else:
            self.doors.handle(message)

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
        self.doors.up()

    def _ticking(self) -> Iterator[Call]:
        """Each a call of its own: a fault in one part must not keep the windows open."""
        now, feedback = self.clocks.now, self.feedback
        yield lambda: self.recorder.tick(now())
        yield self.shadows.tick
        if feedback is not None:
            yield lambda: feedback.tick(now())
        if self.samples is not None:
            yield self.samples.tick
        yield self.voice.tick

    def _look(self) -> None:
        now = self.clocks.now()
        told = self.strain.look(now.monotonic_s, now.wall_ms)
        if told is not None:
            self.voice.told("", told)
            self.voice.publish()

    def _put_down(self) -> None:
        """Have on disk what was counted."""
        now = self.clocks.now()
        if self.feedback is not None:
            self.feedback.flush(now)
        self.recorder.flush(now)
        if self.samples is not None:
            self.samples.flush()

    def _send_off(self) -> None:
        """Give the last records a moment to arrive, when there is a broker to take them."""
        self.sender.kick()
        deadline_s = self.clocks.monotonic() + SEND_ON_STOP_S
        while self.uplink.up and self.sender.in_flight and self.clocks.monotonic() < deadline_s:
            time.sleep(0.01)

    def _facts(self) -> Facts:
        requests, calibrated = {}, {}
        for name in self.serving.models:
            sha256, totals = self.serving.seen(name)
            said = self.calibrating.report(sha256) if self.calibrating is not None else None
            if said is not None:
                calibrated[name] = said
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
            quality=self.recorder.quality,
            beside=self.shadows.status(),
            bindings=self.doors.reports(),
            calibrated=calibrated,
            privacy=self.privacy.report() if self.privacy is not None else None,
            room=hardware.room(
                self.folder.spool, self.spool.size_bytes, self.config.telemetry.spool_bytes
            ),
        )


def _limits(config: Config) -> Limits:
    update = config.update
    return Limits(
        timeout_s=update.self_test_timeout_s,
        runs=update.self_test_runs,
        latency_max_ms=update.latency_max_ms,
        ram_bytes_max=update.ram_bytes_max,
    )

"""Devices at work: one process, one loop, a connection for each.

Guards: thousands of connections take no thread each (paho's own loop stops at 340: select and a
thread a client); they begin so many a second, so that the broker is not stormed; a record that the
broker did not acknowledge, or that nobody heard, is sent again.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_contract.broker_url import BrokerUrl
from edge_contract.bundle import Bundle
from edge_contract.errors import MachineFault
from edge_contract.ports.mqtt import NO_MATCHING_SUBSCRIBERS
from edge_contract.residuals import Residuals
from edge_contract.topics import Topics
from edge_fleet.library import known_of, profile_file
from edge_fleet.simulate import access
from edge_fleet.simulate.device import Device, Version, latencies, made
from edge_fleet.simulate.drawing import Drawer, Drift

KEEPALIVE_S = 60
TICK_S = 0.05
MISC_EVERY_S = 15.0
"""Of a keep-alive of 60 s: paho looks whether to ping."""
WILL_DELAY_S = 30
SPARE_FILES = 64
RETRY_S = (2.0, 20.0)
UNHEARD_S = 10.0
DRAWN_AT_ONCE = 256


@dataclass(frozen=True)
class Known:
    """A bundle that devices may run."""

    version: Version
    drawer: Drawer
    reference: Residuals


@dataclass(frozen=True)
class Scene:
    """What is simulated.

    Attributes:
        window_s: length of a telemetry window. rows: predictions in each.
        connects_per_s: how fast connections begin.
        install_s: mean time to install a version. failing: share of devices on which it fails.
        duration_s: 0: until stopped.
        ca_file: of TLS; the system's authorities without one. cert_file, key_file: the devices'.
        passwords: a folder with DEVICE.password for each; None: all have the broker's user.
    """

    broker: BrokerUrl
    fleet: str
    prefix: str
    bundles: tuple[Bundle, ...]
    devices: int
    window_s: float = 300.0
    rows: int = 1000
    drifts: tuple[Drift, ...] = ()
    drift_after_s: float = 0.0
    seed: int = 0
    connects_per_s: float = 500.0
    install_s: float = 20.0
    failing: float = 0.0
    duration_s: float = 0.0
    names: str = "sim-"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    passwords: Path | None = None


@dataclass
class Seen:
    """What happened so far."""

    devices: int = 0
    connected: int = 0
    peak: int = 0
    losses: int = 0
    refused: int = 0
    sent: int = 0
    acknowledged: int = 0
    repeated: int = 0
    reports: int = 0
    installed: int = 0
    failed: int = 0
    seconds: float = 0.0

    def plus(self, other: Seen) -> Seen:
        """Of two processes; the time is the longer one."""
        added = {name: getattr(self, name) + getattr(other, name) for name in vars(self)}
        return Seen(**{**added, "seconds": max(self.seconds, other.seconds)})


def allow_files(connections: int) -> None:
    """Raise this process's limit of descriptors. MachineFault where the system allows fewer."""
    need = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        raise MachineFault(
            f"{connections} connections need {need} open files, this process may have {hard}",
            advice=f"Raise the limit (ulimit -n {need}, or LimitNOFILE=), share them among"
            " processes with --processes, or simulate fewer.",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


@dataclass
class _Client:
    """A device and its connection."""

    device: Device
    paho: paho.Client
    up: bool = False
    waiting: dict[int, bytes] = field(default_factory=dict)
    """Records by message number until the broker acknowledged them; below 0: not sent yet."""


class Crowd:
    """The devices ``numbers`` of a scene; ``run`` is all there is to do."""

    def __init__(self, scene: Scene, numbers: Sequence[int], *, boot: int) -> None:
        self._scene = scene
        self._topics = Topics(scene.fleet, scene.prefix)
        self._rng = np.random.default_rng([scene.seed, len(numbers), *numbers[:1]])
        self._known = {one.digest: _know(one, scene.drifts) for one in scene.bundles}
        versions = [one.version for one in self._known.values()]
        self._versions = versions
        self._began_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        devices = made(
            numbers, prefix=scene.names, boot=boot, stable=versions[0], versions=versions,
            failing=scene.failing, seed=scene.seed,
        )  # fmt: skip
        self._latency = latencies(scene.rows, self._rng)
        self._tls = access.tls_of(scene)
        self._clients = [self._client_of(device) for device in devices]
        luck = np.random.default_rng([scene.seed, 1]).random((scene.devices, len(scene.drifts)))
        self._drifting = luck[list(numbers)] < np.array([one.share for one in scene.drifts])
        self.seen = Seen(devices=len(devices))

    async def run(self, stopping: Callable[[], bool]) -> Seen:
        """Until ``stopping``, or for as long as the scene says; then every device says goodbye."""
        self._began_s = time.monotonic()
        loop = asyncio.get_running_loop()
        self._spawn(self._connect_all(loop))
        ticks = windows = 0
        try:
            while not (stopping() or 0 < self._scene.duration_s <= self._elapsed_s()):
                await asyncio.sleep(TICK_S)
                ticks += 1
                windows = await self._windows_due(windows)
                self._install_due()
                self._some_misc(ticks)
                self.seen.seconds = self._elapsed_s()
        finally:
            for task in list(self._tasks):
                task.cancel()
            self._goodbye()
        return self.seen

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- connections -----------------------------------------------------------------------

    def _client_of(self, device: Device) -> _Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{self._scene.fleet}-{device.name}",
            protocol=paho.MQTTv5,
        )
        one = _Client(device, client)
        user, password = access.account(self._scene, device.name)
        client.username_pw_set(user or None, password or None)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        properties: Any = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
        properties.WillDelayInterval = WILL_DELAY_S
        topic = self._topics.status(device.name)
        client.will_set(topic, device.status(False), qos=1, retain=True, properties=properties)
        client.on_connect = lambda *seen: self._connected(one, seen[3])
        client.on_disconnect = lambda *_seen: self._lost(one)
        client.on_message = lambda _client, _user, message: self._told(one, bytes(message.payload))
        client.on_publish = lambda *seen: self._acknowledged(one, seen[2], seen[3].value)
        return one

    async def _connect_all(self, loop: asyncio.AbstractEventLoop) -> None:
        began_s = time.monotonic()
        for at, one in enumerate(self._clients):
            ahead_s = at / self._scene.connects_per_s - (time.monotonic() - began_s)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            await self._connect(one, loop)

    async def _connect(self, one: _Client, loop: asyncio.AbstractEventLoop) -> None:
        """Open the connection in a thread, which may block on it; then the loop has it."""
        broker, client = self._scene.broker, one.paho
        try:
            await loop.run_in_executor(
                None, lambda: client.connect(broker.host, broker.port, KEEPALIVE_S)
            )
        except OSError:
            self.seen.losses += 1
            self._again(one)
            return
        self._watch(one, loop)

    def _watch(self, one: _Client, loop: asyncio.AbstractEventLoop) -> None:
        client = one.paho
        connection = client.socket()
        if connection is None:
            self._again(one)
            return
        loop.add_reader(connection, lambda: access.read(client))
        client.on_socket_close = lambda _client, _user, sock: _forget(loop, sock)
        client.on_socket_register_write = lambda _client, _user, sock: _write(loop, client, sock)
        client.on_socket_unregister_write = lambda _client, _user, sock: _no_write(loop, sock)
        client.loop_write()

    def _again(self, one: _Client) -> None:
        async def later() -> None:
            await asyncio.sleep(float(self._rng.uniform(*RETRY_S)))
            await self._connect(one, asyncio.get_running_loop())

        self._spawn(later())

    def _some_misc(self, ticks: int) -> None:
        """Each client's keep-alive now and then, some of them at each tick."""
        turns = max(int(MISC_EVERY_S / TICK_S), 1)
        for one in self._clients[ticks % turns :: turns]:
            if one.paho.socket() is not None:
                one.paho.loop_misc()

    # -- what a device hears ---------------------------------------------------------------

    def _connected(self, one: _Client, code: Any) -> None:
        if code.is_failure:
            self.seen.refused += 1
            return
        one.up = True
        self.seen.connected += 1
        self.seen.peak = max(self.seen.peak, self.seen.connected)
        one.paho.subscribe(self._topics.desired(one.device.name), options=SubscribeOptions(qos=1))
        topic = self._topics.status(one.device.name)
        one.paho.publish(topic, one.device.status(True), qos=1, retain=True)
        self._report(one)
        for mid in [each for each in one.waiting if each < 0]:  # the others paho sends again
            self._send(one, one.waiting.pop(mid), repeated=True)

    def _lost(self, one: _Client) -> None:
        if one.up:
            one.up = False
            self.seen.connected -= 1
        self.seen.losses += 1
        self._again(one)

    def _told(self, one: _Client, payload: bytes) -> None:
        delay_s = float(self._rng.exponential(self._scene.install_s))
        if one.device.told(payload, self._versions, self._elapsed_s(), delay_s):
            self._report(one)

    def _acknowledged(self, one: _Client, mid: int, code: int) -> None:
        record = one.waiting.pop(mid, None)
        if record is None:
            return
        if code == NO_MATCHING_SUBSCRIBERS:
            asyncio.get_running_loop().call_later(
                UNHEARD_S, lambda: self._send(one, record, repeated=True)
            )
        else:
            self.seen.acknowledged += 1

    # -- what it says ----------------------------------------------------------------------

    def _report(self, one: _Client) -> None:
        topic = self._topics.reported(one.device.name)
        one.paho.publish(topic, one.device.reported(_now_ms()), qos=1, retain=True)
        self.seen.reports += 1

    def _install_due(self) -> None:
        now_s = self._elapsed_s()
        for one in self._clients:
            if one.device.waiting is not None and one.up and one.device.install(now_s):
                failed = one.device.failed[-1:] and one.device.failed[-1].version
                done = one.device.active.version
                self.seen.failed += int(bool(failed) and failed != done)
                self.seen.installed += int(not failed or failed == done)
                self._report(one)

    async def _windows_due(self, done: int) -> int:
        """Send the windows that ended; each device's end at a moment of its own."""
        count = len(self._clients)
        due = int(self._elapsed_s() / self._scene.window_s * count)
        for at in range(done, due, DRAWN_AT_ONCE):
            self._send_windows([each % count for each in range(at, min(at + DRAWN_AT_ONCE, due))])
            await asyncio.sleep(0)
        return due

    def _send_windows(self, which: Sequence[int]) -> None:
        scene, now_ms = self._scene, _now_ms()
        by_digest: dict[str, list[int]] = {}
        for at in which:
            if self._clients[at].up:
                by_digest.setdefault(self._clients[at].device.active.digest, []).append(at)
        drifts = self._elapsed_s() >= scene.drift_after_s
        for digest, ours in by_digest.items():
            known = self._known[digest]
            counts = known.drawer.counts(scene.rows, self._drifting[ours] & drifts, self._rng)
            for at, row in zip(ours, counts, strict=True):
                one = self._clients[at]
                record = one.device.record(
                    known.reference.write(row, scene.rows), scene.rows, self._latency, now_ms,
                    round(1000 * scene.window_s),
                )  # fmt: skip
                self._send(one, record)

    def _send(self, one: _Client, record: bytes, *, repeated: bool = False) -> None:
        if not one.up:
            one.waiting[-len(one.waiting) - 1] = record
            return
        topic = self._topics.telemetry(one.device.name)
        info = one.paho.publish(topic, record, qos=1)
        one.waiting[info.mid] = record
        self.seen.sent += int(not repeated)
        self.seen.repeated += int(repeated)

    def _goodbye(self) -> None:
        for one in self._clients:
            one.paho.on_disconnect = None
            if one.up:
                topic = self._topics.status(one.device.name)
                one.paho.publish(topic, one.device.status(False), qos=1, retain=True)
                one.paho.loop_write()
                one.paho.disconnect()
                one.paho.loop_write()
        self.seen.connected = 0


def _know(bundle: Bundle, drifts: Sequence[Drift]) -> Known:
    file = profile_file(bundle.manifest)
    stored = bundle.stored[file.name] if file else b""
    known = known_of(bundle.digest, bundle.manifest, stored)
    version = Version(bundle.manifest.name, bundle.manifest.version, bundle.digest)
    return Known(version, Drawer(known.profile, drifts), known.reference)


def _forget(loop: asyncio.AbstractEventLoop, connection: Any) -> None:
    if connection.fileno() >= 0:
        loop.remove_reader(connection)
        loop.remove_writer(connection)


def _write(loop: asyncio.AbstractEventLoop, client: paho.Client, connection: Any) -> None:
    loop.add_writer(connection, client.loop_write)


def _no_write(loop: asyncio.AbstractEventLoop, connection: Any) -> None:
    loop.remove_writer(connection)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

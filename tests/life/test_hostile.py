"""Hostile conditions, each provoked for real on a real agent process; afterwards it converges."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from life_kit import (
    DEADLINE_S,
    Agent,
    Talker,
    bundles,
    command,
    devices,
    hearing_events,
    password,
    until,
)

from edge_contract import messages
from edge_contract.messages import Desired, Reported, Status
from edge_contract.topics import Topics
from edge_fleet.broker import (
    BrokerConfig,
    BrokerThread,
    Double,
    LoseAck,
    MosquittoConfig,
    MosquittoProcess,
)
from edge_fleet.store.base import StatusSeen
from edge_fleet.twins import Twins

TOPICS = Topics("home")
ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}


class Scene:
    """A broker, who publishes to it, who asks over it, and devices in processes of their own."""

    def __init__(self, folder: Path, kind: str = "embedded") -> None:
        self.folder = folder
        self.broker: Any
        if kind == "mosquitto":
            self.broker = MosquittoProcess(MosquittoConfig(directory=folder / "broker"))
        else:
            self.broker = BrokerThread(BrokerConfig(state_dir=folder / "broker"))
        self.broker.start()
        self.publisher = devices.Publisher(folder / "keys", self.broker.url)
        self.client = devices.Client(self.broker.url)
        self.client.link.subscribe([f"{TOPICS.root}/d/+/reported", f"{TOPICS.root}/d/+/status"])
        self.agents: list[Agent] = []

    def reconnect(self) -> None:
        """A new client: the old one waits long by now, and its subscriptions are gone."""
        self.client.link.stop()
        self.client = devices.Client(self.broker.url)

    def publish(self, version: str) -> None:
        self.publisher.publish(bundles.build_tiny(version))

    def device(
        self, name: str = "pi1", *, folder: Path | None = None, url: str = "",
        prefix: tuple[str, ...] = (), env: dict[str, str] | None = None, **settings: Any,
    ) -> Agent:  # fmt: skip
        """An enrolled device with short times, not started."""
        made = devices.Device(
            folder or self.folder / name, name, url or self.broker.url, **settings
        )
        enrol = devices.Device(self.folder / f"enrol-{name}", name, self.broker.url)
        enrol.set(agent={"folder": made.config.agent.folder})
        root = self.publisher.repository.shelf.read().files["1.root.json"]
        devices.enroll(enrol.config, root, "")
        agent = Agent(made.path, prefix=prefix, **(env or {}))
        self.agents.append(agent)
        return agent

    def answers(
        self, agent: Agent, version: str, name: str = "pi1", deadline_s: float = DEADLINE_S
    ) -> None:
        """Asked over MQTT, the device answers with this version."""
        correlation = [b""]

        def answered() -> bool:
            found = self.client.answers.get(correlation[0])
            if (found is None and time.monotonic() - asked[0] > 3) or not correlation[0]:
                asked[0] = time.monotonic()
                correlation[0] = self.client.send(name)
            return found is not None and found.version == version

        asked = [0.0]
        try:
            until(answered, f"{name} answers with {version}", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{agent.log.read_text()[-3000:]}") from None

    def reported(self, name: str = "pi1") -> list[Reported]:
        return [
            messages.decode(m.payload, Reported)
            for m in self.client.heard
            if m.topic == TOPICS.reported(name)
        ]

    def stop(self) -> None:
        for agent in self.agents:
            agent.stop()
        self.client.link.stop()
        self.broker.stop()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def any_scene(broker_kind: str, tmp_path: Path) -> Iterator[Scene]:
    """On each kind of broker."""
    made = Scene(tmp_path, broker_kind)
    yield made
    made.stop()


def rss_bytes(agent: Agent) -> int:
    assert agent.process
    pages = int(Path(f"/proc/{agent.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# -- identity ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_devices_under_one_name_both_say_so_and_do_not_fight(any_scene: Scene) -> None:
    scene = any_scene
    scene.publish("1.0")
    db = f"sqlite:///{scene.folder}/fleet.db"
    with collecting(scene, db):
        first, second = scene.device(), scene.device(folder=scene.folder / "copy")
        first.start()
        first.wait_at("1.0")
        second.start()
        until(lambda: first.status.twin, "the first says so", 120)
        until(lambda: second.status.twin, "the second says so", 120)
        events = scene.client.events
        until(lambda: len({e.boot for e in events("duplicate-identity")}) == 2, "events", 120)
        until(lambda: any(r.twin for r in scene.reported()), "a report says so")
        until(lambda: "duplicate-identity" in faults(db), "the fleet shows it")
    # Neither fights: the pauses of each grow.
    births = [
        m for m in scene.client.heard
        if m.topic == TOPICS.status("pi1") and messages.decode(m.payload, Status).online
    ]  # fmt: skip
    assert len(births) <= 12
    # One is switched off: the other stays, and answers.
    second.stop()
    scene.answers(first, "1.0", deadline_s=180)


@contextlib.contextmanager
def collecting(scene: Scene, db: str) -> Iterator[None]:
    """A real `edge-fleet serve`."""
    log = scene.folder / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_fleet", "serve", "--fleet", "home", "--db", db,
             "--broker", scene.broker.url],
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        until(lambda: "collecting" in log.read_text(), "the collector is there")
        yield
    finally:
        process.terminate()
        process.wait(120)


def faults(db: str) -> set[str]:
    """Kinds of faults that the fleet shows."""
    done = command("status", "--db", db, "--json", module="edge_fleet")
    found = json.loads(done.stdout)["recent_faults"] if done.returncode == 0 else []
    return {fault["kind"] for fault in found}


def test_a_session_taken_over_once_is_taken_back_and_is_no_alarm(any_scene: Scene) -> None:
    scene = any_scene
    scene.publish("1.0")
    agent = scene.device()
    agent.start()
    agent.wait_at("1.0")
    births = len([m for m in scene.client.heard if m.topic == TOPICS.status("pi1")])
    thief = Talker(scene.broker.url, "pi1")
    thief.stop()
    until(
        lambda: len([m for m in scene.client.heard if m.topic == TOPICS.status("pi1")]) > births,
        "it is back",
    )
    scene.answers(agent, "1.0")
    scene.publish("1.1")
    agent.wait_at("1.1")
    assert agent.status.twin == ""
    assert not scene.client.events("duplicate-identity")


def test_the_fleet_sees_twins_and_no_twin_in_a_restart(scene: Scene) -> None:
    def runs_of(agent_runs: list[str]) -> list[StatusSeen]:
        return [StatusSeen("pi1", True, 1, "1", 5, False, run, "m") for run in agent_runs]

    twins = Twins()
    assert [twins.born(s) for s in runs_of(["a", "a", "b", "b", "c"])] == [None] * 5
    found = twins.born(runs_of(["b"])[0])
    assert found is not None
    assert found.kind == "duplicate-identity"


# -- the broker goes away, half-way and for long -----------------------------------------------


class Swallower:
    """A TCP proxy that can go deaf and dumb without closing anything: a half-open connection."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.silent = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.silent.is_set():
                self._pairs.append((near, near))  # accepted by the kernel, answered by nobody
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._pairs.append((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        while data := _receive(source):
            if not self.silent.is_set():
                try:
                    sink.sendall(data)
                except OSError:
                    return
        if not self.silent.is_set():
            _close(sink)

    def close(self) -> None:
        for socket_ in (self._listener, *(s for pair in self._pairs for s in pair)):
            _close(socket_)


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _close(socket_: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket_.shutdown(socket.SHUT_RDWR)
    socket_.close()


def test_a_half_open_connection_is_noticed_and_replaced(scene: Scene) -> None:
    """The wire swallows everything for a while: no reset, no end, as with a NAT that forgot."""
    wire = Swallower(scene.broker.port)
    scene.publish("1.0")
    agent = scene.device(url=f"mqtt://127.0.0.1:{wire.port}", broker={"keepalive_s": 5})
    agent.start()
    agent.wait_at("1.0")
    wire.silent.set()
    scene.publish("1.1")
    until(lambda: not agent.status.connected, "the agent notices", 120)
    wire.silent.clear()
    agent.wait_at("1.1")
    scene.answers(agent, "1.1")
    wire.close()


SLEEP = """
# libfaketime hands the kernel a wrong time where Python 3.11 sleeps by a monotonic clock that is
# left alone: EINVAL (wolfcw/libfaketime issue 426). A wait of select's is relative.
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds)
"""


def faketime(agent_env: Path) -> dict[str, str]:
    """The environment that lets a file say what time it is, for one process."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("no libfaketime: Debian's package faketime has it")
    agent_env.write_text("+0")
    site = agent_env.with_name("site")
    site.mkdir()
    (site / "sitecustomize.py").write_text(SLEEP)
    return {
        "PYTHONPATH": str(site),
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(agent_env),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }


@pytest.mark.slow
def test_a_clock_that_jumps_back_and_forth_stops_nothing(scene: Scene) -> None:
    clock = scene.folder / "clock"
    scene.publish("1.0")
    agent = scene.device(env=faketime(clock))
    agent.start()
    agent.wait_at("1.0")
    for i, jump in enumerate(("+3y", "-9y", "+0"), 1):
        clock.write_text(jump)
        scene.publish(f"1.{i}")
        agent.wait_at(f"1.{i}")
        scene.answers(agent, f"1.{i}")
    agent.process.send_signal(signal.SIGKILL)
    agent.process.wait()
    clock.write_text("-9y")  # and a start at a time before the last one
    agent.start()
    scene.publish("2.0")
    agent.wait_at("2.0")
    until(lambda: not agent.status.spool_records, "telemetry is home")


@pytest.mark.slow
def test_a_broker_lost_for_a_week_costs_nothing_but_the_oldest_counts(scene: Scene) -> None:
    """A week of predictions while nobody listens: the spool keeps its bound, then goes home."""
    scene.publish("1.0")
    bound = 64 * 1024
    agent = scene.device(
        telemetry={"window_s": 0.2, "window_rows": 5, "spool_bytes": bound},
    )
    clock = agent.path.with_name("clock")
    agent.busy = True
    agent.start()
    agent.wait_at("1.0")
    scene.broker.kill()
    until(lambda: not agent.status.connected, "it is alone")
    for day in (1, 3, 7):
        before = agent.status
        clock.write_text(str(day * 86400))
        until(
            lambda b=before: (
                agent.status.at_ms >= b.at_ms + 3600_000
                and agent.status.requests["pump"][0] > b.requests["pump"][0]
            ),
            f"day {day}",
        )
        assert folder_bytes(agent, "spool") <= bound + 8192
        assert agent.at("1.0")
    until(lambda: agent.status.spool_bytes > bound - 8192, "the spool is full")
    answered = agent.status.requests["pump"][0]
    until(lambda: agent.status.requests["pump"][0] > answered + 50, "a full spool stops nobody")
    scene.broker.start()
    scene.reconnect()
    scene.publish("1.1")
    agent.wait_at("1.1")
    scene.answers(agent, "1.1")
    assert any("/t/" in m.topic for m in scene.client.heard)


def folder_bytes(agent: Agent, name: str) -> int:
    """What lies in a folder that another process changes."""
    total = 0
    for path in (Path(agent.config.folder) / name).iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


# -- the disk -----------------------------------------------------------------------------------


@pytest.fixture
def mount_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a tmpfs with the given options."""
    where = tmp_path / "disk"
    where.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)],
            check=False, capture_output=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"mounting a tmpfs is not permitted here: {done.stderr.decode()[:100]}")
        return where

    yield mount
    for each in (where / "state", where):
        subprocess.run(["umount", "-l", str(each)], check=False, capture_output=True)


def fill(disk: Path) -> None:
    """Every byte is taken."""
    with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def fill_inodes(disk: Path) -> None:
    """Every inode is taken."""
    (disk / "many").mkdir()
    for i in range(100_000):
        try:
            (disk / "many" / str(i)).touch()
        except OSError:
            return


def read_only(disk: Path) -> None:
    """Another view of the state, read-only, over the old one: as after an error of the card."""
    state = str(disk / "state")
    subprocess.run(["mount", "--bind", state, state], check=True)
    remount = ["mount", "-o", "remount,bind,ro", state]
    until(
        lambda: not subprocess.run(remount, check=False, capture_output=True).returncode,
        "nobody writes at this moment",
    )


def mend(trouble: str, disk: Path) -> None:
    if trouble == "read-only":
        subprocess.run(["umount", str(disk / "state")], check=True)
    elif trouble == "full":
        (disk / "ballast").unlink()
    else:
        shutil.rmtree(disk / "many")


SPOIL = {"full": fill, "no inodes": fill_inodes, "read-only": read_only}


@pytest.mark.parametrize("trouble", ["full", "no inodes", "read-only"])
def test_a_disk_that_takes_nothing_delays_and_is_recovered_from(
    trouble: str, scene: Scene, mount_disk: Callable[..., Path]
) -> None:
    disk = mount_disk("size=4m,nr_inodes=400")
    scene.publish("1.0")
    agent = scene.device(agent={"folder": str(disk / "state")})
    agent.start()
    agent.wait_at("1.0")
    SPOIL[trouble](disk)
    scene.publisher.publish(bundles.build_tiny("1.1", seed=8))
    until(lambda: "annot write" in agent.log.read_text(), "it says that it cannot write")
    scene.answers(agent, "1.0")  # and goes on answering, reporting and listening
    assert agent.process
    assert agent.process.poll() is None
    lines = agent.log.read_text().count("\n")
    seen = len(scene.client.answers)
    for _ in range(20):
        scene.answers(agent, "1.0")
    assert len(scene.client.answers) >= seen + 20
    assert agent.log.read_text().count("\n") - lines < 400  # no tight loop
    mend(trouble, disk)
    agent.wait_at("1.1")
    scene.answers(agent, "1.1")


@pytest.mark.parametrize("trouble", ["full", "no inodes", "read-only"])
def test_a_start_on_a_disk_that_takes_nothing_answers(
    trouble: str, scene: Scene, mount_disk: Callable[..., Path]
) -> None:
    disk = mount_disk("size=4m,nr_inodes=400")
    scene.publish("1.0")
    agent = scene.device(agent={"folder": str(disk / "state")})
    agent.start()
    agent.wait_at("1.0")
    agent.stop()
    SPOIL[trouble](disk)
    agent.start()
    scene.answers(agent, "1.0")


# -- too much of everything ----------------------------------------------------------------------


@pytest.mark.slow
def test_ten_times_the_telemetry_is_bounded_and_control_is_still_served(scene: Scene) -> None:
    """A record for every row, on a broker that acknowledges none of them."""
    scene.publish("1.0")
    bound = 64 * 1024
    agent = scene.device(telemetry={"window_s": 0.2, "window_rows": 1, "spool_bytes": bound})
    agent.busy = True
    agent.start()
    agent.wait_at("1.0")
    scene.broker.add_tap(LoseAck(filter=TOPICS.telemetry("pi1")))
    until(lambda: agent.status.spool_bytes > bound - 8192, "the spool is full")
    before = rss_bytes(agent)
    answered = agent.status.requests["pump"][0]
    until(lambda: agent.status.requests["pump"][0] > answered + 500, "500 more records")
    assert agent.status.spool_bytes <= bound
    assert folder_bytes(agent, "spool") <= bound + 8192
    assert rss_bytes(agent) - before < 16 * 1024**2
    scene.client.want("pi1", 1, pump="stable")
    until(lambda: agent.status.revision == 1, "it hears what is desired")
    scene.publish("1.1")
    agent.wait_at("1.1")
    scene.answers(agent, "1.1")


# -- a broker that lies ---------------------------------------------------------------------------


def test_lies_of_a_broker_change_nothing_and_are_said(scene: Scene) -> None:
    scene.publish("1.0")
    scene.publish("1.1")
    agent = scene.device()
    agent.start()
    agent.wait_at("1.1")
    topic = TOPICS.desired("pi1")
    scene.client.want("pi1", 5, pump="1.0")
    agent.wait_at("1.0")
    good = messages.encode(Desired(revision=5, models={"pump": "1.0"}))
    lies = {
        "an old revision": messages.encode(Desired(revision=4, models={"pump": "stable"})),
        "a duplicate": good,
        "garbage": b"\x00\xff garbage",
        "another schema": b'{"schema":9,"revision":6,"models":{"pump":"stable"}}',
        "a revision of 2**63": b'{"schema":1,"revision":9223372036854775808,"models":{}}',
        "a revision of -1": b'{"schema":1,"revision":-1,"models":{}}',
        "huge": b'{"schema":1,"revision":7,"models":{"a":"' + b"b" * 900_000 + b'"}}',
        "nothing": b"",
    }
    for what, payload in lies.items():
        scene.client.link.publish(topic, payload, retain=True).wait(60)
        scene.answers(agent, "1.0")
        assert agent.at("1.0"), what
        assert agent.status.revision == 5, what
    # Of an unknown model and an unknown version: what there is answers on, and it says why.
    scene.client.want("pi1", 8, pump="9.9", other="1.0")
    until(lambda: agent.status.revision == 8, "it is heard")
    until(lambda: "9.9" in agent.status.models["pump"].reason, "it says why")
    scene.answers(agent, "1.0")
    # Others' statuses, and answers to questions that nobody asked.
    for kind in (TOPICS.status("pi1"), TOPICS.status("pi2"), TOPICS.answers("pi1", "pump")):
        scene.client.link.publish(kind, b"{}" * 100, retain=True).wait(60)
    scene.broker.restart()
    scene.reconnect()
    scene.answers(agent, "1.0")
    scene.client.want("pi1", 9, pump="stable")
    agent.wait_at("1.1")
    scene.answers(agent, "1.1")


def test_everything_said_twice_is_done_once(scene: Scene) -> None:
    scene.publish("1.0")
    agent = scene.device()
    scene.broker.add_tap(Double(filter="#"))
    agent.start()
    agent.wait_at("1.0")
    scene.client.want("pi1", 1, pump="stable")
    scene.publish("1.1")
    agent.wait_at("1.1")
    scene.answers(agent, "1.1")
    assert agent.log.read_text().count("1.1 took over") == 1
    assert agent.status.twin == ""


def test_a_revision_at_the_top_is_heard_and_the_device_is_not_stuck_with_garbage(
    scene: Scene,
) -> None:
    """2**53 is the highest that there is: who writes it has the last word, as its right says."""
    scene.publish("1.0")
    agent = scene.device()
    agent.start()
    agent.wait_at("1.0")
    scene.client.want("pi1", 2**53, pump="stable")
    until(lambda: agent.status.revision == 2**53, "it is heard")
    scene.publish("1.1")
    agent.wait_at("1.1")  # the signed channel still leads


@pytest.mark.parametrize("kind", ["embedded", "mosquitto"])
def test_refused_rights_are_said_and_not_fought(
    kind: str, tmp_path: Path, make_accounts: Any, start_embedded: Any, start_mosquitto: Any
) -> None:
    """The account has its status and what is signed: it still updates, and says what is refused."""
    accounts = make_accounts("--fleet", "home", "--device", "pi1", "--client", "app")
    acl = accounts / "acl"
    allowed, mine = acl.read_text(), []
    for part in allowed.split("\n\n"):
        lines = part.splitlines()
        if lines and lines[0] == "user pi1":
            lines = [
                line
                for line in lines
                if "/status" in line or "/tuf/" in line or "/c/" in line or line.startswith("user")
            ]
        mine.append("\n".join(lines))
    acl.write_text("\n\n".join(mine) + "\n")
    if kind == "mosquitto":
        broker = start_mosquitto(accounts)
        url = f"mqtt://127.0.0.1:{broker.ports[1883]}"
    else:
        broker = start_embedded(accounts)
        url = broker.url
    as_user = {
        name: url.replace("://", f"://{name}:{password(accounts, name)}@")
        for name in ("home.publisher", "pi1")
    }
    publisher = devices.Publisher(tmp_path / "keys", as_user["home.publisher"])
    publisher.publish(bundles.build_tiny("1.0"))
    device = devices.Device(tmp_path / "pi1", "pi1", as_user["pi1"])
    devices.enroll(device.config, publisher.repository.shelf.read().files["1.root.json"], "")
    agent = Agent(device.path)
    agent.start()
    try:
        # mosquitto grants every subscription and cuts the line at each message instead.
        agent.wait_at("1.0")
        until(lambda: "the broker refuses" in agent.log.read_text(), "it says so")
        until(lambda: "refuses" in agent.status.last_error, "and for its owner")
        with hearing_events(url, accounts):
            acl.write_text(allowed + "\n")
            if kind == "mosquitto":
                broker.reload()
            else:
                broker.kick("pi1")
            log = agent.log.read_text()
            assert log.count("connected to") < 40, log[-3000:]
            until(lambda: agent.status.connected and not agent.status.events_waiting, "all is home")
    finally:
        agent.stop()


def test_a_device_that_is_not_let_in_says_so_and_asks_ever_less_often(
    tmp_path: Path, make_accounts: Any, start_embedded: Any
) -> None:
    accounts = make_accounts("--fleet", "home", "--device", "pi1")
    broker = start_embedded(accounts)
    url = broker.url.replace("://", f"://pi1:{password(accounts, 'pi1')}@")
    publisher_url = broker.url.replace(
        "://", f"://home.publisher:{password(accounts, 'home.publisher')}@"
    )
    publisher = devices.Publisher(tmp_path / "keys", publisher_url)
    publisher.publish(bundles.build_tiny("1.0"))
    device = devices.Device(tmp_path / "pi1", "pi1", url)
    devices.enroll(device.config, publisher.repository.shelf.read().files["1.root.json"], "")
    good = (accounts / "passwords").read_text()
    (accounts / "passwords").write_text("\n".join(good.splitlines()[:1]) + "\n")
    agent = Agent(device.path)
    agent.start()
    try:
        until(lambda: "refuses this device" in agent.status.last_error, "its owner sees why")
        until(lambda: agent.log.read_text().count("refuses this device") >= 3, "it asks again")
        assert password(accounts, "pi1") not in agent.log.read_text()
        (accounts / "passwords").write_text(good)
        agent.wait_at("1.0")
    finally:
        agent.stop()
    refusals = agent.log.read_text().count("WARNING the broker refuses this device")
    assert refusals <= 8, refusals  # pauses of 1, 2, 4, 8 ... seconds

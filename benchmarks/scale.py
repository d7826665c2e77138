"""What two collectors on a shared subscription store in PostgreSQL, and what a leader counts.

    python benchmarks/scale.py [--quick] [--json FILE] [--minutes 2] [--devices 10000]
                               [--rate RECORDS_A_SECOND] [--only records|fleet]

Real processes on this machine: mosquitto, PostgreSQL (synced at every commit), collectors, a
leader, a simulated fleet. Three runs:

1. records as fast as the collectors keep up: stored a second, CPU time a record of each process
   beside that of a subscriber that throws them away, and how resident memory grows;
2. the leader alone: windows counted a second;
3. `edge-fleet simulate`: so many devices connected, how long after the last of them sent its
   first record all have been judged, and how the memory of collectors and leader grows after that.

Memory over an hour: `--only records --rate 3300 --minutes 60`, and `--only fleet --minutes 60
--window-s 30`.

A record counts 1,000 rows of 20 numeric and 5 categorical features, as in collect.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import sqlalchemy
from collect import FLEET, TOPICS, Bench, make

from edge_contract import broker_url, bundle, telemetry
from edge_contract import manifest as manifests
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_fleet.brokers import running_broker
from edge_fleet.sharing import SHARED
from edge_fleet.store.sql import SqlStore, open_store
from edge_fleet.store.tables import devices as devices_table

GOALS = {
    "connected": 10_000.0,
    "stored_per_s": 3_300.0,  # a million devices at a record per 5 minutes, by two collectors
    "collector_to_bare_ratio": 3.0,  # CPU a record: checked, copied, committed, against thrown away
    "judged_late_windows": 1.0,  # from the last device's first record until it is judged
    "rss_growth_mib_per_h": 30.0,
    "fleet_rss_growth_mib_per_h": 30.0,
}
TOLD_QUICKLY = ("collector_to_bare_ratio", "judged_late_windows")
"""What seconds and some hundred devices can say."""
LESS_IS_BETTER = (*TOLD_QUICKLY, "rss_growth_mib_per_h", "fleet_rss_growth_mib_per_h")
STORED = sqlalchemy.func.sum(devices_table.c.windows)
AHEAD = 8_000
"""Records that may be under way: the publisher waits for the store."""
IN_FLIGHT = 20
"""mosquitto's default of what one client may send unacknowledged."""
PUBLISHERS = 16
"""Connections that publish: mosquitto gathers small packets (Nagle), so each waits up to 40 ms for
its acknowledgements. One alone sent 1,200 records a second, whatever the collectors could do."""
EXPIRY = struct.pack(">BBL", 5, 2, 7 * 24 * 3600)
"""The properties of a record as agents send it: how long the broker may keep it."""
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def postgres() -> Iterator[tuple[str, int]]:
    """The URL of an empty database of a PostgreSQL of our own, with its defaults; its process."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise SystemExit("no PostgreSQL server installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="edge-scale-"))
    account: dict[str, str] = {}
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        account = {"user": "postgres"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    cluster = folder / "data"
    initdb = [found[-1], "-D", cluster, "-U", "edge", "-A", "trust"]
    subprocess.run(initdb, check=True, **quiet, **account)  # type: ignore[call-overload]
    command = [found[-1].parent / "postgres", "-D", cluster, "-k", folder, "-h", ""]
    server = subprocess.Popen(command, **quiet, **account)  # type: ignore[call-overload]
    ready = [found[-1].parent / "pg_isready", "-h", folder, "-q"]
    _until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL", 60)
    try:
        yield f"postgresql://edge@/postgres?host={folder}", server.pid
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _until(condition: Callable[[], object], what: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.1)


@dataclass(frozen=True)
class Place:
    """A broker, a store and a folder; ``server``: the number of PostgreSQL's process."""

    url: str
    db: str
    folder: Path
    server: int


@dataclass
class Service:
    """An `edge-fleet serve` process."""

    process: subprocess.Popen[bytes]
    log: Path

    def ready(self, word: str) -> bool:
        """It said so."""
        if self.process.poll() is not None:
            raise SystemExit(f"a process ended: {self.log.read_text()[-800:]}")
        return word in self.log.read_text()

    def stop(self) -> None:
        """In order."""
        self.process.terminate()
        self.process.wait(60)


def start(place: Place, ordinal: int, role: str, window_s: float) -> Service:
    """One process of a fleet of several."""
    log = place.folder / f"{role}-{ordinal}.log"
    command = [sys.executable, "-m", "edge_fleet", "serve", "--fleet", FLEET, "--broker", place.url,
               "--db", place.db, "--shared", "--role", role, "--ordinal", str(ordinal),
               "--window-s", str(window_s)]  # fmt: skip
    with log.open("wb") as out:
        return Service(subprocess.Popen(command, stdout=out, stderr=out, env=ENV), log)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def resident(services: list[Service]) -> float:
    """Resident memory of all of them, MiB."""
    return sum(rss_mib(one.process.pid) for one in services)


def children_of(name: str, parent: int) -> list[int]:
    """Processes of that name that ``parent`` began."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and (folder / "comm").read_text().strip() == name:
                found.append(int(folder.name))
    return found


class Stream:
    """Publishes records over a bare socket: what the sender costs must not be measured."""

    def __init__(self, url: str, bench: Bench, devices: int) -> None:
        self._sockets = [_connected(url, number) for number in range(PUBLISHERS)]
        records = [telemetry.decode(payload) for _, payload in bench.payloads[:64]]
        self._records = records
        self._devices = devices
        self._topics = [TOPICS.telemetry(f"pi-{at}").encode() for at in range(devices)]
        self.sent = 0

    def send(self) -> None:
        """So many records as may be in flight, and wait for their acknowledgements."""
        for connection in self._sockets:
            connection.sendall(self._packets())
        for connection in self._sockets:
            heard, buffer = 0, b""
            while heard < IN_FLIGHT:
                buffer += connection.recv(4096)
                while len(buffer) >= 2 and len(buffer) >= 2 + buffer[1]:
                    heard += buffer[0] == 0x40
                    buffer = buffer[2 + buffer[1] :]

    def _packets(self) -> bytes:
        packets = bytearray()
        now_ms = time.time_ns() // 1_000_000
        for number in range(1, IN_FLIGHT + 1):
            at, round_ = self.sent % self._devices, self.sent // self._devices
            like = self._records[self.sent % len(self._records)]
            record = msgspec.structs.replace(like, device=f"pi-{at}", seq=round_, end_ms=now_ms)
            topic = self._topics[at]
            body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", number)
            body += EXPIRY + telemetry.encode(record)
            packets += b"\x32" + _length(len(body)) + body
            self.sent += 1
        return bytes(packets)


def _connected(url: str, number: int) -> socket.socket:
    broker = broker_url.parse(url)
    connection = socket.create_connection((broker.host, broker.port), 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = b"bench-stream-%d" % number
    body = b"\x00\x04MQTT\x05\x02\x00\x00\x00" + struct.pack(">H", len(name)) + name
    connection.sendall(b"\x10" + bytes([len(body)]) + body)
    connection.recv(256)
    return connection


def _length(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


BARE = """
import sys, threading
from edge_contract import broker_url
from edge_contract.ports.mqtt import Link, LinkConfig
link = Link(LinkConfig(broker_url.parse(sys.argv[1]), "bench-bare", receive_maximum=1500,
                       session_expiry_s=3600), on_message=lambda message: None)
link.start(10)
link.subscribe([sys.argv[2]]).wait(10)
print("ready", flush=True)
threading.Event().wait()
"""


def bare_us(url: str, bench: Bench, records: int) -> float:
    """CPU microseconds a record of a subscriber that throws it away."""
    command = [sys.executable, "-c", BARE, url, SHARED.filters(TOPICS)[0]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENV)
    assert process.stdout is not None
    process.stdout.readline()
    stream = Stream(url, bench, 10_000)
    before = cpu_s(process.pid)
    while stream.sent < records:
        stream.send()
        time.sleep(IN_FLIGHT * PUBLISHERS / 5_000)
    time.sleep(1.0)
    spent = cpu_s(process.pid) - before
    process.kill()
    process.wait()
    link = Link(LinkConfig(broker_url.parse(url), "bench-bare"))  # ends the session it left
    link.start(10)
    link.stop()
    return spent / stream.sent * 1e6


@dataclass
class Sustained:
    """What was seen while records came."""

    stored: int
    seconds: float
    cpu_us: dict[str, float]
    rss: list[tuple[float, float]] = field(default_factory=list)


def sustained(
    place: Place, bench: Bench, store: SqlStore, options: argparse.Namespace
) -> Sustained:
    """Two collectors, fed as fast as they store, at most ``--rate`` a second."""
    collectors = [start(place, at, "collector", 300.0) for at in range(2)]
    for one in collectors:
        _until(lambda one=one: one.ready("collecting"), "a collector", 60)  # type: ignore[misc]
    stream, done = Stream(place.url, bench, options.devices), threading.Event()
    stored = [0]

    def feed() -> None:
        began = time.monotonic()
        while not done.is_set():
            early = stream.sent / options.rate - (time.monotonic() - began)
            if early <= 0 and stream.sent - stored[0] < AHEAD:
                stream.send()
            else:
                time.sleep(min(max(early, 0.002), 1.0))

    feeder = threading.Thread(target=feed)
    feeder.start()
    warm_s, seconds = min(5.0, options.minutes * 12), options.minutes * 60
    processes: dict[str, list[int]] = {}
    rss: list[tuple[float, float]] = []
    began, first, before = 0.0, 0, dict[str, float]()
    opened = time.monotonic()
    while not began or time.monotonic() - began < seconds:
        stored[0] = stored_in(store)
        now = time.monotonic()
        if not began and now - opened >= warm_s:
            began, first = now, stored[0]
            processes = {
                "collector": [one.process.pid for one in collectors],
                "postgres": children_of("postgres", place.server),
                "mosquitto": children_of("mosquitto", os.getpid()),
                "publisher": [os.getpid()],
            }
            before = {name: _cpu(pids) for name, pids in processes.items()}
        rss.append((now, resident(collectors)))
        time.sleep(0.2)
    last = stored_in(store)
    took = time.monotonic() - began
    spent = {name: _cpu(pids) - before[name] for name, pids in processes.items()}
    done.set()
    feeder.join()
    for one in collectors:
        one.stop()
    count = last - first
    return Sustained(count, took, {n: s / count * 1e6 for n, s in spent.items()}, rss)


def stored_in(store: SqlStore) -> int:
    """Windows kept. Not ``totals``: it counts all that wait, and took a tenth of a core here."""
    with store.connection(reading=True) as connection:
        return int(connection.execute(sqlalchemy.select(STORED)).scalar_one() or 0)


def _cpu(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += cpu_s(pid)
    return total


def growth_mib_per_h(rss: list[tuple[float, float]]) -> float:
    """Slope of resident memory over the second half: the first fills caches."""
    half = np.array(rss[len(rss) // 2 :])
    return float(np.polyfit(half[:, 0], half[:, 1], 1)[0] * 3600)


def counted_per_s(place: Place, store: SqlStore, most: int) -> float:
    """Windows a second of a leader that finds a backlog."""

    def waiting() -> int:
        with store.reading() as tx:
            return tx.totals().pending

    leader = start(place, 100, "leader", 300.0)
    begin = waiting()
    _until(lambda: waiting() < begin, "the leader's first batch", 120)
    began, first = time.monotonic(), waiting()
    while (left := waiting()) > 0 and first - left < most and time.monotonic() - began < 60:
        time.sleep(1.0)
    took = time.monotonic() - began
    leader.stop()
    return (first - left) / took


def _learn(store: SqlStore, bench: Bench) -> None:
    """As if the bundle had been published."""
    file = manifests.decode(bench.manifest).file(manifests.PROFILE_FILE)
    with store.transaction() as tx:
        tx.put_blob(bench.digest, bench.manifest, 0)
        tx.put_blob(file.sha256, bench.stored_profile, 0)


def _another(place: Place) -> Place:
    """The same with an empty database: what still waits in the other is not waited for."""
    engine = sqlalchemy.create_engine(
        place.db.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE simulated"))
    engine.dispose()
    return replace(place, db=place.db.replace("/postgres?", "/simulated?"))


def simulated(
    place: Place, bench: Bench, devices: int, window_s: float, minutes: float
) -> dict[str, float]:
    """A whole fleet for two windows at least: connected at once, until each device was judged."""
    model, stored = bundle.encode_member(manifests.MODEL_FILE, b"not run here")
    entry = manifests.decode(bench.manifest).file(manifests.PROFILE_FILE)
    file = place.folder / "bench.edgepack"
    file.write_bytes(
        bundle.write(bench.manifest, {model.name: stored, entry.name: bench.stored_profile})
    )
    store = open_store(place.db, create=True)
    _learn(store, bench)
    services = [start(place, at, "all", window_s) for at in range(2)]
    for one in services:
        _until(lambda one=one: one.ready("collecting"), "a collector", 60)  # type: ignore[misc]
    command = [sys.executable, "-m", "edge_fleet", "simulate", "--fleet", FLEET,
               "--broker", place.url, "--bundle", str(file), "--devices", str(devices),
               "--window-s", str(window_s), "--duration-s",
               str(max(1.6 * window_s + devices / 500, 60 * minutes)), "--json"]  # fmt: skip
    crowd = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENV)

    def judged() -> int:
        with store.reading() as tx:
            return sum(1 for one in tx.all_detectors() if one.device.startswith("sim-"))

    _until(lambda: judged() >= devices, "every device", 3 * window_s + 300)
    now_ms = time.time_ns() // 1_000_000
    came_ms: dict[str, int] = {}
    with store.reading() as tx:
        for one in tx.records():  # the newest first: the last word on a device is its first window
            came_ms[one.device] = one.received_ms
    late_s = (now_ms - max(ms for device, ms in came_ms.items() if device[:4] == "sim-")) / 1000
    rss = [(time.monotonic(), resident(services))]
    while crowd.poll() is None:
        time.sleep(0.2)
        rss.append((time.monotonic(), resident(services)))
    said = json.loads(crowd.communicate()[0])
    for one in services:
        one.stop()
    store.close()
    return {
        "connected": said["peak"],
        "judged_late_s": late_s,
        "judged_late_windows": late_s / window_s,
        "simulated_lost_connections": said["losses"],
        "fleet_rss_mib": rss[-1][1],
        "fleet_rss_growth_mib_per_h": growth_mib_per_h(rss),
    }


def measure(options: argparse.Namespace) -> dict[str, float]:
    """All figures, or those of one part."""
    bench = make(64, np.random.default_rng(0))
    figures: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, kind = stack.enter_context(running_broker(0, folder / "broker", embedded=False))
        db, server = stack.enter_context(postgres())
        place = Place(url, db, folder, server)
        print(f"records of {len(bench.payloads[0][1])} bytes over a {kind} into PostgreSQL")
        if options.only != "fleet":
            figures |= records(place, bench, options)
        if options.only != "records":
            minutes = options.minutes if options.only else 0.0
            another = _another(place)
            figures |= simulated(another, bench, options.devices, options.window_s, minutes)
    return figures


def records(place: Place, bench: Bench, options: argparse.Namespace) -> dict[str, float]:
    """Thrown away, stored, counted: the first two runs."""
    few = 5_000 if options.quick else 30_000
    thrown_us = bare_us(place.url, bench, few)
    store = open_store(place.db, create=True)
    _learn(store, bench)
    run = sustained(place, bench, store, options)
    counted = counted_per_s(place, store, few)
    store.close()
    return {
        "stored_per_s": run.stored / run.seconds,
        "bare_us_per_record": thrown_us,
        **{f"{name}_us_per_record": spent for name, spent in run.cpu_us.items()},
        "collector_to_bare_ratio": run.cpu_us["collector"] / thrown_us,
        "rss_mib": run.rss[-1][1],
        "rss_growth_mib_per_h": growth_mib_per_h(run.rss),
        "counted_per_s": counted,
    }


def met(name: str, figure: float) -> bool:
    """Costs are to stay below their goal, the others above."""
    return figure <= GOALS[name] if name in LESS_IS_BETTER else figure >= GOALS[name]


def main() -> None:
    """Print the figures; write them where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 s, and 300 devices at 20 s")
    parser.add_argument("--minutes", type=float, default=2.0, help="of records, or of --only fleet")
    parser.add_argument("--rate", type=float, default=math.inf, help="records a second at most")
    parser.add_argument("--only", choices=("records", "fleet"), help="a part of it")
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--window-s", type=float, default=300.0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if options.quick:
        options.minutes, options.devices, options.window_s = 1 / 6, 300, 20.0
    figures = measure(options)
    goals_told = {
        name: goal
        for name, goal in GOALS.items()
        if name in figures and (name in TOLD_QUICKLY or not options.quick)
    }
    for name, figure in figures.items():
        goal = ""
        if name in goals_told:
            goal = f"goal {GOALS[name]:g}: {'met' if met(name, figure) else 'missed'}"
        print(f"{name:<28} {figure:10.2f}   {goal}".rstrip())
    if options.json:
        goals = {n: [figures[n], goal, met(n, figures[n])] for n, goal in goals_told.items()}
        options.json.write_text(json.dumps({**figures, "goals": goals}, indent=2) + "\n")


if __name__ == "__main__":
    main()

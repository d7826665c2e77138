"""Requests while versions change: does anybody wait, or fail?

    python benchmarks/swap.py [--quick] [--json FILE]

A real agent under a real broker swaps two versions of a forest again and again: each change is
staged, tested in a process of its own, loaded beside what answers, tried on the requests, and
committed; every fifth is called off in its trial and rolled back. Meanwhile one thread asks it in
Python and two clients, in processes of their own, over HTTP and MQTT, each on a clock of its own,
so that a request that waits does not hide the next: 100,000 requests and more across 50 swaps. The
broker is a process of its own where there is a mosquitto.

The 99th percentiles are of one run: at rest before and between the changes, and from the moment
that a change is staged until it is at rest again. Their ratio is what a swap costs.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import itertools
import json
import multiprocessing
import os
import platform
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from msgspec import UNSET
from sklearn.ensemble import RandomForestClassifier

from edge_agent import Agent
from edge_agent import config as configs
from edge_agent.folder import Folder
from edge_agent.pull import enroll
from edge_agent.steps import RESTING
from edge_contract import broker_url, messages
from edge_contract import bundle as bundles
from edge_contract.errors import EdgeError
from edge_contract.messages import Desired
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics
from edge_fleet.broker import BrokerThread, MosquittoConfig, MosquittoProcess, find_mosquitto
from edge_pack import BuildConfig, build
from edge_release import create
from edge_release.publication import connect, sync
from edge_release.repository import Repository

FLEET, CHANNEL, DEVICE, MODEL = "bench", "stable", "pi1", "pump"
TOPICS = Topics(FLEET)
FEATURES = 20
PYTHON_HZ, HTTP_HZ, MQTT_HZ = 200, 200, 50
REQUESTS_GOAL = 100_000
ROLL_BACK_EVERY = 5
RATIO_GOAL = 2.0
TRIAL_S = 0.4
DEADLINE_S = 60.0
NAMES = tuple(f"sensor_{i:02d}" for i in range(FEATURES))
ROW = {name: i / FEATURES for i, name in enumerate(NAMES)}


@dataclass
class Asked:
    """What one requester saw: milliseconds waited, at rest and while a version changed."""

    rest: list[float] = field(default_factory=list)
    change: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def saw(self, waited_ms: float, before: bool, after: bool) -> None:
        """``before``, ``after``: a change was under way at either end of the request."""
        (self.change if before or after else self.rest).append(waited_ms)

    def p99(self, which: str) -> float:
        """In milliseconds."""
        return float(np.percentile(getattr(self, which), 99))


def main() -> None:
    """Measure, print, and write the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 swaps instead of 50")
    parser.add_argument("--json", type=Path, help="write {'goals': {name: [figure, goal, met]}}")
    arguments = parser.parse_args()
    swaps = 8 if arguments.quick else 50
    with tempfile.TemporaryDirectory() as folder:
        doors, rolled = measure(Path(folder), swaps)
    goals: dict[str, tuple[float, float, bool]] = {}
    print(f"{swaps} swaps and {rolled} rolls back; {platform.machine()}, {os.cpu_count()} cores")
    print(f"{'door':8} {'requests':>9} {'failed':>7} {'p99 rest':>9} {'p99 change':>11} {'max':>8}")
    for name, asked in doors.items():
        total = len(asked.rest) + len(asked.change)
        rest, change = asked.p99("rest"), asked.p99("change")
        worst = max(asked.change)
        print(f"{name:8} {total:9} {len(asked.failures):7} {rest:9.2f} {change:11.2f} {worst:8.2f}")
        goals[f"{name}, failed"] = (len(asked.failures), 0, not asked.failures)
        goals[f"{name}, p99 ratio"] = (change / rest, RATIO_GOAL, change <= RATIO_GOAL * rest)
        for failure in asked.failures[:3]:
            print("  ", failure)
    if not arguments.quick:
        all_ = sum(len(asked.rest) + len(asked.change) for asked in doors.values())
        goals["requests"] = (all_, REQUESTS_GOAL, all_ >= REQUESTS_GOAL)
    for name, (figure, goal, met) in goals.items():
        print(f"{'met' if met else 'NOT MET':8} {name}: {figure:.2f}, goal {goal:g}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"goals": goals}, indent=2) + "\n")


def measure(folder: Path, swaps: int) -> tuple[dict[str, Asked], int]:
    """What each requester saw, and how many changes were rolled back."""
    port = free_port()
    with broker(folder) as url:
        create(folder / "keys", "home", now=datetime.now(UTC))
        publisher = Repository(folder / "keys")
        for seed, version in enumerate(("1.0", "2.0")):
            publish(publisher, url, bundle(folder, version, seed))
        path = settings(folder, url)
        path.write_text(path.read_text() + f'[http]\nlisten = "127.0.0.1:{port}"\n')
        config = configs.load(path, {})
        enroll(config, publisher.shelf.read().files["1.root.json"], "")
        with Agent(config) as agent, Watch(Folder(config.folder).state(MODEL)) as watch:
            watch.until(lambda: watch.at("2.0"), "version 2.0")
            return drive(agent, watch, url, port, swaps)


def drive(
    agent: Agent, watch: Watch, url: str, port: int, swaps: int
) -> tuple[dict[str, Asked], int]:
    """Ask without a pause while versions change."""
    python = Asked()
    stop = threading.Event()
    spawn = multiprocessing.get_context("spawn")
    ended: Any = spawn.Event()
    seen: Any = spawn.Queue()
    askers = [
        spawn.Process(target=ask_mqtt, args=(url, watch.path, ended, seen)),
        spawn.Process(target=ask_http, args=(port, watch.path, ended, seen)),
    ]
    for process in askers:
        process.start()
    asker = threading.Thread(target=ask_python, args=(agent, watch, python, stop))
    asker.start()
    time.sleep(5)
    rolled = change(watch, url, swaps)
    stop.set()
    ended.set()
    asker.join()
    found: dict[str, Asked] = {"python": python}
    for _ in askers:
        name, asked = seen.get(timeout=DEADLINE_S)
        found[name] = asked
    for process in askers:
        process.join()
    return dict(sorted(found.items(), reverse=True)), rolled


def change(watch: Watch, url: str, swaps: int) -> int:
    """Want the other version again and again; how many changes were called off on trial."""
    link = Link(LinkConfig(broker=broker_url.parse(url), client_id="fleet"))
    link.start(10)
    rolled, version = 0, "2.0"
    for turn in range(1, swaps + 1):
        other = "1.0" if version == "2.0" else "2.0"
        want(link, 2 * turn, other)
        if turn % ROLL_BACK_EVERY == 0:
            watch.until(lambda: watch.phase == "trial", "a trial")
            want(link, 2 * turn + 1, version)
            rolled += 1
        else:
            version = other
        watch.until(functools.partial(watch.at, version), f"version {version}")
        time.sleep(0.5)
    link.stop()
    return rolled


class Watch:
    """What an agent's update is at, by its state file, looked at every 5 ms."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.phase = "idle"
        self.version = ""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def changing(self) -> bool:
        """Whether a version is under way."""
        return self.phase not in RESTING

    def at(self, version: str) -> bool:
        """Whether ``version`` was proven, answers, and nothing is under way."""
        return (self.phase, self.version) == ("committed", version)

    def until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait for it."""
        end = time.monotonic() + DEADLINE_S
        while not ready():
            if time.monotonic() > end:
                raise SystemExit(f"{what} did not come within {DEADLINE_S:g} s: {self.phase}")
            time.sleep(0.01)

    def _look(self) -> None:
        while not self._ending.wait(0.005):
            if self.path.exists():
                found = json.loads(self.path.read_bytes())
                self.version = found.get("active", {}).get("version", "")
                self.phase = found.get("phase", "idle")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()


def ask_python(agent: Agent, watch: Watch, asked: Asked, stop: threading.Event) -> None:
    """Ask in the agent's process, each request on its own time."""
    due = time.perf_counter()
    while not stop.is_set():
        due += 1 / PYTHON_HZ
        time.sleep(max(due - time.perf_counter(), 0))
        before, begin = watch.changing, time.perf_counter()
        try:
            agent.predict(MODEL, ROW)
        except EdgeError as error:
            asked.failures.append(error.what)
        asked.saw(1000 * (time.perf_counter() - begin), before, watch.changing)


def ask_http(port: int, path: Path, stop: Any, seen: Any) -> None:
    """Ask over one connection from a process of its own."""
    asked = Asked()
    body = json.dumps(ROW)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    with Watch(path) as watch:
        due = time.perf_counter()
        while not stop.is_set():
            due += 1 / HTTP_HZ
            time.sleep(max(due - time.perf_counter(), 0))
            before, begin = watch.changing, time.perf_counter()
            try:
                connection.request("POST", f"/predict/{MODEL}", body)
                answer = connection.getresponse()
                said = answer.read()
                if answer.status != 200:
                    asked.failures.append(f"{answer.status} {said[:100]!r}")
            except (OSError, http.client.HTTPException) as error:
                asked.failures.append(repr(error))
                connection.close()
            asked.saw(1000 * (time.perf_counter() - begin), before, watch.changing)
    seen.put(("http", asked))


def ask_mqtt(url: str, path: Path, stop: Any, seen: Any) -> None:
    """Ask from a process of its own; what was not answered has failed."""
    asked = Asked()
    sent: dict[bytes, tuple[float, bool]] = {}
    with Watch(path) as watch:

        def received(message: Message) -> None:
            begin, before = sent.pop(message.correlation)
            answer = messages.decode(message.payload, messages.Answer)
            if answer.error is not UNSET:
                asked.failures.append(str(answer.error))
            asked.saw(1000 * (time.perf_counter() - begin), before, watch.changing)

        config = LinkConfig(broker=broker_url.parse(url), client_id="asker")
        link = Link(config, on_message=received)
        link.start(10)
        link.subscribe(["answers"]).wait(10)
        body = json.dumps(ROW).encode()
        due = time.perf_counter()
        for number in itertools.count():
            if stop.is_set():
                break
            due += 1 / MQTT_HZ
            time.sleep(max(due - time.perf_counter(), 0))
            correlation = str(number).encode()
            sent[correlation] = (time.perf_counter(), watch.changing)
            link.publish(
                TOPICS.requests(DEVICE, MODEL),
                body,
                response_topic="answers",
                correlation=correlation,
            )
        end = time.monotonic() + 10
        while sent and time.monotonic() < end:
            time.sleep(0.01)
        link.stop()
    asked.failures += ["no answer"] * len(sent)
    seen.put(("mqtt", asked))


# -- the world ----------------------------------------------------------------------------------


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """The URL of a broker."""
    if find_mosquitto():
        # Without it Nagle's algorithm and delayed acknowledgements make every answer 40 ms late.
        quick = ("set_tcp_nodelay true",)
        running = MosquittoProcess(MosquittoConfig(directory=folder / "broker", extra=quick))
        running.start()
        try:
            yield running.url
        finally:
            running.stop()
    else:
        with BrokerThread() as thread:
            yield thread.url


def bundle(folder: Path, version: str, seed: int) -> bytes:
    """A forest of 100 trees, packed."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2000, FEATURES)).astype(np.float32)
    labels = (rows[:, 0] + rows[:, 1] + rng.normal(size=len(rows)) > 0).astype(int)
    model, out = folder / f"{version}.joblib", folder / f"{version}.edgepack"
    forest = RandomForestClassifier(100, max_depth=10, random_state=seed)
    joblib.dump(forest.fit(rows, labels), model)
    pd.DataFrame(rows, columns=NAMES).to_csv(folder / "rows.csv", index=False)
    build(
        BuildConfig(
            model=model, name=MODEL, version=version, out=out, data=folder / "rows.csv",
            trust=True, measure=False,
        )
    )  # fmt: skip
    return out.read_bytes()


def publish(publisher: Repository, url: str, data: bytes) -> None:
    """Sign it and put it on the broker."""
    with publisher.locked():
        publisher.publish(bundles.read(data), fleet=FLEET, channel=CHANNEL, now=datetime.now(UTC))
    link = LinkConfig(broker=broker_url.parse(url), client_id="publisher")
    with connect(link, TOPICS) as retained:
        sync(publisher, TOPICS, retained)


def want(link: Link, revision: int, version: str) -> None:
    """Say what the fleet wants of the device."""
    desired = Desired(revision=revision, models={MODEL: version})
    link.publish(TOPICS.desired(DEVICE), messages.encode(desired), retain=True).wait(10)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(folder: Path, url: str) -> Path:
    """The device's ``agent.toml``."""
    path = folder / "agent.toml"
    path.write_text(
        f'[agent]\ndevice = "{DEVICE}"\nfleet = "{FLEET}"\nfolder = "state"\n'
        f'[broker]\nurl = "{url}"\n'
        f"[trial]\nrequests = 1000000\nseconds = {TRIAL_S}\n"
    )
    return path


if __name__ == "__main__":
    main()

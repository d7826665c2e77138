"""A device for an hour: does it grow?

    python benchmarks/soak.py [--minutes 60 | --quick] [--json FILE]

An agent in a process of its own is asked by every door at once, on clocks of their own: in Python,
over HTTP (plain rows, the Open Inference Protocol, connections that come and go, faulty requests,
``/metrics``), over MQTT (faulty ones too), and by a binding. Meanwhile versions are swapped, each
through self-test and trial, windows of counts go home, and the broker is restarted. Once a second
its memory, open files and threads are read.

A first quarter is for warming up, with a swap right after the other: the heap of a process that
loads one model beside the other has found its size after about a hundred swaps, 2 MB above that
after the tenth, and glibc counts as many bytes in use then as before. The broker stays up in that
quarter: an agent waits longer each time for one that restarts every few seconds.

Growth is the slope over time of its resident set, and of the anonymous part of that, which is its
own whatever else runs, after that quarter, with a 95 % interval: by least squares on
the medians of blocks of equal length, for seconds beside one another are not independent. Medians,
since a swap holds two versions for as long as the machine takes, 10 MB here; what is not given back
stays after the swap too, and moves them. The goal bounds the interval's upper end over the run. PSS
is shown: pages of libraries count by how many others map them, so it moves with its neighbours.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swap import Watch

FEATURES = 20
NAMES = tuple(f"sensor_{i:02d}" for i in range(FEATURES))
ROW = {name: i / FEATURES for i, name in enumerate(NAMES)}
FLEET, DEVICE, MODEL = "bench", "pi1", "pump"
PYTHON_HZ, HTTP_HZ, MQTT_HZ, BINDING_HZ = 50, 40, 20, 10
FAULTY_EVERY = 50
NEW_CONNECTION_EVERY = 100
RESTART_EVERY = 3
"""Of the swaps, so many go between two restarts of the broker."""
WARM_SHARE, WARM_PAUSE_S = 0.25, 0.5
BLOCKS = 12
T_95 = 2.228
"""Student's t for 10 degrees of freedom, two-sided 95 %."""
GROWTH_MAX_MB = 1.0
LONG_S = 600.0
"""Under ten minutes growth is printed and not judged: a swap moves 10 MB back and forth."""
DEADLINE_S = 120.0


@dataclass
class Tally:
    """Requests of one door: answered as they should be, or not."""

    good: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Samples:
    """What was read of the agent's process, once a second."""

    at_s: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    anonymous: list[float] = field(default_factory=list)
    pss: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)


def main() -> None:
    """Measure, print, and write the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--quick", action="store_true", help="two minutes; says little of growth")
    parser.add_argument("--json", type=Path, help="write {'goals': {name: [figure, goal, met]}}")
    parser.add_argument("--agent", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.agent:
        be_the_agent(arguments.agent)
        return
    minutes = 2.0 if arguments.quick else arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        goals = soak(Path(folder), 60 * minutes)
    for name, (figure, goal, met) in goals.items():
        print(f"{'met' if met else 'NOT MET':8} {name}: {figure:.3g}, goal {goal:g}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"goals": goals}, indent=2) + "\n")


# -- the agent's process -------------------------------------------------------------------------


def be_the_agent(settings: Path) -> None:
    """Run an agent and ask it in Python until stdin ends; then say how that went."""
    from edge_agent import Agent  # noqa: PLC0415 - the parent needs it not
    from edge_agent import config as configs  # noqa: PLC0415
    from edge_contract.errors import EdgeError  # noqa: PLC0415

    ended = threading.Event()

    def until_told() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=until_told, daemon=True).start()
    tally = Tally()
    with Agent(configs.load(settings, {})) as agent:
        due = time.perf_counter()
        first = True
        while not ended.is_set():
            due = max(due + 1 / PYTHON_HZ, time.perf_counter() - 1)
            time.sleep(max(due - time.perf_counter(), 0))
            try:
                agent.predict(MODEL, ROW)
                tally.good += 1
                first = False
            except EdgeError as error:
                if not first:  # the first version has to be fetched
                    tally.wrong.append(error.what)
    print(json.dumps({"good": tally.good, "wrong": tally.wrong[:5], "failed": len(tally.wrong)}))


# -- the parent ----------------------------------------------------------------------------------


def soak(folder: Path, seconds: float) -> dict[str, tuple[float, float, bool]]:
    """Run it all; the goals."""
    from swap import free_port  # noqa: PLC0415 - scikit-learn comes with it

    port = free_port()
    with world(folder, port) as (url, restart):
        log = (folder / "agent.log").open("wb")
        agent = subprocess.Popen(
            [sys.executable, __file__, "--agent", str(folder / "agent.toml")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        stop = threading.Event()
        tallies = {"http": Tally(), "mqtt": Tally(), "binding": Tally()}
        samples = Samples()
        askers = [
            threading.Thread(target=ask_http, args=(port, tallies["http"], stop)),
            threading.Thread(target=ask_mqtt, args=(url, tallies, stop)),
            threading.Thread(target=sample, args=(agent.pid, samples, stop)),
        ]
        try:
            done = drive(folder, url, restart, askers, seconds)
        finally:
            stop.set()
            for thread in askers:
                if thread.is_alive():
                    thread.join()
            said, _ = agent.communicate(b"", timeout=DEADLINE_S)
            log.close()
        if agent.returncode:
            raise SystemExit(f"the agent ended: {(folder / 'agent.log').read_text()[-2000:]}")
    python = json.loads(said)
    tallies["python"] = Tally(python["good"], python["wrong"])
    return judge(samples, tallies, done, seconds)


def drive(
    folder: Path,
    url: str,
    restart: Callable[[], None],
    askers: list[threading.Thread],
    seconds: float,
) -> Counter[str]:
    """Ask by every door and swap versions until the time is over; what was done."""
    from swap import Watch  # noqa: PLC0415 - the agent's process needs none of it

    from edge_agent.folder import Folder  # noqa: PLC0415

    done: Counter[str] = Counter()
    with Watch(Folder(folder / "state").state(MODEL)) as watch:
        watch.until(lambda: watch.at("2.0"), "version 2.0")
        for thread in askers:
            thread.start()
        begin = time.monotonic()
        version = "2.0"
        while (passed_s := time.monotonic() - begin) < seconds:
            warming = passed_s < WARM_SHARE * seconds
            time.sleep(WARM_PAUSE_S if warming else min(seconds / 20, 15.0))
            version = "1.0" if version == "2.0" else "2.0"
            done["swaps"] += 1
            swap(watch, url, 2 * done["swaps"], version)
            if not warming and done["swaps"] % RESTART_EVERY == 0:
                restart()
                done["restarts"] += 1
    return done


def swap(watch: Watch, url: str, revision: int, version: str) -> None:
    """Have the fleet want another version, and wait until it answers."""
    import functools  # noqa: PLC0415

    from swap import want  # noqa: PLC0415

    from edge_contract import broker_url  # noqa: PLC0415
    from edge_contract.ports.mqtt import Link, LinkConfig  # noqa: PLC0415

    link = Link(LinkConfig(broker=broker_url.parse(url), client_id="fleet"))
    link.start(10)
    want(link, revision, version)
    link.stop()
    watch.until(functools.partial(watch.at, version), f"version {version}")


def ask_http(port: int, tally: Tally, stop: threading.Event) -> None:
    """Every kind of request that the door knows, on connections that come and go."""
    plain = json.dumps(ROW).encode()
    tensor = {"name": "input", "shape": [1, FEATURES], "datatype": "FP32", "data": [*ROW.values()]}
    infer = json.dumps({"inputs": [tensor]}).encode()
    kinds = (
        ("POST", f"/predict/{MODEL}", plain, 200),
        ("POST", f"/v2/models/{MODEL}/infer", infer, 200),
        ("GET", "/v2/health/ready", b"", 200),
        ("POST", f"/predict/{MODEL}", json.dumps({"rows": [ROW] * 500}).encode(), 200),
    )
    connection: http.client.HTTPConnection | None = None
    due = time.perf_counter()
    for number in itertools.count():
        if stop.is_set():
            break
        due = max(due + 1 / HTTP_HZ, time.perf_counter() - 1)
        time.sleep(max(due - time.perf_counter(), 0))
        if connection is None or number % NEW_CONNECTION_EVERY == 0:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        method, path, body, expected = kinds[(number % 20 == 0) * 3 or number % 3]
        if number % FAULTY_EVERY == 0:
            body, expected = (
                (b'{"sensor_00": "hot"}', 400) if method == "POST" else (body, expected)
            )
        if number % 400 == 7:
            method, path, body, expected = "GET", "/metrics", b"", 200
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException) as error:
            tally.wrong.append(repr(error))
            connection = None
            continue
        if response.status == expected:
            tally.good += 1
        else:
            tally.wrong.append(f"{path}: {response.status} {said[:200]!r}")


def ask_mqtt(url: str, tallies: dict[str, Tally], stop: threading.Event) -> None:
    """Requests with correlation, and messages for the binding; what a restart loses is lost."""
    from edge_contract import broker_url  # noqa: PLC0415
    from edge_contract.ports.mqtt import Link, LinkConfig, Message  # noqa: PLC0415
    from edge_contract.topics import Topics  # noqa: PLC0415

    topics = Topics(FLEET)
    mqtt, binding = tallies["mqtt"], tallies["binding"]
    faulty: dict[bytes, bool] = {}

    def received(message: Message) -> None:
        if message.topic != "answers":
            binding.good += 1
            return
        wrong = b'"error"' in message.payload
        if wrong == faulty.pop(message.correlation, wrong):
            mqtt.good += 1
        else:
            mqtt.wrong.append(message.payload.decode()[:200])

    config = LinkConfig(broker=broker_url.parse(url), client_id="asker", session_expiry_s=600)
    link = Link(config, on_message=received)
    link.start(10)
    link.subscribe(["answers", "bound/out"]).wait(10)
    body, junk = json.dumps(ROW).encode(), b'{"sensor_00": "hot"}'
    rng = random.Random(1)  # noqa: S311
    due = time.perf_counter()
    for number in itertools.count():
        if stop.is_set():
            break
        due = max(due + 1 / MQTT_HZ, time.perf_counter() - 1)
        time.sleep(max(due - time.perf_counter(), 0))
        correlation = str(number).encode()
        faulty[correlation] = number % FAULTY_EVERY == 0
        link.publish(
            topics.requests(DEVICE, MODEL),
            junk if faulty[correlation] else body,
            response_topic="answers",
            correlation=correlation,
            expiry_s=60,
        )
        if number % (MQTT_HZ // BINDING_HZ) == 0:
            state = {name: rng.random() for name in NAMES}
            link.publish("bound/in", json.dumps(state).encode(), qos=0)
        while len(faulty) > 2000:
            faulty.pop(next(iter(faulty)))
    link.stop()


def sample(pid: int, samples: Samples, stop: threading.Event) -> None:
    """Read the process once a second."""
    root = Path(f"/proc/{pid}")
    begin = time.monotonic()
    while not stop.wait(1.0):
        with contextlib.suppress(OSError, StopIteration):
            lines = (root / "smaps_rollup").read_text().splitlines()
            figures = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
            samples.files.append(len(list((root / "fd").iterdir())))
            samples.threads.append(len(list((root / "task").iterdir())))
            samples.rss.append(figures["Rss:"])
            samples.anonymous.append(figures["Anonymous:"])
            samples.pss.append(figures["Pss:"])
            samples.at_s.append(time.monotonic() - begin)


# -- judging -------------------------------------------------------------------------------------


def medians(series: list[float]) -> list[float]:
    """Of blocks of equal length."""
    size = len(series) // BLOCKS
    return [statistics.median(series[at * size : (at + 1) * size]) for at in range(BLOCKS)]


def growth(at_s: list[float], mb: list[float]) -> tuple[float, float]:
    """Growth over the whole time in MB, and half of its 95 % interval: see the module's text."""
    xs, ys = medians(at_s), medians(mb)
    mean_x, mean_y = sum(xs) / BLOCKS, sum(ys) / BLOCKS
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    rest = [y - mean_y - slope * (x - mean_x) for x, y in zip(xs, ys, strict=True)]
    error = math.sqrt(sum(r * r for r in rest) / (BLOCKS - 2) / spread)
    whole = at_s[-1] - at_s[0]
    return slope * whole, T_95 * error * whole


def judge(
    samples: Samples, tallies: dict[str, Tally], done: Counter[str], seconds: float
) -> dict[str, tuple[float, float, bool]]:
    """Print what was seen; the goals."""
    warm = int(len(samples.at_s) * WARM_SHARE)
    kept = slice(warm, None)
    print(
        f"{seconds / 60:g} minutes, {done['swaps']} swaps, {done['restarts']} restarts of the "
        f"broker; {platform.machine()}, {os.cpu_count()} cores"
    )
    goals: dict[str, tuple[float, float, bool]] = {}
    for name, tally in tallies.items():
        failed = len(tally.wrong)
        print(f"{name:8} {tally.good:8} as expected, {failed} not")
        for wrong in tally.wrong[:3]:
            print("  ", wrong)
        goals[f"{name}, not as expected"] = (failed, 0, not failed and tally.good > 0)
    for name in ("rss", "anonymous", "pss"):
        series = getattr(samples, name)[kept]
        grown, half = growth(samples.at_s[kept], series)
        print(
            f"{name}: {series[0]:.1f} MB at first, {series[-1]:.1f} at last, at most "
            f"{max(series):.1f}; grown by {grown:+.2f} MB, 95 % {grown - half:+.2f} to "
            f"{grown + half:+.2f}, in {samples.at_s[-1] - samples.at_s[warm]:.0f} s"
        )
        print("   by blocks:", " ".join(f"{each:.1f}" for each in medians(series)))
        upper = grown + half
        if seconds >= LONG_S and name != "pss":
            goals[f"{name}, growth at most (MB)"] = (upper, GROWTH_MAX_MB, upper <= GROWTH_MAX_MB)
    for name in ("files", "threads"):
        series = sorted(getattr(samples, name)[kept][: len(samples.at_s) // 4])
        later = sorted(getattr(samples, name)[-len(samples.at_s) // 4 :])
        before, after = series[len(series) // 2], later[len(later) // 2]
        print(f"{name}: {before} at first, {after} at last (medians)")
        goals[f"{name}, more than at first"] = (after - before, 0, after <= before)
    return goals


# -- the world -----------------------------------------------------------------------------------


@contextmanager
def world(folder: Path, port: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """A broker with two signed versions, a device's settings; its URL, and what restarts it."""
    import swap as world  # noqa: PLC0415 - scikit-learn comes with it

    from edge_agent import config as configs  # noqa: PLC0415
    from edge_agent.pull import enroll  # noqa: PLC0415
    from edge_fleet.broker import (  # noqa: PLC0415
        BrokerThread,
        MosquittoConfig,
        MosquittoProcess,
        find_mosquitto,
    )
    from edge_release import create  # noqa: PLC0415
    from edge_release.repository import Repository  # noqa: PLC0415

    quick = ("set_tcp_nodelay true",)
    running = (
        MosquittoProcess(MosquittoConfig(directory=folder / "broker", extra=quick))
        if find_mosquitto()
        else BrokerThread()
    )
    running.start()
    try:
        create(folder / "keys", "home", now=datetime.now(UTC))
        publisher = Repository(folder / "keys")
        for seed, version in enumerate(("1.0", "2.0")):
            world.publish(publisher, running.url, world.bundle(folder, version, seed))
        path = world.settings(folder, running.url)
        inputs = "".join(
            f'{name} = {{ topic = "bound/in", field = "/{name}" }}\n' for name in NAMES
        )
        path.write_text(
            path.read_text()
            + f'[telemetry]\nwindow_s = 5\n[http]\nlisten = "127.0.0.1:{port}"\n'
            + f'[[bindings]]\nmodel = "{MODEL}"\non = "message"\nat_most = "100ms"\n'
            + f'publish.topic = "bound/out"\n[bindings.inputs]\n{inputs}'
        )
        config = configs.load(path, {})
        enroll(config, publisher.shelf.read().files["1.root.json"], "")
        yield running.url, running.restart
    finally:
        running.stop()


if __name__ == "__main__":
    main()

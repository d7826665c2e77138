"""A 20 MB bundle pulled over MQTT, beside one HTTP GET of the same bytes in the same run.

    python benchmarks/transfer.py [--quick] [--json FILE]

Twice: on the bare loopback, where a GET is a copy in memory and all that is measured is our own
work, and over a link of 50 ms and 20 Mbit/s (a proxy in a process of its own), as devices have it.

The bytes are incompressible. ``pull`` ends when every chunk is verified and on disk, ``slot`` when
the bundle is decoded and flushed as well; the GET ends when the bytes are on disk, verified by
nobody. The HTTP server is Python's own; device, server and broker are processes of their own. The
ratio says more than the figure: other work on the machine slows all of them.

Last, memory: a bundle of 200 MB (50 with --quick) is fetched through each broker, and the peak from
the first chunk to the complete slot is compared with what the process had before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import http.server
import json
import multiprocessing
import random
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TypeVar

from wire import memory
from wire.memory import memory_mb, reset_peak_mb

from edge_agent.delivery import Delivery, DeliveryConfig
from edge_agent.delivery.download import Download
from edge_agent.delivery.pull import Broker
from edge_agent.delivery.store import ChunkStore
from edge_contract import bundle as bundles
from edge_contract import manifest as manifests
from edge_contract.broker_url import BrokerUrl
from edge_contract.bundle import Bundle
from edge_contract.messages import Release
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.ports.retained import Retained
from edge_contract.topics import SENTINEL_FILE, Topics
from edge_fleet.broker import BrokerThread, MosquittoProcess, find_mosquitto
from edge_release import create
from edge_release.publication import connect, sync
from edge_release.repository import Repository

MB = 1_000_000
TOPICS = Topics("bench")
DELAY_S = 0.025  # one way
RATE_BYTES_S = 20 * MB / 8
GOALS = {
    "mosquitto_link_ratio": 0.9,
    "embedded_link_ratio": 0.9,
    "mosquitto_loopback_mb_s": 50.0,  # four times what 100 Mbit/s Ethernet carries
    "embedded_loopback_mb_s": 50.0,
    "rss_growth_mb": 4.0,  # as in the first trial
    "rss_growth_large_mb": 10.0,  # a bundle of 200 MB, up to the complete slot
}
LARGE_BYTES = 200 * MB
LARGE_QUICK_BYTES = 50 * MB
T = TypeVar("T")
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Pulled:
    """Seconds of a pull and of a whole slot, and how far the pull raised the memory, in MB."""

    pull_s: float
    slot_s: float
    rss_mb: float


def main() -> None:
    """Measure, print, and write the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one round on the loopback, not five")
    parser.add_argument("--json", type=Path, help="write {'goals': {name: [figure, goal, met]}}")
    arguments = parser.parse_args()
    figures = measure(quick=arguments.quick)
    goals = {
        name: [round(figures[name], 3), goal, _met(name, figures[name])]
        for name, goal in GOALS.items()
        if name in figures
    }
    for name, (figure, goal, met) in goals.items():
        print(f"{name:24} {figure:>8.2f}   goal {goal:>6.2f}   {'met' if met else 'MISSED'}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"goals": goals}, indent=2) + "\n")


def measure(*, quick: bool) -> dict[str, float]:
    """MB/s and ratios of each way on the loopback (the best of some rounds) and over the link."""
    figures: dict[str, float] = {"rss_growth_mb": 0.0}
    with tempfile.TemporaryDirectory(prefix="edge-transfer-") as name:
        bundle = make_bundle(20 * MB)
        folder = Path(name)
        with http_server(folder / "www", bundle.stored["model.onnx"]) as port:
            repository = make_repository(folder / "keys", bundle)
            bench = Bench(folder, repository.shelf.first_root(), figures)
            for title, broker in brokers().items():
                with running(broker, repository) as mqtt:
                    for link in (False, True):
                        rounds = 1 if link or quick else 5
                        _compare(bench, title, (mqtt, port), link=link, rounds=rounds)
        _measure_large(folder, bundle, figures, LARGE_QUICK_BYTES if quick else LARGE_BYTES)
    return figures


def _measure_large(folder: Path, small: Bundle, figures: dict[str, float], size: int) -> None:
    """How far the fetch of a large bundle raises a device's memory."""
    large = memory.large_bundle(small, size)
    repository = make_repository(folder / "keys of the large one", large)
    root = repository.shelf.first_root()
    for title, broker in brokers().items():
        with running(broker, repository) as port:
            config = DeliveryConfig(
                folder=folder,
                broker=BrokerUrl("127.0.0.1", port),
                topics=TOPICS,
                device="device",
            )
            grown = in_child(memory.grow, str(folder), root, config)
        growth = grown.peak_mb - grown.idle_mb
        print(
            f"{f'{size // MB} MB, loopback':18}{title + ' slot':18}"
            f"{size / MB / grown.seconds:>8.1f} MB/s  {growth:+.1f} MB memory"
            f" above {grown.idle_mb:.0f}, {grown.disk_mb:.0f} MB disk"
        )
        figures["rss_growth_large_mb"] = max(figures.get("rss_growth_large_mb", 0.0), growth)


@dataclass
class Bench:
    """Where the runs leave their files and figures."""

    folder: Path
    root: bytes
    figures: dict[str, float]


def _compare(bench: Bench, title: str, ports: tuple[int, int], *, link: bool, rounds: int) -> None:
    """One broker and the GET, both over the link or both not. ``ports``: MQTT and HTTP."""
    size_mb = 20.0
    with proxied(ports, link) as (mqtt, www):
        get = size_mb / min(in_child(http_get, www) for _ in range(rounds))
        runs = [
            in_child(pull, mqtt, str(bench.folder), bench.root, not link) for _ in range(rounds)
        ]
    fastest = size_mb / min(run.pull_s for run in runs)
    rss = max(run.rss_mb for run in runs)
    where = "50 ms, 20 Mbit/s" if link else "loopback"
    print(f"{where:18}{'HTTP GET':18}{get:>8.1f} MB/s")
    print(
        f"{where:18}{title + ' pull':18}{fastest:>8.1f} MB/s  {fastest / get:>5.2f} of the GET"
        f"  {rss:+.1f} MB memory"
    )
    if link:
        bench.figures[f"{title}_link_ratio"] = fastest / get
    else:
        slot = size_mb / min(run.slot_s for run in runs)
        print(f"{where:18}{title + ' slot':18}{slot:>8.1f} MB/s  {slot / get:>5.2f} of the GET")
        bench.figures[f"{title}_loopback_mb_s"] = fastest
    bench.figures["rss_growth_mb"] = max(bench.figures["rss_growth_mb"], rss)


def brokers() -> dict[str, Callable[[], BrokerThread | MosquittoProcess]]:
    """The brokers that there are here."""
    if find_mosquitto():
        return {"embedded": BrokerThread, "mosquitto": MosquittoProcess}
    print("no mosquitto here: only the embedded broker is measured")
    return {"embedded": BrokerThread}


def _met(name: str, figure: float) -> bool:
    return figure <= GOALS[name] if name.startswith("rss") else figure >= GOALS[name]


# -- what is transferred -----------------------------------------------------------------------


def make_bundle(size_bytes: int) -> Bundle:
    """A bundle with a member of incompressible bytes; nothing here looks inside."""
    file, stored = bundles.encode_member("model.onnx", random.Random(7).randbytes(size_bytes))  # noqa: S311
    manifest = manifests.Manifest(
        schema=manifests.SCHEMA, name="bench", version="1", task="tensors", features=(),
        inputs=(manifests.Tensor(name="x", dtype="float32", shape=(None, 1)),),
        outputs=manifests.Outputs(tensors=("y",)), files=(file,),
        runtime=manifests.Runtime(ir=8, opsets={"": 17}, ops=(), onnxruntime="1.18", ram_bytes=0),
        compression=manifests.Compression(mode="none", stock_bytes=size_bytes),
        parity=manifests.Parity(
            rows=0, flips=0, flips_max=0, diff_max=0, diff_p99=0, diff_budget=0
        ),
        provenance=manifests.Provenance(
            source_sha256="0" * 64, source_type="random", libraries={}
        ),
    )  # fmt: skip
    data = bundles.write(manifests.encode(manifest), {"model.onnx": stored})
    return bundles.read(data)


def make_repository(folder: Path, bundle: Bundle) -> Repository:
    """Fresh keys with the bundle published in them."""
    now = datetime.now(UTC)
    create(folder, "home", now=now)
    repository = Repository(folder)
    repository.publish(bundle, fleet=TOPICS.fleet, channel="stable", now=now)
    return repository


# -- HTTP --------------------------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        """Nothing: lines on the terminal would be measured too."""


def _serve(folder: str, ports: Queue[int]) -> None:
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        ports.put(server.server_port)
        server.serve_forever()


@contextmanager
def http_server(folder: Path, data: bytes) -> Iterator[int]:
    """A server process with one file called ``bundle``; yields its port."""
    folder.mkdir()
    (folder / "bundle").write_bytes(data)
    ports: Queue[int] = _SPAWN.Queue()
    process = _SPAWN.Process(target=_serve, args=(str(folder), ports), daemon=True)
    process.start()
    try:
        yield ports.get(timeout=30)
    finally:
        process.terminate()
        process.join()


def http_get(port: int) -> float:
    """Seconds of one GET onto disk."""
    with tempfile.TemporaryFile() as out:
        started = time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/bundle") as answer:
            while block := answer.read(128 * 1024):
                out.write(block)
        return time.perf_counter() - started


# -- MQTT --------------------------------------------------------------------------------------


def _broker_process(ports: Queue[int]) -> None:
    with BrokerThread() as broker:
        ports.put(broker.port)
        threading.Event().wait()


@contextmanager
def running(
    kind: Callable[[], BrokerThread | MosquittoProcess], repository: Repository
) -> Iterator[int]:
    """A broker in a process of its own, with everything published; yields its port."""
    with contextlib.ExitStack() as stack:
        if kind is BrokerThread:
            ports: Queue[int] = _SPAWN.Queue()
            process = _SPAWN.Process(target=_broker_process, args=(ports,), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
            port = ports.get(timeout=30)
        else:
            broker_here = kind()
            broker_here.start()
            stack.callback(broker_here.stop)
            port = broker_here.port
        link = LinkConfig(broker=BrokerUrl("127.0.0.1", port), client_id="publisher")
        with connect(link, TOPICS) as broker:
            sync(repository, TOPICS, broker)
        yield port


def pull(port: int, folder: str, root: bytes, slot: bool) -> Pulled:
    """One device: refresh, then pull the chunks alone, then once more as a whole slot."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        config = DeliveryConfig(
            folder=Path(name), broker=BrokerUrl("127.0.0.1", port), topics=TOPICS, device="device"
        )
        device = Delivery(config)
        device.enroll(root=root)
        pointer = device.refresh(now=datetime.now(UTC), synchronised=True).pointer
        release = pointer.models["bench"].stable
        pull_s, rss_mb = _chunks_alone(config, device, release)
        slot_s = _whole_slot(config, device, release) if slot else 0.0
        return Pulled(pull_s, slot_s, rss_mb)


class _Known(Exception):
    """The manifest is known: the chunks are pulled by hand, to be measured alone."""


def _chunks_alone(
    config: DeliveryConfig, device: Delivery, release: Release
) -> tuple[float, float]:
    manifest: list[manifests.Manifest] = []

    def refuse(shown: manifests.Manifest) -> None:
        manifest.append(shown)
        raise _Known

    with contextlib.suppress(_Known):
        _fetch(config, device, release, refuse)
    link = LinkConfig(broker=config.broker, client_id="device-dl", receive_maximum=16)
    with Retained(link, sentinel=TOPICS.metadata(SENTINEL_FILE)) as retained:
        retained.start(10)
        store = ChunkStore(config.folder / "measured")
        source = Broker(lambda: retained, TOPICS)
        engine = Download(store, [source], progress=_ignore, stop=threading.Event())
        before = reset_peak_mb()
        started = time.perf_counter()
        engine.members(manifest[0].files)
        return time.perf_counter() - started, memory_mb("VmHWM") - before


def _whole_slot(config: DeliveryConfig, device: Delivery, release: Release) -> float:
    started = time.perf_counter()
    _fetch(config, device, release, lambda manifest: None)
    return time.perf_counter() - started


def _fetch(
    config: DeliveryConfig,
    device: Delivery,
    release: Release,
    accept: Callable[[manifests.Manifest], None],
) -> None:
    device.fetch(
        release, name="bench", into=config.folder / "slots" / "bench", accept=accept,
        progress=_ignore, stop=threading.Event(),
    )  # fmt: skip


# -- a device's link ---------------------------------------------------------------------------


@contextmanager
def proxied(ports: tuple[int, int], link: bool) -> Iterator[tuple[int, int]]:
    """The same servers, behind the link if ``link``."""
    if not link:
        yield ports
        return
    answers: Queue[tuple[int, int]] = _SPAWN.Queue()
    process = _SPAWN.Process(target=_proxies, args=(ports, answers), daemon=True)
    process.start()
    try:
        yield answers.get(timeout=30)
    finally:
        process.terminate()
        process.join()


def _proxies(ports: tuple[int, int], answers: Queue[tuple[int, int]]) -> None:
    async def run() -> None:
        servers = [
            await asyncio.start_server(functools.partial(_relay, port), "127.0.0.1", 0)
            for port in ports
        ]
        first, second = (server.sockets[0].getsockname()[1] for server in servers)
        answers.put((first, second))
        await asyncio.Event().wait()

    asyncio.run(run())


async def _relay(port: int, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
    far, far_out = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(_one_way(near, far_out), _one_way(far, near_out))


async def _one_way(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Bytes at the link's rate, each ``DELAY_S`` late; a queue of 100 ms, as routers have it."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    free_at = loop.time()

    async def deliver() -> None:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                sink.close()
                return
            sink.write(data)
            await sink.drain()

    delivering = asyncio.create_task(deliver())
    while True:
        data = await source.read(8 * 1024)
        free_at = max(free_at, loop.time()) + len(data) / RATE_BYTES_S
        queue.put_nowait((free_at + DELAY_S, data))
        if not data:
            break
        await asyncio.sleep(max(0.0, free_at - loop.time() - 0.1))
    await delivering


# -- small parts -------------------------------------------------------------------------------


def _ignore(_done: int, _total: int) -> None:
    return


def in_child(function: Callable[..., T], *arguments: object) -> T:
    """The function's result, computed in a fresh process."""
    with _SPAWN.Pool(1) as pool:
        return pool.apply(function, arguments)


if __name__ == "__main__":
    main()

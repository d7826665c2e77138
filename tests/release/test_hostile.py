"""A network that loses, doubles, delays, reorders; brokers that restart; a device that is killed.

Whatever happens, the slot is whole or not there, and what is on disk is not fetched again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from edge_contract.bundle import Bundle
from edge_contract.errors import PeerFault
from edge_fleet.broker import BrokerThread, Corrupt, Delay, Double, Lose, Reorder

New = Callable[..., Bundle]
SEEDS = (1, 2, 3)


class Counter:
    """Counts the chunks that a broker sends to a device."""

    def __init__(self, broker: BrokerThread, client_id: str = "dev-dl") -> None:
        self.topics: list[str] = []
        self._client_id = client_id
        broker.add_tap(self)

    def __call__(self, passing: Any) -> None:
        if (
            passing.direction.value == "outbound"
            and passing.client_id == self._client_id
            and "/c/" in passing.message.topic
        ):
            self.topics.append(passing.message.topic.rpartition("/")[2])


def eventually(condition: Callable[[], bool], what: str, deadline_s: float = 120) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {deadline_s} s"
        time.sleep(0.01)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["lose", "double", "delay", "reorder", "all"])
def test_a_lossy_doubling_reordering_broker_only_costs_time(
    hostile: Any, new_bundle: New, kind: str, seed: int
) -> None:
    world, broker = hostile
    bundle = new_bundle(size_bytes=2_000_000)
    world.publish(bundle)
    device = world.delivery()
    print(f"seed {seed}")
    rng = random.Random(seed)
    mine = {"client_id": "dev-dl", "chance": 0.15, "rng": rng}
    faults = {
        "lose": [Lose(**mine)],
        "double": [Double(**mine)],
        "delay": [Delay(delay_s=0.05, **mine)],
        "reorder": [Reorder(by=5, within_s=0.2, **mine)],
    }
    for fault in faults.get(kind) or [each for group in faults.values() for each in group]:
        broker.add_tap(fault)
    last: PeerFault | None = None
    for _attempt in range(5):
        try:
            release = world.refresh(device).pointer.models["pump"].stable
            slot = world.fetch(device, release)
            break
        except PeerFault as fault:  # the agent tries again, with what it has
            last = fault
    else:
        pytest.fail(f"five attempts: {last}")
    assert (slot / "model.onnx").read_bytes() == bundle.file("model.onnx")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_corrupting_broker_is_caught_every_time(hostile: Any, new_bundle: New, seed: int) -> None:
    world, broker = hostile
    bundle = new_bundle(size_bytes=2_000_000)
    world.publish(bundle)
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable
    print(f"seed {seed}")
    corrupt = Corrupt(client_id="dev-dl", filter="+/+/+/c/+", chance=0.2, rng=random.Random(seed))
    broker.add_tap(corrupt)
    with pytest.raises(PeerFault, match="other bytes"):
        world.fetch(device, release)
    assert corrupt.hits
    assert not (device.config.folder / "slots").exists()
    broker.clear_taps()
    counter = Counter(broker)
    kept = {path.name for path in (device.config.folder / "chunks").glob("?" * 64)}
    world.fetch(device, release)
    assert not kept & set(counter.topics)


def test_each_chunk_is_asked_for_once(hostile: Any, new_bundle: New) -> None:
    world, broker = hostile
    bundle = new_bundle(size_bytes=3_000_000)
    world.publish(bundle)
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable
    counter = Counter(broker)
    world.fetch(device, release)
    expected = [*world.chunk_digests(bundle), bundle.manifest.files[0].index]
    assert sorted(counter.topics) == sorted(expected)


def test_the_download_goes_on_when_the_connection_comes_back(hostile: Any, new_bundle: New) -> None:
    world, broker = hostile
    bundle = new_bundle(size_bytes=3_000_000)
    world.publish(bundle)
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable
    dropped = threading.Event()

    def halfway(done: int, total: int) -> None:
        if done > total // 2 and not dropped.is_set():
            dropped.set()
            broker.drop_all()

    counter = Counter(broker)
    slot = world.fetch(device, release, progress=halfway)
    assert dropped.is_set()
    assert (slot / "model.onnx").read_bytes() == bundle.file("model.onnx")
    pieces = len(world.chunk_digests(bundle)) + 1
    # What was under way when the line broke, a window at most, travels twice.
    assert pieces <= len(counter.topics) <= pieces + 16


def test_a_broker_that_restarts_in_the_middle_costs_nothing(
    world: Any, any_broker: Any, new_bundle: New
) -> None:
    bundle = new_bundle(size_bytes=3_000_000)
    world.publish(bundle)
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable
    restarted = threading.Event()

    def halfway(done: int, total: int) -> None:
        if done > total // 2 and not restarted.is_set():
            restarted.set()
            any_broker.restart()

    slot = world.fetch(device, release, progress=halfway)
    assert restarted.is_set()
    assert (slot / "model.onnx").read_bytes() == bundle.file("model.onnx")


def test_a_broker_that_stays_away_is_given_up_and_what_arrived_is_kept(
    hostile: Any, new_bundle: New
) -> None:
    world, broker = hostile
    bundle = new_bundle(size_bytes=3_000_000)
    world.publish(bundle)
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable

    def freeze(done: int, total: int) -> None:
        if done > total // 2:
            broker.freeze("dev-dl")

    with pytest.raises(PeerFault, match="fell silent"):
        world.fetch(device, release, progress=freeze)
    kept = {path.name for path in (device.config.folder / "chunks").glob("?" * 64)}
    assert len(kept) >= 12
    assert not (device.config.folder / "slots").exists()
    counter = Counter(broker)
    world.fetch(device, release)
    assert not kept & set(counter.topics)


PULL = """
import sys, threading
from pathlib import Path
from edge_agent.delivery import Delivery, DeliveryConfig
from edge_contract import broker_url
from edge_contract.topics import Topics
folder, url = Path(sys.argv[1]), sys.argv[2]
device = Delivery(DeliveryConfig(
    folder=folder, broker=broker_url.parse(url), topics=Topics("home"), device="dev"))
release = device.cached_pointer().models["pump"].stable
device.fetch(
    release, name="pump", into=folder / "slots" / release.sha256, accept=lambda manifest: None,
    progress=lambda done, total: print(done, flush=True), stop=threading.Event())
"""


@pytest.mark.parametrize("chunks_before", [1, 7, 20])
def test_a_device_killed_in_the_middle_fetches_only_what_is_missing(
    hostile: Any, new_bundle: New, chunks_before: int
) -> None:
    world, broker = hostile
    bundle = new_bundle(size_bytes=3_000_000)
    world.publish(bundle)
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable
    folder = device.config.folder
    # Slow enough to be hit in the middle: the broker holds the later chunks back.
    late = Delay(client_id="dev-dl", filter="+/+/+/c/+", skip=chunks_before + 1, delay_s=30)
    broker.add_tap(late)
    process = subprocess.Popen(
        [sys.executable, "-c", PULL, folder, world.url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(1 + chunks_before):  # the first line says 0
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    assert process.wait(120) == -signal.SIGKILL
    eventually(lambda: "dev-dl" not in broker.connected(), "the end of the connection")
    broker.clear_taps()
    on_disk = {path.name for path in (folder / "chunks").glob("?" * 64)}
    assert len(on_disk) == chunks_before + 1  # and the index
    assert not (folder / "slots").exists()
    counter = Counter(broker)
    slot = world.fetch(world.delivery(), release)
    assert (slot / "model.onnx").read_bytes() == bundle.file("model.onnx")
    expected = {*world.chunk_digests(bundle), bundle.manifest.files[0].index}
    assert sorted(counter.topics) == sorted(expected - on_disk)


@pytest.mark.slow
def test_a_device_killed_at_any_flush_has_the_whole_slot_or_none(
    hostile: Any, new_bundle: New
) -> None:
    """SIGKILL at the k-th fsync, for every k, by strace; the next attempt completes the slot."""
    strace = shutil.which("strace")
    if strace is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no strace")
        pytest.skip("strace is not installed")
    world, _broker = hostile
    bundle = new_bundle(size_bytes=200_000, extra={"golden.json": b"{}"})
    world.publish(bundle)
    for k in range(1, 40):
        device = world.delivery(f"dev{k}")
        release = world.refresh(device).pointer.models["pump"].stable
        folder = device.config.folder
        done = subprocess.run(
            [
                strace, "-f", "-o", "/dev/null", "-e", "trace=fsync",
                "-e", f"inject=fsync:signal=SIGKILL:when={k}",
                sys.executable, "-c", PULL, folder, world.url,
            ],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        slot = folder / "slots" / release.sha256
        if slot.exists():
            assert {path.name: path.read_bytes() for path in slot.iterdir()} == {
                "manifest.json": bundle.manifest_bytes,
                **{name: bundle.file(name) for name in bundle.stored},
            }
        if done.returncode == 0:
            break
        assert world.fetch(world.delivery(f"dev{k}"), release) == slot
        assert (slot / "model.onnx").read_bytes() == bundle.file("model.onnx")
        assert [path.name for path in slot.parent.iterdir()] == [slot.name]
    print(f"killed at {k - 1} flushes")
    assert 4 < k < 39


def test_a_chunk_torn_by_a_power_cut_is_found_and_fetched_again(
    hostile: Any, new_bundle: New
) -> None:
    world, broker = hostile
    bundle = new_bundle(size_bytes=2_000_000)
    world.publish(bundle)
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable
    stop = threading.Event()
    with pytest.raises(Exception, match="called off"):
        world.fetch(
            device,
            release,
            stop=stop,
            progress=lambda done, total: stop.set() if done > total // 2 else None,
        )
    pieces = [
        path for path in (device.config.folder / "chunks").glob("?" * 64)
        if path.name in world.chunk_digests(bundle)
    ]  # fmt: skip
    pieces[0].write_bytes(b"")
    pieces[1].write_bytes(bytes(pieces[1].stat().st_size))
    counter = Counter(broker)
    slot = world.fetch(device, release)
    assert (slot / "model.onnx").read_bytes() == bundle.file("model.onnx")
    assert {piece.name for piece in pieces[:2]} <= set(counter.topics)
    assert not {piece.name for piece in pieces[2:]} & set(counter.topics)


def test_what_an_abandoned_fetch_left_is_removed(hostile: Any, new_bundle: New, now: Any) -> None:
    world, _broker = hostile
    world.publish(new_bundle("1.0", size_bytes=2_000_000))
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable
    stop = threading.Event()
    with pytest.raises(Exception, match="called off"):
        world.fetch(device, release, stop=stop, progress=lambda done, total: stop.set())
    chunks = device.config.folder / "chunks"
    assert list(chunks.iterdir())
    world.publish(new_bundle("2.0", seed=2))
    from edge_release.pointers import Place

    world.repository.set_floor("2.0", Place("home", "stable", "pump"), now=now)
    world.sync()
    release = world.refresh(device).pointer.models["pump"].stable
    world.fetch(device, release)
    assert list(chunks.iterdir()) == []

"""What comes over the wire for a download, counted between a real broker and a real device.

A relay stands between them. It passes every byte on, and reads the MQTT packets that the broker
sends: which chunk, how many bytes.
"""

from __future__ import annotations

import functools
import os
import random
import selectors
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from edge_agent import Agent
from edge_contract import bundle as bundles
from edge_contract.chunks import CHUNK_BYTES

PUBLISH = 3


class Packets:
    """The MQTT packets in a stream that comes in pieces."""

    def __init__(self, on_publish: Callable[[str, int], None]) -> None:
        self._on_publish = on_publish
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while (packet := self._whole()) is not None:
            kind, body = packet
            if kind == PUBLISH:
                length = int.from_bytes(body[:2], "big")
                self._on_publish(bytes(body[2 : 2 + length]).decode(), len(body) - 2 - length)

    def _whole(self) -> tuple[int, bytearray] | None:
        size = shift = 0
        for at in range(1, min(len(self._buffer), 5)):
            byte = self._buffer[at]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                end = at + 1 + size
                if len(self._buffer) < end:
                    return None
                packet = self._buffer[0] >> 4, self._buffer[at + 1 : end]
                del self._buffer[:end]
                return packet
        return None


class Relay(threading.Thread):
    """Between devices and a broker: counts what the broker sends, by topic."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._broker = (urlsplit(url).hostname, urlsplit(url).port)
        self._selector = selectors.DefaultSelector()
        self._door = socket.create_server(("127.0.0.1", 0))
        self._selector.register(self._door, selectors.EVENT_READ, None)
        self._ending = False
        self.url = f"mqtt://127.0.0.1:{self._door.getsockname()[1]}"
        self.chunks: Counter[str] = Counter()
        self.chunk_bytes = 0
        self.down_bytes = 0
        self.log: list[tuple[float, int]] = []
        self.links = 0
        self.start()

    def run(self) -> None:
        while not self._ending:
            for key, _ in self._selector.select(0.1):
                if key.data is None:
                    self._accept()
                else:
                    self._pass_on(key.fileobj, *key.data)  # type: ignore[arg-type]
        self._door.close()

    def _accept(self) -> None:
        device, _ = self._door.accept()
        try:
            broker = socket.create_connection(self._broker)
        except OSError:
            device.close()
            return
        self.links += 1
        packets = Packets(self._published)
        self._selector.register(device, selectors.EVENT_READ, (broker, None))
        self._selector.register(broker, selectors.EVENT_READ, (device, packets))

    def _pass_on(self, source: socket.socket, target: socket.socket, packets: Packets | None):
        if source.fileno() < 0:
            return  # its other end was closed a moment ago
        try:
            data = source.recv(65536)
            if data:
                target.sendall(data)
        except OSError:
            data = b""
        if not data:
            for each in (source, target):
                self._selector.unregister(each)
                each.close()
            self.links -= 1
        elif packets:
            self.down_bytes += len(data)
            packets.feed(data)

    def _published(self, topic: str, size: int) -> None:
        folder, _, name = topic.rpartition("/")
        if folder.endswith("/c"):
            self.chunks[name] += 1
            self.chunk_bytes += size
            self.log.append((time.monotonic(), size))

    def end(self) -> None:
        self._ending = True
        self.join()


@pytest.fixture
def broker(any_broker: Any) -> Any:
    """Each kind of broker in turn, instead of the embedded one alone."""
    return any_broker


@pytest.fixture
def relay(broker: Any) -> Iterator[Relay]:
    made = Relay(broker.url)
    yield made
    made.end()


@pytest.fixture(scope="session")
def big_bundle(big_bundle: Callable[..., bytes]) -> Callable[..., bytes]:
    """Long enough on the wire to be cut several times."""
    return functools.partial(big_bundle, size=1_500_000)


def on_disk(device: Any) -> set[str]:
    """Chunks that are here whole."""
    folder = device.folder.path / "chunks"
    return {path.name for path in folder.glob("[0-9a-f]*") if len(path.name) == 64}


def stored_bytes(bundle: bytes) -> int:
    return sum(file.size for file in bundles.read(bundle).manifest.files)


class Journey:
    """A download in parts: no part brings a chunk that was on disk when it began."""

    def __init__(self, device: Any, relay: Relay) -> None:
        self.device, self.relay = device, relay
        self.parts = 0
        self.begin()

    def begin(self) -> None:
        self.held = on_disk(self.device)
        self.before = Counter(self.relay.chunks)

    def end(self) -> None:
        came = set(self.relay.chunks - self.before)
        assert not came & self.held, "chunks came again that were on disk"
        self.parts += 1
        self.begin()


@pytest.mark.slow
def test_no_chunk_on_disk_comes_again_over_kills_stops_and_broker_restarts(
    world: Any, relay: Relay, big_bundle: Callable[..., bytes]
) -> None:
    bundle = big_bundle("1.0")
    device = world.new_device(
        broker={"url": relay.url}, download={"rate_max": "400 kB/s", "daily_max": "100 MB"}
    )
    world.publisher.publish(bundle)
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    print(f"seed {seed}")
    journey = Journey(device, relay)
    device.start()
    for how in ("kill", "stop", "broker", "kill", "broker", "stop"):
        more = len(relay.chunks) + rng.randint(1, 2)
        world.until(lambda more=more: len(relay.chunks) >= more or device.at("1.0"), "a chunk more")
        if device.at("1.0"):
            break
        if how == "broker":
            os.kill(device.process.pid, signal.SIGSTOP)  # what is on disk stays as it is meanwhile
            world.broker.stop()
            journey.end()
            world.broker.start()
            os.kill(device.process.pid, signal.SIGCONT)
        else:
            device.kill() if how == "kill" else device.stop()
            journey.end()
            device.start()
    device.wait_at("1.0")
    journey.end()
    assert journey.parts >= 4
    wasted = relay.chunk_bytes - stored_bytes(bundle)
    print(f"{relay.chunk_bytes} bytes for {stored_bytes(bundle)} in {journey.parts} parts")
    # What was under way when a part was cut off: at the rate, a second of it.
    assert wasted <= journey.parts * 4 * CHUNK_BYTES
    assert on_disk(device) == set()


def test_a_version_that_changes_only_its_manifest_costs_only_its_manifest(
    world: Any, relay: Relay, big_bundle: Callable[..., bytes]
) -> None:
    device = world.new_device(broker={"url": relay.url})
    world.publisher.publish(big_bundle("1.0"))
    with Agent(device.config):
        device.wait_at("1.0")
        assert relay.chunk_bytes >= stored_bytes(big_bundle("1.0"))
        chunks, before = Counter(relay.chunks), relay.down_bytes
        second = big_bundle("1.1")
        assert bundles.read(second).manifest.version == "1.1"
        world.publisher.publish(second)
        device.wait_at("1.1")
    assert relay.chunks == chunks, "no chunk came"
    print(f"{relay.down_bytes - before} bytes in all for the new version")
    assert relay.down_bytes - before < CHUNK_BYTES


def test_a_version_that_shares_a_member_costs_only_the_other(
    world: Any, relay: Relay, big_bundle: Callable[..., bytes], tiny_bundle: Callable[..., bytes]
) -> None:
    first, second = tiny_bundle("1.0"), tiny_bundle("1.1", golden_shift=1e-6)
    shared = {f.sha256 for f in bundles.read(first).manifest.files} & {
        f.sha256 for f in bundles.read(second).manifest.files
    }
    assert shared
    device = world.new_device(broker={"url": relay.url})
    world.publisher.publish(first)
    with Agent(device.config):
        device.wait_at("1.0")
        before = Counter(relay.chunks)
        world.publisher.publish(second)
        device.wait_at("1.1")
    came = set(relay.chunks - before)
    assert came
    assert not came & shared


def test_a_rate_is_kept_on_the_wire(
    world: Any, relay: Relay, big_bundle: Callable[..., bytes]
) -> None:
    """Between any two chunks: what was asked for before the first, a burst, and the rate."""
    rate = 500_000
    device = world.new_device(broker={"url": relay.url}, download={"rate_max": "500 kB/s"})
    world.publisher.publish(big_bundle("1.0"))
    with Agent(device.config):
        device.wait_at("1.0")
    assert len(relay.log) > 10
    for first, (since_s, _) in enumerate(relay.log):
        came = 0
        for when_s, size in relay.log[first + 1 :]:
            came += size
            assert came <= 2 * rate + rate * (when_s - since_s)
    first_s, last_s = relay.log[0][0], relay.log[-1][0]
    print(f"{relay.chunk_bytes} bytes in {last_s - first_s:.2f} s")
    assert last_s - first_s >= (relay.chunk_bytes - 2 * rate) / rate

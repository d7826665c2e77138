"""A link that cuts, stalls, delays and throttles: the download goes on at the chunk."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

import pytest
from stream_kit import World, until

from edge_contract import broker_url
from edge_contract.chunks import CHUNK_BYTES
from edge_contract.errors import PeerFault

CHUNKS = 30
WINDOW = 16
"""Chunks that the broker may have under way, and so lost, when a connection dies."""
ATTEMPTS_MAX = 60


@dataclass(frozen=True)
class Weather:
    """What happens to a connection after so many bytes from the broker.

    ``cut``: it ends, in the middle of a packet. ``mute``: nothing passes any more in either
    direction, and nobody is told (half-open). ``calm``: nothing. ``pause_s`` before every read.
    """

    kind: Literal["calm", "cut", "mute"] = "calm"
    after_bytes: int = 0
    pause_s: float = 0.0
    read_bytes: int = 64 * 1024


class RoughLink:
    """A TCP proxy; each connection has the next weather, and then ``calm``."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self.forecast: list[Weather] = []
        self.met: list[Weather] = []
        self.down_bytes = 0
        self._over = threading.Event()
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for side in (self._server, *self._open):
            _end(side)
            side.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            self._open += [near, far]
            weather = self.forecast.pop(0) if self.forecast else Weather()
            mute = threading.Event()
            threading.Thread(target=self._up, args=(near, far, mute), daemon=True).start()
            down = (far, near, weather, mute)
            threading.Thread(target=self._down, args=down, daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket, mute: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(64 * 1024):
                if not mute.is_set():
                    far.sendall(data)
        _end(far)

    def _down(
        self, far: socket.socket, near: socket.socket, weather: Weather, mute: threading.Event
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := far.recv(weather.read_bytes):
                self._over.wait(weather.pause_s)
                if weather.kind != "calm" and passed + len(data) > weather.after_bytes:
                    near.sendall(data[: weather.after_bytes - passed])
                    self.met.append(weather)
                    if weather.kind == "mute":
                        mute.set()
                        self._over.wait()
                    break
                near.sendall(data)
                passed += len(data)
                self.down_bytes += len(data)
        _end(near)


def _end(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def link(any_broker: Any) -> Iterator[RoughLink]:
    with RoughLink(broker_url.parse(any_broker.url).port) as rough:
        yield rough


def fetched(world: World) -> int:
    """Fetch until it is there; how many attempts it took."""
    for attempt in range(1, ATTEMPTS_MAX):
        with contextlib.suppress(PeerFault):
            slot = world.fetch(world.device(silence_s=0.3), refresh=False)
            assert (slot / "model.onnx").read_bytes() == world.bundle.file("model.onnx")
            return attempt
    raise AssertionError("it never came")


def storm(rng: random.Random) -> list[Weather]:
    """Connections that die at random places, each after some chunks at most."""
    kinds: list[Literal["cut", "mute"]] = ["cut", "cut", "mute", "cut"]
    rng.shuffle(kinds)
    return [Weather(kind, rng.randrange(1000, 4 * CHUNK_BYTES)) for kind in kinds]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_link_that_cuts_and_falls_silent_costs_no_chunk_twice(
    seed: int, link: RoughLink, tmp_path: Any
) -> None:
    world = World(link.url, tmp_path, chunks=CHUNKS)
    world.fetch_papers()
    link.forecast, link.down_bytes = storm(random.Random(seed)), 0
    attempts = fetched(world)
    assert len(link.met) >= 3, f"seed {seed}: the link was not rough"
    # What passed is the bundle, and what was under way when a connection died.
    lost = len(link.met) * WINDOW * CHUNK_BYTES
    assert link.down_bytes < world.model.size + lost, f"seed {seed}, {attempts} attempts"
    held = list((world.folder / "dev" / "chunks").iterdir())
    assert held == []


def test_each_chunk_that_came_before_a_cut_is_kept(link: RoughLink, tmp_path: Any) -> None:
    """The link dies after three chunks, again and again; what came stays."""
    world = World(link.url, tmp_path, chunks=CHUNKS)
    world.fetch_papers()
    link.forecast = [Weather("cut", 3 * CHUNK_BYTES + 500) for _ in range(3)]
    before = 0
    store = world.folder / "dev" / "chunks"
    for _ in range(ATTEMPTS_MAX):
        try:
            world.fetch(world.device(silence_s=0.3), refresh=False)
            break
        except PeerFault:
            held = sum((store / name).is_file() for name in world.chunk_names)
            assert held >= before
            before = held
    else:
        raise AssertionError("it never came")
    assert len(link.met) == 3


def test_a_slow_and_late_link_is_only_slow(link: RoughLink, tmp_path: Any) -> None:
    """Two KB at a time, each a little late: a chunk takes longer than the first patience."""
    world = World(link.url, tmp_path, chunks=4)
    world.fetch_papers()
    link.forecast = [Weather(pause_s=0.005, read_bytes=2048)]
    link.down_bytes = 0
    assert fetched(world) == 1
    until(lambda: link.down_bytes > world.model.size)
    assert link.down_bytes < 3 * world.model.size

"""A real nginx as the second source: what it serves is written by the publisher, and counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stream_kit import Nginx, World, until

from edge_agent.delivery import Stopped
from edge_agent.sources import Choice
from edge_contract.chunks import CHUNK_BYTES
from edge_fleet.broker import BrokerThread
from edge_release import mirror

NewNginx = Callable[..., Nginx]
MIRRORS_FIRST = Choice(kinds=("http", "mqtt"))
MIRRORS_ONLY = Choice(kinds=("http",))
CHUNKS = 9


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with BrokerThread() as broker:
        yield World(broker.url, tmp_path, chunks=CHUNKS)


def spans(server: Nginx, world: World) -> list[tuple[int, int]]:
    """The parts of the model that were asked for, in chunks: first and one behind the last."""
    lines = [line for line in server.served() if line.path.endswith(world.model.sha256)]
    found = []
    for line in lines:
        asked = line.range.removeprefix("bytes=")
        start, _, end = asked.partition("-")
        last = int(end) + 1 if asked != "-" else world.model.size
        found.append((int(start or 0) // CHUNK_BYTES, -(-last // CHUNK_BYTES)))
    return found


def test_a_mirror_that_the_pointer_names_gives_every_byte_once(
    any_broker: Any, tmp_path: Path, new_nginx: NewNginx
) -> None:
    world, server = World(any_broker.url, tmp_path, chunks=CHUNKS), new_nginx()
    done = mirror.export(world.repository, "home", server.www)
    assert done.written == 3  # two members, and the chunks of the larger one
    server.start()
    world.name_mirrors(server.url)
    world.lose_chunks()
    device = world.device(MIRRORS_ONLY)
    slot = world.fetch(device)
    assert (slot / "model.onnx").read_bytes() == world.bundle.file("model.onnx")
    served = until(lambda: len(server.served()) == 3 and server.served())
    assert sorted(line.path for line in served) == sorted(
        f"/{path.name}" for path in server.www.iterdir()
    )
    assert sum(line.body_bytes for line in served) == done.written_bytes
    assert {line.status for line in served} == {200}
    world.fetch(device)
    assert world.fetch(world.device(MIRRORS_ONLY)) == slot
    assert len(server.served()) == 3


@pytest.mark.parametrize(
    ("choice", "asked"),
    [
        (Choice(), False),
        (MIRRORS_FIRST, True),
        (Choice(http_above_bytes=CHUNKS * CHUNK_BYTES), False),
        (Choice(http_above_bytes=(CHUNKS - 2) * CHUNK_BYTES), True),
        (Choice(kinds=("mqtt",), http_above_bytes=0), False),
    ],
)
def test_policy_says_whom_to_ask_first(
    choice: Choice, asked: bool, world: World, new_nginx: NewNginx
) -> None:
    server = new_nginx()
    mirror.export(world.repository, "home", server.www)
    server.start()
    world.name_mirrors(server.url)
    world.fetch(world.device(choice))
    assert bool(server.served()) == asked


def test_a_fetch_that_was_called_off_goes_on_at_the_chunk_by_a_range(
    world: World, new_nginx: NewNginx
) -> None:
    server = new_nginx()
    mirror.export(world.repository, "home", server.www)
    server.start()
    world.name_mirrors(server.url)
    for kept in (2, 5, CHUNKS):
        stop = threading.Event()

        def progress(done: int, total: int, stop: Any = stop, kept: int = kept) -> None:
            if done >= kept * CHUNK_BYTES and done < total:
                stop.set()

        try:
            world.fetch(world.device(MIRRORS_FIRST), progress=progress, stop=stop)
        except Stopped:
            assert kept < CHUNKS
    assert until(lambda: len(spans(server, world)) == 3 and spans(server, world)) == [
        (0, CHUNKS), (2, CHUNKS), (5, CHUNKS),
    ]  # fmt: skip
    assert [line.status for line in server.served() if line.range != "-"] == [206, 206]


FETCH = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from stream_kit import World
from edge_agent.sources import Choice
world = World.found({url!r}, Path({folder!r}))
world.fetch(world.device(Choice(kinds=("http",))))
"""


def test_a_device_that_was_killed_asks_for_nothing_that_is_on_its_disk(
    world: World, new_nginx: NewNginx
) -> None:
    server = new_nginx()
    mirror.export(world.repository, "home", server.www)
    server.start("limit_rate 700k;")
    world.name_mirrors(server.url)
    program = FETCH.format(here=str(Path(__file__).parent), url=world.url, folder=str(world.folder))
    command = [sys.executable, "-c", program]
    store = world.folder / "dev" / "chunks"

    def held() -> int:
        return sum(1 for name in world.chunk_names if (store / name).is_file())

    kept, starts = 0, []
    for wanted in (2, 5):
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        until(lambda p=process, n=wanted: held() >= n or p.poll() is not None)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert held() >= wanted
        starts.append((kept, CHUNKS))
        until(lambda n=len(starts): len(spans(server, world)) == n)
        assert spans(server, world) == starts
        kept = held()
    assert kept < CHUNKS, "the whole model came before the kill: the rate is too high for this"
    server.stop()
    server.start()
    # The name has to be the same, since the pointer is signed: the device is told a new address.
    device = world.device(replace(MIRRORS_ONLY, mirrors=(server.url,)))
    slot = world.fetch(device)
    assert (slot / "model.onnx").read_bytes() == world.bundle.file("model.onnx")
    assert spans(server, world) == [(kept, CHUNKS)]


def test_what_a_mirror_lacks_the_broker_gives(
    world: World, new_nginx: NewNginx, caplog: pytest.LogCaptureFixture
) -> None:
    server = new_nginx()
    server.start()
    world.name_mirrors(server.url)
    slot = world.fetch(world.device(MIRRORS_FIRST))
    assert (slot / "model.onnx").read_bytes() == world.bundle.file("model.onnx")
    assert "does not have it" in caplog.text
    assert [line.status for line in server.served()] == [404]


def test_what_a_broker_lacks_the_mirror_gives(world: World, new_nginx: NewNginx) -> None:
    server = new_nginx()
    mirror.export(world.repository, "home", server.www)
    server.start()
    world.name_mirrors(server.url)
    lost = world.chunk_names[4:]
    world.lose_chunks(lost)
    slot = world.fetch(world.device())
    assert (slot / "model.onnx").read_bytes() == world.bundle.file("model.onnx")
    until(lambda: spans(server, world))
    # The window may have had chunks behind the missing one before it was known to be missing.
    assert spans(server, world) == [(4, CHUNKS)]


def test_a_mirror_without_ranges_serves_a_first_fetch(world: World, new_nginx: NewNginx) -> None:
    server = new_nginx()
    mirror.export(world.repository, "home", server.www)
    server.start("max_ranges 0;")
    world.name_mirrors(server.url)
    world.fetch(world.device(MIRRORS_ONLY))
    assert {line.status for line in server.served()} == {200}


def make_ca(folder: Path) -> tuple[Path, tuple[Path, Path]]:
    """An authority, and a certificate of 127.0.0.1 by it."""
    folder.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*new, "-subj", "/CN=mirror", "-keyout", "key.pem", "-out", "request.pem")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    openssl(
        "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
        "-CAcreateserial", "-extfile", "names", "-out", "cert.pem",
    )  # fmt: skip
    return folder / "ca.pem", (folder / "cert.pem", folder / "key.pem")


def test_tls_by_an_authority_of_ones_own_and_by_no_other(
    world: World, new_nginx: NewNginx, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca, cert = make_ca(tmp_path / "right")
    other, _ = make_ca(tmp_path / "wrong")
    server = new_nginx(cert=cert)
    mirror.export(world.repository, "home", server.www)
    server.start()
    world.name_mirrors(server.url)
    world.fetch(world.device(MIRRORS_FIRST, name="one", mirror_ca_file=str(other)))
    assert server.served() == []
    assert "certificate verify failed" in caplog.text
    slot = world.fetch(world.device(MIRRORS_ONLY, name="two", mirror_ca_file=str(ca)))
    assert (slot / "model.onnx").read_bytes() == world.bundle.file("model.onnx")
    assert len(until(lambda: len(server.served()) == 3 and server.served())) == 3


def test_exporting_again_writes_what_is_new_and_prunes_what_is_gone(
    world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "www"
    (tmp_path / "www").mkdir()
    (folder / ("0" * 64)).write_bytes(b"of a version long gone")
    (folder / "index.html").write_bytes(b"a person's")
    first = mirror.export(world.repository, "home", folder)
    assert (first.written, first.kept, first.removed) == (3, 0, 0)
    world.publish("2.0", seed=2)
    second = mirror.export(world.repository, "home", folder, prune=True)
    assert (second.written, second.kept, second.removed) == (2, 3, 1)
    assert (folder / "index.html").exists()
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.iterdir())


def test_exporting_again_mends_what_was_damaged(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "www"
    mirror.export(world.repository, "home", folder)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    mended = mirror.export(world.repository, "home", folder)
    assert (mended.written, mended.kept) == (len(whole), 0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole

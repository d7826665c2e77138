"""Members cut into chunks, and HTTP servers that give them: a real nginx, and one that lies."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from edge_agent.delivery import Delivery, DeliveryConfig
from edge_agent.delivery.source import Keep, Piece
from edge_agent.sources import ANY_SOURCE, Choice
from edge_contract import broker_url, chunks
from edge_contract import bundle as bundles
from edge_contract import manifest as manifests
from edge_contract.bundle import Bundle
from edge_contract.chunks import CHUNK_BYTES
from edge_contract.errors import PeerFault
from edge_contract.manifest import (
    Compression,
    File,
    Manifest,
    Outputs,
    Parity,
    Provenance,
    Runtime,
    Tensor,
)
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_contract.topics import Topics
from edge_release import create
from edge_release.publication import connect, sync
from edge_release.repository import Repository

TOPICS = Topics("home")
NGINX_PATHS = ("/usr/sbin/nginx", "/usr/local/sbin/nginx")


def member(chunk_number: int, *, seed: int = 1, name: str = "model.onnx") -> tuple[File, bytes]:
    """A member of so many chunks, the last one short; the stored bytes."""
    raw = random.Random(seed).randbytes((chunk_number - 1) * CHUNK_BYTES + 1000)
    file, stored = bundles.encode_member(name, raw)
    assert chunks.chunk_count(file.size) == chunk_number
    return file, stored


def tree_of(*members: tuple[File, bytes]) -> dict[str, bytes]:
    """The files of a mirror: members, and their lists of chunks."""
    files = {}
    for file, stored in members:
        files[file.sha256] = stored
        if index := chunks.index_of(stored):
            files[hashlib.sha256(index).hexdigest()] = index
    return files


@dataclass
class Shelf:
    """A source that works: gives the chunks of its files, and remembers which."""

    files: dict[str, bytes]
    name: str = "the shelf"
    advice: str = ""
    gave: list[Piece] = field(default_factory=list)
    closed: bool = False

    def get(self, pieces: Sequence[Piece], keep: Keep, check_stop: Callable[[], None]) -> None:
        assert pieces, "asked for nothing"
        assert not self.closed
        for piece in pieces:
            check_stop()
            file = self.files.get(piece.file)
            if file is None:
                raise PeerFault(f"no {piece.file} on {self.name}")
            assert len(file) == piece.file_size
            data = file[piece.offset : piece.offset + piece.size]
            keep(piece, data, len(data))
            self.gave.append(piece)

    def close(self) -> None:
        self.closed = True


# -- a server that may do anything ----------------------------------------------------------------


@dataclass
class Request:
    """One request, and the connection to answer it on."""

    path: str
    range: tuple[int, int] | None
    connection: socket.socket
    over: threading.Event
    headers: dict[str, str]

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def head(self, status: str, *headers: str) -> None:
        self.send("\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode())

    def close(self) -> None:
        """End the connection at once, though the server's reader has it as well."""
        os.close(self.connection.detach())

    def reset(self) -> None:
        """Close with RST, as a crashed host or a firewall does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class Rogue:
    """A server whose every answer is made by ``answer``; a thread a connection."""

    def __init__(self, answer: Callable[[Request], None]) -> None:
        self._answer = answer
        self.requests: list[tuple[str, tuple[int, int] | None]] = []
        self.connections = 0
        self._over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        self._over.set()
        for connection in (self._socket, *self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            stream = connection.makefile("rb")
            while line := stream.readline():
                path = line.split()[1].decode()
                headers = {}
                while (header := stream.readline()) not in (b"\r\n", b""):
                    key, _, value = header.decode().partition(":")
                    headers[key.lower()] = value.strip()
                asked = headers.get("range", "").removeprefix("bytes=")
                start, _, end = asked.partition("-")
                span = (int(start), int(end)) if asked else None
                self.requests.append((path, span))
                self._answer(Request(path, span, connection, self._over, headers))


def sound_answer(files: dict[str, bytes], request: Request) -> None:
    """What a good server says."""
    data = files.get(request.path.rpartition("/")[2])
    if data is None:
        request.head("404 Not Found", "Content-Length: 0")
    elif request.range is None:
        request.head("200 OK", f"Content-Length: {len(data)}")
        request.send(data)
    else:
        start, end = request.range
        request.head(
            "206 Partial Content",
            f"Content-Range: bytes {start}-{end}/{len(data)}",
            f"Content-Length: {end + 1 - start}",
        )
        request.send(data[start : end + 1])


# -- nginx ----------------------------------------------------------------------------------------

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  log_format counting '$request_uri $status $http_range $body_bytes_sent';
  access_log {folder}/access.log counting;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port}{tls};
    root {folder}/www;
    {more}
  }}
}}
"""


@dataclass(frozen=True)
class Served:
    """One line of the access log."""

    path: str
    status: int
    range: str
    body_bytes: int


class Nginx:
    """A real nginx over ``folder/www``."""

    def __init__(self, folder: Path, *, cert: tuple[Path, Path] | None = None) -> None:
        self.folder = folder
        self.www = folder / "www"
        self.www.mkdir(parents=True)
        self._cert = cert
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, more: str = "") -> None:
        """Listen on a free port, with ``more`` settings of the server."""
        tls = ""
        if self._cert:
            tls = " ssl"
            more += f" ssl_certificate {self._cert[0]}; ssl_certificate_key {self._cert[1]};"
        for _ in range(5):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            text = NGINX.format(folder=self.folder, port=port, tls=tls, more=more)
            (self.folder / "nginx.conf").write_text(text)
            (self.folder / "access.log").unlink(missing_ok=True)
            command = [nginx_path(), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
            self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            if self._listens(port):
                self.url = f"http{'s' if self._cert else ''}://127.0.0.1:{port}"
                return
        pytest.fail((self.folder / "error.log").read_text())

    def _listens(self, port: int) -> bool:
        assert self._process
        while self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
        return False

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()

    def put(self, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            (self.www / name).write_bytes(data)

    def served(self) -> list[Served]:
        """The access log so far. A line is written when its answer has ended."""
        lines = (self.folder / "access.log").read_text().splitlines()
        found = [line.split() for line in lines]
        return [Served(path, int(status), asked, int(sent)) for path, status, asked, sent in found]


def nginx_path() -> str:
    return shutil.which("nginx") or next(path for path in NGINX_PATHS if Path(path).exists())


# -- both ends ------------------------------------------------------------------------------------

T = TypeVar("T")


def until(happened: Callable[[], T], timeout_s: float = 60.0) -> T:
    """What ``happened`` gives once that is true; fails after a time no healthy machine needs."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (found := happened()):
        assert time.monotonic() < deadline, "it did not happen"
        pause.wait(0.01)
    return found


def seal(version: str, chunk_number: int, seed: int) -> Bundle:
    """A bundle of a model of noise, and samples that are none."""
    members = [member(chunk_number, seed=seed), bundles.encode_member("golden.json", b"{}")]
    manifest = Manifest(
        schema=manifests.SCHEMA, name="pump", version=version, task="tensors", features=(),
        inputs=(Tensor(name="x", dtype="float32", shape=(None, 4)),),
        outputs=Outputs(tensors=("y",)), files=tuple(file for file, _ in members),
        runtime=Runtime(ir=8, opsets={"": 17}, ops=(), onnxruntime="1.18", ram_bytes=1),
        compression=Compression(mode="none", stock_bytes=1),
        parity=Parity(rows=1, flips=0, flips_max=0, diff_max=0, diff_p99=0, diff_budget=0),
        provenance=Provenance(source_sha256="0" * 64, source_type="onnx", libraries={}),
    )  # fmt: skip
    stored = {file.name: blob for file, blob in members}
    return bundles.read(bundles.write(manifests.encode(manifest), stored))


class World:
    """A publisher with one bundle on a broker, and devices."""

    def __init__(self, url: str, folder: Path, *, chunks: int) -> None:
        self.url, self.folder, self._chunks = url, folder, chunks
        create(folder / "keys", "home", now=datetime.datetime.now(datetime.UTC))
        self.publish("1.0")

    @classmethod
    def found(cls, url: str, folder: Path) -> World:
        """The same from another process, for its devices."""
        made = cls.__new__(cls)
        made.url, made.folder = url, folder
        return made

    @property
    def repository(self) -> Repository:
        return Repository(self.folder / "keys")

    def publish(self, version: str, *, seed: int = 1) -> None:
        self.bundle = seal(version, self._chunks, seed)
        self.model = self.bundle.manifest.file("model.onnx")
        index = chunks.index_of(self.bundle.stored["model.onnx"])
        self.chunk_names = [chunk.sha256 for chunk in chunks.plan(self.model, index)]
        now = datetime.datetime.now(datetime.UTC)
        self.repository.publish(self.bundle, fleet="home", channel="stable", now=now)
        self.sync()

    def name_mirrors(self, *mirrors: str) -> None:
        now = datetime.datetime.now(datetime.UTC)
        assert self.repository.set_mirrors(mirrors, "home", "stable", now=now)
        self.sync()

    def sync(self) -> None:
        link = LinkConfig(broker=broker_url.parse(self.url), client_id="publisher")
        with connect(link, TOPICS) as broker:
            sync(self.repository, TOPICS, broker)

    def lose_chunks(self, names: Sequence[str] = ()) -> None:
        """As a broker that was killed before it saved; the manifest stays."""
        link = Link(LinkConfig(broker=broker_url.parse(self.url), client_id="loser"))
        link.start(60)
        for name in names or (*self.chunk_names, self.model.index):
            link.publish(TOPICS.chunk(name), b"", retain=True).wait(60)
        link.stop()

    def device(
        self,
        choice: Choice = ANY_SOURCE,
        *,
        name: str = "dev",
        mirror_ca_file: str = "",
        silence_s: float = 1.0,
    ) -> Delivery:
        made = Delivery(
            DeliveryConfig(
                folder=self.folder / name, broker=broker_url.parse(self.url), topics=TOPICS,
                device=name, silence_s=silence_s, choice=choice, mirror_ca_file=mirror_ca_file,
            )
        )  # fmt: skip
        if not made.enrolled:
            made.enroll(root=self.repository.shelf.first_root())
        return made

    def fetch_papers(self) -> None:
        """Have the device know the metadata and the manifest, and no chunk."""

        def refuse(manifest: Manifest) -> None:
            raise PeerFault("not yet")

        with contextlib.suppress(PeerFault):
            self.fetch(self.device(), accept=refuse)

    def fetch(
        self,
        device: Delivery,
        *,
        accept: Callable[[Manifest], None] = lambda manifest: None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        stop: threading.Event | None = None,
        refresh: bool = True,
    ) -> Path:
        """Refresh, or take the pointer on disk; fetch the stable version; returns its slot."""
        pointer = device.cached_pointer()
        if refresh:
            now = datetime.datetime.now(datetime.UTC)
            pointer = device.refresh(now=now, synchronised=True).pointer
        assert pointer is not None
        release = pointer.models["pump"].stable
        slot = device.config.folder / "slots" / release.sha256
        device.fetch(
            release, name="pump", into=slot, accept=accept, progress=progress,
            stop=stop or threading.Event(),
        )  # fmt: skip
        return slot

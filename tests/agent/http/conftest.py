"""A real HTTP door on a free port and a Unix socket, with real models behind it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import Model
from edge_agent.live import Live
from edge_contract import bundle as bundles

pytest.importorskip("httptools", reason="the [http] extra is not installed")

from edge_agent.doors.http import HttpDoor
from edge_agent.doors.http.door import HttpConfig
from edge_agent.doors.http.exchange import Limits


class Client:
    """One connection that sends bytes and reads whole answers."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._left = b""

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """One request and its answer."""
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)
        return self.read(head=method == "HEAD")

    def read(self, *, head: bool = False) -> Answer:
        """The next answer."""
        while b"\r\n\r\n" not in self._left:
            self._more()
        block, _, self._left = self._left.partition(b"\r\n\r\n")
        first, *lines = block.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        size = 0 if head or first.split()[1] == "100" else int(fields["content-length"])
        while len(self._left) < size:
            self._more()
        body, self._left = self._left[:size], self._left[size:]
        return Answer(int(first.split()[1]), fields, body)

    def closed(self) -> bool:
        """Whether the other side ended the connection, having said nothing more."""
        try:
            return not self._left and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the connection ended after {self._left!r}")
        self._left += data


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


@pytest.fixture
def connect() -> Iterator[Callable[[HttpDoor], Client]]:
    """Clients, closed at the end."""
    clients: list[Client] = []

    def open_(door: HttpDoor) -> Client:
        clients.append(Client(door.port))
        return clients[-1]

    yield open_
    for client in clients:
        client.socket.close()


@pytest.fixture
def seats(tiny_bundle, mixed_bundle) -> dict[str, Live]:
    """Two models in their places: four numbers, and two numbers with a category."""
    found = {}
    for name, data in {"pump": tiny_bundle(), "mixed": mixed_bundle()}.items():
        found[name] = Live(name, Model.from_bundle(bundles.read(data)))
    return found


@pytest.fixture
def open_door(seats, tmp_path: Path) -> Iterator[Callable[..., HttpDoor]]:
    """Doors, stopped at the end; options as of ``HttpConfig`` and ``Limits``."""
    doors: list[HttpDoor] = []

    def make(**options: object) -> HttpDoor:
        limits = {key: options.pop(key) for key in Limits._fields if key in options}
        config = HttpConfig(**{"port": 0, "limits": Limits(**limits), **options})
        doors.append(HttpDoor(config, seats, version="1.2.3"))
        return doors[-1]

    yield make
    for door in doors:
        door.stop()


@pytest.fixture
def door(open_door) -> HttpDoor:
    """A door with the defaults."""
    return open_door()


@pytest.fixture
def client(door: HttpDoor, connect) -> Client:
    """One connection to it."""
    return connect(door)

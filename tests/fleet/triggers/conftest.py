"""A real HTTP server that does as it is told, and a store with an alarm in it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `trigger_kit` is beside the tests

from fleet_kit import FLEET, Packed
from trigger_kit import SECRET, Clock, count, learn

from edge_contract import broker_url
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.topics import Topics
from edge_fleet.store.sql import SqlStore
from edge_fleet.triggers.delivery import Place


@dataclass
class Receiver:
    """What came, and what is answered: a status each time, with headers; then 200."""

    url: str = ""
    came: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    hold: Callable[[Any], None] | None = None


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.came.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            if found.hold is not None:
                found.hold(self)
                return
            status, headers = found.answers.pop(0) if found.answers else (200, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"noted" if status == 200 else b"not now")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(tmp_path: Path, clock: Clock) -> Place:
    (tmp_path / "hook.secret").write_text(SECRET + "\n")
    link = LinkConfig(broker_url.parse("mqtt://127.0.0.1:1"), client_id="")
    return Place(tmp_path, link, Topics(FLEET), clock, threading.Event())


@pytest.fixture
def watched(store: SqlStore, packed: Packed, rng: np.random.Generator) -> SqlStore:
    """A store in which the bundle is known and one window of 500 rows was counted."""
    learn(store, packed)
    count(store, packed, rng)
    return store

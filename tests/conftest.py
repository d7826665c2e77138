"""Brokers for tests of anything that speaks MQTT: ours in a thread, and a real mosquitto.

An example of hypothesis may take as long as the machine needs. Libraries that compute get one
thread a process: the workers fill every processor already, and threads that wait for each other
spin meanwhile (a survey of scikit-learn took a third of the time so).
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `free_ports` is beside the tests

from free_ports import free_port

from edge_fleet.broker import (
    BrokerConfig,
    BrokerThread,
    MosquittoConfig,
    MosquittoProcess,
    User,
    find_mosquitto,
)

hypothesis.settings.register_profile(
    "unhurried",
    hypothesis.settings.default,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("unhurried")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy, torch and scikit-learn load
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background so, and each process of a test inherits it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

AnyBroker = BrokerThread | MosquittoProcess


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several workers the slow tests begin first, so that none of them is waited for alone."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(params=["embedded", "mosquitto"])
def broker_kind(request: pytest.FixtureRequest) -> str:
    """Each broker in turn; without a mosquitto its tests are skipped, in CI they fail."""
    kind: str = request.param
    if kind == "mosquitto" and find_mosquitto() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no mosquitto: CI tests against a real one")
        pytest.skip("no mosquitto on PATH or in /usr/sbin")
    return kind


@pytest.fixture
def start_broker(broker_kind: str, tmp_path: Path) -> Iterator[Callable[..., AnyBroker]]:
    """Starts a broker with the given users and limits; its state survives stop and start."""
    started: list[AnyBroker] = []

    def start(*, users: Mapping[str, User] | None = None, **limits: int) -> AnyBroker:
        directory = tmp_path / f"broker-{len(started)}"
        broker: AnyBroker
        limits.setdefault("port", free_port())  # it keeps it while it is stopped
        if broker_kind == "embedded":
            config = BrokerConfig(users=users or {}, state_dir=directory, **limits)
            broker = BrokerThread(config)
        else:
            broker = MosquittoProcess(
                MosquittoConfig(users=users or {}, directory=directory, **limits)
            )
        broker.start()
        started.append(broker)
        return broker

    yield start
    for broker in started:
        broker.kill()  # a mosquitto that is asked to stop takes a tenth of a second
        broker.stop()


@pytest.fixture
def any_broker(start_broker: Callable[..., AnyBroker]) -> AnyBroker:
    """A running broker without users: embedded, then mosquitto."""
    return start_broker()


class StallingBroker:
    """Takes each client, reads nothing of the first one and ends it at ``drop``."""

    CONNACK = bytes((0x20, 3, 0, 0, 0))

    def __init__(self) -> None:
        self.drop = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # for those it accepts
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more clients."""
        self.drop.set()
        self._server.shutdown(socket.SHUT_RDWR)  # ``accept`` returns
        self._server.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            with self._greet():
                self.drop.wait()
            while True:
                threading.Thread(target=self._read, args=(self._greet(),), daemon=True).start()

    def _greet(self) -> socket.socket:
        connection = self._server.accept()[0]
        connection.recv(4096)
        connection.sendall(self.CONNACK)
        return connection

    def _read(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while connection.recv(65_536):
                pass


@pytest.fixture
def stalling_broker() -> Iterator[StallingBroker]:
    """Stalls its first client; well once that is dropped."""
    broker = StallingBroker()
    yield broker
    broker.stop()

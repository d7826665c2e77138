"""The service manager hears "alive" only while the loop decides and the models answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.live import Live
from edge_agent.loop import Loop
from edge_agent.model import Model
from edge_agent.notify import Notifier
from edge_agent.watchdog import Watchdog
from edge_contract import bundle as bundles
from edge_contract.errors import MachineFault

GOOD = {"temp": 1.0, "hum": 1.0, "rpm": 1.0, "volt": 1.0}
ENDLESS = {**GOOD, "temp": 1e18}
DEADLINE_S = 120.0


class Manager:
    """A real socket of a service manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(DEADLINE_S)

    def heard(self) -> str:
        """The next datagram."""
        return self.socket.recv(4096).decode()

    def waiting(self) -> list[str]:
        """What lies there now."""
        found = []
        self.socket.setblocking(False)
        while True:
            try:
                found.append(self.heard())
            except BlockingIOError:
                self.socket.settimeout(DEADLINE_S)
                return found


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    made = Manager(path if request.param == "path" else f"@edge-test-{os.getpid()}")
    yield made
    made.socket.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop("test")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def seat(odd_bundle: Callable[..., bytes]) -> Live:
    return Live("pump", Model.from_bundle(bundles.read(odd_bundle("looping"))))


class Clock:
    """Stands until it is set."""

    def __init__(self) -> None:
        self.now_s = time.monotonic()

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def until(ready: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def rested(dog: Watchdog, loop: Loop) -> None:
    """The loop has answered the beat, and the probe is back."""
    loop.ask(lambda: None)
    until(lambda: dog._probe_s is None, "the probe is back")


def test_ready_alive_status_and_stopping_arrive_as_the_protocol_says(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "6000000"}
    notifier = Notifier.of(environment, os.getpid())
    assert notifier.watchdog_s == 6.0
    assert notifier.ready()
    assert notifier.alive()
    assert notifier.status("pump 1.0\nanswers")
    assert notifier.stopping()
    said = [manager.heard() for _ in range(4)]
    assert said == ["READY=1", "WATCHDOG=1", "STATUS=pump 1.0 answers", "STOPPING=1"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "@"},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"NOTIFY_SOCKET": "/a\0b"},
        {"WATCHDOG_USEC": "6000000"},
    ],
)
def test_without_a_service_manager_nothing_is_said_and_nothing_breaks(
    environment: dict[str, str],
) -> None:
    notifier = Notifier.of(environment, os.getpid())
    assert not notifier.ready()
    assert not notifier.alive()


@pytest.mark.parametrize(
    "asked", [{"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "-5"}, {}, {"WATCHDOG_PID": "1"}]
)
def test_a_watchdog_that_is_not_asked_for_or_not_of_us_is_not_petted(
    asked: dict[str, str], manager: Manager, loop: Loop, seat: Live
) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000", **asked}
    if not asked:
        del environment["WATCHDOG_USEC"]
    notifier = Notifier.of(environment, os.getpid())
    assert notifier.watchdog_s == 0.0
    assert Watchdog(loop, {"pump": seat}, notifier, stall_s=5).look() == ""
    assert manager.waiting() == ["STATUS=answering: pump 1.0"]


def test_while_loop_and_model_answer_the_watchdog_is_petted(
    manager: Manager, loop: Loop, seat: Live
) -> None:
    dog = Watchdog(loop, {"pump": seat}, Notifier(manager.address, 0.03), stall_s=20)
    dog.start()
    assert manager.heard() == "STATUS=answering: pump 1.0"
    assert {manager.heard() for _ in range(20)} == {"WATCHDOG=1"}
    dog.stop()


def test_a_loop_that_hangs_is_not_alive(
    manager: Manager, loop: Loop, seat: Live, clock: Clock
) -> None:
    dog = Watchdog(loop, {"pump": seat}, Notifier(manager.address, 3), stall_s=20, now=clock)
    assert dog.look() == ""
    rested(dog, loop)
    hanging, go_on = threading.Event(), threading.Event()
    loop.post(lambda: (hanging.set(), go_on.wait()))
    assert hanging.wait(DEADLINE_S)
    manager.waiting()
    assert dog.look() == ""  # it owes a sign of life from now on
    until(lambda: dog._probe_s is None, "the probe is back")
    assert manager.waiting() == ["WATCHDOG=1"]
    clock.now_s += 60
    assert "the loop has not answered for 60 s" in dog.look()
    (said,) = manager.waiting()
    assert said.startswith("STATUS=stuck: the loop")
    go_on.set()
    rested(dog, loop)
    clock.now_s = time.monotonic()
    assert dog.look() == ""
    assert "WATCHDOG=1" in manager.waiting()


def test_a_request_that_never_returns_is_not_alive(
    manager: Manager, loop: Loop, seat: Live, clock: Clock
) -> None:
    """One that is not in the runtime, where it could be ended."""
    dog = Watchdog(loop, {"pump": seat}, Notifier(manager.address, 3), stall_s=20, now=clock)
    clock.now_s = time.monotonic()
    with seat.use():
        rested(dog, loop)
        assert dog.look() == ""
        rested(dog, loop)
        manager.waiting()
        clock.now_s = time.monotonic() + 60
        assert "a request to pump has been under way for" in dog.look()
        assert "WATCHDOG=1" not in manager.waiting()
    rested(dog, loop)
    clock.now_s = time.monotonic()
    assert dog.look() == ""


def test_an_endless_run_is_ended_and_the_next_request_is_answered(
    manager: Manager, loop: Loop, seat: Live
) -> None:
    dog = Watchdog(loop, {"pump": seat}, Notifier(manager.address, 3), stall_s=0.2)
    dog.start()
    with pytest.raises(MachineFault, match="did not come to an end, and was interrupted"):
        seat.predict(ENDLESS)
    assert seat.stalled >= 1
    assert seat.predict(GOOD).value == 4.0
    dog.stop()
    until(lambda: seat.oldest_s(time.monotonic()) == 0.0, "nothing is under way")


def test_an_endless_run_in_a_model_that_was_replaced_is_ended_too(
    loop: Loop, seat: Live, odd_bundle: Callable[..., bytes]
) -> None:
    ended: list[str] = []

    def ask() -> None:
        try:
            seat.predict(ENDLESS)
        except MachineFault as error:
            ended.append(error.what)

    old = seat.model
    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: seat.oldest_s(time.monotonic()) > 0, "the request is under way")
    left: list[Model] = []
    seat.swap(Model.from_bundle(bundles.read(odd_bundle("looping", "2.0"))), on_left=left.append)
    assert seat.predict(GOOD).value == 4.0
    assert left == []
    dog = Watchdog(loop, {"pump": seat}, Notifier(), stall_s=0.2)
    until(lambda: [dog.look(), ended][1], "it is ended")
    asking.join(DEADLINE_S)
    assert "was interrupted" in ended[0]
    until(lambda: left == [old], "the old model's memory is given back")
    assert seat.stalled == 0  # held against the old one alone


def test_a_model_that_hangs_on_its_own_samples_silences_the_watchdog(
    manager: Manager, loop: Loop, odd_bundle: Callable[..., bytes], clock: Clock
) -> None:
    """Nobody asks, and still it is found: by the probe, which is ended, and comes again."""
    hung = Model.from_bundle(bundles.read(odd_bundle("looping", golden_temp=1e18)))
    seats = {"pump": Live("pump", hung)}
    dog = Watchdog(loop, seats, Notifier(manager.address, 3), stall_s=20, now=clock)
    assert dog.look() == ""
    until(lambda: seats["pump"].oldest_s(time.monotonic()) > 0, "the probe is under way")
    loop.ask(lambda: None)
    manager.waiting()
    clock.now_s = time.monotonic() + 60
    assert "under way" in dog.look()
    assert "WATCHDOG=1" not in manager.waiting()
    assert seats["pump"].stalled == 1
    until(lambda: dog._probe_s is None, "the probe was ended")

"""A look for updates ends when it is told to, whatever the broker does meanwhile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet_world import START, Publisher

from edge_agent.delivery import Delivery, DeliveryConfig, Stopped
from edge_contract import broker_url
from edge_contract.errors import PeerFault
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.ports.retained import Retained
from edge_contract.topics import Topics
from edge_fleet.broker import BrokerThread

HOURS_S = 36_000.0
DEADLINE_S = 60.0


@pytest.fixture
def new_device(tmp_path: Path) -> Callable[..., Delivery]:
    """A device that waits for hours, enrolled."""

    def make(url: str, silence_s: float = HOURS_S) -> Delivery:
        publisher = Publisher(tmp_path / "keys", "home")
        device = Delivery(
            DeliveryConfig(
                folder=tmp_path / "device",
                broker=broker_url.parse(url),
                topics=Topics("home"),
                device="dev",
                connect_timeout_s=HOURS_S,
                silence_s=silence_s,
            )
        )
        device.enroll(root=publisher.repository.shelf.first_root())
        return device

    return make


@pytest.fixture
def deaf() -> Iterator[str]:
    """Takes connections and says nothing, not even that it is a broker."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"mqtt://127.0.0.1:{listening.getsockname()[1]}"


def _called_off(device: Delivery, when: Callable[[], None]) -> None:
    """Look in a thread, call it off once ``when`` returned, and have it end."""
    stop = threading.Event()
    ended: list[BaseException | None] = []

    def look() -> None:
        try:
            device.refresh(now=START, synchronised=True, stop=stop)
        except Stopped as error:
            ended.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    when()
    assert thread.is_alive()
    stop.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "it would have waited for hours"
    assert len(ended) == 1


def test_a_look_at_a_deaf_broker_is_called_off(
    new_device: Callable[..., Delivery], deaf: str
) -> None:
    _called_off(new_device(deaf), lambda: None)


def test_a_look_at_a_broker_that_falls_silent_is_called_off(
    new_device: Callable[..., Delivery],
) -> None:
    """Nothing was ever put there, not even what every publication leaves: it says nothing."""
    with BrokerThread() as broker:
        device = new_device(broker.url)
        waiting = threading.Event()

        def connected() -> None:
            while "dev-dl" not in broker.connected():
                assert not waiting.wait(0.01)

        _called_off(device, connected)


def test_a_stop_that_was_set_before_ends_a_look_at_once(
    new_device: Callable[..., Delivery], deaf: str
) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        new_device(deaf).refresh(now=START, synchronised=True, stop=stop)


def test_a_broker_that_only_comes_and_goes_is_given_up() -> None:
    """It drops every connection before it answers, and is there again: no silence, and no end."""
    with BrokerThread() as broker:
        link = LinkConfig(
            broker=broker_url.parse(broker.url), client_id="reader", reconnect_max_s=1
        )
        done = threading.Event()

        def drop() -> None:
            while not done.wait(0.05):
                broker.drop("reader")

        dropping = threading.Thread(target=drop)
        with Retained(link, sentinel="nothing/there", silence_s=HOURS_S) as retained:
            retained.start(DEADLINE_S)
            dropping.start()
            try:
                with pytest.raises(PeerFault, match="did not answer"):
                    retained.get(["nothing/here"], size_max=100)
            finally:
                done.set()
                dropping.join()

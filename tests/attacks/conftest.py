"""Each attack over each way that bytes take: HTTP, a real mosquitto, and in part our own broker."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `attack_kit` and the bridge are beside the tests

from attack_kit import Client, Repo, Site

from edge_contract import broker_url
from edge_contract.broker_url import BrokerUrl
from edge_fleet.broker import BrokerThread, MosquittoConfig, MosquittoProcess, find_mosquitto


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """An HTTP server for all repositories of the session."""
    with Site() as running:
        yield running


@pytest.fixture(scope="session")
def brokers() -> Iterator[dict[str, BrokerUrl]]:
    """Both brokers, for the whole session."""
    with tempfile.TemporaryDirectory() as folder, BrokerThread() as embedded:
        found = {"embedded": broker_url.parse(embedded.url)}
        mosquitto = None
        if find_mosquitto() is not None:
            mosquitto = MosquittoProcess(MosquittoConfig(directory=Path(folder)))
            mosquitto.start()
            found["mosquitto"] = broker_url.parse(mosquitto.url)
        yield found
        if mosquitto is not None:
            mosquitto.kill()
            mosquitto.stop()


@pytest.fixture(params=["http", pytest.param("mosquitto", marks=pytest.mark.slow)])
def way(request: pytest.FixtureRequest, brokers: dict[str, BrokerUrl]) -> str:
    """How a client reaches the repository."""
    kind: str = request.param
    if kind == "mosquitto" and kind not in brokers:
        if os.environ.get("CI") == "true":
            pytest.fail("no mosquitto: CI tests against a real one")
        pytest.skip("no mosquitto on PATH or in /usr/sbin")
    return kind


@pytest.fixture
def new_client(
    way: str, site: Site, brokers: dict[str, BrokerUrl], tmp_path: Path
) -> Iterator[Callable[..., Client]]:
    """A device that is not enrolled yet, for a repository."""
    numbers: list[str] = []

    def make(repo: Repo, name: str = "device") -> Client:
        client = Client(tmp_path / name, repo, "", brokers.get(way))
        number = str(client.number)
        numbers.append(number)
        site.repos[number] = repo
        client.url = f"{site.url}/{number}"
        return client

    yield make
    for number in numbers:
        del site.repos[number]


@pytest.fixture
def repo() -> Repo:
    """A repository with all roles at version 1."""
    return Repo()


@pytest.fixture
def client(new_client: Callable[..., Client], repo: Repo) -> Client:
    """A device that trusts the repository's first root."""
    made = new_client(repo)
    assert made.init() == 0
    return made

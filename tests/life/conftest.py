"""Makes `life_kit` importable, and brokers with accounts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `life_kit` is beside the tests

from life_kit import Mosquitto
from typer.testing import CliRunner

from edge_fleet.broker import BrokerConfig, BrokerThread, find_mosquitto
from edge_pack.cli import app


def need_mosquitto() -> None:
    if find_mosquitto() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no mosquitto: CI tests against a real one")
        pytest.skip("no mosquitto on PATH or in /usr/sbin")


@pytest.fixture
def make_accounts(tmp_path: Path) -> Callable[..., Path]:
    """Runs `edge-pack broker-acl`; the folder."""

    def make(*arguments: str) -> Path:
        folder = tmp_path / "accounts"
        done = CliRunner().invoke(app, ["broker-acl", str(folder), *arguments])
        assert done.exit_code == 0, done.exception
        return folder

    return make


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[Callable[[Path], Mosquitto]]:
    """A mosquitto on the accounts in a folder."""
    started: list[Mosquitto] = []

    def start(accounts: Path) -> Mosquitto:
        need_mosquitto()
        broker = Mosquitto(tmp_path / f"mosquitto-{len(started)}", accounts)
        broker.start()
        started.append(broker)
        return broker

    yield start
    for broker in started:
        broker.stop()


@pytest.fixture
def start_embedded() -> Iterator[Callable[[Path], BrokerThread]]:
    """An embedded broker on the accounts in a folder."""
    started: list[BrokerThread] = []

    def start(accounts: Path) -> BrokerThread:
        broker = BrokerThread(BrokerConfig(accounts=accounts))
        broker.start()
        started.append(broker)
        return broker

    yield start
    for broker in started:
        broker.stop()

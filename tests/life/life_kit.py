"""Brokers with accounts and certificates, and real agents under them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from free_ports import free_port

from edge_agent import config as configs
from edge_agent import local
from edge_contract import broker_url
from edge_contract.broker_url import BrokerUrl
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_fleet.broker import find_mosquitto

DEADLINE_S = 120.0


def until(ready: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until ``ready`` gives something true; fail at the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not happen within {deadline_s:g} s")


def command(*arguments: object, module: str = "edge_pack", **options: Any) -> Any:
    """Run one of our commands; its completed process."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        **options,
    )  # fmt: skip


class Mosquitto:
    """A real mosquitto that runs the very fragment that `broker-acl` wrote, on free ports."""

    def __init__(self, folder: Path, accounts: Path) -> None:
        self.folder = folder
        self.ports = {8883: free_port(), 8884: free_port(), 1883: free_port()}
        folder.mkdir(parents=True, exist_ok=True)
        text = (accounts / "edge.conf").read_text()
        for known, port in self.ports.items():
            text = text.replace(f"listener {known}", f"listener {port}")
        root = "user root\n" if os.geteuid() == 0 else ""
        self.conf = folder / "mosquitto.conf"
        self.conf.write_text(f"{root}persistence_location {folder}/\n{text}")
        self.log = folder / "mosquitto.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(find_mosquitto()), "-v", "-c", self.conf], stdout=log, stderr=log
            )
        listening = [p for p in self.ports.values() if f"listener {p}" in self.conf.read_text()]

        def there() -> bool:
            assert self.process and self.process.poll() is None, self.log.read_text()
            for port in listening:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                except OSError:
                    return False
            return True

        until(there, "mosquitto listens")

    def reload(self) -> None:
        assert self.process
        self.process.send_signal(1)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


class Talker:
    """One account's connection, and what the broker says to it."""

    def __init__(self, url: BrokerUrl | str, client_id: str, **tls: str) -> None:
        self.heard: list[Message] = []
        parsed = broker_url.parse(url) if isinstance(url, str) else url
        self.link = Link(
            LinkConfig(broker=parsed, client_id=client_id, **tls),
            on_message=self.heard.append,
        )
        self.link.start(60)

    def may_write(self, topic: str) -> bool:
        """What the PUBACK says."""
        ticket = self.link.publish(topic, b"x")
        until(lambda: ticket.done, f"a PUBACK for {topic}")
        return not ticket.error

    def refused(self, topic_filter: str) -> bool:
        """What the SUBACK says."""
        ticket = self.link.subscribe([topic_filter], qos=1)
        until(lambda: ticket.done, f"a SUBACK for {topic_filter}")
        return bool(ticket.error)

    def has(self, topic: str) -> bool:
        """Whether a message on it was heard."""
        return any(message.topic == topic for message in self.heard)

    def stop(self) -> None:
        self.link.stop()


@contextlib.contextmanager
def hearing_events(url: str, accounts: Path) -> Iterator[None]:
    """The fleet's server listens: else events would wait on their devices."""
    owner = "home.server"
    ear = Talker(url.replace("://", f"://{owner}:{password(accounts, owner)}@"), owner)
    assert not ear.refused("edge/1/home/d/+/ev")
    try:
        yield
    finally:
        ear.stop()


def beside(path: str) -> Any:
    """A conftest's module: tests cannot import one by name."""
    name = "life_" + path.replace("/", "_").removesuffix(".py")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


devices = beside("agent/device/conftest.py")
bundles = beside("agent/conftest.py")


def password(accounts: Path, name: str) -> str:
    return (accounts / "secrets" / f"{name}.password").read_text().strip()


BUSY = """
import logging, pathlib, sys, threading, time
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
from edge_agent import Agent, config
from edge_agent.parts import Clocks
from edge_contract.errors import EdgeError
clock = pathlib.Path(sys.argv[1]).with_name("clock")
wall = lambda: time.time() + float(clock.read_text() or 0) if clock.exists() else time.time()
row = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
with Agent(config.load(pathlib.Path(sys.argv[1]), {}), clocks=Clocks(wall=wall)) as agent:
    while not threading.Event().wait(0.01):
        try:
            agent.predict("pump", row)
        except EdgeError:
            pass
"""
"""A user's program around an agent; the file `clock` beside its settings moves its clock."""


class Agent:
    """A real ``edge-agent run`` on settings that are there already."""

    def __init__(self, config: Path, *, prefix: tuple[str, ...] = (), **env: str) -> None:
        self.path = config
        self.log = config.with_suffix(".log")
        self.prefix = prefix
        self.env = env
        self.busy = False
        self.process: subprocess.Popen[str] | None = None

    @property
    def config(self) -> Any:
        return configs.load(self.path, {})

    @property
    def status(self) -> Any:
        return local.read(self.config)

    def start(self) -> None:
        """Run it; ``busy``: inside a program that asks its model all the time."""
        how = ["-c", BUSY] if self.busy else ["-m", "edge_agent", "run", "--config"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, *how, str(self.path)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.env},
            )  # fmt: skip

    def at(self, version: str) -> bool:
        """Whether it rests on ``version`` and lives."""
        if self.process and self.process.poll() is not None:
            raise AssertionError(f"the agent ended: {self.log.read_text()[-3000:]}")
        model = self.status.models.get("pump")
        return model is not None and (model.active, model.phase) == (version, "committed")

    def wait_at(self, version: str) -> None:
        try:
            until(lambda: self.at(version), f"pump {version} committed")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-3000:]}") from None

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

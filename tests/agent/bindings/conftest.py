"""Bindings on real brokers, with real models; a client plays the sensors and Home Assistant."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import config as configs
from edge_agent.bindings.build import Bindings
from edge_agent.config import Config
from edge_agent.model import Model
from edge_agent.parts import Clocks
from edge_agent.serving import Serving
from edge_agent.telemetry import Recorder, Spool
from edge_contract import broker_url
from edge_contract import bundle as bundles
from edge_contract.ports.mqtt import Link, LinkConfig, Message

sys.path.insert(0, str(Path(__file__).parent))
"""For ``sparkplug_pb``; in import mode importlib pytest leaves the path alone."""

DEADLINE_S = 60.0
BASE = """
[agent]
device = "pi1"
fleet = "home"
folder = "state"
[broker]
url = "{url}"
"""


class Desk:
    """One agent's bindings without the rest of it: its connection, its models, a client."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.heard: list[Message] = []
        self.clocks = Clocks()
        self.recorder = Recorder(
            Spool(folder / "spool", max_bytes=1 << 20), device="pi1", boot=1, window_s=3600.0
        )
        self.serving = Serving(self.recorder, self.clocks.now)
        self.bindings: Bindings | None = None
        self.own: Link | None = None
        self.client = Link(
            LinkConfig(broker=broker_url.parse(url), client_id="client"),
            on_message=self.heard.append,
        )
        self.client.start(DEADLINE_S)
        self.client.subscribe(["home/#", "homeassistant/#", "edge/#", "spBv1.0/#"]).wait(DEADLINE_S)

    def config(self, text: str, url: str = "") -> Config:
        """Settings with ``text`` after the necessary."""
        whole = BASE.format(url=url or self.url) + text
        tomllib.loads(whole)
        config, faults = configs.parse(whole.encode(), self.folder)
        assert config is not None, faults
        return config

    def put(self, bundle: bytes, name: str = "pump") -> None:
        """Have it answer under a name."""
        model = Model.from_bundle(bundles.read(bundle))
        self.recorder.swap(self.serving.seat(name), model, self.clocks.now())

    def start(self, text: str) -> Bindings:
        """Bind as the settings say, and wait until every broker is there."""
        self.stop()
        config = self.config(text)

        def heard(message: Message) -> None:
            bindings.handle(message)

        link = Link(
            LinkConfig(broker=config.broker_url, client_id="pi1", session_expiry_s=3600),
            on_message=heard,
            on_up=lambda _: bindings.up(),
        )
        bindings = Bindings(config, link, self.serving, self.clocks.now, boot=1, version="0.1")
        bindings.start()
        link.start(DEADLINE_S)
        self.own, self.bindings = link, bindings
        return bindings

    def stop(self) -> None:
        if self.bindings is not None and self.own is not None:
            self.bindings.stop()
            self.own.stop()
        self.bindings = self.own = None

    def say(self, topic: str, payload: object, *, retain: bool = False) -> None:
        """Publish as a sensor does: bytes as they are, all else as JSON."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.client.publish(topic, data, qos=1, retain=retain).wait(DEADLINE_S)

    def on(self, topic: str) -> list[Message]:
        """What was heard on a topic."""
        return [message for message in self.heard if message.topic == topic]

    def until(self, ready: Callable[[], Any], what: str) -> Any:
        """Poll until ``ready`` gives something true; fail at the deadline."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            if found := ready():
                return found
            time.sleep(0.01)
        said = self.bindings.reports() if self.bindings else None
        raise AssertionError(f"{what} did not happen; {said}; heard {self.heard[-5:]}")

    def until_heard(self, topic: str, count: int = 1) -> list[Message]:
        """The messages on a topic, when there are so many."""

        def there() -> list[Message] | None:
            found = self.on(topic)
            return found if len(found) >= count else None

        return list(self.until(there, f"{count} messages on {topic}"))

    def until_subscribed(self, name: str, topic: str, payload: object) -> None:
        """Say something until the binding hears it, and the broker said yes to every filter.

        Filters are asked for one by one: that the first is heard says nothing of the last.
        """
        assert self.bindings is not None and self.own is not None
        bindings, own = self.bindings, self.own

        def heard() -> bool:
            self.say(topic, payload)
            return bindings.reports()[name].messages > 0

        self.until(heard, f"a message for {name}")
        self.until(
            lambda: not any(kind == "subscribe" for kind, _ in list(own._tickets)),
            "an answer to each subscription",
        )


@pytest.fixture
def desk(any_broker: Any, tmp_path: Path, tiny_bundle: Callable[..., bytes]) -> Iterator[Desk]:
    """With the model ``pump`` in its seat; on the embedded broker, then on mosquitto."""
    made = Desk(tmp_path, any_broker.url)
    made.put(tiny_bundle("1.0"))
    yield made
    made.stop()
    made.client.stop()

"""Whole devices for tests: a publisher, a broker, agents in this process and in their own."""

from __future__ import annotations

import datetime
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_agent import Agent, local
from edge_agent import config as configs
from edge_agent.config import Config
from edge_agent.folder import Folder
from edge_agent.pull import enroll
from edge_agent.report import AgentStatus
from edge_contract import broker_url, messages
from edge_contract import bundle as bundles
from edge_contract.messages import Desired, ModelReport
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics
from edge_fleet.broker import BrokerThread
from edge_release import create
from edge_release.publication import connect, sync
from edge_release.repository import Repository

FLEET, CHANNEL, MODEL = "home", "stable", "pump"
TOPICS = Topics(FLEET)
DEADLINE_S = 180.0
"""Of what certainly happens: a loaded machine needs a minute to start an agent."""
ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}


def wait_for(ready: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until ``ready`` gives something true; fail at the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not happen within {deadline_s:g} s")


class Publisher:
    """A signing repository and the broker that it publishes to."""

    def __init__(self, folder: Path, url: str) -> None:
        self.fingerprint = create(folder, "home", now=self.now())
        self.repository = Repository(folder)
        self.url = url

    @staticmethod
    def now() -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)

    def publish(self, bundle: bytes, *, candidate: bool = False) -> None:
        """Sign a bundle and put it on the broker."""
        with self.repository.locked():
            self.repository.publish(
                bundles.read(bundle), fleet=FLEET, channel=CHANNEL, candidate=candidate,
                now=self.now(),
            )  # fmt: skip
        self.sync()

    def sync(self) -> None:
        """Put back what the broker lost."""
        link = LinkConfig(broker=broker_url.parse(self.url), client_id="publisher")
        with connect(link, TOPICS) as retained:
            sync(self.repository, TOPICS, retained)


class Device:
    """One device: its settings, and its agent in this process or in one of its own."""

    def __init__(self, folder: Path, name: str, url: str, **settings: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.path = folder / "agent.toml"
        self.process: subprocess.Popen[str] | None = None
        self.log = folder / "agent.log"
        self._sections: dict[str, dict[str, Any]] = {
            "agent": {"device": name, "fleet": FLEET, "folder": "state"},
            "broker": {"url": url},
            "trial": {"requests": 1000, "seconds": 0.5},
            "telemetry": {"window_s": 0.5},
            "update": {"backoff_min_s": 0.2, "backoff_max_s": 1.0, "self_test_runs": 3},
        }
        self.set(**settings)

    def set(self, **settings: dict[str, Any]) -> None:
        """Change settings, for the next start."""
        for section, values in settings.items():
            self._sections.setdefault(section, {}).update(values)
        self.path.write_text(
            "".join(
                f"[{section}]\n"
                + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
                for section, values in self._sections.items()
            )
        )

    @property
    def config(self) -> Config:
        return configs.load(self.path, {})

    @property
    def folder(self) -> Folder:
        return Folder(self.config.folder)

    @property
    def status(self) -> AgentStatus:
        """As its disk shows it."""
        return local.read(self.config)

    def model(self, name: str = MODEL) -> ModelReport | None:
        """The model's state, straight from its state file."""
        from edge_agent import report, state

        path = self.folder.state(name)
        if not path.exists():
            return None
        return report.model_report(state.decode(path.read_bytes()))

    def agent(self) -> Agent:
        """An agent in this process, not started."""
        return Agent(self.config)

    def start(self) -> None:
        """A real ``edge-agent run``."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", "run", "--config", str(self.path)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, text=True,
            )  # fmt: skip

    def signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a power cut does."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process
        self.process.terminate()
        return self.process.wait(120)

    def at(self, version: str, phase: str = "committed", name: str = MODEL) -> bool:
        """Whether it rests on ``version``."""
        model = self.model(name)
        return model is not None and (model.active, model.phase) == (version, phase)

    def wait_at(self, version: str, phase: str = "committed", name: str = MODEL) -> None:
        def there() -> bool:
            if self.process and self.process.poll() is not None:
                raise AssertionError(f"the agent ended: {self.log.read_text()[-2000:]}")
            return self.at(version, phase, name)

        try:
            wait_for(there, f"{name} {version} {phase}")
        except AssertionError as error:
            said = self.log.read_text()[-3000:] if self.log.exists() else ""
            raise AssertionError(f"{error}; it is {self.model(name)}\n{said}") from None


class Client:
    """Asks devices over MQTT and keeps what it hears."""

    def __init__(self, url: str) -> None:
        self.heard: list[Message] = []
        self.answers: dict[bytes, messages.Answer] = {}
        self._n = 0
        self.link = Link(
            LinkConfig(broker=broker_url.parse(url), client_id="client"),
            on_message=self._received,
        )
        self.link.start(60)
        self.link.subscribe([f"{TOPICS.root}/d/+/ev", f"{TOPICS.root}/t/+/+", "answers"]).wait(60)

    def _received(self, message: Message) -> None:
        if message.topic == "answers":
            self.answers[message.correlation] = messages.decode(message.payload, messages.Answer)
        else:
            self.heard.append(message)

    def events(self, kind: str) -> list[messages.Event]:
        """Events of one kind, each once."""
        found = {}
        for message in self.heard:
            if message.topic.endswith("/ev"):
                event = messages.decode(message.payload, messages.Event)
                found[event.boot, event.seq] = event
        return [event for event in found.values() if event.kind == kind]

    def send(self, device: str, row: dict[str, Any] = ROW, model: str = MODEL) -> bytes:
        """One request; its correlation."""
        self._n += 1
        correlation = str(self._n).encode()
        self.link.publish(
            TOPICS.requests(device, model), json.dumps(row).encode(),
            response_topic="answers", correlation=correlation,
        )  # fmt: skip
        return correlation

    def ask(self, device: str, row: dict[str, Any] = ROW) -> messages.Answer:
        """One request and its answer."""
        correlation = self.send(device, row)
        return wait_for(lambda: self.answers.get(correlation), "an answer")

    def want(self, device: str, revision: int, **models: str) -> None:
        """Say what the fleet wants of a device."""
        desired = Desired(revision=revision, models=models)
        topic = TOPICS.desired(device)
        self.link.publish(topic, messages.encode(desired), retain=True).wait(60)


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    with BrokerThread() as running:
        yield running


@pytest.fixture
def publisher(broker: BrokerThread, tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "keys", broker.url)


@pytest.fixture
def new_device(
    broker: BrokerThread, publisher: Publisher, tmp_path: Path
) -> Iterator[Callable[..., Device]]:
    """Makes an enrolled device; its process, if it has one, ends with the test."""
    devices: list[Device] = []

    def make(name: str = "pi1", **settings: Any) -> Device:
        device = Device(tmp_path / name, name, broker.url, **settings)
        root = publisher.repository.shelf.read().files["1.root.json"]
        enroll(device.config, root, "")
        devices.append(device)
        return device

    yield make
    for device in devices:
        if device.process and device.process.poll() is None:
            os.kill(device.process.pid, signal.SIGKILL)
            device.process.wait()


@pytest.fixture
def client(broker: BrokerThread) -> Iterator[Client]:
    made = Client(broker.url)
    yield made
    made.link.stop()


@dataclass
class World:
    """A broker, who publishes to it, who asks over it, and devices."""

    broker: BrokerThread
    publisher: Publisher
    client: Client
    new_device: Callable[..., Device]

    def until(self, ready: Callable[[], Any], what: str) -> Any:
        """As ``wait_for``."""
        return wait_for(ready, what)

    @functools.cached_property
    def device(self) -> Device:
        """A device with short times: ``pi1``."""
        return self.new_device()


@pytest.fixture
def world(
    broker: BrokerThread, publisher: Publisher, client: Client, new_device: Callable[..., Device]
) -> World:
    """All of it; tests cannot import a conftest."""
    return World(broker, publisher, client, new_device)


@pytest.fixture
def until() -> Callable[..., Any]:
    """Polls a condition; see ``wait_for``."""
    return wait_for


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB, empty."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(where)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield where
    subprocess.run(["umount", str(where)], check=True)


@pytest.fixture(scope="session")
def failing_bundle(seal_bundle: Callable[..., bytes]) -> Callable[..., bytes]:
    """A bundle that reproduces its golden samples and fails on rows where ``temp`` is negative."""
    import numpy as np
    from onnx import TensorProto, helper

    from edge_contract.manifest import Feature, Outputs, Tensor

    def build(version: str) -> bytes:
        node = [
            helper.make_node("Log", ["X"], ["logs"]),
            helper.make_node("ReduceSum", ["logs"], ["value"], keepdims=1, noop_with_empty_axes=0),
        ]
        node[1].input.append("axes")
        graph = helper.make_graph(
            node, "log",
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 4])],
            [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
            [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        names = ("temp", "hum", "rpm", "volt")
        return seal_bundle(
            model.SerializeToString(), name=MODEL, version=version, task="regression",
            features=tuple(Feature(name=name) for name in names),
            inputs=(Tensor(name="X", dtype="float32", shape=(None, 4), features=names),),
            outputs=Outputs(tensors=("value",), value="value"),
            golden_inputs={"X": np.full((4, 4), 2.0, dtype=np.float32)},
            profile=None,
        )  # fmt: skip

    return build


@pytest.fixture(scope="session")
def big_bundle(seal_bundle: Callable[..., bytes]) -> Callable[..., bytes]:
    """A bundle of random weights: about ``size`` bytes on the wire."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from edge_contract.manifest import Feature, Outputs, Tensor

    def build(version: str, *, seed: int = 1, size: int = 700_000) -> bytes:
        weights = np.random.default_rng(seed).normal(size=(4, size // 16)).astype(np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["X", "W"], ["wide"]),
                helper.make_node("ReduceMean", ["wide"], ["value"], axes=[1], keepdims=1),
            ],
            "wide",
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 4])],
            [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
            [numpy_helper.from_array(weights, "W")],
        )
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        names = ("temp", "hum", "rpm", "volt")
        return seal_bundle(
            model.SerializeToString(), name="pump", version=version, task="regression",
            features=tuple(Feature(name=name) for name in names),
            inputs=(Tensor(name="X", dtype="float32", shape=(None, 4), features=names),),
            outputs=Outputs(tensors=("value",), value="value"),
            golden_inputs={"X": np.full((2, 4), 2.0, dtype=np.float32)},
            profile=None,
        )  # fmt: skip

    return build

"""What the sweeps are made in: a publisher, brokers, small models and one device's folder.

The models are regressions on four numbers, so that an answer tells which version gave it.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cut_disk import Tree
from onnx import TensorProto, helper

from edge_contract import broker_url
from edge_contract.manifest import Feature, Outputs, Tensor
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics
from edge_fleet.broker import BrokerThread

TESTS = Path(__file__).resolve().parent.parent
FLEET, DEVICE, MODEL = "home", "pi1", "pump"
TOPICS = Topics(FLEET)
NAMES = ("temp", "hum", "rpm", "volt")
GOOD_ROW = {"temp": 1.0, "hum": 2.0, "rpm": 3.0, "volt": 4.0}
BAD_ROW = {**GOOD_ROW, "temp": -1.0}
WAIT_S = 180.0
SETTINGS: dict[str, dict[str, Any]] = {
    "trial": {"requests": 20, "seconds": 0.4, "max_error_rate": 0.2, "deadline_s": 300.0},
    "telemetry": {"window_s": 0.4},
    "update": {"backoff_min_s": 0.1, "backoff_max_s": 0.5, "self_test_runs": 2, "poll_s": 2.0},
}


_LOADING = threading.Lock()


def beside(path: str) -> ModuleType:
    """Another conftest's tools, under a name of its own."""
    name = "cut_" + path.replace("/", "_").removesuffix(".py")
    with _LOADING:
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, TESTS / path)
            assert spec and spec.loader
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]


def wait_for(ready: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """Poll until ``ready`` gives something true; fail after ``wait_s``."""
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        if found := ready():
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {wait_s:g} s")


# -- models ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """A version to publish.

    ``weight``: what it multiplies the sum of a row with. ``wide``: hidden units, for a bundle of
    many chunks. ``fails``: it cannot answer ``BAD_ROW``. ``golden_shift``: beyond 2e-5 its own
    self-test fails.
    """

    version: str
    weight: float
    wide: int = 0
    fails: bool = False
    golden_shift: float = 0.0

    @property
    def answer(self) -> float:
        """What it says of ``GOOD_ROW``."""
        row = np.array(list(GOOD_ROW.values()))
        return float(self.weight * (np.log(row).sum() if self.fails else row.sum()))

    def sealed(self) -> bytes:
        """Its bundle."""
        golden = np.full((4, 4), 2.0, dtype=np.float32)
        names = NAMES
        return beside("agent/conftest.py").seal(
            _onnx(self), name=MODEL, version=self.version, task="regression",
            features=tuple(Feature(name=name) for name in names),
            inputs=(Tensor(name="X", dtype="float32", shape=(None, 4), features=names),),
            outputs=Outputs(tensors=("value",), value="value"),
            golden_inputs={"X": golden}, profile=None, golden_shift=self.golden_shift,
        )  # fmt: skip


def _onnx(version: Version) -> bytes:
    constants = {"w": np.full((4, 1), version.weight, dtype=np.float32)}
    if version.fails:
        nodes = [
            helper.make_node("Log", ["X"], ["a"]),
            helper.make_node("MatMul", ["a", "w"], ["value"]),
        ]
    elif version.wide:
        rng = np.random.default_rng(int(version.weight * 1000))
        noise = rng.normal(size=(4, version.wide)).astype(np.float32)
        constants |= {"noise": noise, "none": np.zeros((version.wide, 1), dtype=np.float32)}
        nodes = [
            helper.make_node("MatMul", ["X", "noise"], ["a"]),
            helper.make_node("MatMul", ["a", "none"], ["b"]),
            helper.make_node("MatMul", ["X", "w"], ["c"]),
            helper.make_node("Add", ["b", "c"], ["value"]),
        ]
    else:
        nodes = [helper.make_node("MatMul", ["X", "w"], ["value"])]
    graph = helper.make_graph(
        nodes, "pump",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
        [
            helper.make_tensor(key, TensorProto.FLOAT, value.shape, value.tobytes(), raw=True)
            for key, value in constants.items()
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


V1 = Version("1.0", 1.0)
V2 = Version("2.0", 2.0, wide=16384)
V3 = Version("3.0", 3.0)
FAILING = Version("4.0", 4.0, fails=True)
WRONG = Version("5.0", 5.0, golden_shift=1.0)
V6 = Version("6.0", 6.0)
VERSIONS = {each.version: each for each in (V1, V2, V3, FAILING, WRONG, V6)}


# -- the publisher and the broker -----------------------------------------------------------------


class Ear:
    """Hears telemetry and events; one identity must never stand for two different messages."""

    def __init__(self, url: str) -> None:
        self.heard: dict[str, bytes] = {}
        self.clashes: list[str] = []
        config = LinkConfig(broker=broker_url.parse(url), client_id="ear")
        self.link = Link(config, on_message=self._hear)
        self.link.start(60)
        self.link.subscribe([f"{TOPICS.root}/d/+/ev", f"{TOPICS.root}/t/#"]).wait(10)

    def _hear(self, message: Message) -> None:
        from edge_contract import messages, telemetry

        if message.topic.endswith("/ev"):
            event = messages.decode(message.payload, messages.Event)
            key = f"event {event.boot}-{event.seq}"
        else:
            record = telemetry.decode(message.payload)
            key = f"record {record.boot}-{record.seq}"
        if self.heard.setdefault(key, message.payload) != message.payload:
            self.clashes.append(key)

    def stop(self) -> None:
        self.link.stop()


class World:
    """A publisher with its broker, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.broker = BrokerThread()
        self.broker.start()
        self.publisher = beside("agent/device/conftest.py").Publisher(
            folder / "keys", self.broker.url
        )
        self._revision = 0

    @property
    def url(self) -> str:
        return str(self.broker.url)

    @property
    def root(self) -> bytes:
        return bytes(self.publisher.repository.shelf.first_root())

    def publish(self, version: Version, *, candidate: bool = False) -> None:
        self.publisher.publish(version.sealed(), candidate=candidate)

    def rotate(self, times: int) -> None:
        """A new root that changes the root's, the snapshot's and the timestamp's keys."""
        from edge_release import keys, metadata, roles

        repository = self.publisher.repository
        folder = repository.folder
        for _ in range(times):
            root = repository.shelf.read().root
            signers = [keys.load(folder, roles.ROOT)]
            for role in (roles.ROOT, roles.SNAPSHOT, roles.TIMESTAMP):
                fresh = keys.generate()
                root.revoke_key(root.roles[role].keyids[0], role)
                root.add_key(fresh.public_key, role)
                keys.path(folder, role).unlink()
                keys.write(folder, role, fresh)
            root.version += 1
            signers.append(keys.load(folder, roles.ROOT))
            sealed = metadata.seal(root, signers)
            repository.shelf.write_metadata({f"{root.version}.root.json": sealed})

    def retained(self) -> dict[str, bytes]:
        """All that the broker keeps, less what the device said of itself."""
        own = f"{TOPICS.root}/d/{DEVICE}/"
        kept = self.broker.retained("#")
        return {
            topic: bytes(data) for topic, data in kept.items()
            if not topic.startswith(own) or topic.endswith("/desired")
        }  # fmt: skip

    def stop(self) -> None:
        self.broker.stop()


# -- the device ----------------------------------------------------------------------------------


def write_settings(top: Path, url: str, **settings: dict[str, Any]) -> Path:
    """``top/agent.toml`` of a device whose folder is ``top/state``."""
    sections: dict[str, dict[str, Any]] = {
        "agent": {"device": DEVICE, "fleet": FLEET, "folder": "state"},
        "broker": {"url": url},
        **SETTINGS,
    }
    for section, values in settings.items():
        sections[section] = {**sections.get(section, {}), **values}
    path = top / "agent.toml"
    top.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(
            f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in each.items())
            for name, each in sections.items()
        )
    )
    return path


def tree_on(folder: Path) -> Tree:
    """What lies in a real folder."""
    tree: Tree = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            tree[name] = str(path.readlink())
        else:
            tree[name] = None if path.is_dir() else path.read_bytes()
    return tree


def put_on(tree: Tree, folder: Path) -> None:
    """Make a real folder hold ``tree`` and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in sorted(tree):
        content, path = tree[name], folder / name
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)


@dataclass(frozen=True)
class Goal:
    """Where a device has to get to by itself.

    ``answers``: versions that were signed and may answer on the way. ``bad_rows``: requests that
    the failing version cannot answer come in meanwhile.
    """

    version: str
    phase: str
    answers: frozenset[str]
    bad_rows: bool = False
    quarantined: tuple[str, ...] = ()


@dataclass
class Scene:
    """One story as it was recorded.

    ``before``: the folder at its beginning, all of it flushed. ``after``: at its end. ``logs``:
    of strace, a life each. ``retained``: what the broker keeps at the end. ``heard``: what the
    device sent, by identity. ``url``: of the broker, as the settings name it.
    """

    name: str
    goal: Goal
    url: str
    before: Tree
    after: Tree = field(default_factory=dict)
    logs: list[Path] = field(default_factory=list)
    retained: dict[str, bytes] = field(default_factory=dict)
    heard: dict[str, bytes] = field(default_factory=dict)
    root: bytes = b""

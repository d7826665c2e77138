"""Bundles and repositories for tests of trust and delivery."""

from __future__ import annotations

import datetime
import functools
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.delivery import Delivery, DeliveryConfig, Refreshed
from edge_contract import broker_url, chunks
from edge_contract import bundle as bundles
from edge_contract import manifest as manifests
from edge_contract.bundle import Bundle
from edge_contract.manifest import (
    MODEL_FILE,
    Compression,
    Manifest,
    Outputs,
    Parity,
    Provenance,
    Runtime,
    Tensor,
)
from edge_contract.messages import Release
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_contract.topics import Topics
from edge_fleet.broker import BrokerThread, MosquittoProcess
from edge_release import create, fingerprint
from edge_release.publication import Synced, connect, sync
from edge_release.repository import Published, Repository

NOW = datetime.datetime(2026, 5, 4, 12, 0, tzinfo=datetime.UTC)


_encoded = functools.lru_cache(maxsize=64)(bundles.encode_member)


def make_bundle(
    version: str = "1.0",
    *,
    name: str = "pump",
    size_bytes: int = 300_000,
    seed: int = 1,
    extra: dict[str, bytes] | None = None,
) -> Bundle:
    """A valid bundle whose model is ``size_bytes`` of incompressible bytes."""
    raw = {MODEL_FILE: random.Random(seed).randbytes(size_bytes), **(extra or {})}
    members = {key: _encoded(key, value) for key, value in raw.items()}
    manifest = Manifest(
        schema=manifests.SCHEMA,
        name=name,
        version=version,
        task="tensors",
        features=(),
        inputs=(Tensor(name="x", dtype="float32", shape=(None, 4)),),
        outputs=Outputs(tensors=("y",)),
        files=tuple(file for file, _ in members.values()),
        runtime=Runtime(
            ir=8, opsets={"": 17}, ops=("Gemm",), onnxruntime="1.18", ram_bytes=1_000_000
        ),
        compression=Compression(mode="none", stock_bytes=size_bytes),
        parity=Parity(
            rows=400, flips=0, flips_max=0.001, diff_max=0.0, diff_p99=0.0, diff_budget=1e-4
        ),
        provenance=Provenance(
            source_sha256="0" * 64, source_type="onnx", libraries={"onnx": "1.17"}
        ),
    )
    return bundles.read(
        bundles.write(
            manifests.encode(manifest), {key: stored for key, (_, stored) in members.items()}
        )
    )


@pytest.fixture
def now() -> datetime.datetime:
    """The time at which everything is signed."""
    return NOW


@pytest.fixture
def new_bundle() -> Callable[..., Bundle]:
    """``make_bundle``."""
    return make_bundle


@pytest.fixture
def keys_dir(tmp_path: Path) -> Path:
    """A folder of keys with a fresh repository of profile ``home``."""
    folder = tmp_path / "keys"
    create(folder, "home", now=NOW)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` with its bytes: for "and nothing changed"."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass
class World:
    """A publisher, a broker and devices."""

    url: str
    folder: Path
    topics: Topics = field(default_factory=lambda: Topics("home"))

    @property
    def keys_dir(self) -> Path:
        return self.folder / "keys"

    @property
    def repository(self) -> Repository:
        return Repository(self.keys_dir)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.repository.shelf.first_root())

    def link_config(self, name: str) -> LinkConfig:
        return LinkConfig(broker=broker_url.parse(self.url), client_id=name)

    def publish(
        self, bundle: Bundle, *, now: datetime.datetime = NOW, candidate: bool = False
    ) -> Published:
        """Sign and put."""
        published = self.repository.publish(
            bundle, fleet="home", channel="stable", candidate=candidate, now=now
        )
        self.sync()
        return published

    def sync(self) -> Synced:
        return self.sync_from(self.repository)

    def sync_from(self, repository: Repository) -> Synced:
        with connect(self.link_config("publisher"), self.topics) as broker:
            return sync(repository, self.topics, broker)

    def put(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """What anybody with a broker password can do."""
        link = Link(self.link_config("mallory"))
        link.start(60)
        try:
            link.publish(topic, payload, retain=retain).wait(60)
        finally:
            link.stop()

    def delivery(
        self, device: str = "dev", *, enroll: bool = True, profile: str = "home"
    ) -> Delivery:
        config = DeliveryConfig(
            folder=self.folder / device,
            broker=broker_url.parse(self.url),
            topics=self.topics,
            device=device,
            profile=profile,  # type: ignore[arg-type]
            connect_timeout_s=3.0,
            silence_s=0.3,
        )
        made = Delivery(config)
        if enroll and not made.enrolled:
            made.enroll(root=self.repository.shelf.first_root())
        return made

    def refresh(self, delivery: Delivery, *, now: datetime.datetime = NOW) -> Refreshed:
        return delivery.refresh(now=now, synchronised=True)

    def fetch(
        self,
        delivery: Delivery,
        release: Release,
        *,
        name: str = "pump",
        accept: Callable[[Manifest], None] = lambda manifest: None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        stop: threading.Event | None = None,
    ) -> Path:
        """Fetch into the device's slots; returns the slot."""
        into = delivery.config.folder / "slots" / release.sha256
        delivery.fetch(
            release,
            name=name,
            into=into,
            accept=accept,
            progress=progress,
            stop=stop or threading.Event(),
        )
        return into

    def chunk_digests(self, bundle: Bundle) -> list[str]:
        """Digests of the bundle's data chunks, indexes left out."""
        return [
            piece.sha256
            for file in bundle.manifest.files
            for piece in chunks.plan(file, chunks.index_of(bundle.stored[file.name]))
        ]


@pytest.fixture
def world(any_broker: BrokerThread | MosquittoProcess, tmp_path: Path) -> World:
    """Fresh keys of profile ``home`` and each broker in turn."""
    create(tmp_path / "keys", "home", now=NOW)
    return World(any_broker.url, tmp_path)


@pytest.fixture
def make_world() -> Callable[[str, Path], World]:
    """A ``World`` at a broker's URL, with fresh keys where there are none."""

    def make(url: str, folder: Path) -> World:
        if not (folder / "keys").exists():
            create(folder / "keys", "home", now=NOW)
        return World(url, folder)

    return make


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[tuple[World, BrokerThread]]:
    """The same with the embedded broker, whose taps lie."""
    create(tmp_path / "keys", "home", now=NOW)
    with BrokerThread() as broker:
        yield World(broker.url, tmp_path), broker


@pytest.fixture
def files() -> Callable[[Path], dict[str, bytes]]:
    """``tree``."""
    return tree


@pytest.fixture
def embedded() -> Iterator[BrokerThread]:
    """An empty embedded broker."""
    with BrokerThread() as broker:
        yield broker

"""A real signing repository of ours, a device that trusts it, and the bytes between them.

What is published is a mapping of files, so that a thief can put others in their place; the device
is the agent's own ``Trust``.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.delivery.freshness import Profile
from edge_agent.delivery.trust import Refreshed, Trust
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
from edge_release import create, metadata
from edge_release.repository import Repository

START = datetime.datetime(2026, 5, 4, 12, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
YEAR = 365 * DAY
FLEET, CHANNEL, MODEL = "home", "stable", "pump"


def make_bundle(version: str, *, seed: int = 1, name: str = MODEL) -> Bundle:
    """A valid bundle whose model is a few incompressible bytes."""
    file, stored = bundles.encode_member(MODEL_FILE, random.Random(seed).randbytes(200))
    made = Manifest(
        schema=manifests.SCHEMA,
        name=name,
        version=version,
        task="tensors",
        features=(),
        inputs=(Tensor(name="x", dtype="float32", shape=(None, 4)),),
        outputs=Outputs(tensors=("y",)),
        files=(file,),
        runtime=Runtime(
            ir=8, opsets={"": 17}, ops=("Gemm",), onnxruntime="1.18", ram_bytes=1_000_000
        ),
        compression=Compression(mode="none", stock_bytes=200),
        parity=Parity(
            rows=400, flips=0, flips_max=0.001, diff_max=0.0, diff_p99=0.0, diff_budget=1e-4
        ),
        provenance=Provenance(
            source_sha256="0" * 64, source_type="onnx", libraries={"onnx": "1.17"}
        ),
    )
    return bundles.read(bundles.write(manifests.encode(made), {MODEL_FILE: stored}))


class Served(FetcherInterface):
    """Files as a broker or a server holds them; what was asked for is recorded."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked.append(url)
        if url not in self.files:
            raise DownloadHTTPError(url, 404)
        yield self.files[url]


@dataclass
class Publisher:
    """Keys and repository of ours in a folder, made at ``START``."""

    folder: Path
    profile: Profile
    repository: Repository = field(init=False)

    def __post_init__(self) -> None:
        create(self.folder, self.profile, now=START)
        self.repository = Repository(self.folder)

    def publish(self, version: str, now: datetime.datetime = START, seed: int = 1) -> Release:
        """Sign a version and point the channel at it."""
        bundle = make_bundle(version, seed=seed)
        return self.repository.publish(bundle, fleet=FLEET, channel=CHANNEL, now=now).release

    def files(self) -> dict[str, bytes]:
        """All that is published, as the device's fetcher names it."""
        found = {}
        for kind, name in (("m", "metadata"), ("t", "targets")):
            folder = self.repository.shelf.path / name
            for path in folder.rglob("*"):
                if path.is_file():
                    found[f"{kind}/{path.relative_to(folder)}"] = path.read_bytes()
        return found

    def signers(self, role: str) -> list[Signer]:
        """All keys of a role that are here: what a thief of them has."""
        state = self.repository.shelf.read()
        keys, _ = metadata.keys_of(state.delegator(role), role)
        return [self.repository.ring.signer(key.keyid) for key in keys]


@dataclass
class Device:
    """A device enrolled with the publisher's first root."""

    folder: Path
    publisher: Publisher
    profile: Profile = "home"
    trust: Trust = field(init=False)

    def __post_init__(self) -> None:
        self.trust = Trust(self.folder, fleet=FLEET, channel=CHANNEL, profile=self.profile)
        if not self.trust.enrolled:
            self.trust.pin(self.publisher.repository.shelf.first_root())

    def refresh(
        self,
        now: datetime.datetime = START,
        *,
        files: Mapping[str, bytes] | None = None,
        synchronised: bool = True,
    ) -> Refreshed:
        """Look at what is published, or at what a thief put there."""
        served = Served(self.publisher.files() if files is None else files)
        return self.trust.refresh(served, now=now, synchronised=synchronised)

    def manifest(self, release: Release, files: Mapping[str, bytes] | None = None) -> Manifest:
        """The verified manifest of a release that the pointer names."""
        served = Served(self.publisher.files() if files is None else files)
        return self.trust.manifest(served, release, name=MODEL)[0]

    def believed(self) -> dict[str, bytes]:
        """Everything that this device keeps on disk."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }

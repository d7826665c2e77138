"""A real signing repository of ours, a device that trusts it, and the bytes between them.

What is published is a mapping of files, so that a thief can put others in their place; the device
is the agent's own ``Trust``.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import DelegatedRole, Delegations, MetaFile, TargetFile, Targets
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.delivery.freshness import Profile
from edge_agent.delivery.trust import Refreshed, Trust
from edge_contract import bundle as bundles
from edge_contract import manifest as manifests
from edge_contract import messages
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
from edge_contract.messages import Pointer, Release, Track
from edge_release import create, metadata, roles
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


class Thief:
    """Forges what is published with the keys of ``stolen`` and keys of its own.

    Args:
        ahead: by how much more than one the versions rise.
    """

    def __init__(
        self,
        publisher: Publisher,
        stolen: Iterable[str],
        now: datetime.datetime = START,
        ahead: int = 0,
    ) -> None:
        self.publisher = publisher
        self.ahead = ahead
        self.stolen = set(stolen)
        self.now = now
        self.files = publisher.files()
        self.state = publisher.repository.shelf.read()
        self.own = CryptoSigner.generate_ed25519()

    def forge(self, release: Release, manifest: bytes = b"", *, bluff: bool) -> dict[str, bytes]:
        """Have the channel name ``release``; with ``manifest`` also as a genuine one.

        ``bluff``: sign for every role, with an own key where none was stolen; else sign only for
        roles whose key is there, and leave the others as they are.
        """
        targets = self.state.targets
        if manifest:
            self.add(targets[roles.MODELS], release.path, manifest)
        track = Track(stable=release)
        pointer = messages.encode(Pointer(fleet=FLEET, channel=CHANNEL, models={MODEL: track}))
        self.add(targets[roles.ROLLOUT], messages.pointer_path(FLEET, CHANNEL), pointer)
        if roles.TARGETS in self.stolen:
            self._delegate_to_itself(targets[roles.TARGETS])
        elif not bluff and not {roles.ROLLOUT, roles.MODELS} & self.stolen:
            return self.files
        for role in (roles.MODELS, roles.ROLLOUT, roles.TARGETS):
            self.seal(role, targets[role], bluff=bluff)
        for role in (roles.MODELS, roles.ROLLOUT, roles.TARGETS):
            version, data = self.newest(role)
            self.state.snapshot.meta[f"{role}.json"] = MetaFile.from_data(version, data, ["sha256"])
        self.seal(roles.SNAPSHOT, self.state.snapshot, bluff=bluff)
        version, data = self.newest(roles.SNAPSHOT)
        self.state.timestamp.snapshot_meta = MetaFile.from_data(version, data, ["sha256"])
        self.seal(roles.TIMESTAMP, self.state.timestamp, bluff=bluff)
        return self.files

    def add(self, role: Targets, path: str, data: bytes) -> None:
        info = TargetFile.from_data(path, data, ["sha256"])
        role.targets[path] = info
        folder, _, name = path.rpartition("/")
        self.files[f"t/{folder}/{info.hashes['sha256']}.{name}"] = data

    def _delegate_to_itself(self, targets: Targets) -> None:
        entries = {
            role: DelegatedRole(role, [self.own.public_key.keyid], 1, True, paths=list(paths))
            for role, paths in roles.PATHS.items()
        }
        targets.delegations = Delegations({self.own.public_key.keyid: self.own.public_key}, entries)

    def seal(self, role: str, signed: object, *, bluff: bool) -> None:
        signers: list[Signer] = [self.own]
        if role in self.stolen:
            signers = self.publisher.signers(role)
        elif not bluff and not (role in roles.PATHS and roles.TARGETS in self.stolen):
            return
        if role in roles.PATHS and roles.TARGETS in self.stolen:
            signers = [self.own]
        signed.version += 1 + self.ahead  # type: ignore[attr-defined]
        signed.expires = self.now + YEAR  # type: ignore[attr-defined]
        name = "timestamp.json" if role == roles.TIMESTAMP else f"{signed.version}.{role}.json"  # type: ignore[attr-defined]
        self.files[f"m/{name}"] = metadata.seal(signed, signers)  # type: ignore[type-var]

    def newest(self, role: str) -> tuple[int, bytes]:
        versions = [
            int(name.removeprefix("m/").partition(".")[0])
            for name in self.files
            if name.endswith(f".{role}.json")
        ]
        newest = max(versions)
        return newest, self.files[f"m/{newest}.{role}.json"]

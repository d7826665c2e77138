"""The repository's files: what was signed, on the publisher's disk.

    settings.json                     the profile
    lock                              one publisher at a time
    metadata/<N>.<role>.json          immutable versions; metadata/timestamp.json is the newest
    targets/<dir>/<sha256>.<file>     manifests and pointers
    members/<sha256>                  stored members of bundles, to put on a broker again

Guards: every file but ``timestamp.json`` is written under a name that nothing refers to yet, and
``timestamp.json`` is replaced last: a publisher that is killed at any point leaves the former
state, whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from edge_contract import wire
from edge_contract.errors import InputFault, MachineFault
from edge_contract.names import check_sha256
from edge_contract.ports.disk import read_bounded, write_atomic
from edge_release import metadata, roles
from edge_release.roles import Profile

FOLDER = "repository"
METADATA_MAX_BYTES = 5_000_000
"""As tuf.ngclient takes targets metadata."""
MEMBER_MAX_BYTES = 2 * 1024**3
_SETTINGS_MAX_BYTES = 4096
_LOCK_POLL_S = 0.1


class Settings(Struct, frozen=True, kw_only=True):
    """What was chosen when the repository was made."""

    schema: int = 1
    profile: Profile


@dataclass
class State:
    """One consistent state: each role's signed part with its bytes, as ``timestamp`` names it."""

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: dict[str, Targets]
    files: dict[str, bytes] = field(default_factory=dict)
    """Metadata file name -> bytes, of everything in this state."""


def versioned(role: str, version: int) -> str:
    """The file of an immutable version of a role."""
    return f"{version}.{role}.json"


def prefixed(path: str, sha256: str) -> str:
    """A target's path with its digest before the file name, as consistent snapshots want it."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{sha256}.{name}" if folder else f"{sha256}.{name}"


class Shelf:
    """Reads and writes the files below ``DIR/repository``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FOLDER

    @property
    def exists(self) -> bool:
        """Whether a repository was made here."""
        return (self.path / "settings.json").is_file()

    def profile(self) -> Profile:
        """The repository's profile. Raises InputFault when there is no repository here."""
        if not self.exists:
            raise InputFault(
                f"there is no signing repository in {self.folder}",
                advice=f"Make one with `edge-pack keys init {self.folder}`.",
            )
        data = read_bounded(self.path / "settings.json", _SETTINGS_MAX_BYTES)
        return wire.decode_json(data, Settings, size_max=_SETTINGS_MAX_BYTES).profile

    def write_settings(self, profile: Profile) -> None:
        """Keep the profile: the last step of making a repository."""
        write_atomic(self.path / "settings.json", wire.encode_json(Settings(profile=profile)))

    @contextlib.contextmanager
    def locked(self, wait_s: float = 30.0) -> Iterator[None]:
        """Hold the repository; the kernel lets go when the process ends, however it ends.

        Raises MachineFault when another publisher holds it for longer than ``wait_s``.
        """
        self.profile()
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_s
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise MachineFault(
                            f"another publisher is at work in {self.folder}",
                            advice="Wait until it is done, then publish again.",
                        ) from error
                    time.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(handle)

    # -- metadata --------------------------------------------------------------------------

    def read(self) -> State:
        """The newest state. Raises InputFault when a file is missing or damaged."""
        self.profile()
        files: dict[str, bytes] = {}

        def take(name: str) -> bytes:
            files[name] = read_bounded(self.path / "metadata" / name, METADATA_MAX_BYTES)
            return files[name]

        for version in range(1, self._root_version() + 1):
            newest = take(versioned(roles.ROOT, version))
        root = metadata.parse(newest, Root, "root.json")
        timestamp = metadata.parse(take("timestamp.json"), Timestamp, "timestamp.json")
        version = timestamp.snapshot_meta.version
        snapshot = metadata.parse(
            take(versioned(roles.SNAPSHOT, version)), Snapshot, "snapshot.json"
        )
        targets = {}
        for file, meta in snapshot.meta.items():
            role = file.removesuffix(".json")
            targets[role] = metadata.parse(take(versioned(role, meta.version)), Targets, file)
        return State(root, timestamp, snapshot, targets, files)

    def write_metadata(self, files: dict[str, bytes]) -> None:
        """Add metadata files in the given order; ``timestamp.json`` has to be the last."""
        assert "timestamp.json" not in list(files)[:-1]
        for name, data in files.items():
            write_atomic(self.path / "metadata" / name, data)

    def first_root(self) -> bytes:
        """The bytes of root version 1, which devices pin."""
        self.profile()
        return read_bounded(self.path / "metadata" / "1.root.json", METADATA_MAX_BYTES)

    def _root_version(self) -> int:
        version = 1
        while (self.path / "metadata" / versioned(roles.ROOT, version + 1)).is_file():
            version += 1
        return version

    # -- targets and members ---------------------------------------------------------------

    def write_target(self, path: str, data: bytes) -> None:
        """Keep a target under its digest."""
        digest = hashlib.sha256(data).hexdigest()
        file = self.path / "targets" / prefixed(path, digest)
        if not file.is_file():
            write_atomic(file, data)

    def target(self, path: str, sha256: str) -> bytes:
        """A target's bytes. Raises InputFault when they are missing or damaged."""
        data = read_bounded(
            self.path / "targets" / prefixed(path, check_sha256(sha256, "target")),
            METADATA_MAX_BYTES,
        )
        return _intact(data, sha256, f"target {path}")

    def write_member(self, sha256: str, stored: bytes) -> None:
        """Keep a stored member under its digest."""
        file = self.path / "members" / check_sha256(sha256, "member")
        if not file.is_file() or file.stat().st_size != len(stored):
            write_atomic(file, stored)

    def member(self, sha256: str) -> bytes:
        """A stored member's bytes. Raises InputFault when they are missing or damaged."""
        file = self.path / "members" / check_sha256(sha256, "member")
        return _intact(read_bounded(file, MEMBER_MAX_BYTES), sha256, f"member {sha256}")


def _intact(data: bytes, sha256: str, what: str) -> bytes:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputFault(
            f"{what} in the repository is damaged: its digest is another one",
            advice="Publish its bundle again.",
        )
    return data

"""The repository's files: what was signed, on the publisher's disk.

    settings.json                     the profile
    lock                              one publisher at a time
    metadata/<N>.<role>.json          immutable versions; metadata/timestamp.json is the newest
    targets/<dir>/<sha256>.<file>     manifests and pointers
    members/<sha256>                  stored members of bundles, to put on a broker again
    pending.json                      a change of keys that waits for signatures, see ``pending``
    audit.jsonl                       who changed what, see ``audit``
    retired.json                      digests of versions that ``gc`` removed

Guards: every file but ``timestamp.json`` is written under a name that nothing refers to yet, and
``timestamp.json``, which also names the root version, is replaced last: a publisher that is killed
at any point leaves the former state, whole. What is read back is verified as a device would.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import Struct
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import MetaFile, Root, Snapshot, Targets, Timestamp

from edge_contract import wire
from edge_contract.errors import InputFault, MachineFault
from edge_contract.names import check_sha256
from edge_contract.ports.disk import read_bounded, write_atomic
from edge_release import audit, metadata, roles
from edge_release.audit import Head
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


class Retired(Struct, frozen=True, kw_only=True):
    """Versions that were removed, by path and SHA-256 of their manifest."""

    schema: int = 1
    versions: dict[str, str] = {}


@dataclass
class State:
    """One consistent state: each role's signed part with its bytes, as ``timestamp`` names it."""

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: dict[str, Targets]
    files: dict[str, bytes] = field(default_factory=dict)
    """Metadata file name -> bytes, of everything in this state; of root, the newest version."""

    def delegator(self, role: str) -> Root | Targets:
        """Who names the keys of a role."""
        return self.targets[roles.TARGETS] if role in roles.PATHS else self.root

    def signed(self, role: str) -> Root | Timestamp | Snapshot | Targets:
        """A role's signed part."""
        match role:
            case roles.ROOT:
                return self.root
            case roles.SNAPSHOT:
                return self.snapshot
            case roles.TIMESTAMP:
                return self.timestamp
        return self.targets[role]


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

        data = take("timestamp.json")
        timestamp = metadata.parse(data, Timestamp, "timestamp.json")
        root = self._root(timestamp, take)
        metadata.verify(root, roles.TIMESTAMP, data, Timestamp, "timestamp.json")
        name = versioned(roles.SNAPSHOT, timestamp.snapshot_meta.version)
        data = _listed(timestamp.snapshot_meta, take(name), name)
        snapshot = metadata.verify(root, roles.SNAPSHOT, data, Snapshot, name)
        state = State(root, timestamp, snapshot, {}, files)
        # The delegator comes before those whose keys it names.
        for role in sorted(_roles_in(snapshot), key=lambda role: role != roles.TARGETS):
            meta = snapshot.meta[f"{role}.json"]
            name = versioned(role, meta.version)
            data = _listed(meta, take(name), name)
            state.targets[role] = metadata.verify(state.delegator(role), role, data, Targets, name)
        return state

    def _root(self, timestamp: Timestamp, take: Callable[[str], bytes]) -> Root:
        """The root that the timestamp was signed under, and that it follows from the one before."""
        version = timestamp.unrecognized_fields.get(metadata.ROOT_VERSION)
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            version = self._root_version()
        name = versioned(roles.ROOT, version)
        data = take(name)
        root = metadata.verify(metadata.parse(data, Root, name), roles.ROOT, data, Root, name)
        if root.version != version:
            raise InputFault(f"{name} is version {root.version} of root")
        if version > 1:
            former = metadata.parse(self.root(version - 1), Root, f"{version - 1}.root.json")
            metadata.verify(former, roles.ROOT, data, Root, name)
        return root

    def check_roots(self, state: State) -> None:
        """Every root follows from the one before it. Raises InputFault: a device would stop."""
        former: Root | None = None
        for version in range(1, state.root.version + 1):
            name = versioned(roles.ROOT, version)
            data = self.root(version)
            signed = metadata.parse(data, Root, name)
            metadata.verify(former or signed, roles.ROOT, data, Root, name)
            former = signed

    def write_metadata(self, files: dict[str, bytes]) -> None:
        """Add metadata files in the given order; ``timestamp.json`` has to be the last."""
        assert "timestamp.json" not in list(files)[:-1]
        for name, data in files.items():
            write_atomic(self.path / "metadata" / name, data)

    def first_root(self) -> bytes:
        """The bytes of root version 1, which devices pin."""
        self.profile()
        return self.root(1)

    def root(self, version: int) -> bytes:
        """The bytes of any version of root. Raises InputFault when they are missing."""
        name = versioned(roles.ROOT, version)
        return read_bounded(self.path / "metadata" / name, METADATA_MAX_BYTES)

    def _root_version(self) -> int:
        version = 1
        while (self.path / "metadata" / versioned(roles.ROOT, version + 1)).is_file():
            version += 1
        return version

    # -- the audit log and what waits -------------------------------------------------------

    def record(self, after: Timestamp, **entry: Any) -> Head:
        """Add an entry to the audit log behind what ``after`` counts, see ``audit.append``."""
        return audit.append(self.path / "audit.jsonl", self.head(after), **entry)

    def head(self, timestamp: Timestamp) -> Head | None:
        """Where the audit log ended when ``timestamp`` was signed."""
        return audit.head_of(timestamp.unrecognized_fields.get(metadata.AUDIT, {}))

    def log(self) -> bytes:
        """The audit log's bytes."""
        file = self.path / "audit.jsonl"
        return read_bounded(file, audit.LOG_MAX_BYTES) if file.is_file() else b""

    @property
    def pending(self) -> Path:
        """Where a change of keys waits for signatures."""
        return self.path / "pending.json"

    def retired(self) -> dict[str, str]:
        """Manifest path -> SHA-256 of every version that was published and removed."""
        file = self.path / "retired.json"
        if not file.is_file():
            return {}
        data = read_bounded(file, METADATA_MAX_BYTES)
        return wire.decode_json(data, Retired, size_max=METADATA_MAX_BYTES).versions

    def write_retired(self, versions: dict[str, str]) -> None:
        """Remember versions whose bytes may never become others."""
        data = wire.encode_json(Retired(versions=dict(sorted(versions.items()))))
        write_atomic(self.path / "retired.json", data)

    # -- targets and members ---------------------------------------------------------------

    def write_target(self, path: str, data: bytes) -> None:
        """Keep a target under its digest; one that was damaged there is replaced."""
        digest = hashlib.sha256(data).hexdigest()
        try:
            self.target(path, digest)
        except InputFault:
            write_atomic(self.path / "targets" / prefixed(path, digest), data)

    def target(self, path: str, sha256: str) -> bytes:
        """A target's bytes. Raises InputFault when they are missing or damaged."""
        data = read_bounded(
            self.path / "targets" / prefixed(path, check_sha256(sha256, "target")),
            METADATA_MAX_BYTES,
        )
        return _intact(data, sha256, f"target {path}")

    def write_member(self, sha256: str, stored: bytes) -> None:
        """Keep a stored member under its digest; one that was damaged there is replaced."""
        file = self.path / "members" / check_sha256(sha256, "member")
        try:
            self.member(sha256)
        except InputFault:
            write_atomic(file, stored)

    def member(self, sha256: str) -> bytes:
        """A stored member's bytes. Raises InputFault when they are missing or damaged."""
        file = self.path / "members" / check_sha256(sha256, "member")
        return _intact(read_bounded(file, MEMBER_MAX_BYTES), sha256, f"member {sha256}")


def _roles_in(snapshot: Snapshot) -> list[str]:
    return [file.removesuffix(".json") for file in snapshot.meta]


def _listed(meta: MetaFile, data: bytes, name: str) -> bytes:
    """The bytes, if they are those that the metadata above lists."""
    try:
        meta.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise InputFault(
            f"{name} in the repository is damaged: {error}",
            advice="Bring it back from a copy of the folder.",
        ) from error
    return data


def _intact(data: bytes, sha256: str, what: str) -> bytes:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputFault(
            f"{what} in the repository is damaged: its digest is another one",
            advice="Publish its bundle again.",
        )
    return data

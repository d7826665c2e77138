"""The anchor of trust, and python-tuf's updater as this device runs it.

Guards: only a root signed by itself is pinned; what the updater verified is durable before it goes
on; expiry is judged at the time it is given, never at a clock that nobody keeps; a key that is
listed twice does not count twice.

python-tuf offers no public way to give it a time or to write durably, so this reaches into the
names of its ``Updater`` that ``LEANED_ON`` lists. ``pyproject.toml`` allows the versions that were
looked at, and an updater that lacks one of them refuses to work instead of judging by the clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Key, Metadata, Role, Root, Signed, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.delivery import fetcher as fetchers
from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports.disk import make_folder, write_atomic

ROOT_MAX_BYTES = 512_000
ROTATIONS_MAX = 1024
"""Roots followed in one refresh; the next refresh goes on from there."""
LEANED_ON = ("_persist_file", "_update_root_symlink", "_trusted_set")
"""What of python-tuf's inside is overridden or read here; of the last, ``reference_time`` too."""


def check_root(root: bytes) -> None:
    """Raise InputFault when ``root`` is not root metadata signed by itself."""
    if len(root) > ROOT_MAX_BYTES:
        raise InputFault(f"the root is {len(root)} bytes, over the limit of {ROOT_MAX_BYTES}")
    try:
        wrapped = Metadata[Root].from_bytes(root)
        if not isinstance(wrapped.signed, Root):
            raise InputFault(f"this is {wrapped.signed.type} metadata, not a root")
        wrapped.signed.verify_delegate(Root.type, wrapped.signed_bytes, wrapped.signatures)
        check_distinct(wrapped.signed)
    except (RepositoryError, ValueError) as error:
        raise InputFault(f"this is not a root signed by itself: {error}") from error


def check_distinct(delegator: Root | Targets) -> None:
    """Raise RepositoryError when a role lists one key under two ids, which would count twice."""
    for name, role in _roles(delegator):
        keys = _keys(delegator)
        if len(_public(role, keys)) < sum(keyid in keys for keyid in role.keyids):
            raise RepositoryError(f"the role {name} lists one key under two ids")


def fingerprint(root: bytes) -> str:
    """How a person names a root: ``sha256:`` and the digest of its bytes."""
    return f"sha256:{hashlib.sha256(root).hexdigest()}"


class DurableUpdater(Updater):
    """python-tuf's updater at a given time, whose files survive a power cut.

    ``root.json`` is a plain copy of the trusted root, for tools; python-tuf makes it a symbolic
    link anew at each refresh, which FAT refuses and flash does not like.
    """

    def __init__(
        self, folder: Path, pinned: bytes, fetcher: FetcherInterface, at: datetime
    ) -> None:
        check_library(Updater)
        make_folder(folder / "root_history")
        known = sum(1 for _ in (folder / "root_history").glob("*.root.json"))
        self._folder = folder
        self._refreshing = False
        super().__init__(
            metadata_dir=str(folder),
            metadata_base_url=fetchers.METADATA,
            target_base_url=fetchers.TARGETS,
            fetcher=fetcher,
            config=UpdaterConfig(max_root_rotations=known + ROTATIONS_MAX),
            bootstrap=pinned,
        )
        judge_at(self._trusted_set, at)

    def refresh(self) -> None:
        """As python-tuf's, and no key of root or targets counts twice."""
        self._refreshing = True
        super().refresh()
        check_distinct(self._trusted_set.root)
        check_distinct(self._trusted_set.targets)

    def _persist_file(self, filename: str, data: bytes) -> None:
        path = Path(filename)
        if not (path.is_file() and path.read_bytes() == data):
            write_atomic(path, data)

    def _update_root_symlink(self) -> None:
        copy = self._folder / "root.json"
        if self._refreshing or not copy.is_file():
            version = self._trusted_set.root.version
            history = self._folder / "root_history" / f"{version}.root.json"
            self._persist_file(str(copy), history.read_bytes())

    # -- what was verified -----------------------------------------------------------------

    @property
    def signed_at(self) -> str:
        """When the timestamp says it was signed, or ""."""
        timestamp: Timestamp = self._trusted_set.timestamp
        return str(timestamp.unrecognized_fields.get("signed_at", ""))

    @property
    def first_end(self) -> datetime:
        """When the first of the metadata that was verified ends."""
        signed: Iterable[Signed] = self._trusted_set
        return min(each.expires for each in signed)

    @property
    def consistent_snapshot(self) -> bool:
        """Whether the names of published files begin with a version or a digest."""
        return bool(self._trusted_set.root.consistent_snapshot)

    @property
    def timestamp_keys(self) -> str:
        """A digest of the keys that the trusted root lets sign timestamps."""
        root: Root = self._trusted_set.root
        public = sorted(_public(root.roles[Timestamp.type], root.keys))
        return hashlib.sha256("\n".join(public).encode()).hexdigest()


def check_library(updater: type) -> None:
    """Raise MachineFault when python-tuf's updater lacks what ``DurableUpdater`` overrides.

    It would write by another method then, and lose files in a power cut.
    """
    for name in LEANED_ON[:2]:
        if not callable(getattr(updater, name, None)):
            raise _unknown_library(name)


def judge_at(trusted: object, at: datetime) -> None:
    """Have python-tuf's set of trusted metadata judge expiry at ``at``.

    Raises MachineFault when it has no such time: it would judge by the raw clock, and say nothing.
    """
    if not isinstance(getattr(trusted, "reference_time", None), datetime):
        raise _unknown_library("_trusted_set.reference_time")
    trusted.reference_time = at  # type: ignore[attr-defined]


def _unknown_library(name: str) -> MachineFault:
    return MachineFault(
        f"the installed tuf package has no Updater.{name}",
        advice="Install the version that this release asks for: pip install --upgrade edge-pack.",
    )


def _roles(delegator: Root | Targets) -> Iterator[tuple[str, Role]]:
    if isinstance(delegator, Root):
        yield from delegator.roles.items()
    elif delegator.delegations is not None and delegator.delegations.roles is not None:
        yield from delegator.delegations.roles.items()


def _keys(delegator: Root | Targets) -> Mapping[str, Key]:
    if isinstance(delegator, Root):
        return delegator.keys
    return delegator.delegations.keys if delegator.delegations is not None else {}


def _public(role: Role, keys: Mapping[str, Key]) -> set[str]:
    """The public keys of a role, however their ids are written."""
    found = (keys[keyid] for keyid in role.keyids if keyid in keys)
    return {str(key.keyval.get("public", key.keyval)).strip().lower() for key in found}

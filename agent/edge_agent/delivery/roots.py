"""The anchor of trust, and python-tuf's updater as this device runs it.

Guards: only a root signed by itself is pinned; what the updater verified is durable before it goes
on; expiry is judged at the time it is given, never at a clock that nobody keeps.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.delivery import fetcher as fetchers
from edge_contract.errors import InputFault
from edge_contract.ports.disk import write_atomic

ROOT_MAX_BYTES = 512_000
ROTATIONS_MAX = 256
"""Roots followed in one refresh, as python-tuf does; the next refresh goes on from there."""


def check_root(root: bytes) -> None:
    """Raise InputFault when ``root`` is not root metadata signed by itself."""
    if len(root) > ROOT_MAX_BYTES:
        raise InputFault(f"the root is {len(root)} bytes, over the limit of {ROOT_MAX_BYTES}")
    try:
        wrapped = Metadata[Root].from_bytes(root)
        if not isinstance(wrapped.signed, Root):
            raise InputFault(f"this is {wrapped.signed.type} metadata, not a root")
        wrapped.signed.verify_delegate(Root.type, wrapped.signed_bytes, wrapped.signatures)
    except (RepositoryError, ValueError) as error:
        raise InputFault(f"this is not a root signed by itself: {error}") from error


def fingerprint(root: bytes) -> str:
    """How a person names a root: ``sha256:`` and the digest of its bytes."""
    return f"sha256:{hashlib.sha256(root).hexdigest()}"


class DurableUpdater(Updater):
    """python-tuf's updater at a given time, whose files survive a power cut."""

    def __init__(
        self, folder: Path, pinned: bytes, fetcher: FetcherInterface, at: datetime
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        known = sum(1 for _ in (folder / "root_history").glob("*.root.json"))
        super().__init__(
            metadata_dir=str(folder),
            metadata_base_url=fetchers.METADATA,
            target_base_url=fetchers.TARGETS,
            fetcher=fetcher,
            config=UpdaterConfig(max_root_rotations=known + ROTATIONS_MAX),
            bootstrap=pinned,
        )
        self._trusted_set.reference_time = at

    def _persist_file(self, filename: str, data: bytes) -> None:
        path = Path(filename)
        if not (path.is_file() and path.read_bytes() == data):
            write_atomic(path, data)

    @property
    def signed_at(self) -> str:
        """When the timestamp says it was signed, or ""."""
        return str(self._trusted_set.timestamp.unrecognized_fields.get("signed_at", ""))

    @property
    def root_expires(self) -> datetime:
        """When the trusted root ends."""
        return self._trusted_set.root.expires

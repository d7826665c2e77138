"""``edge-pack keys init``: keys and the first metadata, made once and all at once.

Guards: nothing that exists is overwritten; the folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Targets

from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports.disk import sync_directory
from edge_release import keys, metadata, roles
from edge_release.ring import Ring
from edge_release.roles import Profile
from edge_release.shelf import Shelf, versioned


def fingerprint(root: bytes) -> str:
    """How a person names a root: ``sha256:`` and the digest of root version 1's bytes."""
    return f"sha256:{hashlib.sha256(root).hexdigest()}"


def create(folder: Path, profile: Profile, *, now: datetime, passphrase: str = "") -> str:
    """Make keys and a repository in ``folder``; returns the root's fingerprint.

    Args:
        folder: does not exist yet, or is empty. now: time of signing, aware.
        passphrase: encrypts the private keys; "": they lie open.

    Raises InputFault when there is something in the folder, MachineFault when the disk refuses.
    """
    if passphrase:
        keys.check_passphrase(passphrase)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputFault(
            f"{folder} is there already and not empty; keys are never overwritten",
            advice="Name a new folder, or use the keys that are in this one.",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise MachineFault(f"cannot write beside {folder}: {error.strerror}") from error
    try:
        root = _fill(partial, profile, now, passphrase)
        os.replace(partial, folder)  # noqa: PTH105 - over an empty folder too
        sync_directory(folder.parent)
    except OSError as error:
        raise MachineFault(f"cannot make {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return fingerprint(root)


def _fill(folder: Path, profile: Profile, now: datetime, passphrase: str) -> bytes:
    ring = Ring(folder, lambda what: passphrase)
    signers: dict[str, list[Signer]] = {}
    for role in roles.ROLES:
        signers[role] = []
        for name in roles.key_names(profile, role):
            entry = ring.generate(name, passphrase)
            signers[role].append(ring.signer(entry.key.keyid))
    public: dict[str, list[Key]] = {
        role: [signer.public_key for signer in pairs] for role, pairs in signers.items()
    }
    root = metadata.seal(metadata.first_root(profile, public, now), signers[roles.ROOT])
    targets = {
        roles.TARGETS: metadata.seal(
            metadata.first_targets(profile, public, now), signers[roles.TARGETS]
        )
    }
    for role in roles.PATHS:
        empty = Targets(version=1, expires=metadata.expiry(profile, role, now))
        targets[role] = metadata.seal(empty, signers[role])
    listed = {role: (1, data) for role, data in targets.items()}
    expires = metadata.expiry(profile, roles.SNAPSHOT, now)
    snapshot = metadata.seal(metadata.snapshot(1, listed, expires), signers[roles.SNAPSHOT])
    expires = metadata.expiry(profile, roles.TIMESTAMP, now)
    extra = {metadata.ROOT_VERSION: 1}
    timestamp = metadata.seal(
        metadata.timestamp(1, 1, snapshot, expires=expires, now=now, extra=extra),
        signers[roles.TIMESTAMP],
    )
    shelf = Shelf(folder)
    shelf.write_metadata(
        {
            versioned(roles.ROOT, 1): root,
            **{versioned(role, 1): data for role, data in targets.items()},
            versioned(roles.SNAPSHOT, 1): snapshot,
            "timestamp.json": timestamp,
        }
    )
    shelf.write_settings(profile)
    return root

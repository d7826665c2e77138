"""Slots: one immutable folder a bundle, named by its digest.

Guards: a slot is used only after every byte of it was compared with its own name; nothing that a
state keeps is removed; nothing half-written or half-removed stays.

A slot holds ``manifest.json`` as it was signed and each member decoded under its own name.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from edge_contract import manifest as manifests
from edge_contract.bundle import MANIFEST_MEMBER
from edge_contract.errors import InputFault
from edge_contract.manifest import MANIFEST_MAX_BYTES, Manifest
from edge_contract.names import check_sha256
from edge_contract.ports.disk import read_bounded, sync_directory

log = logging.getLogger(__name__)

_GONE = ".gone-"


def verify(folder: Path, sha256: str) -> Manifest:
    """The manifest of a slot whose every byte is what ``sha256`` leads to.

    Raises InputFault that names the first file which is missing, damaged or of another bundle.
    """
    data = read_bounded(folder / MANIFEST_MEMBER, MANIFEST_MAX_BYTES)
    if manifests.digest(data) != sha256:
        raise InputFault(f"{folder / MANIFEST_MEMBER} is not the manifest {sha256[:12]}")
    manifest = manifests.decode(data)
    for file in manifest.files:
        path = folder / file.name
        try:
            found = digest_of(path)
        except OSError as error:
            raise InputFault(f"cannot read {path}: {error.strerror or error}") from error
        if found != file.raw_sha256:
            raise InputFault(f"{path} is damaged: its digest is not the manifest's")
    return manifest


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex; read in blocks. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def held(slots: Path) -> frozenset[str]:
    """Digests of the decoded files that slots hold, by their manifests; no file is read."""
    found: set[str] = set()
    for path in slots.glob(f"*/{MANIFEST_MEMBER}"):
        with contextlib.suppress(InputFault):
            manifest = manifests.decode(read_bounded(path, MANIFEST_MAX_BYTES))
            found.update(file.raw_sha256 for file in manifest.files)
    return frozenset(found)


def remove(folder: Path) -> None:
    """Make a slot disappear in one step, then free its bytes. Raises OSError."""
    if not folder.exists():
        return
    gone = folder.with_name(_GONE + folder.name)
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    sync_directory(folder.parent)
    shutil.rmtree(gone)


def prune(slots: Path, kept: Iterable[str], *, sweep: bool) -> list[str]:
    """Remove the slots that are not ``kept``; return their digests.

    With ``sweep``, which only somebody who knows that nothing is being written may ask for, what
    an interrupted fetch or removal left goes too. What cannot be removed is logged and stays for
    the next time.
    """
    keep = set(kept)
    removed = []
    for entry in sorted(slots.iterdir()) if slots.is_dir() else ():
        if entry.name in keep:
            continue
        try:
            if _is_digest(entry.name):
                remove(entry)
                removed.append(entry.name)
            elif sweep and entry.is_dir():
                shutil.rmtree(entry)
            elif sweep:
                entry.unlink()
        except OSError as error:
            log.warning("cannot remove %s: %s", entry, error.strerror or error)
    return removed


def _is_digest(name: str) -> bool:
    with contextlib.suppress(InputFault):
        return bool(check_sha256(name, "slot"))
    return False

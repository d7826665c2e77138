"""A mirror's files: what any static web server, or an object store, hands to devices.

    DIR/<sha256>     each stored member, whole; and the list of its chunks, where it has several

Guards: a file gets its name after all of it is on disk, and every name is the content's SHA-256, so
that a mirror that is written, copied or served while this runs never shows half a file; files are
copied in blocks, whatever their size.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_contract import manifest as manifests
from edge_contract.chunks import CHUNK_BYTES, chunk_count
from edge_contract.errors import InputFault, MachineFault
from edge_contract.manifest import File
from edge_contract.messages import Release
from edge_contract.ports.disk import sync_directory, write_atomic
from edge_release.repository import Repository

_NAME = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Exported:
    """Files written, with their bytes; files that were there, and files removed."""

    written: int
    written_bytes: int
    kept: int
    removed: int


def export(
    repository: Repository,
    fleet: str,
    folder: Path,
    *,
    prune: bool = False,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """Have every file of every version that the fleet's channels name in ``folder``, sound.

    Args:
        prune: remove files that no channel of this fleet names; only where the folder is no
            other fleet's. progress: called with bytes looked after and in all.

    Raises InputFault when the repository is damaged or the fleet has nothing published,
    MachineFault when the disk refuses.
    """
    files = _files(repository, fleet)
    total, done = sum(file.size for file in files.values()), 0
    written = size = kept = 0
    named: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files.values():
            names = {file.sha256, file.index} - {""}
            if all(_sound(folder / name) for name in names):
                kept += len(names)
            else:
                size += _copy(_members(repository) / file.sha256, file, folder)
                written += len(names)
            named |= names
            done += file.size
            progress(done, total)
        sync_directory(folder)
        removed = _prune(folder, named) if prune else 0
    except OSError as error:
        raise MachineFault(
            f"cannot write the mirror in {folder}: {error.strerror or error}",
            advice="Check free space, permissions and that the disk is not read-only.",
        ) from error
    return Exported(written, size, kept, removed)


def _files(repository: Repository, fleet: str) -> dict[str, File]:
    """Members by digest, of every release that a channel of the fleet names."""
    found: dict[Release, bool] = {}
    for pointer in repository.pointers(repository.shelf.read(), fleet).values():
        for track in pointer.models.values():
            found.update({release: release in track.others for release in track.releases()})
    if not found:
        raise InputFault(f"nothing is published for fleet {fleet}")
    members = {}
    for release, former in found.items():
        manifest = manifests.decode(repository.shelf.target(release.path, release.sha256))
        for file in manifest.files:
            if (_members(repository) / file.sha256).is_file():
                members[file.sha256] = file
            elif not former:  # the disk may have been cleared of former versions
                raise InputFault(
                    f"member {file.name} of {release.path} is missing in the repository",
                    advice="Publish its bundle again.",
                )
    return members


def _sound(path: Path) -> bool:
    """Whether a file is there and has the content that its name says."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == path.name


def _members(repository: Repository) -> Path:
    return repository.shelf.path / "members"


def _copy(source: Path, file: File, folder: Path) -> int:
    """A member and its list of chunks; returns their bytes."""
    whole, index = hashlib.sha256(), bytearray()
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{file.sha256}.")
    try:
        with os.fdopen(handle, "wb") as out:
            for chunk in _chunks(source):
                whole.update(chunk)
                index += hashlib.sha256(chunk).digest()
                out.write(chunk)
            out.flush()
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
        if whole.hexdigest() != file.sha256:
            raise InputFault(
                f"member {file.sha256} in the repository is damaged: its digest is another one",
                advice="Publish its bundle again.",
            )
        Path(temporary).replace(folder / file.sha256)
        temporary = ""
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
    if chunk_count(file.size) == 1:
        return file.size
    write_atomic(folder / file.index, bytes(index))
    return file.size + len(index)


def _chunks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def _prune(folder: Path, named: set[str]) -> int:
    removed = 0
    for path in list(folder.iterdir()):
        if _NAME.fullmatch(path.name) and path.name not in named:
            path.unlink()
            removed += 1
    return removed

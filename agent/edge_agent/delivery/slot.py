"""Turning verified members into a slot: a folder that is there whole or not at all.

Guards: every file in a slot has the raw digest that the manifest names (10); the folder gets its
name only after everything in it is on disk; members are decoded in blocks, a bundle of any size
in the same memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edge_agent.slot import digest_of
from edge_contract import manifest as manifests
from edge_contract.bundle import MANIFEST_MEMBER, decode_pieces
from edge_contract.errors import InputFault, MachineFault, PeerFault
from edge_contract.manifest import MANIFEST_MAX_BYTES, File, Manifest
from edge_contract.ports.disk import make_folder, read_bounded, sync_directory


def complete(slot: Path, manifest: Manifest, manifest_bytes: bytes) -> bool:
    """Whether ``slot`` holds this bundle, every byte of it."""
    try:
        if read_bounded(slot / MANIFEST_MEMBER, MANIFEST_MAX_BYTES) != manifest_bytes:
            return False
    except InputFault:
        return False
    return all(sound(slot / file.name, file) for file in manifest.files)


def sound(path: Path, file: File) -> bool:
    """Whether ``path`` holds the decoded bytes of ``file``."""
    try:
        return path.stat().st_size == file.raw_size and digest_of(path) == file.raw_sha256
    except OSError:
        return False


def reusable(slots: Path, files: Iterable[File]) -> dict[str, Path]:
    """Files that another slot beside holds already: member name -> sound file on disk."""
    held: dict[tuple[str, int], Path] = {}
    for path in sorted(slots.glob(f"[!.]*/{MANIFEST_MEMBER}")):
        try:
            manifest = manifests.decode(read_bounded(path, MANIFEST_MAX_BYTES))
        except InputFault:
            continue
        for file in manifest.files:
            held[file.raw_sha256, file.raw_size] = path.parent / file.name
    found = {}
    for file in files:
        candidate = held.get((file.raw_sha256, file.raw_size))
        if candidate is not None and sound(candidate, file):
            found[file.name] = candidate
    return found


def build(
    into: Path,
    manifest: Manifest,
    manifest_bytes: bytes,
    *,
    reuse: dict[str, Path],
    stored: Callable[[File], Iterable[bytes]],
) -> None:
    """Make the slot ``into``.

    Args:
        reuse: files taken from another slot, by member name.
        stored: the stored bytes of any other member, in pieces.

    Raises PeerFault when a member does not decode to what the manifest says, MachineFault when
    the disk refuses; then there is no folder ``into``.
    """
    partial = into.with_name(f".{into.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        make_folder(partial)
        _write(partial / MANIFEST_MEMBER, [manifest_bytes])
        for file in manifest.files:
            if file.name in reuse:
                shutil.copyfile(reuse[file.name], partial / file.name)
                _flush(partial / file.name)
                if not sound(partial / file.name, file):
                    raise PeerFault(f"{file.name} changed on disk while it was copied")
            else:
                _write(partial / file.name, _decoded(file, stored(file)))
        sync_directory(partial)
        if into.exists():
            shutil.rmtree(into)  # it is not complete, or we would not be here
        partial.rename(into)
        sync_directory(into.parent)
    except OSError as error:
        raise MachineFault(
            f"cannot build the slot {into}: {error.strerror or error}",
            advice="Check free space, permissions and that the disk is not read-only.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _decoded(file: File, pieces: Iterable[bytes]) -> Iterator[bytes]:
    # 10. stored and decoded digests are the manifest's
    try:
        yield from decode_pieces(file, pieces)
    except InputFault as error:
        raise PeerFault(f"{error.what}", advice=error.advice) from error


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

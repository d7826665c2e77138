"""Chunks on disk, named by their SHA-256, until the slot they belong to is complete.

    <sha256>          a chunk
    <sha256>.json     the manifest of a bundle whose fetch is not finished

Guards: a chunk is only there whole; it is believed only after its digest was computed again; a
finished or abandoned fetch leaves nothing.

Chunks are made durable every few seconds, not one by one: what a power cut takes is found by its
digest and fetched again, seconds of a download at most, and an SD card is spared two flushes per
120 KiB. (20 MB on the loopback: 0.22 s with a flush every 32 chunks, 0.12 s so.)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from edge_contract import manifest as manifests
from edge_contract.chunks import CHUNK_BYTES, DIGEST_BYTES, chunk_count
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.manifest import MANIFEST_MAX_BYTES, File, Manifest
from edge_contract.ports.disk import (
    TEMPORARY,
    make_folder,
    read_bounded,
    sync_directory,
    write_atomic,
)

SYNC_EVERY_S = 5.0
"""What a power cut may cost, in time of downloading."""
_CHUNK_NAME = re.compile(r"[0-9a-f]{64}")
_MANIFEST_NAME = re.compile(r"([0-9a-f]{64})\.json")


class ChunkStore:
    """The chunk folder. One process uses it at a time."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._unsynced: list[Path] = []
        self._synced_at = clock()

    def read(self, sha256: str, size: int) -> bytes | None:
        """The chunk when it is here, whole and sound; else None."""
        try:
            with (self._folder / sha256).open("rb") as file:
                data = file.read(CHUNK_BYTES + 1)
        except OSError:
            return None
        sound = len(data) == size and hashlib.sha256(data).hexdigest() == sha256
        return data if sound else None

    def write(self, sha256: str, data: bytes) -> None:
        """Keep a chunk whose digest was checked. Raises MachineFault when the disk refuses."""
        path = self._folder / sha256
        temporary = path.with_name(f".{sha256}{TEMPORARY}")
        try:
            make_folder(self._folder)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise MachineFault(
                f"cannot keep a chunk in {self._folder}: {error.strerror}",
                advice="Check free space, permissions and that the disk is not read-only.",
            ) from error
        if not self._unsynced:
            self._synced_at = self._clock()
        self._unsynced.append(path)
        if self._clock() - self._synced_at >= SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Make what was kept durable. Raises MachineFault when the disk refuses."""
        paths, self._unsynced = self._unsynced, []
        try:
            for path in paths:
                if not path.exists():
                    continue  # its slot is complete
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            if paths:
                sync_directory(self._folder)
        except OSError as error:
            raise MachineFault(f"cannot flush {self._folder}: {error.strerror}") from error

    def probe(self) -> None:
        """Raise MachineFault unless the disk takes a chunk now."""
        temporary = self._folder / ".probe"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(bytes(CHUNK_BYTES))
        except OSError as error:
            raise MachineFault(
                f"{self._folder} takes no chunk: {error.strerror}",
                advice="Check free space, permissions and that the disk is not read-only.",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def size_bytes(self, manifest_sha256: str = "") -> int:
        """What is kept here, in bytes; of one unfinished fetch where it is named.

        Raises MachineFault when the disk refuses.
        """
        own = self._needed(self._folder / f"{manifest_sha256}.json") if manifest_sha256 else None
        try:
            with os.scandir(self._folder) as entries:
                return sum(e.stat().st_size for e in entries if own is None or e.name in own)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise MachineFault(f"cannot look at {self._folder}: {error.strerror}") from error

    # -- unfinished fetches ----------------------------------------------------------------

    def begin(self, manifest_sha256: str, manifest: bytes) -> None:
        """Remember that a bundle is being fetched, so that its chunks are kept."""
        path = self._folder / f"{manifest_sha256}.json"
        if not path.is_file():
            write_atomic(path, manifest)

    def manifest(self, manifest_sha256: str) -> bytes | None:
        """The manifest of an unfinished fetch, unchecked, or None."""
        try:
            return read_bounded(self._folder / f"{manifest_sha256}.json", MANIFEST_MAX_BYTES)
        except InputFault:
            return None

    def clear(self, *, keep: Iterable[str]) -> None:
        """Remove every chunk that no unfinished fetch among ``keep`` (manifest digests) needs.

        Raises MachineFault when the disk refuses.
        """
        try:
            self._clear(set(keep))
        except FileNotFoundError:
            pass  # there is no folder, or another run was quicker
        except OSError as error:
            raise MachineFault(
                f"cannot clear up {self._folder}: {error.strerror}",
                advice="Check permissions and that the disk is not read-only.",
            ) from error

    def _clear(self, wanted: set[str]) -> None:
        needed: set[str] = set()
        for path in list(self._folder.iterdir()):
            found = _MANIFEST_NAME.fullmatch(path.name)
            if found and found[1] in wanted:
                needed |= self._needed(path)
            elif found:
                path.unlink(missing_ok=True)
        for path in list(self._folder.iterdir()):
            temporary = path.name.startswith(".")
            if temporary or (_CHUNK_NAME.fullmatch(path.name) and path.name not in needed):
                path.unlink(missing_ok=True)

    def _needed(self, path: Path) -> set[str]:
        try:
            manifest: Manifest = manifests.decode(read_bounded(path, MANIFEST_MAX_BYTES))
        except EdgeError:
            return set()
        return {name for file in manifest.files for name in self._chunks(file)}

    def _chunks(self, file: File) -> set[str]:
        """The names of a member's chunks, as far as its index is here."""
        if chunk_count(file.size) == 1:
            return {file.sha256}
        index = self.read(file.index, chunk_count(file.size) * DIGEST_BYTES) or b""
        pieces = range(0, len(index), DIGEST_BYTES)
        return {file.index, *(index[at : at + DIGEST_BYTES].hex() for at in pieces)}

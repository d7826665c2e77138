"""Records on disk until the broker has them: bounded, in order, whole or not at all.

Guards: the folder never takes more than its bound; when it is full the oldest record goes and is
counted; a kill or a power cut at any point leaves whole records only; nothing here is ever on the
way of a prediction.

One file a record, named by its boot and sequence numbers, so that their order is the names'.
"""

from __future__ import annotations

import errno
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from edge_contract import aside, telemetry
from edge_contract.aside import Aside
from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports import disk
from edge_contract.telemetry import RECORD_MAX_BYTES, Record

log = logging.getLogger(__name__)

SPOOL_MAX_BYTES = 16 * 1024**2
BLOCK_BYTES = 4096
"""What a small file takes on ext4, xfs and btrfs; the bound counts whole blocks."""

Key = tuple[int, int]
"""A record's boot and sequence number."""

_NAME = re.compile(r"(\d{16})-(\d{16})\.rec")
_TORN = re.compile(r"\.\d{16}-\d{16}\.rec\..*")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Spool:
    """The records that are not home yet. Thread-safe.

    Args:
        folder: created where it does not exist; files that are not the spool's stay untouched.
        max_bytes: bound of what the records take on the disk, in whole blocks.

    Raises MachineFault when the folder cannot be made or read.
    """

    def __init__(self, folder: Path, *, max_bytes: int = SPOOL_MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sizes: dict[Key, int] = {}
        self._bytes = 0
        self._dropped = 0
        self._open()

    def __len__(self) -> int:
        with self._lock:
            return len(self._sizes)

    @property
    def size_bytes(self) -> int:
        """What the records take on the disk."""
        with self._lock:
            return self._bytes

    @property
    def dropped(self) -> int:
        """Records dropped since this spool was opened."""
        with self._lock:
            return self._dropped

    def append(self, record: Record | Aside) -> None:
        """Have ``record`` on disk when this returns, dropping the oldest where space is short.

        Raises:
            InputFault: the record is too large to send, ever.
            MachineFault: the disk refuses, and dropping everything else did not help.
        """
        data = telemetry.encode(record) if isinstance(record, Record) else aside.encode(record)
        key = (record.boot, record.seq)
        size = _blocks(len(data))
        if size > self._max_bytes:
            raise InputFault(f"record of {size} bytes, over the spool's {self._max_bytes}")
        with self._lock:
            while self._sizes and self._bytes + size > self._max_bytes:
                self._drop_oldest("the spool is full")
            self._write(key, data)
            self._bytes += size - self._sizes.pop(key, 0)
            self._sizes[key] = size

    def keys(self) -> list[Key]:
        """The records that wait, oldest first."""
        with self._lock:
            return list(self._sizes)

    def read(self, key: Key) -> bytes | None:
        """An encoded record; None when it is gone. One that was damaged is dropped."""
        with self._lock:
            if key not in self._sizes:
                return None
            try:
                data = disk.read_bounded(self._path(key), RECORD_MAX_BYTES)
                aside.decode(data) if aside.is_aside(data) else telemetry.decode(data)
            except InputFault as error:
                log.warning("record %d-%d dropped: %s", *key, error.what)
                self._remove(key)
                self._dropped += 1
                return None
            return data

    def pending(self) -> Iterator[tuple[Key, bytes]]:
        """The records that wait, oldest first, each read when it is asked for."""
        for key in self.keys():
            data = self.read(key)
            if data is not None:
                yield key, data

    def done(self, key: Key) -> None:
        """Forget a record that the broker has. After a power cut it may be sent once more."""
        with self._lock:
            self._remove(key)

    def drop(self, key: Key, reason: str) -> None:
        """Give a record up, counted."""
        with self._lock:
            if key in self._sizes:
                log.warning("record %d-%d dropped: %s", *key, reason)
                self._remove(key)
                self._dropped += 1

    # -- with the lock held ------------------------------------------------------------------

    def _open(self) -> None:
        try:
            disk.make_folder(self._folder)
            for path in sorted(self._folder.iterdir()):
                found = _NAME.fullmatch(path.name)
                if found:
                    size = _blocks(path.stat().st_size)
                    self._sizes[int(found[1]), int(found[2])] = size
                    self._bytes += size
                elif _TORN.fullmatch(path.name):
                    path.unlink()
        except OSError as error:
            raise MachineFault(
                f"cannot open the spool {self._folder}: {error.strerror or error}",
                advice="Check that the folder belongs to the agent's user.",
            ) from error

    def _write(self, key: Key, data: bytes) -> None:
        while True:
            try:
                disk.write_atomic(self._path(key), data)
            except MachineFault as error:
                full = isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL
                if not (full and self._sizes):
                    raise
                self._drop_oldest("the disk is full")
            else:
                return

    def _drop_oldest(self, reason: str) -> None:
        key = next(iter(self._sizes))
        self._remove(key)
        self._dropped += 1
        if str(self._dropped).strip("0") == "1":  # 1, 10, 100 ...: it goes on for days
            log.warning("record %d-%d dropped: %s; %d by now", *key, reason, self._dropped)

    def _remove(self, key: Key) -> None:
        self._bytes -= self._sizes.pop(key, 0)
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            # It stays until the next start and is sent once more then: harmless.
            log.warning("cannot remove %s: %s", self._path(key), error.strerror)

    def _path(self, key: Key) -> Path:
        return self._folder / f"{key[0]:016d}-{key[1]:016d}.rec"


def _blocks(size: int) -> int:
    return max(-(-size // BLOCK_BYTES), 1) * BLOCK_BYTES

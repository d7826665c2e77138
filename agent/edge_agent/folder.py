"""The agent's folder: where what lies, whose it is, and how often the agent began.

    lock  boot.json  desired.json  status.json  factory.json
    answers.bin                   answers that a label may still come for
    download.json                 bytes spent of the daily cap
    bindings.json                 what bindings left at brokers
    tuf/  chunks/                 the delivery's: trusted metadata, downloaded pieces
    slots/<digest>/               one bundle, immutable
    models/<name>/state.json      the update's state; replacing it is what activates a slot
    spool/  outbox/               what is not home yet
    calibration/                  what labels said of scores, by version
    samples/                      rows sealed for their owner
    private/                      counts that wait for noise, and what noise has cost

Guards: one agent a folder; a boot number is never used twice.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from edge_contract import wire
from edge_contract.errors import InputFault, MachineFault
from edge_contract.messages import Count
from edge_contract.names import check_name, check_sha256
from edge_contract.ports.disk import TEMPORARY, make_folder, read_bounded, settle, write_atomic

log = logging.getLogger(__name__)

_SMALL_MAX_BYTES = 4096


class _Boot(Struct, frozen=True, kw_only=True):
    schema: int = 1
    boot: Count


@dataclass(frozen=True)
class Folder:
    """Paths below the agent's folder."""

    path: Path

    @property
    def lock(self) -> Path:
        """Held by the running agent."""
        return self.path / "lock"

    @property
    def boot(self) -> Path:
        """The number of the last start."""
        return self.path / "boot.json"

    @property
    def factory(self) -> Path:
        """Loads of a factory bundle that did not come to an end."""
        return self.path / "factory.json"

    @property
    def desired(self) -> Path:
        """The newest ``desired`` that was heard."""
        return self.path / "desired.json"

    @property
    def status(self) -> Path:
        """What the running agent last said of itself."""
        return self.path / "status.json"

    @property
    def download(self) -> Path:
        """What was spent of the daily cap."""
        return self.path / "download.json"

    @property
    def bindings(self) -> Path:
        """What bindings left at brokers."""
        return self.path / "bindings.json"

    @property
    def slots(self) -> Path:
        """One folder a bundle, named by its digest."""
        return self.path / "slots"

    @property
    def models(self) -> Path:
        """One folder a model, with the state of its update."""
        return self.path / "models"

    @property
    def spool(self) -> Path:
        """Telemetry that is not home yet."""
        return self.path / "spool"

    @property
    def outbox(self) -> Path:
        """Events that are not home yet."""
        return self.path / "outbox"

    @property
    def answers(self) -> Path:
        """Answers that a label may still come for."""
        return self.path / "answers.bin"

    @property
    def calibration(self) -> Path:
        """What labels said of scores, by version."""
        return self.path / "calibration"

    @property
    def samples(self) -> Path:
        """Rows sealed for their owner."""
        return self.path / "samples"

    @property
    def private(self) -> Path:
        """Counts that wait for noise, and the ledger of what noise has cost."""
        return self.path / "private"

    def state(self, model: str) -> Path:
        """The state of one model's update."""
        return self.models / check_name(model, "model") / "state.json"

    def slot(self, sha256: str) -> Path:
        """The slot of one bundle."""
        return self.slots / check_sha256(sha256, "slot")

    def known_models(self) -> tuple[str, ...]:
        """Models that have a state on disk, sorted."""
        if not self.models.is_dir():
            return ()
        return tuple(sorted(entry.parent.name for entry in self.models.glob("*/state.json")))


def clear_up(folder: Folder) -> None:
    """After what cut the former agent off. Only for the one who holds the lock."""
    # Who knows what else lies at the top.
    for path in (folder.boot, folder.desired, folder.download, folder.status, folder.answers):
        settle(folder.path, f".{path.name}.*{TEMPORARY}", deep=False)
    for name in (
        "tuf",
        "chunks",
        "models",
        "slots",
        "spool",
        "outbox",
        "private",
        "calibration",
        "samples",
    ):
        settle(folder.path / name)


class Lock:
    """One agent a folder; the kernel lets go when the process ends, however it ends.

    Raises MachineFault when another agent holds the folder or it is not ours to write.
    """

    def __init__(self, folder: Folder) -> None:
        try:
            make_folder(folder.path)
            self._handle = _open_lock(folder.lock)
        except OSError as error:
            raise MachineFault(
                f"cannot use folder {folder.path}: {error.strerror}",
                advice="Check that it exists and that this user may write it.",
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise MachineFault(
                f"another agent is running in {folder.path}",
                advice="Stop it first, or give this one a folder of its own.",
            ) from error

    def release(self) -> None:
        """Let another agent have the folder."""
        os.close(self._handle)


def _open_lock(path: Path) -> int:
    """The lock's file; on a disk that went read-only the one that is there. Raises OSError."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def holder(folder: Folder) -> int:
    """The process that holds the folder, by the kernel's list of locks; 0 when that is not known.

    It is known also where nothing can be written. Format: proc_locks(5).
    """
    try:
        found = folder.lock.stat()
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return 0
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for _number, kind, *rest in (line.split() for line in locks):
        if kind == "FLOCK" and device in rest:
            return max(int(rest[2]), 0)
    return 0


def running(folder: Folder) -> bool:
    """Whether an agent holds the folder at this moment."""
    try:
        handle = os.open(folder.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def next_boot(folder: Folder, now_s: float) -> int:
    """The number of this start, on disk before it is used.

    The clock's seconds, or one more than the last number where the clock is behind that: so a
    device that lost its disk, or cannot write to it, does not repeat the numbers of an earlier
    life, whose records a store already has. (Two starts within one second on a disk that takes
    nothing share a number.)
    """
    number = max(last_boot(folder) + 1, int(now_s))
    try:
        write_atomic(folder.boot, wire.encode_json(_Boot(boot=number)))
    except MachineFault as error:
        log.warning("boot number %d is not kept: %s", number, error.what)
    return number


def last_boot(folder: Folder) -> int:
    """The number of the last start; 0 when there was none that is readable."""
    try:
        data = read_bounded(folder.boot, _SMALL_MAX_BYTES)
        return wire.decode_json(data, _Boot, size_max=_SMALL_MAX_BYTES).boot
    except InputFault:
        return 0

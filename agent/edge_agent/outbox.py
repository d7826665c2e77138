"""Events on their way home: on disk until the broker has them.

Guards: an event survives a restart and a broker that is away; it is removed only after its
PUBACK, so one may arrive twice and is told apart by (boot, seq). Bounded: the oldest go first.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from edge_contract.errors import MachineFault
from edge_contract.ports.disk import write_atomic

log = logging.getLogger(__name__)

EVENTS_MAX = 500


class Outbox:
    """Payloads in files named by boot and sequence number, in that order."""

    def __init__(self, folder: Path, *, events_max: int = EVENTS_MAX) -> None:
        self._folder = folder
        self._events_max = events_max

    def add(self, boot: int, seq: int, payload: bytes) -> Path:
        """Keep the event; return its name. A full disk costs the event's survival, no more."""
        path = self._folder / f"{boot:016d}-{seq:08d}.json"
        try:
            write_atomic(path, payload)
        except MachineFault as error:
            log.warning("an event is not kept: %s", error.what)
        for oldest in self.waiting()[: -self._events_max]:
            self.done(oldest)
        return path

    def waiting(self) -> list[Path]:
        """Events that are not home, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if path.suffix == ".json")

    def read(self, path: Path) -> bytes | None:
        """The payload, or None when it is gone or unreadable."""
        try:
            return path.read_bytes()
        except OSError:
            return None

    def done(self, path: Path) -> None:
        """The broker has it."""
        with contextlib.suppress(OSError):
            path.unlink()

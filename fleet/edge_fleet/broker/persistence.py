"""The files that a restart reads: retained messages, and sessions that outlive connections.

Written whole: temporary file in the same directory, fsync, rename, fsync of the directory. Two
files, because sessions change with every message and the retained ones, which may be many
megabytes of chunks, seldom.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge_fleet.broker.engine import Engine
from edge_fleet.broker.errors import BrokerError, StateFileError
from edge_fleet.broker.state import pack_retained, pack_sessions, unpack_retained, unpack_sessions

_log = logging.getLogger(__name__)

RETAINED = "retained.state"
SESSIONS = "sessions.state"


class StateFiles:
    """The state of one broker in `directory`, which is made. `wall` is the time in seconds."""

    def __init__(self, directory: Path, wall: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._wall = wall
        self._lock = threading.Lock()
        self._taken = 0  # snapshots; an older one is never written over a newer one
        self._written: dict[str, int] = {}

    def load(self, engine: Engine) -> None:
        """Fill an empty engine. StateFileError for a file that is damaged: nothing is guessed."""
        now, wall = engine.clock.now(), self._wall()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if raw := self._read(RETAINED):
                for message in unpack_retained(raw, now, wall):
                    engine.retained.put(message)
            if raw := self._read(SESSIONS):
                for session in unpack_sessions(raw, now, wall, engine.config.max_queue_bytes):
                    engine.adopt(session)
        except StateFileError as error:
            raise StateFileError(
                f"{error}; move the files in {self._directory} away to start without them"
            ) from error
        except OSError as error:
            raise BrokerError(f"cannot use the state in {self._directory}: {error}") from error

    def save(self, engine: Engine) -> None:
        """Write what has changed, and return when it is on disk.

        A disk that fails is logged and tried again: messages in memory are better than none.
        """
        try:
            for name, sequence, pieces in self._snapshot(engine):
                self._write(name, sequence, pieces)
        except OSError as error:
            self._failed(engine, error)

    async def save_aside(self, engine: Engine) -> None:
        """The same, with the writing in a thread."""
        try:
            for name, sequence, pieces in self._snapshot(engine):
                await asyncio.to_thread(self._write, name, sequence, pieces)
        except OSError as error:
            self._failed(engine, error)

    def _failed(self, engine: Engine, error: OSError) -> None:
        engine.retained_changed = engine.sessions_changed = True
        _log.error("the state cannot be saved in %s: %s", self._directory, error)

    def _snapshot(self, engine: Engine) -> list[tuple[str, int, list[bytes]]]:
        now, wall = engine.clock.now(), self._wall()
        self._taken += 1
        snapshot = []
        if engine.retained_changed:
            engine.retained_changed = False
            pieces = pack_retained(engine.retained.all(now), now, wall)
            snapshot.append((RETAINED, self._taken, pieces))
        if engine.sessions_changed:
            engine.sessions_changed = False
            pieces = pack_sessions(engine.sessions.values(), now, wall)
            snapshot.append((SESSIONS, self._taken, pieces))
        return snapshot

    def _read(self, name: str) -> bytes:
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return b""

    def _write(self, name: str, sequence: int, pieces: list[bytes]) -> None:
        with self._lock:
            if sequence < self._written.get(name, 0):
                return
            temporary = self._directory / f".{name}.tmp"
            with temporary.open("wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._directory / name)
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            self._written[name] = sequence

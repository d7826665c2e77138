"""Pulling chunks from a broker into the chunk store: the shell around ``window``.

Guards: a chunk on disk is never fetched again; none is asked for before the pace has room for it;
no chunk is kept before its size (8) and then its
digest (9) were checked; memory holds one window, whatever the size of the bundle.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Event

from edge_agent.delivery import window as windows
from edge_agent.delivery.pace import Pace, Paused, Unlimited
from edge_agent.delivery.store import ChunkStore
from edge_contract.chunks import CHUNK_BYTES, DIGEST_BYTES, Chunk, chunk_count, plan
from edge_contract.errors import EdgeError, PeerFault
from edge_contract.manifest import File
from edge_contract.ports.retained import Heard, Lost, Probed, Refused, Restored, Retained
from edge_contract.topics import Topics

_STOP_POLL_S = 0.25
"""A stop is noticed within this time."""
_ADVICE = "Have the publisher run `edge-pack publish` again: it puts back what the broker lost."

Progress = Callable[[int, int], None]


class Stopped(EdgeError):
    """The fetch was called off. What arrived stays on disk."""

    exit_code = 130


@dataclass(frozen=True)
class Wanted:
    """A chunk to have on disk."""

    sha256: str
    size: int


class Pull:
    """One bundle's chunks, from the broker into the store.

    Args:
        connect: the download connection, made when the first chunk has to be asked for.
        progress: called with stored bytes on disk and in all.
        stop: ends the pull with ``Stopped``.
        pace: asked before each batch of chunks; what came is counted by the connection.
        patience_s: how long the first silence may be.
    """

    def __init__(
        self,
        connect: Callable[[], Retained],
        topics: Topics,
        store: ChunkStore,
        *,
        progress: Progress,
        stop: Event,
        pace: Pace | None = None,
        patience_s: float = windows.PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._topics = topics
        self._store = store
        self._progress = progress
        self._stop = stop
        self._pace = pace or Unlimited()
        self._patience_s = patience_s
        self._clock = clock
        self._probes: set[int] = set()
        self._done = 0
        self._total = 0

    def members(self, files: Iterable[File]) -> dict[str, tuple[Chunk, ...]]:
        """Have every chunk of ``files`` on disk; returns each member's chunks in order.

        Raises PeerFault naming the chunk that is missing, wrong or oversized, or when the broker
        falls silent; Stopped; Paused; MachineFault when the disk refuses.
        """
        files = tuple(files)
        self._total = sum(file.size for file in files)
        self._done = 0
        indexes = [
            Wanted(file.index, chunk_count(file.size) * DIGEST_BYTES)
            for file in files
            if chunk_count(file.size) > 1
        ]
        for index in indexes:
            if index.size > CHUNK_BYTES or not index.sha256:
                raise PeerFault("a member is larger than one index can name")
        self._pull(indexes, counted=False)
        plans = {}
        for file in files:
            size = chunk_count(file.size) * DIGEST_BYTES
            index_bytes = self._store.read(file.index, size) if chunk_count(file.size) > 1 else b""
            plans[file.name] = plan(file, index_bytes or b"")
        chunks = (chunk for pieces in plans.values() for chunk in pieces)
        self._pull((Wanted(chunk.sha256, chunk.size) for chunk in chunks), counted=True)
        return plans

    def read(self, pieces: tuple[Chunk, ...]) -> Iterator[bytes]:
        """The chunks of one member, in order. Raises PeerFault when one went bad on disk."""
        for piece in pieces:
            data = self._store.read(piece.sha256, piece.size)
            if data is None:
                raise PeerFault(f"chunk {piece.sha256} went bad on disk; it is fetched again")
            yield data

    # -- shell -----------------------------------------------------------------------------

    def _pull(self, chunks: Iterable[Wanted], *, counted: bool) -> None:
        sizes: dict[str, int] = {}
        repeated: dict[str, int] = {}
        missing = []
        for chunk in chunks:
            self._check_stop()
            if chunk.sha256 in sizes:
                # Equal chunks travel once and count as often as they occur.
                repeated[chunk.sha256] = repeated.get(chunk.sha256, 0) + chunk.size
                continue
            sizes[chunk.sha256] = chunk.size
            if self._store.read(chunk.sha256, chunk.size) is None:
                missing.append(chunk.sha256)
            elif counted:
                self._count(chunk.size)
        for batch in self._batches(missing, sizes):
            self._run(batch, sizes, counted=counted)
        if counted:
            self._count(sum(repeated.values()))

    def _batches(self, missing: list[str], sizes: dict[str, int]) -> Iterator[tuple[str, ...]]:
        """As many chunks at once as the pace has room for; waits for the rate, else ``Paused``."""
        at = 0
        while at < len(missing):
            room = self._pace.room(sizes[missing[at]])
            if room.wait == "rate":
                self._sleep(room.wait_s)
                continue
            if room.wait:
                raise Paused(room)
            end, size = at, 0
            while end < len(missing) and size + sizes[missing[end]] <= room.size_bytes:
                size += sizes[missing[end]]
                end += 1
            yield tuple(missing[at:end])
            at = end

    def _sleep(self, wait_s: float) -> None:
        deadline = self._clock() + wait_s
        while (left := deadline - self._clock()) > 0:
            self._check_stop()
            self._stop.wait(min(_STOP_POLL_S, left))

    def _run(self, missing: tuple[str, ...], sizes: dict[str, int], *, counted: bool) -> None:
        retained = self._connect()
        window, act = windows.begin(missing, patience_s=self._patience_s)
        self._act(retained, act)
        last = self._clock()
        while not window.done:
            event = self._next(retained, window.patience_s)
            if isinstance(event, Heard):
                sha256 = event.topic.rpartition("/")[2]
                self._keep(event, sha256, sizes[sha256])
                if counted:
                    self._count(sizes[sha256])
                now = self._clock()
                event, last = windows.Arrived(sha256, now - last), now
            window, act = windows.step(window, event)
            self._act(retained, act)
        retained.forget([self._topics.chunk(sha256) for sha256 in window.settled])

    def _next(self, retained: Retained, patience_s: float) -> Heard | windows.Event:
        """What happens next, as the window calls it; a chunk as it came."""
        deadline = self._clock() + patience_s
        while True:
            self._check_stop()
            left = deadline - self._clock()
            match retained.next(max(0.0, min(_STOP_POLL_S, left))):
                case Heard() as heard:
                    return heard
                case Probed(number) if number in self._probes:
                    return windows.ProbeAnswered()
                case Lost():
                    return windows.WentDown()
                case Restored():
                    return windows.CameUp()
                case Refused(reason):
                    raise PeerFault(reason, advice="Check this device's rights on the broker.")
                case None if left <= 0:
                    return windows.Silent()

    def _keep(self, heard: Heard, sha256: str, size: int) -> None:
        # 8. the size, before anything else is done with the bytes
        if heard.size != size:
            raise PeerFault(
                f"chunk {sha256} is {heard.size} bytes on the broker, expected {size}",
                advice=_ADVICE,
            )
        # 9. the digest, before it is kept
        got = hashlib.sha256(heard.payload).hexdigest()
        if got != sha256:
            raise PeerFault(
                f"chunk {sha256} has other bytes on the broker: their SHA-256 is {got}",
                advice=_ADVICE,
            )
        self._store.write(sha256, heard.payload)

    def _act(self, retained: Retained, act: windows.Act) -> None:
        if act.absent:
            raise PeerFault(f"chunk {act.absent} is not on the broker", advice=_ADVICE)
        if act.dead:
            raise PeerFault(
                "the broker fell silent in the middle of a download",
                advice="What arrived is kept; the download goes on where it stopped.",
            )
        if act.forget:
            retained.forget([self._topics.chunk(sha256) for sha256 in act.forget])
        if act.ask:
            topics = [self._topics.chunk(sha256) for sha256 in act.ask]
            number = retained.ask(topics, size_max=CHUNK_BYTES, probe=act.probe)
            if act.probe:
                self._probes.add(number)

    def _count(self, size: int) -> None:
        self._done += size
        self._progress(self._done, self._total)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped("the download was called off")

"""One bundle's chunks, from its sources into the chunk store.

Guards: a chunk on disk is never fetched again; none is asked for before the pace has room for it;
no chunk is kept before its size (8) and then its digest (9) were checked, wherever it came from; a
source that fails takes nothing with it: the next one goes on at the chunk.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Event

from edge_agent.delivery.pace import Pace, Paused, Unlimited
from edge_agent.delivery.source import Keep, Piece, Source, Stopped
from edge_agent.delivery.store import ChunkStore
from edge_contract.chunks import CHUNK_BYTES, DIGEST_BYTES, Chunk, chunk_count, plan
from edge_contract.errors import PeerFault
from edge_contract.manifest import File

log = logging.getLogger(__name__)

_STOP_POLL_S = 0.25
"""A stop is noticed within this time."""

Progress = Callable[[int, int], None]


class Download:
    """Has chunks on disk, whichever source gives them.

    Args:
        sources: in the order of asking; one that fails is not asked again.
        progress: called with stored bytes on disk and in all.
        stop: ends the download with ``Stopped``.
        pace: asked before each batch of chunks; the sources tell it of what came.
    """

    def __init__(
        self,
        store: ChunkStore,
        sources: Sequence[Source],
        *,
        progress: Progress,
        stop: Event,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._sources = list(sources)
        self._progress = progress
        self._stop = stop
        self._pace = pace or Unlimited()
        self._clock = clock
        self._done = 0
        self._total = 0

    def members(self, files: Iterable[File]) -> dict[str, tuple[Chunk, ...]]:
        """Have every chunk of ``files`` on disk; returns each member's chunks in order.

        Raises PeerFault naming the chunk that is missing, wrong or oversized, or why the last
        source gave up; Stopped; Paused; MachineFault when the disk refuses.
        """
        files = tuple(files)
        self._total = sum(file.size for file in files)
        self._done = 0
        self._count(0)
        self._fetch([_index(file) for file in files if chunk_count(file.size) > 1], counted=False)
        plans = {file.name: plan(file, self._read_index(file)) for file in files}
        pieces = [
            Piece(chunk.sha256, chunk.size, file.sha256, file.size, chunk.offset)
            for file in files
            for chunk in plans[file.name]
        ]
        self._fetch(pieces, counted=True)
        return plans

    def read(self, chunks: tuple[Chunk, ...]) -> Iterator[bytes]:
        """The chunks of one member, in order. Raises PeerFault when one went bad on disk."""
        for chunk in chunks:
            data = self._store.read(chunk.sha256, chunk.size)
            if data is None:
                raise PeerFault(f"chunk {chunk.sha256} went bad on disk; it is fetched again")
            yield data

    def close(self) -> None:
        """End the connections of the sources."""
        for source in self._sources:
            source.close()

    # -- shell -----------------------------------------------------------------------------

    def _read_index(self, file: File) -> bytes:
        if chunk_count(file.size) == 1:
            return b""
        return self._store.read(file.index, chunk_count(file.size) * DIGEST_BYTES) or b""

    def _fetch(self, pieces: Iterable[Piece], *, counted: bool) -> None:
        seen: set[str] = set()
        repeated = 0
        missing = []
        for piece in pieces:
            self._check_stop()
            if piece.sha256 in seen:
                # Equal chunks travel once and count as often as they occur.
                repeated += piece.size
            elif self._store.read(piece.sha256, piece.size) is None:
                missing.append(piece)
            elif counted:
                self._count(piece.size)
            seen.add(piece.sha256)
        for batch in self._batches(missing):
            self._run(batch, counted=counted)
        if counted:
            self._count(repeated)

    def _batches(self, missing: list[Piece]) -> Iterator[list[Piece]]:
        """As many chunks at once as the pace has room for; waits for the rate, else ``Paused``."""
        at = 0
        while at < len(missing):
            room = self._pace.room(missing[at].size)
            if room.wait == "rate":
                self._sleep(room.wait_s)
                continue
            if room.wait:
                raise Paused(room)
            end, size = at, 0
            while end < len(missing) and size + missing[end].size <= room.size_bytes:
                size += missing[end].size
                end += 1
            yield missing[at:end]
            at = end

    def _run(self, batch: list[Piece], *, counted: bool) -> None:
        """Have a batch on disk, by one source after the other."""
        kept: set[str] = set()

        def keeping(source: Source) -> Keep:
            def keep(piece: Piece, data: bytes, size: int) -> None:
                _check(piece, data, size, source)
                self._store.write(piece.sha256, data)
                kept.add(piece.sha256)
                if counted:
                    self._count(piece.size)

            return keep

        while missing := [piece for piece in batch if piece.sha256 not in kept]:
            source = self._sources[0]
            try:
                source.get(missing, keeping(source), self._check_stop)
            except PeerFault as fault:
                self._check_stop()
                if len(self._sources) == 1:
                    raise
                self._sources.pop(0).close()
                log.warning("%s; %s is asked instead", fault.what, self._sources[0].name)

    def _sleep(self, wait_s: float) -> None:
        deadline = self._clock() + wait_s
        while (left := deadline - self._clock()) > 0:
            self._check_stop()
            self._stop.wait(min(_STOP_POLL_S, left))

    def _count(self, size: int) -> None:
        self._done += size
        self._progress(self._done, self._total)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped("the download was called off")


def _index(file: File) -> Piece:
    """The list of a member's chunks, which is a chunk itself."""
    size = chunk_count(file.size) * DIGEST_BYTES
    if size > CHUNK_BYTES or not file.index:
        raise PeerFault("a member is larger than one index can name")
    return Piece(file.index, size, file.index, size)


def _check(piece: Piece, data: bytes, size: int, source: Source) -> None:
    # 8. the size, before anything else is done with the bytes
    if size != piece.size or len(data) != piece.size:
        raise PeerFault(
            f"chunk {piece.sha256} is {size} bytes on {source.name}, expected {piece.size}",
            advice=source.advice,
        )
    # 9. the digest, before it is kept
    got = hashlib.sha256(data).hexdigest()
    if got != piece.sha256:
        raise PeerFault(
            f"chunk {piece.sha256} has other bytes on {source.name}: their SHA-256 is {got}",
            advice=source.advice,
        )

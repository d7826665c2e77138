"""The broker as a source of chunks: the shell around ``window``.

Guards: only what was asked for is listened to, and memory holds one window, whatever the size of
the bundle; silence, an absent chunk and a broker that is gone are told apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edge_agent.delivery import window as windows
from edge_agent.delivery.source import Keep, Piece
from edge_contract.chunks import CHUNK_BYTES
from edge_contract.errors import PeerFault
from edge_contract.ports.retained import Heard, Lost, Probed, Refused, Restored, Retained
from edge_contract.topics import Topics

_STOP_POLL_S = 0.25
"""A stop is noticed within this time."""


class Broker:
    """Retained chunks, pulled by subscribing to a window of them.

    Args:
        connect: the download connection, made when the first chunk has to be asked for.
        patience_s: how long the first silence may be.
    """

    name = "the broker"
    advice = "Have the publisher run `edge-pack publish` again: it puts back what the broker lost."

    def __init__(
        self,
        connect: Callable[[], Retained],
        topics: Topics,
        *,
        patience_s: float = windows.PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._topics = topics
        self._patience_s = patience_s
        self._clock = clock
        self._probes: set[int] = set()

    def get(self, pieces: Sequence[Piece], keep: Keep, check_stop: Callable[[], None]) -> None:
        """As ``Source``. Raises PeerFault when a chunk is absent, or the broker silent or gone."""
        wanted = {piece.sha256: piece for piece in pieces}
        retained = self._connect()
        window, act = windows.begin(tuple(wanted), patience_s=self._patience_s)
        self._act(retained, act)
        last = self._clock()
        try:
            while not window.done:
                event = self._next(retained, window.patience_s, check_stop)
                if isinstance(event, Heard):
                    piece = wanted.get(event.topic.rpartition("/")[2])
                    if piece is None or piece.sha256 not in window.asked:
                        continue  # late, of an asking before this one
                    keep(piece, event.payload, event.size)
                    now = self._clock()
                    event, last = windows.Arrived(piece.sha256, now - last), now
                elif isinstance(event, windows.CameUp):
                    last = self._clock()  # an outage says nothing of how fast the link is
                window, act = windows.step(window, event)
                self._act(retained, act)
        finally:
            retained.forget(self._named((*window.settled, *window.asked)))

    def close(self) -> None:
        """As ``Source``. The connection belongs to the one who made it."""

    # -- shell -----------------------------------------------------------------------------

    def _next(
        self, retained: Retained, patience_s: float, check_stop: Callable[[], None]
    ) -> Heard | windows.Event:
        """What happens next, as the window calls it; a chunk as it came."""
        deadline = self._clock() + patience_s
        while True:
            check_stop()
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

    def _act(self, retained: Retained, act: windows.Act) -> None:
        if act.absent:
            raise PeerFault(f"chunk {act.absent} is not on the broker", advice=self.advice)
        if act.dead:
            raise PeerFault(
                "the broker fell silent in the middle of a download",
                advice="What arrived is kept; the download goes on where it stopped.",
            )
        if act.forget:
            retained.forget(self._named(act.forget))
        if act.ask:
            topics = self._named(act.ask)
            number = retained.ask(topics, size_max=CHUNK_BYTES, probe=act.probe)
            if act.probe:
                self._probes.add(number)

    def _named(self, chunks: Sequence[str]) -> list[str]:
        return [self._topics.chunk(sha256) for sha256 in chunks]

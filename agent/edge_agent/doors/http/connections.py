"""All connections of a server, and what they share: bounds, known heads, requests gathered.

Guards: requests that are here at once are read first, then answered one after the other, and each
gets its answer whatever becomes of the others.
"""

from __future__ import annotations

import asyncio
import time

from edge_agent.doors.http.connection import Connection
from edge_agent.doors.http.exchange import Answer, Fault, Handler, Lane, LaneOf, Limits
from edge_agent.doors.http.heads import KnownHeads

HELD_S = 0.002
"""So long an answer that is ready waits for others."""


class Connections:
    """All connections of a server. In its loop.

    Args:
        handler: answers a request. fault: the answer for one that could not be read.
        lane_of: as of ``KnownHeads``, which the Unix socket has its own of: its clients may more.
    """

    def __init__(
        self, limits: Limits, handler: Handler, fault: Fault, lane_of: LaneOf = lambda _: None
    ) -> None:
        self.limits = limits
        self.handler = handler
        self.fault = fault
        self._heads = {local: KnownHeads(lane_of) for local in (True, False)}
        self.all: set[Connection] = set()
        self.answered = 0
        self.held_bytes = 0
        self.last: Connection | None = None
        self.last_s = 0.0
        """Which one had a request by a lane last, and when."""
        self._gathered: list[tuple[Connection, Lane, bytes, int]] = []

    def gather(self, connection: Connection, lane: Lane, data: bytes, start: int) -> None:
        """Answer ``data``, whose body begins at ``start``, with what else is here by now."""
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self.answer_gathered)
        self._gathered.append((connection, lane, data, start))

    def answer_gathered(self) -> None:
        """Answer all that was gathered: first the work, then the writes, which are the kernel's.

        What goes wrong for one connection ends that one; the others get their answers.
        """
        gathered, self._gathered = self._gathered, []
        ready: list[tuple[Connection, Answer, bytes]] = []
        since = time.perf_counter()
        for at, (connection, lane, data, start) in enumerate(gathered, 1):
            try:
                ready.append((connection, lane(data[start:]), data))
            except Exception as error:  # noqa: BLE001 - as the loop does for one connection
                connection.fail(error)
            if at == len(gathered) or time.perf_counter() - since > HELD_S:
                for each, answer, whole in ready:
                    try:
                        each.settle(answer, whole)
                    except Exception as error:  # noqa: BLE001 - as above
                        each.fail(error)
                ready = []
                since = time.perf_counter()

    def make(self, *, local: bool) -> Connection:
        """A connection that was accepted."""
        return Connection(self, self._heads[local], local=local)

    def sweep(self, now: float) -> None:
        """Close what has been slow or idle for too long. To be called about once a second."""
        for connection in list(self.all):
            connection.check(now)

    def close(self) -> None:
        """Let each connection end after the answer that is under way."""
        self.answer_gathered()
        for connection in list(self.all):
            connection.finish()

"""Heads that are known: where the same bytes come again before a body, they mean the same.

Guards: only a request that came whole and in one piece is learnt, with a body of a fixed length
that is its bytes and no more; how many heads are kept, and how long they are, is bounded.
"""

from __future__ import annotations

from edge_agent.doors.http.exchange import Lane, LaneOf, Request

HEADS_MAX = 64
HEAD_KEPT_MAX_BYTES = 2048
END = b"\r\n\r\n"
"""Of a head. RFC 9112, 2.1."""
_PLAIN = frozenset({"content-encoding", "expect", "transfer-encoding", "upgrade"})
"""Fields that a request in a lane does not have: with them a body is more than its bytes."""


class KnownHeads:
    """What follows which head. In the loop.

    Args:
        lane_of: the lane for requests that differ from this one in their body alone; None: there
            is none.
    """

    def __init__(self, lane_of: LaneOf) -> None:
        self._lane_of = lane_of
        self._known: dict[bytes, tuple[bytes, int, Lane]] = {}

    def __len__(self) -> int:
        """How many."""
        return len(self._known)

    def find(self, data: bytes) -> tuple[bytes, int, Lane] | None:
        """The head that ``data`` begins with, the length of its body in bytes, and its lane."""
        return self._known.get(data[: data.find(END, 0, HEAD_KEPT_MAX_BYTES) + len(END)])

    def learn(self, whole: bytes, request: Request) -> None:
        """Open a lane for requests like this one; ``whole``: all of it, as it came in one piece."""
        head, end, body = whole.partition(END)
        length = request.headers.get("content-length", "")
        fixed = length == str(len(body)) and body == request.body
        if (
            not fixed
            or len(head) + len(end) > HEAD_KEPT_MAX_BYTES
            or not _PLAIN.isdisjoint(request.headers)
        ):
            return
        lane = self._lane_of(request)
        if lane is not None:
            if len(self._known) >= HEADS_MAX:
                self._known.clear()  # clients come and go; those that stay are learnt again
            self._known[head + end] = head + end, len(body), lane

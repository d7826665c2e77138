"""What a device is asked most, one row as JSON, in the fewest steps.

Guards: whatever is out of the ordinary is left to the general way, which says what is wrong; every
request is counted once.

Each step costs twice what it does in a loop of its own: between two requests the kernel and others
have had the processor's caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from edge_agent import tap
from edge_agent.doors import oip_rows
from edge_agent.doors.http.exchange import Response
from edge_agent.live import Live

now_ns = time.perf_counter_ns

INLINE_MAX_NS = 1_000_000
INLINE_MAX_BYTES = 64 * 1024
"""Answered in the loop: a model that takes less than a millisecond, on a small request."""
RISE = 8
"""How long a model takes is the least of what was measured lately: a measurement above it raises
it by an eighth at most, for a busy machine makes any request look long."""
ID_HEADER = "edge-prediction-id"
"""The id of the answer's first row, where the agent gives ids; see ``edge_agent.predictions``."""


class Known(Struct):
    """What was learnt of a model that answers. In the loop and in its threads.

    Attributes:
        digest: which version it is; the model itself is not held beyond its time.
        form: what requests are compared with. writer: of answers for one row.
        took_ns: how long it takes; the first request is never answered in the loop.
    """

    digest: str
    form: oip_rows.Form
    writer: oip_rows.RowWriter
    took_ns: int = INLINE_MAX_NS + 1

    def add(self, ns: int) -> None:
        """One request took so long."""
        most = self.took_ns + self.took_ns // RISE
        self.took_ns = ns if ns < most else most


class Books(Protocol):
    """Who counts answers, and words what went wrong."""

    def counted(self, response: Response, begin_ns: int) -> Response:
        """One answer, to a request that was whole at ``begin_ns``."""

    def counted_ok(self, begin_ns: int) -> None:
        """One answer of status 200."""

    def fault(self, error: Exception) -> Response:
        """The answer for an error."""


class RowLane:
    """Answers bodies for one model and one version of it, as asked for.

    Args:
        place: the model's name, and the version that was asked for, "" for what answers.
        models: the live models by name; looked up anew at each request.
        every: what is known of models, by their places. otherwise: answers any other body.
    """

    def __init__(
        self,
        place: tuple[str, str],
        *,
        models: Mapping[str, Live],
        every: Mapping[tuple[str, str], Known],
        books: Books,
        otherwise: Callable[[bytes], Response | None],
        values_max: int,
    ) -> None:
        self._place = place
        self._models = models
        self._every = every
        self._books = books
        self._otherwise = otherwise
        self._values_max = values_max

    def answer(self, body: bytes) -> bytes | Response | None:
        """An ``exchange.Lane``."""
        begin = now_ns()
        name, version = self._place
        known, seat = self._every.get(self._place), self._models.get(name)
        if known is None or known.took_ns > INLINE_MAX_NS or len(body) > INLINE_MAX_BYTES:
            return None
        tensor = known.form.row
        if seat is None or seat.split is not None or tensor is None:
            return self._otherwise(body)
        row = oip_rows.one_row(body, tensor)
        if row is None or len(row[1]) > self._values_max:
            return self._otherwise(body)
        try:
            with seat.use(version) as model:
                if model.digest != known.digest:
                    return self._otherwise(body)
                found = model.infer_row(row[1], known.writer)
                if found is None:
                    return self._otherwise(body)
                own = tap.claim(model)
        except Exception as error:  # noqa: BLE001 - the client gets a word, the log the rest
            return self._books.counted(self._books.fault(error), begin)
        known.add(now_ns() - begin)
        if own or row[0]:
            found = oip_rows.with_id(found, row[0] or own)
        if own:
            response = Response(200, found, headers=((ID_HEADER, own),))
            return self._books.counted(response, begin)
        self._books.counted_ok(begin)
        made: bytes = found
        return made

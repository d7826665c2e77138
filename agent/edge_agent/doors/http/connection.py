"""One HTTP/1.1 connection: when its requests are answered, and when it ends.

Guards: answers go out in the order of their requests; a client that sends or reads slowly loses its
connection, not others theirs; of what a client sends at once no more is read and answered than it
takes answers, and others get theirs between; nothing behind a faulty message is looked at.

Sources: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Awaitable
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from edge_agent.doors.http.dates import http_date
from edge_agent.doors.http.exchange import Answer, Lane, Request, Response
from edge_agent.doors.http.heads import END, KnownHeads
from edge_agent.doors.http.reader import Reader, Refused

if TYPE_CHECKING:
    from edge_agent.doors.http.connections import Connections

log = logging.getLogger(__name__)

SPARE_IDLE_S = 2.0
CROWD_S = 0.001
"""Where requests of two connections come so close, those that follow are gathered until all that
is here was read: answers one after the other take two thirds of the time that answers between the
kernel's reads and writes do."""
PIPELINE_MAX = 8
"""Requests of one connection that wait for the answer to the one before: no part is read of what
follows them."""
PART_BYTES = 8 * 1024
"""Of what came at once is read before its requests are answered; a body's rest counts as one."""
TURN_MAX = 8
"""Answers of one connection in a turn of the loop: others have theirs between."""
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_NO_LANE: tuple[bytes, int, Lane] = (END, -1, lambda _: None)
"""No request begins so."""


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: Connections, heads: KnownHeads, *, local: bool) -> None:
        self._server = server
        self._heads = heads
        self._lane_head, self._lane_length, self._lane = _NO_LANE  # that was taken last
        self._gathered = False
        self._piece = b""
        """That a request began with, while it is all of it that came."""
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(self, server.limits.body_max_bytes, local=local)
        self._transport: asyncio.Transport | None = None
        self._unread: bytes | memoryview = b""
        """Is here, and is read when fewer wait."""
        self._waiting: deque[tuple[Request | Response, bool]] = deque()
        """Requests, and at the end what is said of one that cannot be read; and what follows is
        read: the connection is kept."""
        self._task: asyncio.Task[None] | None = None
        self._left = TURN_MAX  # answers in this turn
        self._no_more = False
        """No request follows those that wait: the last answer ends the connection."""
        self._spare = False
        self._held_bytes = 0
        self._paused = False
        self._writable = True
        self._since = self._loop.time()
        self._idle = True

    # -- transport ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is here."""
        self._transport = cast("asyncio.Transport", transport)
        held, limits = len(self._server.all), self._server.limits
        if held >= limits.connections_max + limits.spare:
            self._refuse(503, "too many connections")
            self._go_on()
            return
        self._spare = held >= limits.connections_max
        self._server.all.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """The client is gone: what it waited for is not wanted any more."""
        self._server.all.discard(self)
        if self._server.last is self:
            self._server.last = None
        self.hold(-self._held_bytes)
        self._transport = None
        self._waiting.clear()
        self._unread = b""
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._gathered:
            self._server.answer_gathered()
        if self._no_more or (self._idle and self._by_lane(data)):
            return
        self._read(data)

    def _read(self, data: bytes) -> None:
        if self._unread:  # what is read next is not from ``data``
            self._piece = b""
            self._unread = bytes(self._unread) + data
            return
        self._left = TURN_MAX
        if self._idle:
            self._idle = False
            self._since = self._loop.time()
            self._piece = data
        else:
            self._piece = b""
        if len(data) > PART_BYTES:
            self._unread = memoryview(data)
            self._go_on()
            return
        self._feed(data)
        if self._waiting:
            self._go_on()

    def _feed(self, data: bytes | memoryview) -> None:
        try:
            if not self._reader.feed(data):
                self._read_no_more()
        except Refused as error:
            self._refuse(error.status, error.what)

    def _by_lane(self, data: bytes) -> bool:
        """Answer a request whose head is known; False: it is not one, or not to be answered so."""
        if not data.startswith(self._lane_head):
            found = self._heads.find(data)
            if found is None:
                return False
            self._lane_head, self._lane_length, self._lane = found
        start, lane, server = len(self._lane_head), self._lane, self._server
        if len(data) - start != self._lane_length or self._spare:
            return False
        if self._task is not None or self._waiting:
            return False
        now = self._loop.time()
        crowded = now - server.last_s <= CROWD_S and server.last is not self
        server.last, server.last_s = self, now
        if crowded:
            self._gathered = True
            server.gather(self, lane, data, start)
            return True
        answer = lane(data[start:])
        if answer is None:
            return False
        if type(answer) is bytes:
            self._write_plain(answer, now)
        else:
            self._write(cast("Response", answer), keep=True)
        return True

    def settle(self, answer: Answer, data: bytes) -> None:
        """Write the answer to ``data``, which was gathered."""
        self._gathered = False
        if type(answer) is bytes:
            self._write_plain(answer, self._loop.time())
        elif answer is not None:
            self._write(cast("Response", answer), keep=True)
        elif self._transport is not None:
            self._read(data)

    def fail(self, error: Exception) -> None:
        """End at once: an answer that was gathered could not be made or written."""
        log.error("a connection is closed for an error of the agent", exc_info=error)
        self._gathered = False
        self._no_more = True
        if self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool:
        """The client sends no more; it still reads what it asked for."""
        if self._gathered:
            self._server.answer_gathered()
        if self._task is None and not self._waiting:
            return False
        self._read_no_more()
        return True

    def pause_writing(self) -> None:
        """The client does not take its answers: read no more of it."""
        self._writable = False
        self._since = self._loop.time()
        self._pause()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable = True
        self._loop.call_soon(self._turn)

    # -- what was read -----------------------------------------------------------------------

    def begins(self) -> None:
        """A request has begun."""
        self._idle = False

    def proceed(self) -> None:
        """The client may send the body it announced."""
        if self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def hold(self, size_bytes: int) -> None:
        """So much more of requests is kept, or less."""
        self._held_bytes += size_bytes
        self._server.held_bytes += size_bytes

    def is_crowded(self) -> bool:
        """Whether all bodies together are too large, of which this one is not the only one."""
        held = self._server.held_bytes
        return held > self._held_bytes and held > self._server.limits.bodies_max_bytes

    def whole(self, request: Request, *, keep: bool) -> None:
        """Answer a request, in its turn."""
        if self._no_more:
            return
        if self._spare:
            request, keep = request._replace(spare=True), False
        if keep and self._piece:
            self._heads.learn(self._piece, request)
            self._piece = b""
        self._idle = True
        if self._left and self._writable and self._task is None and not self._waiting:
            self._left -= 1
            self._answer(request, keep=keep)
            return
        self._waiting.append((request, keep))
        if len(self._waiting) >= PIPELINE_MAX:
            self._pause()

    # -- answers -----------------------------------------------------------------------------

    def _turn(self) -> None:
        self._left = TURN_MAX
        self._go_on()

    def _go_on(self) -> None:
        """Answer what waits, in its order, and read what is here, as far as that may be now."""
        while self._transport is not None:
            if self._waiting and self._task is None and self._writable:
                if not self._left:
                    self._pause()
                    self._loop.call_soon(self._turn)
                    return
                self._left -= 1
                request, keep = self._waiting.popleft()
                if isinstance(request, Response):
                    self._write(request, keep=keep)
                else:
                    self._answer(request, keep=keep)
            elif self._unread and len(self._waiting) < PIPELINE_MAX:
                size = max(PART_BYTES, self._reader.missing_bytes)
                part, self._unread = self._unread[:size], self._unread[size:] or b""
                self._feed(part)
            else:
                self._resume()
                return

    def _answer(self, request: Request, *, keep: bool) -> None:
        found = self._server.handler(request)
        if isinstance(found, Response):
            self.hold(-len(request.body))
            self._write(found, keep=keep, head=request.method == "HEAD")
        else:
            self._task = self._loop.create_task(self._later(request, found, keep=keep))

    async def _later(self, request: Request, found: Awaitable[Response], *, keep: bool) -> None:
        response = await found
        self.hold(-len(request.body))
        self._task = None
        self._write(response, keep=keep, head=request.method == "HEAD")
        self._turn()

    def _write(self, response: Response, *, keep: bool, head: bool = False) -> None:
        if self._transport is None:
            return
        self._server.answered += 1
        keep = keep and (not self._no_more or bool(self._waiting))
        status, body, content_type, headers = response
        self._since = now = self._loop.time()
        block = _head(int(now), status, content_type) + str(len(body)).encode()
        if headers or not keep:
            lines = [f"\r\n{name}: {value}" for name, value in headers]
            block += "".join(lines if keep else [*lines, "\r\nconnection: close"]).encode("latin-1")
        self._transport.write(block + END if head else b"".join((block, END, body)))
        if not keep:
            self._waiting.clear()
            self._read_no_more()

    def _write_plain(self, body: bytes, now: float) -> None:
        """As ``_write`` for a body of JSON and status 200, on a connection that is kept."""
        if self._transport is None or self._no_more:
            self._write(Response(200, body), keep=True)
            return
        self._server.answered += 1
        self._since = now
        head = _head(int(now), 200, "application/json")
        self._transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))

    def _refuse(self, status: int, what: str) -> None:
        """Say, in its turn, what cannot be read; where the next message begins is unknown."""
        if self._no_more:
            return
        self._waiting.append((self._server.fault(status, what), False))
        self._read_no_more()
        self._pause()

    def _read_no_more(self) -> None:
        """Let the last answer of those that are due end the connection."""
        self._no_more, self._unread = True, b""
        if self._task is None and not self._waiting and self._transport is not None:
            self._transport.close()

    def _pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Read on, where that was paused and nothing is in its way any more."""
        room = len(self._waiting) < PIPELINE_MAX
        if self._paused and room and self._writable and not self._no_more:
            self._paused = False
            cast("asyncio.Transport", self._transport).resume_reading()

    # -- time --------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Close the connection when its client is too slow, or has nothing to say."""
        if self._transport is None or (self._task is not None and self._writable):
            return
        if self._gathered:
            return
        waited, limits = now - self._since, self._server.limits
        if not self._writable or self._no_more:
            if waited > limits.arrive_s:
                self._transport.abort()
        elif self._idle:
            if waited > (SPARE_IDLE_S if self._spare else limits.idle_s):
                self._transport.close()
        elif waited > limits.arrive_s:
            self._refuse(408, f"the request did not arrive within {limits.arrive_s:g} s")
            self._turn()

    def finish(self) -> None:
        """End after the answer that is under way, or those that a client has yet to take."""
        if self._task is not None:
            self._waiting.clear()
        self._read_no_more()


@functools.lru_cache(maxsize=16)
def _head(_second: int, status: int, content_type: str) -> bytes:
    """An answer's first lines up to its length's value; made once a second, for its date."""
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"date: {http_date(int(time.time()))}\r\n"
        f"content-type: {content_type}\r\ncontent-length: "
    ).encode("latin-1")

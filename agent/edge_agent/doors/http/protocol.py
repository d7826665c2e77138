"""One HTTP/1.1 connection: bytes in, requests to a handler, answers out in their order.

Guards: nothing is kept that is larger than its bound; a client that sends or reads slowly loses
its connection, not others theirs; a message that two parsers could read differently is refused
(llhttp, strict), and nothing behind a faulty message is looked at.

The parser is httptools'. What it made of a head is remembered: a client sends the same bytes before
each body, and where they come again in one piece with a body of their length, they mean the same.

Sources: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple, cast

import httptools

log = logging.getLogger(__name__)

HEAD_MAX_BYTES = 16 * 1024
NAME_KEPT_MAX = 64
SPARE_IDLE_S = 2.0
CROWD_S = 0.001
"""Where requests of two connections come so close, those that follow are gathered until all that
is here was read: answers one after the other take two thirds of the time that answers between the
kernel's reads and writes do."""
HELD_S = 0.002
"""So long an answer that is ready waits for others."""
LANES_MAX = 64
LANE_HEAD_MAX_BYTES = 2048
PIPELINE_MAX = 8
"""Requests of one connection that wait for the answer to the one before."""
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class Limits(NamedTuple):
    """What one client may take.

    Attributes:
        body_max_bytes: of a request, after decompression too.
        bodies_max_bytes: of all requests together that arrive, wait, or are being answered; one
            at least is let in.
        connections_max: at once, over all listeners.
        spare: connections beyond those, each for one question after the device's health or
            figures: a flood of requests must not hide how the device is.
        arrive_s: a request has to be here, and an answer to be taken, within this time.
        idle_s: a connection without a request is closed after this time.
    """

    body_max_bytes: int = 8 * 1024**2
    bodies_max_bytes: int = 64 * 1024**2
    connections_max: int = 256
    spare: int = 16
    arrive_s: float = 20.0
    idle_s: float = 120.0


class Request(NamedTuple):
    """One whole request; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    local: bool = False
    """It came through the Unix socket, whose file's mode says who may."""
    arrived_s: float = 0.0
    """By the monotonic clock, where it had to wait for a thread."""
    spare: bool = False
    """There are too many connections: only health and figures are answered."""


class Response(NamedTuple):
    """One whole answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Response | Awaitable[Response]]
Fault = Callable[[int, str], Response]
"""The answer for a request that never got as far as the handler."""


Answer = Response | bytes | None
"""Of a lane; bytes: a body of JSON with status 200; None: let the handler answer."""
Lane = Callable[[bytes], Answer]
"""Answers a body behind a head that is known, at once."""
LaneOf = Callable[[Request], Lane | None]


class Connections:
    """All connections of a server. In its loop.

    Args:
        lane_of: the lane for requests that differ from this one in their body alone; None: there
            is none.
    """

    def __init__(
        self, limits: Limits, handler: Handler, fault: Fault, lane_of: LaneOf = lambda _: None
    ) -> None:
        self.limits = limits
        self.handler = handler
        self.fault = fault
        self.lane_of = lane_of
        self._lanes: dict[bool, dict[bytes, tuple[int, Lane]]] = {True: {}, False: {}}
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
        return Connection(self, self._lanes[local], local=local)

    def sweep(self, now: float) -> None:
        """Close what has been slow or idle for too long. To be called about once a second."""
        for connection in list(self.all):
            connection.check(now)

    def close(self) -> None:
        """Let each connection end after the answer that is under way."""
        self.answer_gathered()
        for connection in list(self.all):
            connection.finish()


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(
        self, server: Connections, lanes: dict[bytes, tuple[int, Lane]], *, local: bool
    ) -> None:
        self._server = server
        self._lanes = lanes
        self._lane_head = _END  # of the lane that was taken last; no request begins so
        self._lane_length, self._lane = _NO_LANE
        self._gathered = False
        self._whole = b""
        self._local = local
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        self._eof = False
        self._spare = False
        self._held_bytes = 0
        self._writable = True
        self._since = self._loop.time()
        self._begin()

    def _begin(self) -> None:
        """No request is under way."""
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._fields_bytes = 0
        self._in_head = True
        self._idle = True

    # -- transport ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is here."""
        self._transport = cast("asyncio.Transport", transport)
        held, limits = len(self._server.all), self._server.limits
        if held >= limits.connections_max + limits.spare:
            self._refuse(503, "too many connections")
            return
        self._spare = held >= limits.connections_max
        self._server.all.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """The client is gone: what it waited for is not wanted any more."""
        self._server.all.discard(self)
        if self._server.last is self:
            self._server.last = None
        self._hold(-self._held_bytes)
        self._transport = None
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._gathered:
            self._server.answer_gathered()
        if self._ending or (self._idle and self._by_lane(data)):
            return
        self._read(data)

    def _read(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._since = self._loop.time()
            self._whole = data
        else:
            self._whole = b""
        try:
            self._feed(data)
        except _Refused as error:
            self._refuse(error.status, error.what)

    def _by_lane(self, data: bytes) -> bool:
        """Answer a request whose head is known; False: it is not one, or not to be answered so."""
        if not data.startswith(self._lane_head):
            size = data.find(_END, 0, LANE_HEAD_MAX_BYTES) + len(_END)
            found = self._lanes.get(data[:size])
            if found is None:
                return False
            self._lane_head, (self._lane_length, self._lane) = data[:size], found
        start, lane, server = len(self._lane_head), self._lane, self._server
        if len(data) - start != self._lane_length or self._spare or self._task is not None:
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
        self._ending = True
        if self._transport is not None:
            self._transport.abort()

    def _remember(self, request: Request) -> None:
        """Open a lane for requests like this one, which was all that came in one piece."""
        head, end, body = self._whole.partition(_END)
        length = request.headers.get("content-length", "")
        fixed = length == str(len(body)) and body == request.body
        if (
            not fixed
            or len(head) + len(end) > LANE_HEAD_MAX_BYTES
            or not _PLAIN.isdisjoint(request.headers)
        ):
            return
        lane = self._server.lane_of(request)
        if lane is not None:
            if len(self._lanes) >= LANES_MAX:
                self._lanes.clear()  # clients come and go; those that stay are learnt again
            self._lanes[head + end] = len(body), lane

    def _feed(self, data: bytes) -> None:
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.finish()  # the request was answered as if it had not asked
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from error
        except httptools.HttpParserError as error:
            raise _Refused(400, f"not a valid HTTP/1.1 message: {error}") from error
        if self._head_bytes > HEAD_MAX_BYTES:  # also what stands around a body, or behind it
            raise _Refused(431, f"the headers are over {HEAD_MAX_BYTES} bytes")

    def eof_received(self) -> bool:
        """The client sends no more; it still reads what it asked for."""
        if self._gathered:
            self._server.answer_gathered()
        if self._task is None and not self._waiting:
            return False
        self._eof = True
        return True

    def pause_writing(self) -> None:
        """The client does not take its answers: read no more of it."""
        self._writable = False
        self._since = self._loop.time()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable = True
        self._resume()

    # -- parser ------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._idle = False
        self._url += url
        if len(self._url) > HEAD_MAX_BYTES:
            raise _Refused(414, "the path is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field; what stands behind a chunked body is not kept (RFC 9110, 6.5)."""
        if not self._in_head:
            return
        self._fields_bytes += len(name) + len(value)
        if self._fields_bytes > HEAD_MAX_BYTES:
            raise _Refused(431, f"the headers are over {HEAD_MAX_BYTES} bytes")
        key = _lower(name) if len(name) <= NAME_KEPT_MAX else _lower.__wrapped__(name)
        if key in self._headers:
            if key in _SINGLE:
                raise _Refused(400, f"the header {key} is there twice")
            self._headers[key] += ", " + value.decode("latin-1")
        else:
            self._headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The body follows, if there is one."""
        self._in_head = False
        if self._parser.get_http_version() == "1.1" and "host" not in self._headers:
            raise _Refused(400, "the header host is missing")
        length = self._headers.get("content-length", "")
        limit = self._server.limits.body_max_bytes
        if length.isdigit() and int(length) > limit:
            raise _Refused(413, f"a body of {length} bytes, the limit is {limit}")
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._head_bytes = 0
        self._body_bytes += len(body)
        limit = self._server.limits.body_max_bytes
        if self._body_bytes > limit:
            raise _Refused(413, f"the body is over the limit of {limit} bytes")
        self._hold(len(body))
        server = self._server
        others = server.held_bytes > self._held_bytes
        if others and server.held_bytes > server.limits.bodies_max_bytes:
            raise _Refused(503, "overloaded: too many large requests at once; send fewer")
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        coding = self._headers.get("content-encoding", "identity").lower()
        if coding != "identity":
            body = _decompressed(body, coding, self._server.limits.body_max_bytes)
            self._hold(len(body) - self._body_bytes)
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._url.partition(b"?")[0].decode("latin-1"),
            self._headers,
            body,
            self._local,
            spare=self._spare,
        )
        keep = self._parser.should_keep_alive() and not self._spare
        if keep and self._whole:
            self._remember(request)
            self._whole = b""
        self._begin()
        if self._task is None and not self._waiting:
            self._answer(request, keep=keep)
            return
        self._waiting.append((request, keep))
        if len(self._waiting) >= PIPELINE_MAX and self._transport is not None:
            self._transport.pause_reading()

    # -- answers -----------------------------------------------------------------------------

    def _answer(self, request: Request, *, keep: bool) -> None:
        found = self._server.handler(request)
        if isinstance(found, Response):
            self._hold(-len(request.body))
            self._write(found, keep=keep, head=request.method == "HEAD")
        else:
            self._task = self._loop.create_task(self._later(request, found, keep=keep))

    async def _later(self, request: Request, found: Awaitable[Response], *, keep: bool) -> None:
        response = await found
        self._hold(-len(request.body))
        self._task = None
        self._write(response, keep=keep, head=request.method == "HEAD")
        while self._waiting and self._task is None and self._transport is not None:
            following, keep = self._waiting.popleft()
            self._answer(following, keep=keep)
        self._resume()

    def _write(self, response: Response, *, keep: bool, head: bool = False) -> None:
        if self._transport is None:
            return
        self._server.answered += 1
        keep = keep and not self._ending and (not self._eof or bool(self._waiting))
        status, body, content_type, headers = response
        self._since = now = self._loop.time()
        block = _head(int(now), status, content_type) + str(len(body)).encode()
        if headers or not keep:
            lines = [f"\r\n{name}: {value}" for name, value in headers]
            block += "".join(lines if keep else [*lines, "\r\nconnection: close"]).encode("latin-1")
        self._transport.write(block + _END if head else b"".join((block, _END, body)))
        if not keep:
            self._ending = True
            self._waiting.clear()
            self._transport.close()

    def _write_plain(self, body: bytes, now: float) -> None:
        """As ``_write`` for a body of JSON and status 200, on a connection that is kept."""
        if self._transport is None or self._ending or self._eof:
            self._write(Response(200, body), keep=True)
            return
        self._server.answered += 1
        self._since = now
        head = _head(int(now), 200, "application/json")
        self._transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))

    def _hold(self, size_bytes: int) -> None:
        """So much more of requests is kept, or less."""
        self._held_bytes += size_bytes
        self._server.held_bytes += size_bytes

    def _refuse(self, status: int, what: str) -> None:
        """Answer what cannot be read and read no more: where the next message begins is unknown."""
        self._ending = True
        if self._task is None:
            self._write(self._server.fault(status, what), keep=False)
        elif self._transport is not None:
            self._transport.pause_reading()

    def _resume(self) -> None:
        open_ = self._transport is not None and not self._ending and self._writable
        if open_ and len(self._waiting) < PIPELINE_MAX:
            cast("asyncio.Transport", self._transport).resume_reading()

    # -- time --------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Close the connection when its client is too slow, or has nothing to say."""
        if self._transport is None or (self._task is not None and self._writable):
            return
        if self._gathered:
            return
        waited, limits = now - self._since, self._server.limits
        if not self._writable:
            if waited > limits.arrive_s:
                self._transport.abort()
        elif self._idle:
            if waited > (SPARE_IDLE_S if self._spare else limits.idle_s):
                self._transport.close()
        elif waited > limits.arrive_s:
            self._refuse(408, f"the request did not arrive within {limits.arrive_s:g} s")

    def finish(self) -> None:
        """End after the answer that is under way."""
        self._ending = True
        if self._task is None and self._transport is not None:
            self._transport.close()


class _Refused(Exception):
    """A request that is answered without being read to its end."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status
        self.what = what


_SINGLE = frozenset(
    {"authorization", "content-encoding", "content-length", "content-type", "host",
     "inference-header-content-length", "origin"}
)  # fmt: skip
"""Fields that mean one thing or nothing."""


def _decompressed(body: bytes, coding: str, limit: int) -> bytes:
    """A compressed body, bounded. RFC 9110, 8.4.1."""
    bits = {"gzip": 31, "x-gzip": 31, "deflate": 15}.get(coding)
    if bits is None:
        raise _Refused(415, f"content-encoding {coding[:40]!r} is not known; gzip and deflate are")
    inflate = zlib.decompressobj(bits)
    try:
        found = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise _Refused(400, f"the body is not valid {coding}: {error}") from error
    if len(found) > limit:
        raise _Refused(413, f"the body is over the limit of {limit} bytes")
    if not inflate.eof or inflate.unused_data:
        raise _Refused(400, f"the body is not one whole {coding} stream")
    return found


_END = b"\r\n\r\n"
_PLAIN = frozenset({"content-encoding", "expect", "transfer-encoding", "upgrade"})
"""Fields that a request in a lane does not have: with them a body is more than its bytes."""
_NO_LANE: tuple[int, Lane] = (-1, lambda _: None)


@functools.lru_cache(maxsize=16)
def _head(_second: int, status: int, content_type: str) -> bytes:
    """An answer's first lines up to its length's value; made once a second, for its date."""
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"date: {formatdate(usegmt=True)}\r\n"
        f"content-type: {content_type}\r\ncontent-length: "
    ).encode("latin-1")


@functools.lru_cache(maxsize=256)
def _lower(name: bytes) -> str:
    """A header's name, of those that come again and again."""
    return name.decode("latin-1").lower()

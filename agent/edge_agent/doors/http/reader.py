"""Bytes of one connection in, whole requests out.

Guards: nothing is kept that is larger than its bound; a message that two parsers could read
differently is refused (llhttp, strict); a refused message is the last that is looked at.

The parser is httptools'. Sources: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import functools
import zlib
from typing import Protocol

import httptools

from edge_agent.doors.http.exchange import Request

HEAD_MAX_BYTES = 16 * 1024
NAME_KEPT_MAX = 64


class Refused(Exception):
    """A request that is answered without being read to its end."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status
        self.what = what


class Owner(Protocol):
    """Who is told of what was read."""

    def begins(self) -> None:
        """A request has begun."""

    def proceed(self) -> None:
        """The client waits for a word before it sends the body (RFC 9110, 10.1.1)."""

    def hold(self, size_bytes: int) -> None:
        """So much more of requests is kept, or less."""

    def is_crowded(self) -> bool:
        """Whether what is kept, with that of others, is too much."""

    def whole(self, request: Request, *, keep: bool) -> None:
        """A request is whole; ``keep``: the connection stays open behind its answer."""


class Reader:
    """The requests of one connection.

    Args:
        body_max_bytes: of a request, after decompression too.
        local: the connection came through the Unix socket.
    """

    def __init__(self, owner: Owner, body_max_bytes: int, *, local: bool) -> None:
        self._owner = owner
        self._body_max_bytes = body_max_bytes
        self._local = local
        self._parser = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        """No request is under way."""
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._length = 0
        self._head_bytes = 0
        self._fields_bytes = 0
        self._in_head = True

    @property
    def missing_bytes(self) -> int:
        """Of the body under way, where its length was said."""
        return max(0, self._length - self._body_bytes)

    def feed(self, data: bytes | memoryview) -> bool:
        """Read on. False: the request asked for another protocol, which is not spoken here; it was
        handed over as if it had not asked, and nothing behind it can be read.

        Raises Refused for what cannot be answered, after which nothing more may be fed.
        """
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return False
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from error
        except httptools.HttpParserError as error:
            raise Refused(400, f"not a valid HTTP/1.1 message: {error}") from error
        if self._head_bytes > HEAD_MAX_BYTES:  # also what stands around a body, or behind it
            raise Refused(431, f"the headers are over {HEAD_MAX_BYTES} bytes")
        return True

    # -- what the parser calls ---------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._owner.begins()
        self._url += url
        if len(self._url) > HEAD_MAX_BYTES:
            raise Refused(414, "the path is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field; what stands behind a chunked body is not kept (RFC 9110, 6.5)."""
        if not self._in_head:
            return
        self._fields_bytes += len(name) + len(value)
        if self._fields_bytes > HEAD_MAX_BYTES:
            raise Refused(431, f"the headers are over {HEAD_MAX_BYTES} bytes")
        key = _lower(name) if len(name) <= NAME_KEPT_MAX else _lower.__wrapped__(name)
        if key in self._headers:
            if key in _SINGLE:
                raise Refused(400, f"the header {key} is there twice")
            self._headers[key] += ", " + value.decode("latin-1")
        else:
            self._headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The body follows, if there is one."""
        self._in_head = False
        if self._parser.get_http_version() == "1.1" and "host" not in self._headers:
            raise Refused(400, "the header host is missing")
        length = self._headers.get("content-length", "")
        limit = self._body_max_bytes
        if length.isdigit():
            self._length = int(length)
            if self._length > limit:
                raise Refused(413, f"a body of {length} bytes, the limit is {limit}")
        if self._headers.get("expect", "").lower() == "100-continue":
            self._owner.proceed()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._head_bytes = 0
        self._body_bytes += len(body)
        limit = self._body_max_bytes
        if self._body_bytes > limit:
            raise Refused(413, f"the body is over the limit of {limit} bytes")
        self._owner.hold(len(body))
        if self._owner.is_crowded():
            raise Refused(503, "overloaded: too many large requests at once; send fewer")
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        coding = self._headers.get("content-encoding", "identity").lower()
        if coding != "identity":
            body = _decompressed(body, coding, self._body_max_bytes)
            self._owner.hold(len(body) - self._body_bytes)
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._url.partition(b"?")[0].decode("latin-1"),
            self._headers,
            body,
            self._local,
        )
        keep = self._parser.should_keep_alive()
        self._begin()
        self._owner.whole(request, keep=keep)


_SINGLE = frozenset(
    {"authorization", "content-encoding", "content-length", "content-type", "host",
     "inference-header-content-length", "origin"}
)  # fmt: skip
"""Fields that mean one thing or nothing."""


def _decompressed(body: bytes, coding: str, limit: int) -> bytes:
    """A compressed body, bounded. RFC 9110, 8.4.1."""
    bits = {"gzip": 31, "x-gzip": 31, "deflate": 15}.get(coding)
    if bits is None:
        raise Refused(415, f"content-encoding {coding[:40]!r} is not known; gzip and deflate are")
    inflate = zlib.decompressobj(bits)
    try:
        found = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(400, f"the body is not valid {coding}: {error}") from error
    if len(found) > limit:
        raise Refused(413, f"the body is over the limit of {limit} bytes")
    if not inflate.eof or inflate.unused_data:
        raise Refused(400, f"the body is not one whole {coding} stream")
    return found


@functools.lru_cache(maxsize=256)
def _lower(name: bytes) -> str:
    """A header's name, of those that come again and again."""
    return name.decode("latin-1").lower()

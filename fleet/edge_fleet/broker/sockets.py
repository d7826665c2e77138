"""One TCP connection of the broker: bytes in, bytes out, pressure back. No rule lives here."""

import asyncio
from collections.abc import Callable
from typing import cast

from edge_fleet.broker.access import Access
from edge_fleet.broker.connection import Connection
from edge_fleet.broker.engine import Engine

_ENOUGH_BYTES = 256 * 1024  # unsent: messages wait in their session's queue instead
_TOO_MUCH_BYTES = 4 * 1024 * 1024  # unsent answers: a peer that does not read is not read either
_GOODBYE_S = 1.0  # for a DISCONNECT to go out before the connection is cut
_SPARE = 64  # connections past the limit that may still be told so


class Socket(asyncio.Protocol):
    """The transport of one `Connection`; writes are gathered and sent once a turn of the loop."""

    connection: Connection

    def __init__(
        self,
        engine: Engine,
        access: Access,
        sockets: "set[Socket]",
        before_flush: Callable[[], None],
    ) -> None:
        self.ready = True
        self.frozen = False
        self._engine = engine
        self._access = access
        self._sockets = sockets
        self._before_flush = before_flush
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._flush_due = False
        self._full = False
        self._closing = False
        self._reading = True

    # asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_ENOUGH_BYTES)
        limit = self._engine.config.max_connections
        crowded = len(self._sockets) >= limit
        self.connection = Connection(self._engine, self._access, self, crowded)
        self._sockets.add(self)
        if len(self._sockets) > limit + _SPARE:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._closing:
            self.connection.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sockets.discard(self)
        self._closing = True
        self.ready = False
        self._out.clear()
        self.connection.lost()

    def pause_writing(self) -> None:
        self._full = True
        self.ready = False

    def resume_writing(self) -> None:
        self._full = False
        self._make_ready()

    # connection.Link -----------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send with the others of this turn."""
        if self._closing:
            return
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes > _ENOUGH_BYTES:
            self.ready = False
            if self._out_bytes > _TOO_MUCH_BYTES and self._reading:
                self._reading = False
                self._transport.pause_reading()
        if not self._flush_due and not self.frozen:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Close after what is written; when frozen, without the peer hearing of it."""
        if self._closing:
            return
        self._closing = True
        self.ready = False
        if not self.frozen:
            self._flush()
            self._transport.close()
            self._loop.call_later(_GOODBYE_S, self._transport.abort)

    # Operations for tests ------------------------------------------------------------------

    def abort(self) -> None:
        """Cut."""
        self._transport.abort()

    def freeze(self) -> None:
        """Neither read nor write from now on."""
        self.frozen = True
        self.ready = False
        self._transport.pause_reading()

    def thaw(self) -> None:
        """Read and write again; cut when the connection was closed meanwhile."""
        if self._closing:
            self.abort()
            return
        self.frozen = False
        self._transport.resume_reading()
        self._flush()
        self._make_ready()

    def _flush(self) -> None:
        self._flush_due = False
        if self.frozen or not self._out:
            return
        self._before_flush()
        self._transport.write(b"".join(self._out))
        self._out.clear()
        self._out_bytes = 0
        self._make_ready()

    def _make_ready(self) -> None:
        if self._full or self.frozen or self._closing:
            return
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        if not self.ready:
            self.ready = True
            self.connection.room()

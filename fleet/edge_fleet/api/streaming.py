"""One client's stream of what is new, from the store, until it leaves or the server ends.

Guards: a stream is counted from beginning to end, however it ends; a token that was revoked ends
its stream at the next heartbeat. The store is asked in a thread, never in the event loop.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import anyio
from anyio import to_thread
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from edge_contract.errors import MachineFault
from edge_fleet.api import feed, tokens
from edge_fleet.api.feed import Position, Told
from edge_fleet.api.service import Service
from edge_fleet.store.api import ApiToken

CONTENT_TYPE = "text/event-stream"
POLL_S = 1.0
HEARTBEAT_S = 15.0


class Stream(StreamingResponse):
    """A response that goes on; ``open_stream`` was called for it."""

    def __init__(self, service: Service, caller: ApiToken, after: Position) -> None:
        super().__init__(
            _frames(service, caller, after),
            media_type=CONTENT_TYPE,
            headers={"X-Accel-Buffering": "no"},
        )
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Until it ends."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._service.close_stream()


async def _frames(service: Service, caller: ApiToken, after: Position) -> AsyncIterator[bytes]:
    yield feed.HEARTBEAT  # the client knows at once that it is connected
    checked = time.monotonic()
    while not service.stopping.is_set():
        try:
            told = await to_thread.run_sync(_new, service, after)
        except MachineFault:
            return  # the client comes back with its position
        for one in told:
            yield one.frame()
            after = one.after
        if time.monotonic() - checked >= HEARTBEAT_S:
            if not await to_thread.run_sync(_still, service, caller):
                return
            yield feed.HEARTBEAT
            checked = time.monotonic()
        if not told:
            await anyio.sleep(POLL_S)


def _new(service: Service, after: Position) -> list[Told]:
    with service.store.reading() as tx:
        return feed.read(tx, after, service.clock_ms())


def _still(service: Service, caller: ApiToken) -> bool:
    with service.store.reading() as tx:
        kept = tx.api_token(caller.id)
    return kept is not None and tokens.state(kept, service.clock_ms()) == "valid"

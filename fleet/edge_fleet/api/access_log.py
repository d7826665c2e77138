"""One line of log a request, and an id that ties together what is said while it is answered.

Guards: the query and the headers are never logged, since they may hold secrets; the path is, as
text. An id that a client sends is taken only where it is short and plain.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_fleet import tracing
from edge_fleet.logs import request_id

_log = logging.getLogger(__name__)
HEADER = "X-Request-Id"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class AccessLog:
    """The application with this around it."""

    def __init__(self, app: ASGIApp, clock_s: Callable[[], float] = time.perf_counter) -> None:
        self._app, self._clock_s = app, clock_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(HEADER, "")
        id = given if _ID.fullmatch(given) else uuid4().hex
        began, status = self._clock_s(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = id
            await send(message)

        token = request_id.set(id)
        try:
            parent = headers.get("traceparent", "")
            with tracing.request(scope["method"], parent) as span:
                await self._app(scope, receive, noted)
                span.answered(_route(scope), status)
        finally:
            duration_ms = round((self._clock_s() - began) * 1000, 3)
            self._say(scope, status, duration_ms)
            request_id.reset(token)

    def _say(self, scope: Scope, status: int, duration_ms: float) -> None:
        client = scope.get("client")
        fields = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "duration_ms": duration_ms,
            "client": client[0] if client else "",
        }
        words = (fields["method"], fields["path"], status, duration_ms)
        _log.info("%s %s %s %.1f ms", *words, extra=fields)


def _route(scope: Scope) -> str:
    """The path with its parameters' names, such as ``/api/v1/devices/{device}``; never a value."""
    route = scope.get("route")
    return str(getattr(route, "path", "")) or "(none)"

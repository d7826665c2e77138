"""What is around every answer, whatever gives it.

Guards: no answer without the security headers; no request of an address that asks too often; no
body longer than ``BODY_MAX_BYTES`` is read. Plain ASGI: streams pass through it as they come.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_fleet.api import problems
from edge_fleet.api.service import Service

BODY_MAX_BYTES = 64 * 1024
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FILES, FILE_COST = "/dashboard/", 0.05
"""A page is two dozen files, each given from memory: several people behind one address look at it,
and none of them meets a refusal for it."""
HSTS = "max-age=31536000"
_DESCRIBED = "/openapi.json describes every path and its parameters."
ADVICE = {404: _DESCRIBED, 405: _DESCRIBED, 422: _DESCRIBED}


def answer(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A problem as a response."""
    body = problems.encode(problems.problem(status, detail, ADVICE.get(status, "")))
    return Response(body, status, headers, problems.CONTENT_TYPE)


class Wrapping:
    """The application with all of this around it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if self._service.tls:
                    headers.setdefault("Strict-Transport-Security", HSTS)
            await send(message)

        client = scope.get("client")
        cost = FILE_COST if scope["path"].startswith(FILES) else 1.0
        wait = self._service.admit(client[0] if client else "", cost)
        if wait:
            refused = answer(429, "too many requests", {"Retry-After": str(wait)})
            await refused(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

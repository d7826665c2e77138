"""The HTTP service: paths, faults as problems, and what is around all of it."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from edge_contract.errors import EdgeError
from edge_fleet.api import audit_routes, page_routes, problems, rollout_routes, routes, view_routes
from edge_fleet.api.access_log import AccessLog
from edge_fleet.api.changing import Absent, Conflict, Reused
from edge_fleet.api.described import openapi
from edge_fleet.api.service import Service
from edge_fleet.api.wrapping import Wrapping, answer
from edge_fleet.dashboard import files
from edge_fleet.rollouts.order import Refused
from edge_fleet.rollouts.words import Unknown

_log = logging.getLogger(__name__)
_STATUS: dict[type[EdgeError], int] = {
    Absent: 404,
    Conflict: 409,
    Refused: 409,
    Reused: 422,
    Unknown: 404,
}
DESCRIPTION = """What a fleet of edge agents reports, and what a person decides about its
alarms and rollouts.

Lists come in pages: hand back `next` as `cursor`. Writes take an `Idempotency-Key`. Problems are
application/problem+json (RFC 9457). Roles: viewer reads, operator answers alarms and steers
rollouts, admin sees the audit, and sees and revokes tokens."""


class _Described(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = openapi(self)
        return self.openapi_schema


def application(service: Service) -> ASGIApp:
    """The service as an ASGI application."""
    app = _Described(
        title="edge-fleet",
        version=version("edge-pack"),
        description=DESCRIPTION,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(routes.bare)
    app.include_router(routes.router)
    app.include_router(rollout_routes.router)
    app.include_router(page_routes.router)
    app.include_router(audit_routes.router)
    app.include_router(view_routes.router)
    app.router.routes.extend(files.routes())
    app.add_exception_handler(EdgeError, _fault)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return AccessLog(Wrapping(app, service))


def _fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, EdgeError)
    found = problems.of_error(error)
    if found.status >= 500:
        _log.error("%s %s: %s", request.method, request.url.path, error.what)
    status = _STATUS.get(type(error), found.status)
    told = problems.problem(status, found.detail, found.advice, found.field)
    return Response(problems.encode(told), status, media_type=problems.CONTENT_TYPE)


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer(error.status_code, str(error.detail), dict(error.headers or {}))


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    return answer(422, "; ".join(said[:5]))


def _failed(_request: Request, _error: Exception) -> Response:
    return answer(500, "this server failed; its log says how")

"""The service's description: OpenAPI 3.1, from the very types that it answers with.

Guards: what is described is what msgspec writes; nobody keeps a second set of models in step.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from edge_fleet.api import problems

_REF = "#/components/schemas/{name}"
_WANTED: list[Any] = [problems.Problem]
"""Types that paths name; filled as the modules of paths are imported."""


def describe(
    kind: Any, summary: str, *, media: str = "application/json", body: Any = None
) -> dict[str, Any]:
    """Arguments of a path: what it answers, and takes. ``kind`` None: text of ``media``."""
    schema: dict[str, Any] = (
        {"type": "string"} if kind is None and media != "application/json" else {}
    )
    if kind is not None:
        schema = {"x-msgspec": _index(kind)}
    extra: dict[str, Any] = {}
    if body is not None:
        taken = {"application/json": {"schema": {"x-msgspec": _index(body)}}}
        extra = {"openapi_extra": {"requestBody": {"content": taken, "required": False}}}
    failed = {problems.CONTENT_TYPE: {"schema": {"x-msgspec": _index(problems.Problem)}}}
    return {
        "summary": summary,
        "response_model": None,
        "responses": {
            200: {"description": "Done.", "content": {media: {"schema": schema}}},
            "default": {"description": "A problem (RFC 9457).", "content": failed},
        },
        **extra,
    }


def _index(kind: Any) -> int:
    if kind not in _WANTED:
        _WANTED.append(kind)
    return _WANTED.index(kind)


def openapi(app: FastAPI) -> dict[str, Any]:
    """The description of ``app``."""
    schemas, components = msgspec.json.schema_components(_WANTED, ref_template=_REF)
    made = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    resolved: dict[str, Any] = _resolved(made, list(schemas))
    resolved.setdefault("components", {}).setdefault("schemas", {}).update(components)
    return resolved


def _resolved(value: Any, schemas: list[Any]) -> Any:
    match value:
        case {"x-msgspec": int(at)}:
            return schemas[at]
        case dict():
            return {name: _resolved(each, schemas) for name, each in value.items()}
        case list():
            return [_resolved(each, schemas) for each in value]
    return value

"""What a request may hold: its parameters, its body, its token. For FastAPI's dependencies.

Guards: each text from a request has a length and an alphabet before it reaches a database.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from fastapi import Depends, Header, HTTPException, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from edge_contract.errors import InputFault
from edge_contract.typed import json_decoder
from edge_fleet.api import cursors, resources
from edge_fleet.api.changing import COMMENT_MAX_CHARS, KEY_MAX_CHARS, Said
from edge_fleet.api.service import Service
from edge_fleet.api.wrapping import BODY_MAX_BYTES
from edge_fleet.rollouts.selector import CHARS_MAX
from edge_fleet.store.api import ApiToken, Role

_bearer = HTTPBearer(auto_error=False, description="A token of `edge-fleet api-tokens create`.")
_SAID = json_decoder(Said)
_LABEL = re.compile(r"([^:\x00-\x1f]{1,64}):([^\x00-\x1f]{0,256})")
LABELS_MAX = 8
PLAIN = r"^[^\x00-\x1f\x7f]*$"

Text = Annotated[str, Query(max_length=64, pattern=PLAIN)]
Limit = Annotated[int, Query(ge=1, le=resources.LIMIT_MAX, description="Items in a page.")]
Cursor = Annotated[
    str,
    Query(max_length=cursors.CURSOR_MAX_CHARS, description="`next` of the page before."),
]
Where = Annotated[
    str,
    Query(
        max_length=CHARS_MAX,
        pattern=PLAIN,
        description="An expression as of `edge-fleet devices --where`: site=lyon and not"
        " last_seen<1h.",
    ),
]
DeviceName = Annotated[str, Path(max_length=64, pattern=PLAIN)]
AlarmId = Annotated[int, Path(ge=1, le=cursors.INT_MAX)]
TokenId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")]
State = Annotated[Literal["online", "silent", "offline", ""], Query()]
AlarmState = Annotated[Literal["open", "resolved", "all"], Query()]
Hours = Annotated[float, Query(gt=0, le=168, description="How far back answers are taken.")]
Labels = Annotated[
    list[str] | None,
    Query(max_length=LABELS_MAX, description="NAME:VALUE; all that are given must hold."),
]
IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        max_length=KEY_MAX_CHARS,
        pattern=r"^[\x21-\x7e]*$",
        description="The same key with the same request is answered again and done once.",
    ),
]


def service(request: Request) -> Service:
    """The one of this application."""
    found: Service = request.app.state.service
    return found


Ours = Annotated[Service, Depends(service)]
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def _only_known(request: Request) -> None:
    """Raises HTTPException 422 for a parameter that the path does not have.

    A misspelt ``stat=open`` would list every alarm as if that were the answer.
    """
    known = [each.alias for each in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise HTTPException(422, f"the path has no parameter {name[:40]!r}: {there}")


def _caller(request: Request, ours: Service, role: Role) -> ApiToken:
    """Who asks; then whether the question can be meant: a stranger learns nothing of it."""
    found = ours.caller(request, role)
    _only_known(request)
    return found


def _viewer(request: Request, ours: Ours, _: _Credentials) -> ApiToken:
    return _caller(request, ours, "viewer")


def _operator(request: Request, ours: Ours, _: _Credentials) -> ApiToken:
    return _caller(request, ours, "operator")


def _admin(request: Request, ours: Ours, _: _Credentials) -> ApiToken:
    return _caller(request, ours, "admin")


Viewer = Annotated[ApiToken, Depends(_viewer)]
Operator = Annotated[ApiToken, Depends(_operator)]
Admin = Annotated[ApiToken, Depends(_admin)]


async def body(request: Request) -> bytes:
    """The body. Raises HTTPException 413 for one too long, of which no more is read."""
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > BODY_MAX_BYTES:
            raise HTTPException(413, f"the body is longer than {BODY_MAX_BYTES} bytes")
    return data


Body = Annotated[bytes, Depends(body)]


def said(data: bytes) -> Said:
    """What a body of JSON says; none says nothing. Raises InputFault."""
    try:
        found: Said = _SAID.decode(data or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputFault(
            f"the body is not as expected: {str(error)[:200]}",
            advice='Send JSON such as {"comment": "sensor replaced"}.',
        ) from error
    if len(found.comment) > COMMENT_MAX_CHARS:
        raise InputFault(f"the comment is longer than {COMMENT_MAX_CHARS} characters")
    return found


def labels(given: list[str] | None) -> tuple[tuple[str, str], ...]:
    """Each ``NAME:VALUE`` as a pair. Raises InputFault."""
    pairs = []
    for each in given or ():
        found = _LABEL.fullmatch(each)
        if found is None:
            raise InputFault(f"label {each[:40]!r} is not NAME:VALUE", advice="As label=site:lyon.")
        pairs.append((found[1], found[2]))
    return tuple(pairs)

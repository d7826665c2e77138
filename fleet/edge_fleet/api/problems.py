"""What went wrong, as ``application/problem+json``: RFC 9457. Pure.

Guards: a fault of this machine is told without what it is about: addresses of databases and paths
of files belong into the log. Text of a client comes back as JSON and shortened, never as a page.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from msgspec import Struct

from edge_contract.errors import EdgeError, InputFault, MachineFault, PeerFault
from edge_fleet.rollouts.order import Wrong
from edge_fleet.store.faults import Full

CONTENT_TYPE = "application/problem+json"
DETAIL_MAX_CHARS = 1000


class Problem(Struct, frozen=True):
    """RFC 9457. ``type`` is about:blank: ``status`` says all there is. ``advice``: what to do.

    ``field``: the part of the body that is wrong, where it is one.
    """

    title: str
    status: int
    detail: str
    advice: str = ""
    type: str = "about:blank"
    field: str = ""


def problem(status: int, detail: str, advice: str = "", field: str = "") -> Problem:
    """One with the title that its status has."""
    title = HTTPStatus(status).phrase
    return Problem(title, status, detail[:DETAIL_MAX_CHARS], advice, field=field)


def of_error(error: EdgeError) -> Problem:
    """Whose fault it is, as a status."""
    match error:
        case Wrong():
            return problem(400, error.what, error.advice, error.field)
        case InputFault():
            return problem(400, error.what, error.advice)
        case Full():
            return problem(
                507, "the store is full: nothing is changed, what is there can be read",
                "Make room on its disk, then send the request again.",
            )  # fmt: skip
        case MachineFault():
            return problem(503, "this server cannot at the moment; its log says why")
        case PeerFault():
            return problem(502, "another server did not do its part; the log says why")
    return problem(500, "this server failed; its log says how")


def encode(one: Problem) -> bytes:
    """As JSON."""
    return msgspec.json.encode(one)

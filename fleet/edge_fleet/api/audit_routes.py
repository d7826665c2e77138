"""The path of the audit: who did what and when.

Guards: it needs the role admin, for it names who did what; nothing here writes an entry.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from edge_fleet.api import asking, audits, resources
from edge_fleet.api.described import describe

router = APIRouter(prefix="/api/v1")

Action = Annotated[
    str,
    Query(
        max_length=64,
        pattern=asking.PLAIN,
        description="Such as rollout.start; rollout: all of its kind.",
    ),
]
Subject = Annotated[
    str, Query(max_length=256, pattern=asking.PLAIN, description="Such as rollout 3.")
]


@router.get(
    "/audit",
    **describe(
        resources.Page[audits.AuditView],
        "Who did what, newest first: over HTTP, by a command, or the server itself.",
    ),
)
def list_audit(
    ours: asking.Ours,
    _: asking.Admin,
    *,
    actor: asking.Text = "",
    action: Action = "",
    subject: Subject = "",
    limit: asking.Limit = 100,
    cursor: asking.Cursor = "",
) -> Response:
    with ours.store.reading() as tx:
        found = audits.audits(tx, cursor, limit, actor=actor, action=action, subject=subject)
    return Response(resources.encode(found), media_type="application/json")

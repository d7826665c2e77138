"""What a person changes through the HTTP service: each thing once, with its answer.

Guards: the change, its note and the answer to it are kept in one transaction. A request that is
sent again under its idempotency key (draft-ietf-httpapi-idempotency-key-header) gets that answer
and changes nothing; another request under the same key is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from edge_contract.errors import InputFault
from edge_fleet import reports
from edge_fleet.api import resources
from edge_fleet.store.api import Note, NoteKind, Write
from edge_fleet.store.audit import audit
from edge_fleet.store.base import Store, Transaction

T = TypeVar("T")

KEY_MAX_CHARS = 255
KEPT_MS = 24 * 3_600_000
"""How long answers are kept."""
COMMENT_MAX_CHARS = 2000

Change = Callable[[Transaction], bytes]


class Said(Struct, frozen=True, forbid_unknown_fields=True):
    """What a person says of an alarm; ``with_devices``: resolve also the alarms under it."""

    comment: str = ""
    with_devices: bool = False


class Closed(Struct, frozen=True):
    """Alarms that were resolved."""

    resolved: tuple[int, ...]


class Absent(InputFault):
    """What the request names is not there."""


def there(found: T | None, device: str) -> T:
    """What was found of a device. Raises Absent where that is nothing."""
    if not found:
        raise Absent(f"there is no device {device!r}")
    return found


class Conflict(InputFault):
    """What the request wants does not go with what is there."""


class Reused(InputFault):
    """An idempotency key that another request has."""


class Answer(Struct, frozen=True):
    """What is answered; ``again``: it was done before."""

    body: bytes
    again: bool = False


def done(
    store: Store, change: Change, *, token: str, key: str, request: bytes, now_ms: int
) -> Answer:
    """Do ``change`` once. Without a ``key`` each request is another one.

    Args:
        request: what is asked, all of it.

    Raises Reused for a key that another request has, Conflict while that is being done.
    """
    with store.transaction() as tx:
        known = former(tx, token=token, key=key, request=request)
        if known is not None:
            return known
        body = change(tx)
        write = Write(token, key, hashlib.sha256(request).digest(), 200, body, now_ms)
        if key and not tx.put_write(write, forget_before_ms=now_ms - KEPT_MS):
            raise Conflict("the same request is being done at this moment", advice="Send it again.")
    return Answer(body)


def former(tx: Transaction, *, token: str, key: str, request: bytes) -> Answer | None:
    """What was answered to the same request before. Raises Reused."""
    known = tx.write_of(token, key) if key else None
    if known is not None and known.request != hashlib.sha256(request).digest():
        raise Reused(f"the idempotency key {key[:40]!r} was used for another request")
    return None if known is None else Answer(known.body, again=True)


def noted(
    tx: Transaction, alarm: int, *, kind: NoteKind, said: str, author: str, now_ms: int
) -> bytes:
    """Acknowledge an alarm or comment on it; the alarm as it is then. Raises Absent."""
    _check(tx, alarm)
    tx.add_note(Note(alarm, kind, author, said, now_ms))
    verb = "acknowledge" if kind == "acknowledged" else kind
    audit(tx, now_ms, author, action=f"alarm.{verb}", subject=f"alarm {alarm}", detail=said)
    return resources.encode(resources.alarm(tx, alarm))


def resolved(tx: Transaction, alarm: int, said: Said, author: str, now_ms: int) -> bytes:
    """Resolve an alarm, and those under it where that is wanted. Raises Absent, Conflict."""
    _check(tx, alarm)
    if alarm in tx.resolved([alarm]):
        raise Conflict(f"alarm {alarm} is resolved already")
    closed = reports.resolve_within(tx, [alarm], now_ms, said.comment, under=said.with_devices)
    for one in closed:
        tx.add_note(Note(one, "resolved", author, said.comment, now_ms))
        about = f"alarm {one}"
        audit(tx, now_ms, author, action="alarm.resolve", subject=about, detail=said.comment)
    return resources.encode(Closed(tuple(closed)))


def revoked(tx: Transaction, id: str, author: str, now_ms: int) -> bytes:
    """Revoke a token. Raises Absent."""
    if not tx.revoke_api_token(id, now_ms):
        raise Absent(f"there is no valid token {id[:40]!r}")
    token = tx.api_token(id)
    assert token is not None
    audit(tx, now_ms, author, action="token.revoke", subject=f"token {id}", detail=token.name)
    return resources.encode(resources.token_view(token, now_ms))


def _check(tx: Transaction, alarm: int) -> None:
    if tx.alarm(alarm) is None:
        raise Absent(f"there is no alarm {alarm}")

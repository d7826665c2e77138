"""Tokens of the HTTP service and what their roles may do. Pure.

Guards: a token is 256 random bits, shown once; what is kept is the SHA-256 of it, which needs no
salt and no slow hash since nobody can guess 256 bits. Secrets are compared in constant time; the id
that finds the row is not secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable

from edge_contract.errors import InputFault
from edge_contract.names import check_name
from edge_fleet.store.api import ApiToken, Role

ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
"""Each may do what those before it may: read; answer alarms; see and revoke tokens."""
ID_BYTES = 6
SECRET_BYTES = 32
_FORM = re.compile(r"edgefleet_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


def mint(
    name: str, role: str, now_ms: int, expires_ms: int | None, draw: Callable[[int], bytes]
) -> tuple[ApiToken, str]:
    """A new token and its text, which nothing can give again.

    Args:
        draw: so many bytes that nobody can foretell. Raises InputFault for a name or role.
    """
    check_name(name, "the token's name")
    found = next((each for each in ROLES if each == role), None)
    if found is None:
        raise InputFault(f"{role[:20]!r} is not a role", advice=f"One of {', '.join(ROLES)}.")
    id, secret = draw(ID_BYTES).hex(), draw(SECRET_BYTES)
    text = f"edgefleet_{id}_{base64.urlsafe_b64encode(secret).rstrip(b'=').decode()}"
    return ApiToken(id, name, found, _digest(text), now_ms, expires_ms), text


def id_of(text: str) -> str | None:
    """Which token it claims to be; None for what is no token."""
    found = _FORM.fullmatch(text)
    return found[1] if found else None


def valid(text: str, token: ApiToken | None, now_ms: int) -> bool:
    """It is this token, which is neither revoked nor expired."""
    kept = token.sha256 if token is not None else bytes(32)
    same = hmac.compare_digest(_digest(text), kept)
    return same and token is not None and state(token, now_ms) == "valid"


def state(token: ApiToken, now_ms: int) -> str:
    """``valid``, ``revoked`` or ``expired``."""
    if token.revoked_ms is not None:
        return "revoked"
    expired = token.expires_ms is not None and now_ms >= token.expires_ms
    return "expired" if expired else "valid"


def may(role: Role, needed: Role) -> bool:
    """A holder of ``role`` may do what needs ``needed``."""
    return ROLES.index(role) >= ROLES.index(needed)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()

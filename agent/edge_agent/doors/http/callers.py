"""Who may ask.

Guards: a page of a browser that comes from elsewhere is refused; without a token only who names
this machine by its address is answered; tokens are compared in a time that says nothing of them.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import socket
from urllib.parse import urlsplit

from edge_agent.doors.http.exchange import Request
from edge_agent.doors.http.faults import StatusFault

HOST_MAX = 255
"""RFC 1035, 2.3.4, and more than any address needs."""


def check_caller(request: Request, token: str) -> None:
    """Let pass who may ask; ``token``: that clients over TCP have to bring, "" for none.

    Raises StatusFault 401 or 403.
    """
    origin = request.headers.get("origin", "")
    if origin and origin.partition("://")[2] != request.headers.get("host", ""):
        raise StatusFault(403, "a page from elsewhere may not ask this device")
    if request.local:
        return
    if not token:
        host = request.headers.get("host", "")
        if len(host) > HOST_MAX or not _is_address(host):
            raise StatusFault(403, "ask by address or as localhost: a name may be somebody else's")
        return
    scheme, _, said = request.headers.get("authorization", "").partition(" ")
    given = said.strip().encode("latin-1")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given, token.encode()):
        raise StatusFault(401, "a bearer token is needed", (("www-authenticate", "Bearer"),))


@functools.lru_cache(maxsize=64)
def _is_address(host: str) -> bool:
    """Whether a Host field names this machine by what no name server can point elsewhere.

    A page whose own name was made to lead here (DNS rebinding) has that name in it.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets around what is no address
        return False
    # Not by ipaddress: a quarter of a megabyte of a process that stays.
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with contextlib.suppress(OSError, ValueError):
        socket.inet_pton(family, name.partition("%")[0] if ":" in name else name)
        return True
    return name in ("", "localhost") or name.endswith(".localhost")

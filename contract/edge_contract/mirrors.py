"""The address of a mirror, as the publisher signs it and a device's settings name it.

Guards: nothing but a plain http(s) address is ever asked: no user or password (pointers are
public), no query, nothing that a URL parser could read in two ways.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from edge_contract.errors import InputFault

MIRRORS_MAX = 8
MIRROR_MAX_CHARS = 400
_SOUND = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?\Z")


def check_mirror(address: str) -> str:
    """The address without slashes at its end; files are below it, named by their SHA-256.

    Raises InputFault when it is no address of the form http(s)://HOST[:PORT][/PATH].
    """
    trimmed = address.rstrip("/")
    try:
        parts = urlsplit(trimmed)
        sound = bool(_SOUND.match(trimmed)) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or len(trimmed) > MIRROR_MAX_CHARS or "/../" in f"{trimmed}/":
        raise InputFault(
            f"{address[:120]!r} is no address of a mirror",
            advice="Expected http(s)://HOST[:PORT][/PATH], without user, password and query.",
        )
    return trimmed

"""Where the next page begins, as text that a client hands back. Pure.

Guards: a cursor is a client's input: its length, its kind and the types and ranges of its parts are
checked before a database sees them. It is no secret and gives nobody a right.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from edge_contract.errors import InputFault
from edge_contract.typed import json_decoder
from edge_fleet.store.api import Key

CURSOR_MAX_CHARS = 1000
INT_MAX = 2**63 - 1
_DECODER = json_decoder(list[int | str | None])


def encode(kind: str, key: Key) -> str:
    """``key`` of a list of this ``kind``."""
    data = msgspec.json.encode([kind, *key])
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str, kind: str, types: tuple[type, ...]) -> Key:
    """The key; () for no text. Raises InputFault for what ``encode`` of this kind never gave."""
    if not text:
        return ()
    if len(text) > CURSOR_MAX_CHARS:
        raise _wrong(kind)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        parts = _DECODER.decode(data)
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError) as error:
        raise _wrong(kind) from error
    key = tuple(parts[1:])
    fits = [isinstance(part, of) for part, of in zip(key, types, strict=False)]
    if not parts or parts[0] != kind or len(key) != len(types) or not all(fits):
        raise _wrong(kind)
    found: list[int | str] = []
    for part in key:
        too_big = isinstance(part, int) and abs(part) > INT_MAX
        if part is None or too_big or (isinstance(part, str) and "\0" in part):
            raise _wrong(kind)
        found.append(part)
    return tuple(found)


def _wrong(kind: str) -> InputFault:
    return InputFault(
        f"the cursor is not one of a page of {kind}",
        advice="Hand back `next` of the page before, unchanged, with the same filters.",
    )

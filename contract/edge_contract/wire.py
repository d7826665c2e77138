"""Decoding of what arrives from outside: bounded in bytes and depth, typed, one declared error.

Unknown fields are ignored: a newer sender may say more than this reader knows. A change that an
old reader must not ignore raises the message's ``schema``.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from edge_contract.errors import InputFault

T = TypeVar("T", bound=msgspec.Struct)

_ENCODER = msgspec.json.Encoder()
_NESTING_MAX = 64


def encode_json(message: msgspec.Struct) -> bytes:
    """JSON in the fields' declared order, for what a person reads in a terminal."""
    return _ENCODER.encode(message)


def decode_json(data: bytes, kind: type[T], *, size_max: int) -> T:
    """A ``kind`` from JSON.

    Raises InputFault, and nothing else: more than ``size_max`` bytes, nested deeper than 64,
    not JSON, a field missing, of the wrong type or out of its declared bounds.
    """
    what = kind.__name__.lower()
    if len(data) > size_max:
        raise InputFault(f"{what} of {len(data)} bytes, over the limit of {size_max}")
    if _nesting(data) > _NESTING_MAX:
        raise InputFault(f"{what} is nested deeper than {_NESTING_MAX}")
    try:
        message = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputFault(f"not a valid {what}: {error}") from error
    check_schema(message, what)
    return message


def check_schema(message: msgspec.Struct, what: str) -> None:
    """Raise InputFault when the message carries a schema version newer than 1."""
    schema = getattr(message, "schema", 1)
    if schema != 1:
        raise InputFault(
            f"{what} has schema {schema}, this reader knows 1",
            advice="Update edge-pack on this machine.",
        )


def _nesting(data: bytes) -> int:
    """An upper bound of the nesting depth; brackets within strings only raise it."""
    if data.count(b"[") + data.count(b"{") <= _NESTING_MAX:
        return 0
    depth = deepest = 0
    in_string = escaped = False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > _NESTING_MAX:
                return deepest
        elif byte in b"]}":
            depth -= 1
    return deepest

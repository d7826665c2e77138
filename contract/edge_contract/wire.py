"""Decoding of what arrives from outside: bounded in bytes, typed, one declared error.

Unknown fields are ignored: a newer sender may say more than this reader knows. A change that an
old reader must not ignore raises the message's ``schema``.
"""

from __future__ import annotations

import functools
from typing import TypeVar

import msgspec

from edge_contract.errors import InputFault
from edge_contract.typed import json_decoder

T = TypeVar("T", bound=msgspec.Struct)

_ENCODER = msgspec.json.Encoder()
_decoder = functools.cache(json_decoder)


def encode_json(message: msgspec.Struct) -> bytes:
    """JSON in the fields' declared order, for what a person reads in a terminal."""
    return _ENCODER.encode(message)


def decode_json(data: bytes, kind: type[T], *, size_max: int) -> T:
    """A ``kind`` from JSON.

    Raises InputFault, and nothing else: more than ``size_max`` bytes, not JSON, nested
    too deeply, a field missing, of the wrong type or out of its declared bounds.
    """
    what = kind.__name__.lower()
    if len(data) > size_max:
        raise InputFault(f"{what} of {len(data)} bytes, over the limit of {size_max}")
    try:
        message: T = _decoder(kind).decode(data)
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

"""msgspec's decoders, made one at a time.

msgspec describes a Struct when something is first decoded into it, and shows other threads that
description half made: two threads that meet there end the process (msgspec 0.22, a read at
address 0). A decoder that was made under one lock never finds a half-made description.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")

_MAKING = threading.RLock()


@overload
def json_decoder(kind: type[T]) -> msgspec.json.Decoder[T]: ...
@overload
def json_decoder(kind: Any) -> msgspec.json.Decoder[Any]: ...
def json_decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Decodes JSON into a ``kind``; for any thread."""
    with _MAKING:
        return msgspec.json.Decoder(kind)


@overload
def msgpack_decoder(kind: type[T]) -> msgspec.msgpack.Decoder[T]: ...
@overload
def msgpack_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]: ...
def msgpack_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """Decodes MessagePack into a ``kind``; for any thread."""
    with _MAKING:
        return msgspec.msgpack.Decoder(kind)


def convert(value: object, kind: type[T] | Any, *, strict: bool = True) -> Any:
    """``value``, as JSON or TOML gives it, as a ``kind``; for any thread.

    Raises msgspec.ValidationError.
    """
    with _MAKING:
        return msgspec.convert(value, kind, strict=strict)  # noqa: TID251

"""Elements of one tensor as JSON or as bytes, to an array and back. Pure.

Guards: no number is made of text, no value is bent to a type that cannot hold it; sizes that a
client names are compared with the bytes that are there before anything is made of them.

Sources: the Open Inference Protocol's REST description and the binary tensor data extension, as
KServe, Triton and MLServer publish them. A tensor's ``data`` may be flat or nested in its shape;
binary data is little-endian in C order, BYTES elements each with a length of four bytes before.
"""

from __future__ import annotations

import array
import contextlib
import functools
import math
import struct
from collections.abc import Iterator
from types import GenericAlias
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault, MachineFault
from edge_contract.typed import json_decoder

DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "string",
}
"""The protocol's names of types, and ours."""
NAMES = {ours: theirs for theirs, ours in DTYPES.items()}
_KINDS = {ours: np.dtype(object if ours == "string" else ours) for ours in DTYPES.values()}
_BY_KIND = {kind: NAMES[ours] for ours, kind in _KINDS.items()}

_ELEMENTS: dict[str, Any] = {"b": bool, "u": int, "i": int, "f": float | None, "O": str}
"""By kind of type; a missing number is ``null``."""


def datatype_of(tensor: NDArray[Any]) -> str:
    """The protocol's name of an array's type; text of any kind is BYTES."""
    return _BY_KIND.get(tensor.dtype, "BYTES")


def from_bytes(data: memoryview, dtype: str, count: int, name: str) -> NDArray[Any]:
    """``count`` elements of the binary form, flat. Raises InputFault."""
    if dtype == "string":
        return _text_array(list(_texts(data, name)))
    kind = _KINDS[dtype].newbyteorder("<")
    if len(data) != count * kind.itemsize:
        raise InputFault(
            f"input {name!r} has {len(data)} bytes, its shape and type need {count * kind.itemsize}"
        )
    if dtype == "bool" and max(data, default=0) > 1:
        raise InputFault(f"input {name!r} is BOOL and has a byte over 1")
    return np.frombuffer(data, kind).astype(dtype, copy=False)


def from_json(raw: msgspec.Raw, dtype: str, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """The elements of JSON, flat or nested as ``shape`` says, flat. Raises InputFault."""
    kind = _KINDS[dtype]
    try:
        try:
            flat = _decoder(kind.kind, 1).decode(raw)
        except msgspec.ValidationError:
            if len(shape) < 2:
                raise
            flat = _flattened(raw, kind.kind, shape, name)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputFault(f"input {name!r} of type {NAMES[dtype]}: {error}") from error
    if kind.kind == "O":
        return _text_array(flat)
    if kind.char in "fd":
        with contextlib.suppress(TypeError):  # None is no float
            return np.frombuffer(
                array.array(kind.char, flat), kind
            )  # half the time, and no warning
    try:
        with np.errstate(over="ignore"):  # infinity then, which the model's checks refuse
            return np.array(flat, dtype=kind)  # None becomes NaN
    except OverflowError as error:
        raise InputFault(f"input {name!r} has a number that {NAMES[dtype]} cannot hold") from error


def to_bytes(tensor: NDArray[Any]) -> bytes:
    """The binary form."""
    if tensor.dtype.kind in "OUS":
        texts = [str(item).encode() for item in tensor.ravel().tolist()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes()


def to_list(name: str, tensor: NDArray[Any]) -> list[Any]:
    """The elements for JSON, flat. Raises MachineFault for numbers that JSON has not."""
    found: list[Any] = tensor.ravel().tolist()
    # A sum is finite only where every number is; where it is not, one of them may still be.
    if tensor.dtype.kind == "f" and not math.isfinite(sum(found)) and not np.isfinite(tensor).all():
        raise MachineFault(
            f"the model answered NaN or infinity in {name!r}, which JSON has not",
            advice="Ask for this output as binary data.",
        )
    return found


def shaped(flat: NDArray[Any], shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """``flat`` in its shape. Raises InputFault: an empty one can have extents beyond any array."""
    try:
        return flat.reshape(shape)
    except ValueError as error:
        raise InputFault(f"tensor {name[:80]!r} has the shape {list(shape)[:16]}") from error


def _texts(data: memoryview, name: str) -> Iterator[str]:
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise InputFault(f"input {name!r} ends within the length of an element")
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if size > len(data) - at:
            raise InputFault(f"input {name!r}: an element of {size} bytes, {len(data) - at} left")
        yield _text(bytes(data[at : at + size]), name)
        at += size


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputFault(f"input {name!r} has text that is not UTF-8") from error


@functools.lru_cache(maxsize=128)
def _decoder(kind: str, depth: int) -> msgspec.json.Decoder[Any]:
    """Reads lists in lists of one kind of element; making one costs more than using it."""
    nested = _ELEMENTS[kind]
    for _ in range(depth):
        nested = GenericAlias(list, nested)
    return json_decoder(nested)


def _flattened(raw: msgspec.Raw, kind: str, shape: tuple[int, ...], name: str) -> list[Any]:
    """Elements that came nested as the shape says."""
    level: list[Any] = [_decoder(kind, len(shape)).decode(raw)]
    for extent in shape:
        if any(len(part) != extent for part in level):
            raise InputFault(f"input {name!r} is not nested as its shape {list(shape)} says")
        level = [item for part in level for item in part]
    return level


def _text_array(texts: list[str]) -> NDArray[Any]:
    made = np.empty(len(texts), dtype=object)
    made[:] = texts
    return made

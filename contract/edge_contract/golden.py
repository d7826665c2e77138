"""Golden samples: inputs with the outputs that the packager saw, and how far a device may differ.

Float32 results differ between instruction sets (up to 2e-5 was measured between x86-64 and
aarch64 on logits); integer and tree models are bit-equal. The tolerance is set at build time,
a name for each machine type and ``default`` for all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from edge_contract import wire
from edge_contract.errors import InputFault

GOLDEN_MAX_BYTES = 16 * 1024**2
ROWS_MAX = 256


class Array(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One tensor: little-endian C-order bytes, or ``text`` for strings."""

    name: str
    dtype: str
    shape: tuple[Annotated[int, Meta(ge=0, le=2**31)], ...]
    data: bytes = b""
    text: tuple[str, ...] = ()


class Tolerance(Struct, frozen=True, kw_only=True):
    """|device - golden| <= absolute + relative * |golden|, element by element."""

    absolute: Annotated[float, Meta(ge=0, le=1)]
    relative: Annotated[float, Meta(ge=0, le=1)]


class Golden(Struct, frozen=True, kw_only=True):
    """Sample inputs with their outputs. Label and string outputs must be equal."""

    schema: int = 1
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    tolerance: dict[str, Tolerance]


def encode(golden: Golden) -> bytes:
    """The member ``golden.json``."""
    return wire.encode_json(golden)


def decode(data: bytes) -> Golden:
    """Golden samples from ``golden.json``. Raises InputFault, and nothing else."""
    golden = wire.decode_json(data, Golden, size_max=GOLDEN_MAX_BYTES)
    if "default" not in golden.tolerance:
        raise InputFault("golden samples without a default tolerance")
    for array in (*golden.inputs, *golden.outputs):
        unpack(array)
    return golden


def pack(name: str, value: NDArray[Any]) -> Array:
    """A tensor for the file. ``value``: any shape; numeric, bool, or strings."""
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        text = tuple(str(item) for item in array.ravel().tolist())
        return Array(name=name, dtype="string", shape=array.shape, text=text)
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    return Array(name=name, dtype=array.dtype.name, shape=array.shape, data=little.tobytes())


def unpack(array: Array) -> NDArray[Any]:
    """The tensor. Raises InputFault when its shape and its bytes do not agree."""
    count = 1
    for extent in array.shape:
        count *= extent
    if array.dtype == "string":
        if count != len(array.text):
            raise InputFault(f"golden {array.name!r}: {len(array.text)} strings for {array.shape}")
        return np.array(array.text, dtype=object).reshape(array.shape)
    try:
        dtype = np.dtype(array.dtype).newbyteorder("<")
    except TypeError as error:
        raise InputFault(f"golden {array.name!r}: unknown type {array.dtype!r}") from error
    if dtype.kind not in "fiub" or count * dtype.itemsize != len(array.data):
        raise InputFault(f"golden {array.name!r}: {len(array.data)} bytes for {array.shape}")
    native = np.frombuffer(array.data, dtype=dtype).astype(dtype.newbyteorder("="))
    return native.reshape(array.shape)


def compare(golden: Golden, outputs: Mapping[str, NDArray[Any]], machine: str) -> Sequence[str]:
    """What differs beyond tolerance: one sentence a finding, empty when all is well.

    Args:
        outputs: tensors by name as this machine computed them from ``golden.inputs``.
        machine: instruction set as ``platform.machine()`` names it.
    """
    tolerance = golden.tolerance.get(machine, golden.tolerance["default"])
    findings: list[str] = []
    for array in golden.outputs:
        expected = unpack(array)
        got = outputs.get(array.name)
        if got is None:
            findings.append(f"output {array.name!r} is missing")
        elif got.shape != expected.shape:
            findings.append(f"output {array.name!r} has shape {got.shape}, not {expected.shape}")
        elif expected.dtype.kind == "f":
            finding = _differs(np.asarray(got, dtype=np.float64), expected, tolerance)
            if finding:
                findings.append(f"output {array.name!r} {finding}")
        elif not np.array_equal(got.astype(expected.dtype), expected):
            rows = int(np.count_nonzero(got.astype(expected.dtype) != expected))
            findings.append(f"output {array.name!r} differs in {rows} of {expected.size} values")
    return findings


def _differs(got: NDArray[Any], expected: NDArray[Any], tolerance: Tolerance) -> str:
    if np.array_equal(np.isnan(got), np.isnan(expected)):
        close = np.isclose(
            got, expected, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True
        )
        if close.all():
            return ""
        worst = float(np.nanmax(np.abs(got - expected)))
        return (
            f"differs by up to {worst:.3g}, tolerance {tolerance.absolute:.3g} "
            f"+ {tolerance.relative:.3g} of the value"
        )
    return "has NaN in other places"

"""Golden samples: inputs with the outputs that the packager saw, and how far a device may differ.

Float32 results differ between instruction sets (up to 2e-5 was measured between x86-64 and
aarch64 on logits); integer and tree models are bit-equal. The tolerance is set at build time,
a name for each machine type and ``default`` for all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from edge_contract import wire
from edge_contract.errors import InputFault

if TYPE_CHECKING:
    from edge_contract.messages import Mismatch

GOLDEN_MAX_BYTES = 16 * 1024**2
ROWS_MAX = 256
ROWS_SHOWN = 8
NAME_SHOWN = 60
"""Of what is off, so many rows, and so many characters of a tensor's name, are reported."""


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

    Args: as ``mismatches``.
    """
    return [str_of(found) for found in mismatches(golden, outputs, machine)]


def str_of(found: Mismatch) -> str:
    """The finding as a sentence."""
    return f"output {found.output!r} {found.said}"


def mismatches(
    golden: Golden, outputs: Mapping[str, NDArray[Any]], machine: str
) -> tuple[Mismatch, ...]:
    """What differs beyond tolerance, a tensor each; empty when all is well.

    Args:
        outputs: tensors by name as this machine computed them from ``golden.inputs``.
        machine: instruction set as ``platform.machine()`` names it.
    """
    tolerance = golden.tolerance.get(machine, golden.tolerance["default"])
    found = (
        _mismatch(array.name, unpack(array), outputs.get(array.name), tolerance)
        for array in golden.outputs
    )
    return tuple(mismatch for mismatch in found if mismatch)


def _mismatch(
    name: str, expected: NDArray[Any], got: NDArray[Any] | None, tolerance: Tolerance
) -> Mismatch | None:
    name = name[:NAME_SHOWN]
    if got is None:
        return _found(output=name, said="is missing")
    if got.shape != expected.shape:
        return _found(output=name, said=f"has shape {got.shape}, not {expected.shape}"[:200])
    if expected.dtype.kind == "f":
        return _differs(name, np.asarray(got, dtype=np.float64), expected, tolerance)
    wrong = np.asarray(got.astype(expected.dtype) != expected)
    if not wrong.any():
        return None
    count = int(np.count_nonzero(wrong))
    return _found(
        output=name,
        said=f"differs in {count} of {expected.size} values",
        wrong=count,
        values=expected.size,
        rows=_rows(wrong),
    )


def _differs(
    name: str, got: NDArray[Any], expected: NDArray[Any], tolerance: Tolerance
) -> Mismatch | None:
    expected = expected.astype(np.float64)
    wrong = ~np.isclose(
        got, expected, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True
    )
    if not wrong.any():
        return None
    with np.errstate(invalid="ignore"):
        off = np.nan_to_num(np.abs(got - expected), nan=-1.0, posinf=np.inf)
    at = int(np.argmax(off))
    worst, allowed = float(off.flat[at]), float(expected.flat[at])
    if np.array_equal(np.isnan(got), np.isnan(expected)):
        said = (
            f"differs by up to {worst:.3g}, tolerance {tolerance.absolute:.3g} "
            f"+ {tolerance.relative:.3g} of the value"
        )
    else:
        said = "has NaN in other places"
    allowed = tolerance.absolute + tolerance.relative * abs(allowed)
    return _found(
        output=name,
        said=said,
        wrong=int(np.count_nonzero(wrong)),
        values=expected.size,
        rows=_rows(wrong),
        worst=worst if 0 <= worst < np.inf else None,
        allowed=allowed if np.isfinite(allowed) else None,
    )


def _found(**what: Any) -> Mismatch:
    # All messages come with it, a twentieth of a start; where all is well none is needed.
    from edge_contract.messages import Mismatch  # noqa: PLC0415

    return Mismatch(**what)


def _rows(wrong: NDArray[Any]) -> tuple[int, ...]:
    """The first rows, along the first axis, in which something is wrong."""
    if wrong.ndim == 0:
        return (0,)
    rows = wrong.reshape(wrong.shape[0], -1).any(axis=1)
    return tuple(int(row) for row in np.flatnonzero(rows)[:ROWS_SHOWN])

"""The Open Inference Protocol, version 2: what its JSON and binary tensors say. Pure.

Guards: no number is made of text, no value is bent to a type that cannot hold it; sizes that a
client names are compared with the bytes that are there before anything is made of them.

Sources: the protocol's REST description and the binary tensor data extension, as KServe, Triton
and MLServer publish them. A tensor's ``data`` may be flat or nested in its shape; binary data is
little-endian in C order after the JSON, BYTES elements each with a length of four bytes before.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from types import GenericAlias
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from edge_contract.errors import InputFault, MachineFault
from edge_contract.manifest import Manifest

HEADER_LENGTH = "inference-header-content-length"
"""The header that says where the JSON ends and binary data begins."""
TENSORS_MAX = 1024
RANK_MAX = 16
ELEMENTS_MAX = 2**31

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
_NAMES = {ours: theirs for theirs, ours in DTYPES.items()}

Text = Annotated[str, Meta(max_length=256)]
Extent = Annotated[int, Meta(ge=0, le=ELEMENTS_MAX)]
Parameters = dict[str, Any]


class RequestInput(Struct, frozen=True):
    """One input tensor; ``data`` is missing where it follows as bytes."""

    name: Text
    shape: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=ELEMENTS_MAX)], ...], Meta(max_length=RANK_MAX)
    ]
    datatype: Text
    parameters: Parameters = {}
    data: msgspec.Raw | UnsetType = UNSET


class RequestOutput(Struct, frozen=True):
    """An output that the client wants."""

    name: Text
    parameters: Parameters = {}


class InferRequest(Struct, frozen=True):
    """The JSON of an inference request. Unknown fields are ignored."""

    inputs: Annotated[list[RequestInput], Meta(min_length=1, max_length=TENSORS_MAX)]
    id: Text = ""
    parameters: Parameters = {}
    outputs: Annotated[list[RequestOutput], Meta(max_length=TENSORS_MAX)] = []


class ResponseOutput(Struct, frozen=True, omit_defaults=True):
    """One output tensor."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: Parameters = {}
    data: list[Any] | UnsetType = UNSET


class InferResponse(Struct, frozen=True, omit_defaults=True):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str = ""


class Infer(Struct, frozen=True):
    """A request as it was understood.

    Attributes:
        tensors: by name. wanted: names of outputs, all when empty.
        binary: outputs that are to come as bytes; ``all_binary``: every one without a word.
    """

    tensors: dict[str, NDArray[Any]]
    wanted: tuple[str, ...] = ()
    binary: frozenset[str] = frozenset()
    all_binary: bool = False
    id: str = ""


_DECODER = msgspec.json.Decoder(InferRequest)


def decode(body: bytes, json_size: int | None = None) -> Infer:
    """An inference request.

    Args:
        json_size: what the ``HEADER_LENGTH`` header says; None: the whole body is JSON.

    Raises InputFault, and nothing else.
    """
    if json_size is not None and not 0 <= json_size <= len(body):
        raise InputFault(f"{HEADER_LENGTH} says {json_size}, the body has {len(body)} bytes")
    try:
        request = _DECODER.decode(body if json_size is None else body[:json_size])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputFault(f"not a valid inference request: {error}") from error
    rest = _Rest(body, len(body) if json_size is None else json_size)
    tensors: dict[str, NDArray[Any]] = {}
    for given in request.inputs:
        if given.name in tensors:
            raise InputFault(f"input {given.name!r} is there twice")
        tensors[given.name] = _tensor(given, rest)
    rest.check_end()
    wanted = tuple(output.name for output in request.outputs)
    binary = frozenset(o.name for o in request.outputs if o.parameters.get("binary_data") is True)
    all_binary = request.parameters.get("binary_data_output") is True
    return Infer(tensors, wanted, binary, all_binary, request.id)


def encode(
    manifest: Manifest, infer: Infer, outputs: Mapping[str, NDArray[Any]]
) -> tuple[bytes, int | None]:
    """The body of an answer, and the size of its JSON where bytes follow it, else None.

    Raises InputFault when an output was asked for that the model has not, MachineFault for
    numbers that JSON has not.
    """
    unknown = [name for name in infer.wanted if name not in outputs]
    if unknown:
        raise InputFault(
            f"the model has no output {unknown[0]!r}", advice=f"It has: {', '.join(outputs)}."
        )
    asked = set(infer.wanted)
    described: list[ResponseOutput] = []
    tail: list[bytes] = []
    for name in infer.wanted or outputs:
        array = outputs[name]
        datatype = datatype_of(array)
        if name in infer.binary or (infer.all_binary and name not in asked):
            data = _to_bytes(array)
            tail.append(data)
            size = {"binary_data_size": len(data)}
            described.append(ResponseOutput(name, array.shape, datatype, size))
        else:
            described.append(
                ResponseOutput(name, array.shape, datatype, data=_to_list(name, array))
            )
    answer = InferResponse(manifest.name, manifest.version, described, infer.id)
    head = msgspec.json.encode(answer)
    return (b"".join((head, *tail)), len(head)) if tail else (head, None)


def datatype_of(array: NDArray[Any]) -> str:
    """The protocol's name of an array's type."""
    return "BYTES" if array.dtype.kind in "OUS" else _NAMES[array.dtype.name]


class TensorInfo(Protocol):
    """An output tensor; ``dtype`` as numpy names it, or ``string``."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def dtype(self) -> str:
        """Its type."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Its extents; None: any."""


def metadata(manifest: Manifest, outputs: Sequence[TensorInfo]) -> dict[str, Any]:
    """What the protocol wants to know of a model."""
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {
                "name": tensor.name,
                "datatype": _NAMES[tensor.dtype],
                "shape": [-1 if extent is None else extent for extent in tensor.shape],
                **({"parameters": {"features": list(tensor.features)}} if tensor.features else {}),
            }
            for tensor in manifest.inputs
        ],
        "outputs": [
            {
                "name": output.name,
                "datatype": _NAMES[output.dtype],
                "shape": [-1 if extent is None else extent for extent in output.shape],
            }
            for output in outputs
        ],
    }


class Columns:
    """Tensors that are named like features, one a column: a table as ``Model.predict`` takes it."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.columns = tuple(tensors)
        self._tensors = {name: array.reshape(-1) for name, array in tensors.items()}
        lengths = {name: len(array) for name, array in self._tensors.items()}
        if len(set(lengths.values())) != 1:
            raise InputFault(f"columns of different lengths: {lengths}")
        self._rows = next(iter(lengths.values()))

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._tensors[name]


def rows_of(infer: Infer, manifest: Manifest) -> object:
    """What the model takes: its own tensors, or a table where the names are its features'."""
    features = {feature.name for feature in manifest.features}
    if features and set(infer.tensors) == features:
        return Columns(infer.tensors)
    return infer.tensors


# -- tensors ----------------------------------------------------------------------------------


class _Rest:
    """The bytes behind the JSON, taken one tensor after the other."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body = memoryview(body)
        self._at = start

    def take(self, size: int, name: str) -> memoryview:
        left = len(self._body) - self._at
        if size > left:
            raise InputFault(f"input {name!r} is to have {size} bytes, {left} are left")
        self._at += size
        return self._body[self._at - size : self._at]

    def check_end(self) -> None:
        if self._at != len(self._body):
            raise InputFault(f"{len(self._body) - self._at} bytes behind the last tensor")


def _tensor(given: RequestInput, rest: _Rest) -> NDArray[Any]:
    dtype = DTYPES.get(given.datatype)
    if dtype is None:
        raise InputFault(
            f"input {given.name!r} has datatype {given.datatype!r}",
            advice=f"Known are: {', '.join(DTYPES)}.",
        )
    count = math.prod(given.shape)
    size = given.parameters.get("binary_data_size")
    if size is not None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise InputFault(f"input {given.name!r} has binary_data_size {size!r}")
        if given.data is not UNSET:
            raise InputFault(f"input {given.name!r} has data in the JSON and behind it")
        flat = _from_bytes(rest.take(size, given.name), dtype, count, given.name)
    elif given.data is UNSET:
        raise InputFault(f"input {given.name!r} has no data")
    else:
        flat = _from_json(bytes(given.data), dtype, given)
    if len(flat) != count:
        raise InputFault(
            f"input {given.name!r} has {len(flat)} elements for the shape {list(given.shape)}"
        )
    return shaped(flat, given.shape, given.name)


def shaped(flat: NDArray[Any], shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """``flat`` in its shape. Raises InputFault: an empty one can have extents beyond any array."""
    try:
        return flat.reshape(shape)
    except ValueError as error:
        raise InputFault(f"tensor {name[:80]!r} has the shape {list(shape)[:16]}") from error


def _from_bytes(data: memoryview, dtype: str, count: int, name: str) -> NDArray[Any]:
    if dtype == "string":
        return _text_array(list(_texts(data, name)))
    kind = np.dtype(dtype).newbyteorder("<")
    if len(data) != count * kind.itemsize:
        raise InputFault(
            f"input {name!r} has {len(data)} bytes, its shape and type need {count * kind.itemsize}"
        )
    if dtype == "bool" and max(data, default=0) > 1:
        raise InputFault(f"input {name!r} is BOOL and has a byte over 1")
    return np.frombuffer(data, kind).astype(dtype, copy=False)


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


_ELEMENTS: dict[str, Any] = {"b": bool, "u": int, "i": int, "f": float | None, "O": str}
"""By kind of type; a missing number is ``null``."""


def _from_json(raw: bytes, dtype: str, given: RequestInput) -> NDArray[Any]:
    kind = np.dtype(object if dtype == "string" else dtype)
    element = _ELEMENTS[kind.kind]
    try:
        try:
            flat = msgspec.json.decode(raw, type=GenericAlias(list, element))
        except msgspec.ValidationError:
            if len(given.shape) < 2:
                raise
            flat = _flattened(raw, element, given)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputFault(f"input {given.name!r} of type {given.datatype}: {error}") from error
    if kind.kind == "O":
        return _text_array(flat)
    try:
        return np.array(flat, dtype=kind)  # None becomes NaN
    except OverflowError as error:
        raise InputFault(
            f"input {given.name!r} has a number that {given.datatype} cannot hold"
        ) from error


def _flattened(raw: bytes, element: Any, given: RequestInput) -> list[Any]:
    """Elements that came nested as the shape says."""
    nested = element
    for _ in given.shape:
        nested = GenericAlias(list, nested)
    level: list[Any] = [msgspec.json.decode(raw, type=nested)]
    for extent in given.shape:
        if any(len(part) != extent for part in level):
            raise InputFault(
                f"input {given.name!r} is not nested as its shape {list(given.shape)} says"
            )
        level = [item for part in level for item in part]
    return level


def _text_array(texts: list[str]) -> NDArray[Any]:
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def _to_bytes(array: NDArray[Any]) -> bytes:
    if array.dtype.kind in "OUS":
        texts = [str(item).encode() for item in array.ravel().tolist()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _to_list(name: str, array: NDArray[Any]) -> list[Any]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise MachineFault(
            f"the model answered NaN or infinity in {name!r}, which JSON has not",
            advice="Ask for this output as binary data.",
        )
    found: list[Any] = array.ravel().tolist()
    return found

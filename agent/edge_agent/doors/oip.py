"""The Open Inference Protocol, version 2: requests read, answers and descriptions written. Pure.

Guards: a request is understood wholly or refused in one way. What stands in a tensor is looked at
in ``edge_agent.doors.tensors``.

Sources: the protocol's REST description and the binary tensor data extension, as KServe, Triton
and MLServer publish them. MLServer's and KServe's clients write ``null`` for what they leave out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from edge_agent.doors import tensors as elements
from edge_agent.doors.tensors import DTYPES, NAMES, datatype_of
from edge_contract.errors import InputFault
from edge_contract.manifest import Manifest
from edge_contract.typed import json_decoder

HEADER_LENGTH = "inference-header-content-length"
"""The header that says where the JSON ends and binary data begins."""
TENSORS_MAX = 1024
RANK_MAX = 16
ELEMENTS_MAX = 2**31

Text = Annotated[str, Meta(max_length=256)]
Extent = Annotated[int, Meta(ge=0, le=ELEMENTS_MAX)]
Parameters = dict[str, Any]


class RequestInput(Struct, frozen=True):
    """One input tensor; ``data`` is missing where it follows as bytes."""

    name: Text
    shape: Annotated[tuple[Extent, ...], Meta(max_length=RANK_MAX)]
    datatype: Text
    parameters: Parameters | None = None
    data: msgspec.Raw | UnsetType = UNSET


class RowInput(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of numbers, and nothing besides."""

    name: Text
    shape: tuple[Literal[1], Extent]
    datatype: Literal["FP32", "FP64"]
    data: list[float]


class RowRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client sends who wants the answer for one row: read in one go.

    Whatever else stands in a request makes it an ``InferRequest``.
    """

    inputs: tuple[RowInput]
    id: Text = ""


class RequestOutput(Struct, frozen=True):
    """An output that the client wants."""

    name: Text
    parameters: Parameters | None = None


class InferRequest(Struct, frozen=True):
    """The JSON of an inference request. Unknown fields are ignored."""

    inputs: Annotated[list[RequestInput], Meta(min_length=1, max_length=TENSORS_MAX)]
    id: Text | None = None
    parameters: Parameters | None = None
    outputs: Annotated[list[RequestOutput], Meta(max_length=TENSORS_MAX)] | None = None


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
        timeout_us: what has not begun by then is not wanted (schedule policy extension); 0: none.
    """

    tensors: dict[str, NDArray[Any]]
    wanted: tuple[str, ...] = ()
    binary: frozenset[str] = frozenset()
    all_binary: bool = False
    id: str = ""
    timeout_us: int = 0


_decode = json_decoder(InferRequest).decode
_decode_row = json_decoder(RowRequest).decode
_ROW_TYPES = {"FP32": np.dtype("float32"), "FP64": np.dtype("float64")}
_encode = msgspec.json.Encoder().encode


def decode(body: bytes, json_size: int | None = None) -> Infer:
    """An inference request.

    Args:
        json_size: what the ``HEADER_LENGTH`` header says; None: the whole body is JSON.

    Raises InputFault, and nothing else.
    """
    if json_size is not None and not 0 <= json_size <= len(body):
        raise InputFault(f"{HEADER_LENGTH} says {json_size}, the body has {len(body)} bytes")
    try:
        request = _decode(body if json_size is None else body[:json_size])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputFault(f"not a valid inference request: {error}") from error
    rest = _Rest(body, len(body) if json_size is None else json_size)
    tensors: dict[str, NDArray[Any]] = {}
    for given in request.inputs:
        if given.name in tensors:
            raise InputFault(f"input {given.name!r} is there twice")
        tensors[given.name] = _tensor(given, rest)
    rest.check_end()
    all_binary = _asks(request.parameters, "binary_data_output")
    outputs = request.outputs or ()
    wanted = tuple(output.name for output in outputs)
    binary = frozenset(o.name for o in outputs if _asks(o.parameters, "binary_data"))
    timeout_us = _timeout_us(request.parameters)
    return Infer(tensors, wanted, binary, all_binary, request.id or "", timeout_us)


def _timeout_us(parameters: Parameters | None) -> int:
    """``timeout`` of the schedule policy extension, which Triton's clients send: microseconds."""
    given = (parameters or {}).get("timeout")
    if given is None:
        return 0
    if type(given) is not int or not 0 <= given < 2**63:
        raise InputFault(f"parameter timeout is {str(given)[:40]!r}, expected microseconds")
    return given


def encode(
    manifest: Manifest, infer: Infer, outputs: Mapping[str, NDArray[Any]], own_id: str = ""
) -> tuple[bytes, int | None]:
    """The body of an answer, and the size of its JSON where bytes follow it, else None.

    Its id is the request's, or ``own_id`` where that has none.

    Raises InputFault when an output was asked for that the model has not, MachineFault for
    numbers that JSON has not.
    """
    wanted = infer.wanted
    for name in wanted:
        if name not in outputs:
            raise InputFault(
                f"the model has no output {name!r}", advice=f"It has: {', '.join(outputs)}."
            )
    described: list[ResponseOutput] = []
    tail: list[bytes] = []
    for name in wanted or outputs:
        array = outputs[name]
        datatype = datatype_of(array)
        if name in infer.binary or (infer.all_binary and name not in wanted):
            data = elements.to_bytes(array)
            tail.append(data)
            size = {"binary_data_size": len(data)}
            described.append(ResponseOutput(name, array.shape, datatype, size))
        else:
            listed = elements.to_list(name, array)
            described.append(ResponseOutput(name, array.shape, datatype, {}, listed))
    head = _encode(InferResponse(manifest.name, manifest.version, described, infer.id or own_id))
    return (b"".join((head, *tail)), len(head)) if tail else (head, None)


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


def metadata(
    manifest: Manifest, outputs: Sequence[TensorInfo], versions: Sequence[str]
) -> dict[str, Any]:
    """What the protocol wants to know of a model; ``versions``: those that can be asked."""
    return {
        "name": manifest.name,
        "versions": versions,
        "platform": "onnxruntime_onnx",
        "inputs": [
            {
                "name": tensor.name,
                "datatype": NAMES[tensor.dtype],
                "shape": [-1 if extent is None else extent for extent in tensor.shape],
                **({"parameters": {"features": list(tensor.features)}} if tensor.features else {}),
            }
            for tensor in manifest.inputs
        ],
        "outputs": [
            {
                "name": output.name,
                "datatype": NAMES[output.dtype],
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


RowTensor = tuple[str, tuple[int, ...], "np.dtype[Any]"]
"""Name, shape and type of the tensor that takes one row."""


class Form(NamedTuple):
    """What a model's requests are compared with.

    Attributes:
        features: names, to tell a table from tensors.
        row: name, shape and type of one row, where one tensor takes all features in their order:
            then its array is what ``Model`` reads quickest.
    """

    features: frozenset[str]
    row: RowTensor | None = None


def form_of(manifest: Manifest) -> Form:
    """To be made once a model."""
    names = tuple(feature.name for feature in manifest.features)
    first = manifest.inputs[0]
    if len(manifest.inputs) > 1 or first.features != names or first.dtype == "string":
        return Form(frozenset(names))
    return Form(frozenset(names), (first.name, (1, len(names)), np.dtype(first.dtype)))


def read(body: bytes, json_size: int | None, form: Form) -> tuple[Infer, object]:
    """A request, and its rows as ``Model.infer`` takes them. Raises as ``decode``.

    One row of numbers for a model that takes all features in one tensor becomes a list of them;
    then ``Infer.tensors`` is empty.
    """
    if json_size is None and form.row is not None:
        row = one_row(body, form.row)
        if row is not None:
            return Infer({}, id=row[0]), row[1]
    infer = decode(body, json_size)
    return infer, rows_of(infer, form)


def one_row(body: bytes, form: RowTensor) -> tuple[str, list[float]] | None:
    """The id and the numbers of a request for one row, and nothing besides.

    None: it is something else, or something wrong, and ``decode`` says what.
    """
    try:
        request = _decode_row(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    name, shape, dtype = form
    given = request.inputs[0]
    data = given.data
    if given.name != name or given.shape != shape or len(data) != shape[1]:
        return None
    if not math.isfinite(sum(data)):
        return None
    return (request.id, data) if _ROW_TYPES[given.datatype] is dtype else None


class RowWriter:
    """Writes one model's answers to requests for one row: all outputs, without an id.

    As ``encode`` does, byte for byte. What stands around the numbers is the same each time, so it
    is made once, of the first answer. In one thread.

    Args:
        tensors: names of the outputs, in the order in which they come.
    """

    def __init__(self, manifest: Manifest, tensors: Sequence[str]) -> None:
        self._start = _encode(InferResponse(manifest.name, manifest.version, []))[:-2]
        self._tensors = tuple(tensors)
        self._parts: list[tuple[tuple[int, ...], bytes, bool, bool]] | None = None

    def __call__(self, found: Sequence[NDArray[Any]]) -> bytes | None:
        """The body; None: numbers that JSON has not, or tensors of another form than before."""
        parts = self._parts
        if parts is None:
            parts = self._parts = [
                (
                    array.shape,
                    _opening(name, array, bool(at)),
                    array.dtype.kind == "f",
                    array.ndim == 2 and len(array) == 1,
                )
                for at, (name, array) in enumerate(zip(self._tensors, found, strict=True))
            ]
        pieces = [self._start]
        for array, (shape, opening, real, row) in zip(found, parts, strict=True):
            if array.shape != shape:
                return None
            values = array.tolist()[0] if row else array.ravel().tolist()
            if real and not math.isfinite(sum(values)):
                return None
            pieces += opening, _encode(values), b"}"
        pieces.append(b"]}")
        return b"".join(pieces)


def with_id(body: bytes, own: str) -> bytes:
    """The answer of a ``RowWriter`` with an id."""
    return b"".join((body[:-1], b',"id":', _encode(own), b"}"))


def _opening(name: str, array: NDArray[Any], following: bool) -> bytes:
    described = _encode(ResponseOutput(name, array.shape, datatype_of(array)))
    return b"," * following + described[:-1] + b',"data":'


def rows_of(infer: Infer, form: Form) -> object:
    """What the model takes: its own tensors, or a table where the names are its features'."""
    given = infer.tensors
    if form.row is not None:
        name, shape, dtype = form.row
        array = given.get(name)
        if array is not None and len(given) == 1 and array.shape == shape and array.dtype == dtype:
            return array
    if form.features and given.keys() == form.features:
        return Columns(given)
    return given


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
    name, shape, data = given.name, given.shape, given.data
    dtype = DTYPES.get(given.datatype)
    if dtype is None:
        raise InputFault(
            f"input {name!r} has datatype {given.datatype!r}",
            advice=f"Known are: {', '.join(DTYPES)}.",
        )
    count = math.prod(shape)
    here = None if data is UNSET or data == _NULL else data
    size = given.parameters.get("binary_data_size") if given.parameters else None
    if size is not None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise InputFault(f"input {name!r} has binary_data_size {size!r}")
        if here is not None:
            raise InputFault(f"input {name!r} has data in the JSON and behind it")
        flat = elements.from_bytes(rest.take(size, name), dtype, count, name)
    elif here is None:
        raise InputFault(f"input {name!r} has no data")
    else:
        flat = elements.from_json(here, dtype, shape, name)
    if len(flat) != count:
        raise InputFault(f"input {name!r} has {len(flat)} elements for the shape {list(shape)}")
    return elements.shaped(flat, shape, name)


_NULL = msgspec.Raw(b"null")


def _asks(parameters: Parameters | None, name: str) -> bool:
    return parameters is not None and parameters.get(name) is True

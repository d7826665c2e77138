"""The Open Inference Protocol, version 2: requests read, answers and descriptions written. Pure.

Guards: a request is understood wholly or refused in one way. What stands in a tensor is looked at
in ``edge_agent.doors.tensors``; what is asked most, one row, has ``edge_agent.doors.oip_rows``.

Sources: the protocol's REST description and the binary tensor data extension, as KServe, Triton
and MLServer publish them. MLServer's and KServe's clients write ``null`` for what they leave out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import msgspec
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

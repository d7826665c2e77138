"""Rows in the Open Inference Protocol: what a model takes; one row, in few steps. Pure.

Guards: an answer for one row is what the general way writes, byte for byte; whatever is out of the
ordinary is left to ``edge_agent.doors.oip``, which says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_agent.doors.oip import (
    Extent,
    Infer,
    InferResponse,
    ResponseOutput,
    Text,
    decode,
)
from edge_agent.doors.tensors import datatype_of
from edge_contract.errors import InputFault
from edge_contract.manifest import Manifest
from edge_contract.typed import json_decoder


class RowInput(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of numbers, and nothing besides."""

    name: Text
    shape: tuple[Literal[1], Extent]
    datatype: Literal["FP32", "FP64"]
    data: list[float]


class RowRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client sends who wants the answer for one row: read in one go.

    Whatever else stands in a request makes it an ``oip.InferRequest``.
    """

    inputs: tuple[RowInput]
    id: Text = ""


_decode_row = json_decoder(RowRequest).decode
_ROW_TYPES = {"FP32": np.dtype("float32"), "FP64": np.dtype("float64")}
_encode = msgspec.json.Encoder().encode


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
    """A request, and its rows as ``Model.infer`` takes them. Raises as ``oip.decode``.

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

    None: it is something else, or something wrong, and ``oip.decode`` says what.
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

    As ``oip.encode`` does, byte for byte. What stands around the numbers is the same each time, so
    it is made once, of the first answer. In one thread.

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

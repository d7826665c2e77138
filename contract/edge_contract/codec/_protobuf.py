"""Where the large arrays of an ONNX file stand, found in its wire format alone.

Walks the messages that hold arrays (onnx.proto, ModelProto down to AttributeProto and
TensorProto) and knows nothing else of ONNX. It never fails: where the bytes stop making sense
the walk of that message ends, and what was found before stays valid, since an array is only
reported when writing its values again gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np

from edge_contract.codec import _cells
from edge_contract.codec._cells import Array, Cells

HOLE_MIN_BYTES = 16  # below this its entry costs as much as it saves
_DEPTH_MAX = 16
_FIELDS_MAX = 200_000  # a file of more single fields than this is no model; 0.3 s to walk
_RUNS_MAX = 4  # runs of one field in one message; a serializer writes one


class _Message(Enum):
    MODEL = "ModelProto"
    FUNCTION = "FunctionProto"
    GRAPH = "GraphProto"
    NODE = "NodeProto"
    ATTRIBUTE = "AttributeProto"
    TENSOR = "TensorProto"


# field number -> the message in it (onnx.proto, IR version 13)
_NESTED: dict[_Message, dict[int, _Message]] = {
    _Message.MODEL: {7: _Message.GRAPH, 25: _Message.FUNCTION},
    _Message.FUNCTION: {7: _Message.NODE},
    _Message.GRAPH: {1: _Message.NODE, 5: _Message.TENSOR},
    _Message.NODE: {5: _Message.ATTRIBUTE},
    _Message.ATTRIBUTE: {
        5: _Message.TENSOR,
        6: _Message.GRAPH,
        10: _Message.TENSOR,
        11: _Message.GRAPH,
    },
    _Message.TENSOR: {},
}
_FLOATS, _INTS, _STRINGS = 0x3D, 0x40, 0x4A  # AttributeProto 7, 8 and 9, unpacked: tag bytes
_TENSOR_WORDS = {4: 4, 10: 8}  # float_data, double_data: field -> bytes of a word
_TENSOR_VARINTS = {5, 7, 11}  # int32_data, int64_data, uint64_data
_RAW_DATA = 9
# TensorProto.DataType -> bytes of an element; others are taken as bytes
_ELEMENT_BYTES = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 14: 4, 16: 2}


@dataclass(frozen=True)
class Hole:
    """An array in the file: ``expand`` of ``cells`` and ``values`` is ``data[start:end]``.

    Attributes:
        node: the ordinal of the node it belongs to. name: of its attribute, or b"".
    """

    start: int
    end: int
    cells: Cells
    values: Array
    node: int
    name: bytes


class _Stop(Exception):
    """The bytes are no such message from here on."""


def find_holes(data: bytes) -> list[Hole]:
    """The arrays of at least 16 bytes in ``data``, in the order of the file."""
    walk = _Walk(data)
    walk.message(_Message.MODEL, 0, len(data), 0)
    return walk.holes


class _Walk:
    def __init__(self, data: bytes) -> None:
        self.holes: list[Hole] = []
        self._data = data
        self._view = np.frombuffer(data, np.uint8)
        self._fields = 0
        self._node = 0
        self._name = b""

    def message(self, kind: _Message, start: int, end: int, depth: int) -> None:
        """Walk one message; whatever is not understood is left alone."""
        if depth > _DEPTH_MAX:
            return
        try:
            if kind is _Message.ATTRIBUTE:
                self._attribute(start, end, depth)
            elif kind is _Message.TENSOR:
                self._tensor(start, end)
            else:
                for number, at, to in self._spans(start, end):
                    self._descend(kind, number, at, to, depth)
        except _Stop:
            pass

    def _descend(self, kind: _Message, number: int, start: int, end: int, depth: int) -> None:
        inner = _NESTED[kind].get(number)
        if inner is not None:
            if inner is _Message.NODE:
                self._node += 1
            self.message(inner, start, end, depth + 1)

    def _attribute(self, start: int, end: int, depth: int) -> None:
        runs = 0
        pos = start
        self._name = b""
        while pos < end:
            tag = self._data[pos]
            if tag in (_FLOATS, _INTS, _STRINGS) and runs < _RUNS_MAX:
                runs += 1
                size = self._run(tag, pos, end)
                if size:
                    pos += size
                    continue
            number, at, to, pos = self._field(pos, end)
            if number == 1:
                self._name = self._data[at:to]
            elif number == 8 and tag & 7 == 2:
                self._packed(at, to)
            elif number == 7 and tag & 7 == 2:
                self._words(at, to, 4)
            else:
                self._descend(_Message.ATTRIBUTE, number, at, to, depth)

    def _tensor(self, start: int, end: int) -> None:
        width = 1
        for number, at, to in self._spans(start, end, every=True):
            if number == 2:
                width = _ELEMENT_BYTES.get(self._varint(at, to)[0], 1)
            elif number in _TENSOR_WORDS:
                self._words(at, to, _TENSOR_WORDS[number])
            elif number in _TENSOR_VARINTS:
                self._packed(at, to)
            elif number == _RAW_DATA:
                self._words(at, to, width)

    def _run(self, tag: int, pos: int, end: int) -> int:
        """Report the run of unpacked values at ``pos``; returns the bytes it takes."""
        view = self._view[pos:end]
        if tag == _FLOATS:
            cells, values = _cells.fixed32(view, tag)
            size = cells.count * 5
        elif tag == _INTS:
            cells, values, size = _cells.varints(view, tag)
        else:
            cells, values, size = _cells.records(self._data, pos, end, tag)
        self._report(pos, pos + size, cells, values)
        return size

    def _packed(self, start: int, end: int) -> None:
        cells, values, size = _cells.varints(self._view[start:end], 0)
        self._report(start, start + size, cells, values)

    def _words(self, start: int, end: int, width: int) -> None:
        parsed = _cells.words(self._view[start:end], width)
        if parsed is not None:
            self._report(start, end, *parsed)

    def _report(self, start: int, end: int, cells: Cells, values: Array) -> None:
        if end - start < HOLE_MIN_BYTES:
            return
        again, _ = _cells.expand(cells, values, (), end - start)
        # Longer than its canonical form (e.g. a varint padded with zero): leave it alone.
        if np.array_equal(again, self._view[start:end]):
            self.holes.append(Hole(start, end, cells, values, self._node, self._name))

    def _spans(
        self, start: int, end: int, *, every: bool = False
    ) -> Iterator[tuple[int, int, int]]:
        """Field number, start and end of the length-delimited fields; of ``every`` field."""
        pos = start
        while pos < end:
            wire = self._data[pos] & 7
            number, at, to, pos = self._field(pos, end)
            if every or wire == 2:
                yield number, at, to

    def _field(self, pos: int, end: int) -> tuple[int, int, int, int]:
        """Number, start and end of the content, and the start of the next field."""
        self._fields += 1
        if self._fields > _FIELDS_MAX:
            raise _Stop
        tag, at = self._varint(pos, end)
        wire = tag & 7
        if wire == 0:
            to = self._varint(at, end)[1]
        elif wire == 1:
            to = at + 8
        elif wire == 5:
            to = at + 4
        elif wire == 2:
            size, at = self._varint(at, end)
            to = at + size
        else:
            raise _Stop
        if to > end:
            raise _Stop
        return tag >> 3, at, to, to

    def _varint(self, pos: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if pos >= end:
                break
            byte = self._data[pos]
            value |= (byte & 0x7F) << shift
            pos += 1
            if byte < 0x80:
                return value, pos
        raise _Stop

"""Shapes: how the values of a column are written, and how they are read back.

A shape is a small tree of reversible steps, written in prefix order into the plan; its leaves
take streams from the body. All arithmetic is modulo 2**(8 * width). The reader knows the number
of values before it reads a shape, and no step makes more than that: memory is bounded by the
header, whatever the plan says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from edge_contract.codec._cells import Array, Cells, dtype, width_for
from edge_contract.codec._error import CodecError
from edge_contract.codec._forest import Forest, Guess, guess, is_leaf
from edge_contract.codec._stream import Reader, unpack

_DEPTH_MAX = 6
_COLUMN_MAX = 1 << 16
_HEAD_MAX = 1 << 48


class Op(IntEnum):
    """One step of a shape. The number is on the wire."""

    CONST = 0  # value: all values are this one
    RAW = 1  # k, stream: words of k bytes
    PLANES = 2  # k, k streams: the lowest bytes, the second bytes, ...
    PACK = 3  # b, stream: values of b = 1, 2 or 4 bits, the first in the low bits
    DELTA = 4  # shape: zig-zag differences from the value before
    DICT = 5  # d, shape of d values, shape of indices
    ROWS = 6  # r, d, shape of d rows of r values, shape of indices of rows
    SPLIT = 7  # modes column, shape at branches, shape at leaves
    GROUP = 8  # column, d, shape of counts, shape of d values, shape of indices in the group
    GUESS = 9  # guess, its columns, shape of zig-zag differences from the guess


def zigzag(values: Array) -> Array:
    """Two's complement to small numbers: 0, -1, 1, -2 ... become 0, 1, 2, 3 ..."""
    bits = values.dtype.itemsize * 8
    one = values.dtype.type(1)
    return (values << one) ^ (-(values >> values.dtype.type(bits - 1))).astype(values.dtype)


def unzigzag(values: Array) -> Array:
    """The inverse of ``zigzag``."""
    one = values.dtype.type(1)
    return (values >> one) ^ (-(values & one)).astype(values.dtype)


@dataclass
class Known:
    """Columns decoded so far that later ones refer to, by their place in the plan."""

    cells: dict[int, Cells] = field(default_factory=dict)
    values: dict[int, Array] = field(default_factory=dict)
    forests: dict[int, Forest] = field(default_factory=dict)

    def column(self, number: int) -> Array:
        """The values of a kept column."""
        if number not in self.values:
            raise CodecError(f"a shape refers to column {number}, which was not kept")
        return self.values[number]

    def forest(self, number: int) -> Forest:
        """The forest whose modes are a kept column."""
        if number not in self.forests:
            modes = self.column(number)
            leaves = [i for i, text in enumerate(self.cells[number].alphabet) if is_leaf(text)]
            if len(leaves) != 1 or modes.size == 0:
                raise CodecError(f"column {number} is not the modes of a forest")
            self.forests[number] = Forest(modes == leaves[0])
        return self.forests[number]


class ShapeReader:
    """Reads shapes from ``plan`` and their streams from ``body``."""

    def __init__(self, plan: Reader, body: Reader, known: Known) -> None:
        self._plan = plan
        self._body = body
        self._known = known
        self._depth = 0
        self._forest: Forest | None = None  # set while the branch side of a SPLIT is read
        self._steps = (  # in the order of Op
            self._constant,
            self._words,
            self._planes,
            self._packed,
            self._delta,
            self._dictionary,
            self._rows,
            self._split,
            self._group,
            self._guess,
        )

    def read(self, count: int, width: int) -> Array:
        """The next ``count`` values, as integers of ``width`` bytes."""
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise CodecError(f"a shape of more than {_DEPTH_MAX} steps in depth")
        values = self._step(count, width)
        self._depth -= 1
        return values

    def _step(self, count: int, width: int) -> Array:
        op = self._plan.byte()
        if op >= len(self._steps):
            raise CodecError(f"unknown step {op} in a shape")
        return self._steps[op](count, width)

    def _stream(self, size: int) -> bytes:
        return unpack(self._plan.uvarint(_HEAD_MAX), self._body, size)

    def _constant(self, count: int, width: int) -> Array:
        return np.full(count, self._plan.uvarint((1 << 8 * width) - 1), dtype(width))

    def _words(self, count: int, width: int) -> Array:
        size = self._plan.byte()
        if size not in (1, 2, 4, 8) or size > width:
            raise CodecError(f"words of {size} bytes for values of {width}")
        words = np.frombuffer(self._stream(count * size), dtype(size))
        return words.astype(dtype(width), copy=False)

    def _delta(self, count: int, width: int) -> Array:
        steps = unzigzag(self.read(count, width))
        return np.cumsum(steps, dtype=steps.dtype)

    def _planes(self, count: int, width: int) -> Array:
        planes = self._plan.byte()
        if not 1 <= planes <= width:
            raise CodecError(f"{planes} planes for values of {width} bytes")
        values = np.zeros((count, width), np.uint8)
        for plane in range(planes):
            values[:, plane] = np.frombuffer(self._stream(count), np.uint8)
        return values.view(dtype(width)).reshape(-1)

    def _packed(self, count: int, width: int) -> Array:
        bits = self._plan.byte()
        if bits not in (1, 2, 4):
            raise CodecError(f"values of {bits} bits")
        packed = np.frombuffer(self._stream(-(-count * bits // 8)), np.uint8)
        if bits == 1:
            flags = np.unpackbits(packed, count=count, bitorder="little")
            return flags.astype(dtype(width), copy=False)
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        parts = packed[:, None] >> shifts & np.uint8((1 << bits) - 1)
        return parts.reshape(-1)[:count].astype(dtype(width))

    def _indexed(self, table: Array, count: int) -> Array:
        """``count`` indices into ``table``, read and checked."""
        index = self.read(count, width_for(len(table)))
        if count and int(index.max()) >= len(table):
            raise CodecError(f"an index outside a dictionary of {len(table)}")
        return index

    def _dictionary(self, count: int, width: int) -> Array:
        table = self.read(self._plan.uvarint(count), width)
        return table[self._indexed(table, count)]

    def _rows(self, count: int, width: int) -> Array:
        length = self._plan.uvarint(count)
        if length < 1 or count % length:
            raise CodecError(f"rows of {length} for {count} values")
        rows = self._plan.uvarint(count // length)
        table = self.read(rows * length, width).reshape(rows, length)
        return table[self._indexed(table, count // length)].reshape(-1)

    def _split(self, count: int, width: int) -> Array:
        forest = self._known.forest(self._plan.uvarint(_COLUMN_MAX))
        if self._forest is not None or count != forest.leaf.size:
            raise CodecError(f"{count} values cannot be split by {forest.leaf.size} nodes")
        values = np.empty(count, dtype(width))
        self._forest = forest
        values[~forest.leaf] = self.read(count - forest.leaf_count, width)
        self._forest = None
        values[forest.leaf] = self.read(forest.leaf_count, width)
        return values

    def _group(self, count: int, width: int) -> Array:
        keys = self._known.column(self._plan.uvarint(_COLUMN_MAX))
        if self._forest is not None and keys.size == self._forest.leaf.size:
            keys = keys[~self._forest.leaf]
        if keys.size != count:
            raise CodecError(f"{count} values cannot be grouped by {keys.size} keys")
        total = self._plan.uvarint(count)
        groups, group = np.unique(keys, return_inverse=True)
        counts = self.read(groups.size, 4).astype(np.int64)
        if int(counts.sum()) != total:
            raise CodecError(f"groups of {int(counts.sum())} values, expected {total}")
        table = self.read(total, width)
        index = self.read(count, width_for(int(counts.max(initial=0)))).astype(np.int64)
        if (index >= counts[group]).any():
            raise CodecError("an index outside its group")
        index += (np.cumsum(counts) - counts)[group]
        return table[index]

    def _guess(self, count: int, width: int) -> Array:
        try:
            kind = Guess(self._plan.byte())
        except ValueError as error:
            raise CodecError("unknown guess in a shape") from error
        guessed = self._cycle(count) if kind is Guess.CYCLE else self._from_forest(kind, count)
        values = unzigzag(self.read(count, width))
        values += guessed.astype(values.dtype)
        return values

    def _cycle(self, count: int) -> Array:
        length = self._plan.uvarint(count)
        if length < 1:
            raise CodecError("a cycle of nothing")
        return np.resize(np.arange(length, dtype=dtype(width_for(length))), count)

    def _from_forest(self, kind: Guess, count: int) -> Array:
        forest = self._known.forest(self._plan.uvarint(_COLUMN_MAX))
        other = None
        if kind in (Guess.FIRST_CHILD, Guess.SECOND_CHILD, Guess.AT_LEAVES):
            other = self._known.column(self._plan.uvarint(_COLUMN_MAX))
            if other.size != forest.leaf.size:
                raise CodecError(f"{other.size} numbers for {forest.leaf.size} nodes")
        values = guess(kind, forest, other)
        if kind is Guess.AT_LEAVES and values.size and count % values.size == 0:
            values = np.repeat(values, count // values.size)
        if values.size != count:
            raise CodecError(f"a guess of {values.size} values for {count}")
        return values.view(dtype(values.dtype.itemsize))

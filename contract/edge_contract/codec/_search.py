"""Chooses the shape of each column: tries the likely ones, keeps the one that packs smallest.

Runs on the workstation only. Nothing here is part of the format: any choice decodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_contract.codec._cells import Array, dtype, width_for
from edge_contract.codec._forest import Guess, guess
from edge_contract.codec._gather import Column, Family
from edge_contract.codec._shape import Op, zigzag
from edge_contract.codec._stream import LEVEL, compress, uvarint

# Streams up to here are weighed at the final level; longer ones at a much faster one.
_EXACT_MAX_BYTES = 1 << 13
_FAST_LEVEL = 3
_STREAM_COST_BYTES = 2
_ROW_MAX = 1 << 12

_NODE_GUESSES = {
    b"nodes_treeids": (Guess.TREE,),
    b"nodes_nodeids": (Guess.COUNTER,),
}
_CHILD_GUESSES = (Guess.FIRST_CHILD, Guess.SECOND_CHILD)
_CHILDREN = (b"nodes_truenodeids", b"nodes_falsenodeids")
_AT_LEAVES = {
    b"class_treeids": b"nodes_treeids",
    b"class_nodeids": b"nodes_nodeids",
    b"target_treeids": b"nodes_treeids",
    b"target_nodeids": b"nodes_nodeids",
}


@dataclass(frozen=True)
class Stream:
    """Bytes for the body, and what they will take there."""

    raw: bytes

    @cached_property
    def cost(self) -> int:
        """Bytes once packed, near enough to compare."""
        level = LEVEL if len(self.raw) <= _EXACT_MAX_BYTES else _FAST_LEVEL
        packed = len(compress(self.raw, level)) if self.raw else 0
        return min(packed, len(self.raw)) + _STREAM_COST_BYTES


@dataclass(frozen=True)
class Shape:
    """A shape in prefix order: literal bytes of the plan, and streams where they are named."""

    parts: tuple[bytes | Stream, ...]

    @cached_property
    def cost(self) -> int:
        """Bytes that the shape takes, near enough to compare."""
        return sum(p.cost if isinstance(p, Stream) else len(p) for p in self.parts)


def choose(column: Column) -> Shape:
    """The smallest shape found for the values of ``column``."""
    values, family = column.values, column.family
    if values.size and (values == values[0]).all():
        return _plain(values)
    shapes = []
    for shape in _guesses(column, family) if family else ():
        if len(shape.parts) == 2 and shape.parts[1] == _ZERO:
            return shape
        shapes.append(shape)
    shapes.append(_free(values))
    if family:
        shapes += _structured(column, family)
    return _best(shapes)


def _best(shapes: list[Shape]) -> Shape:
    return min(shapes, key=lambda shape: shape.cost)


def _step(*parts: int | bytes | Shape | Stream) -> Shape:
    """Joins plan bytes (an int is a number below 2**64), shapes and streams."""
    joined: list[bytes | Stream] = []
    for part in parts:
        for piece in part.parts if isinstance(part, Shape) else (part,):
            plan = uvarint(piece) if isinstance(piece, int) else piece
            if isinstance(plan, bytes) and joined and isinstance(joined[-1], bytes):
                joined[-1] += plan
            else:
                joined.append(plan)
    return Shape(tuple(joined))


_ZERO = bytes([Op.CONST, 0])


def _plain(values: Array) -> Shape:
    """The best of the steps that take the values as they are."""
    if values.size == 0:
        return _step(_ZERO)
    most = int(values.max())
    if most == int(values.min()):
        return _step(Op.CONST, most)
    word = width_for(most + 1)
    words = np.ascontiguousarray(values.astype(dtype(word)))
    shapes = [_step(Op.RAW, word, Stream(words.tobytes()))]
    planes = -(-most.bit_length() // 8)
    if planes > 1:
        rows = words.view(np.uint8).reshape(-1, word)
        streams = [Stream(rows[:, plane].tobytes()) for plane in range(planes)]
        shapes.append(_step(Op.PLANES, planes, *streams))
    for bits in (1, 2, 4):
        if most < 1 << bits:
            shapes.append(_step(Op.PACK, bits, Stream(_packed(words, bits))))
    return _best(shapes)


def _packed(words: Array, bits: int) -> bytes:
    """Values below 2**bits, the first in the low bits of the first byte."""
    per_byte = 8 // bits
    padded = np.zeros(-(-words.size // per_byte) * per_byte, np.uint8)
    padded[: words.size] = words
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    joined: Array = np.bitwise_or.reduce(padded.reshape(-1, per_byte) << shifts, axis=1)
    return joined.tobytes()


def _delta(values: Array) -> Shape:
    return _step(Op.DELTA, _plain(zigzag(np.diff(values, prepend=values.dtype.type(0)))))


def _table(values: Array) -> Shape:
    """Sorted distinct values."""
    return _best([_plain(values), _delta(values)])


def _index(values: NDArray[np.integer], table_size: int) -> Array:
    return values.reshape(-1).astype(dtype(width_for(table_size)))


def _free(values: Array) -> Shape:
    """The best of the steps that need to know nothing about the column."""
    shapes = [_plain(values)]
    if values.size > 1 and shapes[0].parts[0][:1] != _ZERO[:1]:  # type: ignore[index]
        shapes.append(_delta(values))
        table, index = np.unique(values, return_inverse=True)
        if table.size <= values.size // 2:
            indices = _plain(_index(index, table.size))
            shapes.append(_step(Op.DICT, table.size, _table(table), indices))
    return _best(shapes)


def _rows(values: Array, length: int) -> Shape | None:
    """A dictionary of whole rows; None where too many rows are distinct."""
    table, index = np.unique(values.reshape(-1, length), axis=0, return_inverse=True)
    if len(table) > values.size // length // 2:
        return None
    indices = _plain(_index(index, len(table)))
    return _step(Op.ROWS, length, len(table), _free(table.reshape(-1)), indices)


def _grouped(values: Array, keys: Array, place: int) -> Shape:
    """A sorted dictionary for each key: the thresholds of one feature repeat among themselves."""
    order = np.lexsort((values, keys))
    keys_in_order, values_in_order = keys[order], values[order]
    new_key = np.diff(keys_in_order, prepend=keys_in_order[:1]) != 0
    first = new_key | (np.diff(values_in_order, prepend=values_in_order[:1]) != 0)
    first[0] = new_key[0] = True
    group = np.cumsum(new_key) - 1
    counts = np.bincount(group[first])
    rank = np.empty(values.size, np.int64)
    rank[order] = np.cumsum(first) - 1 - (np.cumsum(counts) - counts)[group]
    table = values_in_order[first]
    indices = _plain(_index(rank, int(counts.max())))
    number = _plain(counts.astype(dtype(4)))
    return _step(Op.GROUP, place, table.size, number, _table(table), indices)


def _guesses(column: Column, family: Family) -> list[Shape]:
    """The column as what a converter writes, and where it differs."""
    leaves, size = family.forest.leaf_count, column.values.size
    if size == family.forest.leaf.size:
        shapes = [_guess(column, family, kind) for kind in _NODE_GUESSES.get(column.name, ())]
        if column.name in _CHILDREN and b"nodes_nodeids" in family.columns:
            numbers = family.columns[b"nodes_nodeids"]
            shapes += [_guess(column, family, kind, numbers) for kind in _CHILD_GUESSES]
        return shapes
    source = family.columns.get(_AT_LEAVES.get(column.name, b""))
    if source and leaves and size % leaves == 0:
        return [_guess(column, family, Guess.AT_LEAVES, source)]
    if column.name == b"class_ids" and leaves and size % leaves == 0 and size > leaves:
        length = size // leaves
        guessed = np.resize(np.arange(length), size)
        return [_step(Op.GUESS, Guess.CYCLE, length, _difference(column.values, guessed))]
    return []


def _guess(column: Column, family: Family, kind: Guess, source: Column | None = None) -> Shape:
    guessed = guess(kind, family.forest, source.values if source else None)
    if kind is Guess.AT_LEAVES:
        guessed = np.repeat(guessed, column.values.size // guessed.size)
    named = kind in (Guess.FIRST_CHILD, Guess.SECOND_CHILD, Guess.AT_LEAVES)
    columns = [family.modes, source.place] if named and source else [family.modes]
    return _step(Op.GUESS, kind, *columns, _difference(column.values, guessed))


def _difference(values: Array, guessed: NDArray[np.integer]) -> Shape:
    return _free(zigzag(values - guessed.astype(values.dtype)))


def _structured(column: Column, family: Family) -> list[Shape]:
    """The column split by leaf and branch, or taken leaf by leaf."""
    forest, values = family.forest, column.values
    if values.size == forest.leaf.size and column.name != b"nodes_modes":
        branch = values[~forest.leaf]
        sides = [_free(branch)]
        features = family.columns.get(b"nodes_featureids")
        if features and column.name == b"nodes_values" and branch.size:
            keys = features.values[~forest.leaf]
            sides.append(_grouped(branch, keys, features.place))
        return [_step(Op.SPLIT, family.modes, _best(sides), _free(values[forest.leaf]))]
    length = values.size // max(forest.leaf_count, 1)
    if 1 < length <= _ROW_MAX and values.size == length * forest.leaf_count:
        rows = _rows(values, length)
        return [rows] if rows else []
    return []

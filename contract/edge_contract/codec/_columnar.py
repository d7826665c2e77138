"""A file as a skeleton with holes, and the columns that fill them.

Guards: before a column is decoded it is known that its cells can fit into what is left of the
file; skeleton and columns together are exactly the file. The format: docs/formats/codec.md.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from edge_contract.codec._cells import ALPHABET_MAX, Array, Bytes, Cells, Kind, expand
from edge_contract.codec._error import CodecError
from edge_contract.codec._gather import COLUMN_MIN_BYTES, Column, gather
from edge_contract.codec._protobuf import HOLE_MIN_BYTES, find_holes
from edge_contract.codec._shape import Known, ShapeReader
from edge_contract.codec._stream import Reader, pack, unpack, uvarint

if TYPE_CHECKING:
    from edge_contract.codec._search import Shape

_KEEP = 0x10
_STORED_MAX = 1 << 48


def encode_columns(data: bytes, *, forests_only: bool = False) -> bytes | None:
    """``data`` as columns; None when there is no array worth taking out.

    ``forests_only``: None as well when none of the arrays is of a tree ensemble.
    """
    from edge_contract.codec._search import choose  # noqa: PLC0415 - a device only decodes

    columns = gather(find_holes(data))
    if not columns or (forests_only and not any(column.family for column in columns)):
        return None
    plan, body = bytearray(uvarint(len(columns))), bytearray()
    for column in columns:
        plan += _entry(column)
        _write(choose(column), plan, body)
    table, skeleton = _cut(data, columns)
    head = bytes(plan) + table + skeleton
    number, packed = pack(head)
    return uvarint(len(head)) + uvarint(number) + packed + bytes(body)


def decode_columns(blob: bytes, pos: int, size: int) -> bytes:
    """The file of ``size`` bytes whose columns start at ``blob[pos]``."""
    body = Reader(blob, pos)
    # 1. The head is no longer than a file with its plan can be.
    head_size = body.uvarint(2 * size + 1024)
    head = Reader(unpack(body.uvarint(_STORED_MAX), body, head_size))
    # 2. Columns as values: a byte of the file holds at most one of them.
    columns = _read_columns(head, body, size)
    if body.left:
        raise CodecError(f"{body.left} bytes after the last stream")
    # 3. Columns as bytes, cut where the holes are. Their values go as soon as they are written.
    holes, cuts = _read_table(head, len(columns), size)
    left = size
    filled: list[tuple[Bytes, list[int]]] = []
    for number, ends in enumerate(cuts):
        cells, values = columns.popleft()
        if not ends or ends[-1] != cells.count:
            raise CodecError(f"the holes do not take the {cells.count} values of column {number}")
        filled.append(expand(cells, values, ends, left))
        left -= filled[-1][0].size
    # 4. The skeleton is exactly the rest.
    if head.left != left:
        raise CodecError(f"a skeleton of {head.left} bytes, expected {left}")
    return _join(head, holes, filled)


def _cut(data: bytes, columns: list[Column]) -> tuple[bytes, bytes]:
    """The table of the holes, in the order of the file, and the skeleton around them."""
    holes = [(hole, column.place) for column in columns for hole in column.holes]
    holes.sort(key=lambda hole: hole[0].start)
    table, skeleton, pos = bytearray(uvarint(len(holes))), bytearray(), 0
    for hole, place in holes:
        table += uvarint(hole.start - pos) + uvarint(place) + uvarint(hole.cells.count)
        skeleton += data[pos : hole.start]
        pos = hole.end
    return bytes(table), bytes(skeleton + data[pos:])


def _join(
    head: Reader, holes: list[tuple[int, int]], filled: list[tuple[Bytes, list[int]]]
) -> bytes:
    """The skeleton with each hole filled by the next bytes of its column."""
    taken = [0] * len(filled)
    following = [iter(marks) for _, marks in filled]
    parts: list[bytes | memoryview] = []
    for gap, column in holes:
        start, taken[column] = taken[column], next(following[column])
        parts += [head.take(gap), filled[column][0][start : taken[column]].data]
    parts.append(head.take(head.left))
    return b"".join(parts)


def _read_columns(head: Reader, body: Reader, size: int) -> deque[tuple[Cells, Array]]:
    """The columns as values; a byte of the file holds one of them at most."""
    known = Known()
    shapes = ShapeReader(head, body, known)
    columns: deque[tuple[Cells, Array]] = deque()
    left = size
    for number in range(head.uvarint(size // COLUMN_MIN_BYTES)):
        cells, keep = _read_entry(head, left)
        left -= cells.least
        values = shapes.read(cells.count, cells.width)
        if keep:
            known.cells[number], known.values[number] = cells, values
        columns.append((cells, values))
    return columns


def _read_table(
    head: Reader, columns: int, size: int
) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """For each hole the gap before it and its column; for each column where its holes end."""
    holes = []
    cuts: list[list[int]] = [[] for _ in range(columns)]
    for _ in range(head.uvarint(size // HOLE_MIN_BYTES)):
        gap, column, count = head.uvarint(size), head.uvarint(size), head.uvarint(size)
        if column >= columns:
            raise CodecError(f"a hole for column {column} of {columns}")
        ends = cuts[column]
        ends.append(count + (ends[-1] if ends else 0))
        holes.append((gap, column))
    return holes, cuts


def _entry(column: Column) -> bytes:
    cells = column.cells
    flags = cells.kind | (_KEEP if column.keep else 0)
    entry = bytes([flags, cells.tag, cells.width]) + uvarint(cells.count)
    if cells.kind is Kind.RECORDS:
        entry += uvarint(len(cells.alphabet))
        entry += b"".join(uvarint(len(text)) + text for text in cells.alphabet)
    return entry


def _read_entry(head: Reader, left: int) -> tuple[Cells, bool]:
    """How a column is written, and whether later ones refer to it."""
    flags, tag, width = head.byte(), head.byte(), head.byte()
    try:
        kind = Kind(flags & ~_KEEP)
    except ValueError as error:
        raise CodecError(f"unknown kind of column {flags}") from error
    count = head.uvarint(left)
    alphabet: tuple[bytes, ...] = ()
    if kind is Kind.RECORDS:
        texts = head.uvarint(ALPHABET_MAX)
        alphabet = tuple(head.take(head.uvarint(head.left)) for _ in range(texts))
    cells = Cells(kind, tag, count, width, alphabet)
    if not cells.sound or cells.least > left:
        raise CodecError(f"a column of {count} values, for which the file has no room")
    return cells, bool(flags & _KEEP)


def _write(shape: Shape, plan: bytearray, body: bytearray) -> None:
    from edge_contract.codec._search import Stream  # noqa: PLC0415

    for part in shape.parts:
        if isinstance(part, Stream):
            number, packed = pack(part.raw)
            plan += uvarint(number)
            body += packed
        else:
            plan += part

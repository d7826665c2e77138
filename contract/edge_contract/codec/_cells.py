"""Arrays as protobuf writes them: cells on the wire to unsigned integers, and back.

Five kinds of cell (protobuf encoding, developers.google.com/protocol-buffers/docs/encoding):
a field a value (``repeated`` without ``packed``, as proto2 and so ONNX attributes are), packed
varints, plain words, and short strings from a small alphabet. Only canonical cells are taken
out of a file: ``expand`` gives exactly the bytes that were parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from edge_contract.codec._error import CodecError

Array = NDArray[np.unsignedinteger]
Bytes = NDArray[np.uint8]

ALPHABET_MAX = 255
_RECORD_MAX_BYTES = 129  # tag, one byte of length, up to 127 bytes of text
_VARINT_MAX_BYTES = 10
_STEP = 1 << 15  # cells expanded at once: temporaries stay in the cache


class Kind(IntEnum):
    """How the values of a column stand in the file."""

    WORDS = 0  # little-endian words, nothing between them
    FIXED32 = 1  # tag, four bytes
    VARINT = 2  # tag, varint
    PACKED = 3  # varints, nothing between them
    RECORDS = 4  # tag, length, text; the values number the alphabet


@dataclass(frozen=True)
class Cells:
    """What to write around the values of a column.

    Attributes:
        kind: the form. tag: the field's tag byte, 0 where a cell has none.
        count: how many values. width: bytes of a value in memory; of a word in the file.
        alphabet: RECORDS only; the distinct records, tag and length included.
    """

    kind: Kind
    tag: int
    count: int
    width: int
    alphabet: tuple[bytes, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether such a column can be: at least one value, of a width that its kind knows."""
        if self.count < 1 or self.width not in (1, 2, 4, 8):
            return False
        if self.kind is Kind.RECORDS:
            lengths = [len(record) for record in self.alphabet]
            sane = bool(lengths) and min(lengths) >= 2 and max(lengths) <= _RECORD_MAX_BYTES
            return self.width == 1 and sane
        if self.kind is Kind.FIXED32:
            return self.width == 4
        return (self.tag > 0) == (self.kind is Kind.VARINT) and self.tag < 0x80

    @property
    def least(self) -> int:
        """The fewest bytes that the cells can take: asked before anything is allocated."""
        if self.kind is Kind.WORDS:
            return self.count * self.width
        if self.kind is Kind.FIXED32:
            return self.count * 5
        if self.kind is Kind.RECORDS:
            return self.count * min(map(len, self.alphabet))
        return self.count * (2 if self.kind is Kind.VARINT else 1)


def dtype(width: int) -> np.dtype[np.unsignedinteger]:
    """The little-endian unsigned integer of ``width`` bytes."""
    return np.dtype(f"<u{width}")


def width_for(count: int) -> int:
    """Bytes that hold any number below ``count``."""
    return 1 if count <= 1 << 8 else 2 if count <= 1 << 16 else 4 if count <= 1 << 32 else 8


def words(view: Bytes, width: int) -> tuple[Cells, Array] | None:
    """Parse ``view`` as words of ``width`` bytes; None when it is no whole number of them."""
    if view.size % width:
        return None
    return Cells(Kind.WORDS, 0, view.size // width, width), view.view(dtype(width))


def fixed32(view: Bytes, tag: int) -> tuple[Cells, Array]:
    """Parse the longest run of ``tag`` and four bytes at the start of ``view``."""
    whole = view[: view.size // 5 * 5].reshape(-1, 5)
    stop = whole[:, 0] != tag
    count = int(stop.argmax()) if stop.any() else len(whole)
    values = np.ascontiguousarray(whole[:count, 1:]).view(dtype(4)).reshape(-1)
    return Cells(Kind.FIXED32, tag, count, 4), values


def varints(view: Bytes, tag: int) -> tuple[Cells, Array, int]:
    """Parse the longest run of ``tag`` and a varint; packed varints where ``tag`` is 0.

    Returns the cells, the values and the bytes they took.
    """
    ends = np.flatnonzero(view < 0x80) + 1
    if tag:
        # A tag below 0x80 ends itself, so tags and values take turns among the ends.
        tags_end, ends = ends[: ends.size // 2 * 2 : 2], ends[1::2]
        starts = np.concatenate(([0], ends[:-1])) if ends.size else ends
        bad = (tags_end != starts + 1) | (view[starts] != tag)
        starts = starts + 1
    else:
        starts = np.concatenate(([0], ends[:-1])) if ends.size else ends
        bad = np.zeros(ends.size, bool)
    lengths = ends - starts
    bad |= lengths > _VARINT_MAX_BYTES
    count = int(bad.argmax()) if bad.any() else ends.size
    values = _varint_values(view, starts[:count], lengths[:count])
    size = int(ends[count - 1]) if count else 0
    width = width_for(int(values.max(initial=0)) + 1)
    kind = Kind.VARINT if tag else Kind.PACKED
    return Cells(kind, tag, count, width), values.astype(dtype(width)), size


def _varint_values(
    view: Bytes, starts: NDArray[np.intp], lengths: NDArray[np.intp]
) -> NDArray[np.uint64]:
    values = np.zeros(starts.size, "<u8")
    for place in range(int(lengths.max(initial=0))):
        which = np.flatnonzero(lengths > place)
        part = view[starts[which] + place].astype("<u8") & np.uint64(0x7F)
        values[which] |= part << np.uint64(7 * place)
    return values


def records(data: bytes, start: int, end: int, tag: int) -> tuple[Cells, Array, int]:
    """Parse the longest run of ``tag``, length, text with at most 255 distinct texts."""
    alphabet: dict[bytes, int] = {}
    numbers = bytearray()
    pos = start
    # The one loop over elements of the encoder: each record says where the next one starts.
    # Measured: under 1 us a record; 2 s for the 2.6 million modes of a forest of 100 MB.
    while pos + 2 <= end and data[pos] == tag and data[pos + 1] < 0x80:
        after = pos + 2 + data[pos + 1]
        if after > end:
            break
        record = data[pos:after]
        number = alphabet.setdefault(record, len(alphabet))
        if number >= ALPHABET_MAX:
            del alphabet[record]
            break
        numbers.append(number)
        pos = after
    cells = Cells(Kind.RECORDS, tag, len(numbers), 1, tuple(alphabet))
    return cells, np.frombuffer(bytes(numbers), "<u1"), pos - start


def expand(
    cells: Cells, values: Array, cuts: Sequence[int], size_max: int
) -> tuple[Bytes, list[int]]:
    """The bytes of ``values`` as ``cells`` says, and where in them each of ``cuts`` falls.

    ``cuts`` are rising numbers of values. Raises CodecError for more than ``size_max`` bytes
    before they are allocated, and for a record outside the alphabet.
    """
    if cells.kind in (Kind.WORDS, Kind.FIXED32):
        each = cells.width if cells.kind is Kind.WORDS else 5
        _check_size(values.size * each, size_max)
        if cells.kind is Kind.WORDS:
            return np.ascontiguousarray(values).view(np.uint8), [cut * each for cut in cuts]
        rows = np.empty((values.size, each), np.uint8)
        rows[:, 0] = cells.tag
        rows[:, 1:] = values.view(np.uint8).reshape(-1, 4)
        return rows.reshape(-1), [cut * each for cut in cuts]
    parts = [values[at : at + _STEP] for at in range(0, values.size, _STEP)]
    size = sum(int(_lengths(cells, part).sum()) for part in parts)
    _check_size(size, size_max)
    out = np.empty(size, np.uint8)
    at = np.asarray(cuts, np.intp)
    marks = np.zeros(at.size, np.intp)
    pos = 0
    for number, part in enumerate(parts):
        ends = np.cumsum(_lengths(cells, part)) + pos
        first = number * _STEP
        lo, hi = np.searchsorted(at, [first + 1, first + part.size + 1])
        marks[lo:hi] = ends[at[lo:hi] - first - 1]
        starts = np.concatenate(([pos], ends[:-1]))
        if cells.kind is Kind.RECORDS:
            _write_records(cells.alphabet, part, starts, out)
        else:
            _write_varints(cells.tag, part, starts, out)
        pos = int(ends[-1])
    return out, marks.tolist()


def _check_size(size: int, size_max: int) -> None:
    if size > size_max:
        raise CodecError(f"a column of {size} bytes, only {size_max} are left of the file")


def _lengths(cells: Cells, part: Array) -> NDArray[np.intp]:
    """Bytes of each cell."""
    most = int(part.max())
    if cells.kind is Kind.RECORDS:
        if most >= len(cells.alphabet):
            raise CodecError(f"record {most} of an alphabet of {len(cells.alphabet)}")
        return np.array([len(record) for record in cells.alphabet], np.intp)[part]
    lengths = np.full(part.size, 2 if cells.tag else 1, np.intp)
    for place in range(1, _varint_bytes(most)):
        lengths += part >= 1 << 7 * place
    return lengths


def _varint_bytes(value: int) -> int:
    return max(1, -(-value.bit_length() // 7))


def _write_records(
    alphabet: tuple[bytes, ...], part: Array, starts: NDArray[np.intp], out: Bytes
) -> None:
    for number, record in enumerate(alphabet):
        where = starts[part == number]
        if where.size:
            text = np.frombuffer(record, np.uint8)
            out[where[:, None] + np.arange(text.size)] = text


def _write_varints(tag: int, part: Array, starts: NDArray[np.intp], out: Bytes) -> None:
    if tag:
        out[starts] = tag
        starts = starts + 1
    out[starts] = part.astype(np.uint8) & 0x7F
    for place in range(1, _varint_bytes(int(part.max()))):
        which = np.flatnonzero(part >= 1 << 7 * place)
        where = starts[which] + place
        out[where - 1] |= 0x80
        out[where] = (part[which] >> 7 * place).astype(np.uint8) & 0x7F

"""CSV, piece by piece, exactly as Python's csv module reads it.

Guards: a cell is the text between its delimiters, whoever parsed it. Blocks of lines in which
nothing is quoted mean the same to every reader, so Arrow's parser takes those where it is
installed (measured: 12 times the csv module's speed); from the first quote, lone carriage return
or complaint on, the csv module reads the rest. No line, cell or file can fill the memory.
"""

from __future__ import annotations

import codecs
import csv
import importlib.util
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edge_contract.errors import InputFault
from edge_pack.tabular.feed import BLOCK_BYTES, Feed

_BOM = b"\xef\xbb\xbf"
_LINE_MAX = 16 * 1024**2
"""Characters of one line: 10,000 columns of 1,600 characters."""
_ROWS = 8192
_CELLS = 4_000_000
_QUOTED = re.compile(rb'(?:^|(?<=[,;\t]))"[^"]*(?:""[^"]*)*"')
"""A quoted cell: what looks like a delimiter inside it is none."""
_DELIMITED_BYTES = 1024**2
"""From so much of the file's start the delimiter is told."""
_FAST_BYTES = 4 * 1024**2
"""Smaller files are read before Arrow would be imported."""


class Csv:
    """One CSV file while it is read: ``header``, then ``pieces``.

    Args:
        fast: let Arrow parse where the meaning is plain; None: where it is installed and the
            file is large.
        block_bytes: how much is read at a time.
    """

    def __init__(
        self,
        path: Path,
        feed: Feed,
        *,
        fast: bool | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._path, self._feed, self._block_bytes = path, feed, block_bytes
        self.tensors: dict[str, Any] = {}
        self.unnamed = False
        head = feed.read(BLOCK_BYTES)
        feed.put_back(head.removeprefix(_BOM))
        if fast is None:
            fast = len(head) >= _FAST_BYTES and importlib.util.find_spec("pyarrow") is not None
        self._fast = fast
        start = head.removeprefix(_BOM)[:_DELIMITED_BYTES]
        first = _QUOTED.sub(b"", start).split(b"\n", 1)[0]
        self._delimiter = max(",;\t", key=lambda mark: first.count(mark.encode()))
        self._row = 0
        if not head.removeprefix(_BOM).strip() and len(head) < BLOCK_BYTES:
            raise InputFault(f"{path} is empty", advice="Expected a header line and rows.")
        self.header: list[str] = []
        self.header = self._header(head.removeprefix(_BOM))

    def _header(self, head: bytes) -> list[str]:
        """The first record; the feed goes on behind it."""
        plain = head.split(b"\n", 1)[0]
        if b'"' in plain or b"\r" in plain.removesuffix(b"\r") or b"\n" not in head:
            self._fast = self._fast and self._plain_header(head)
            if not self._fast:
                self._reader = self._records()
                return [name.strip() for name in next(self._reader, [])]
        lines = iter([_decoded(plain, self._path, 0)])
        try:
            header = next(csv.reader(lines, delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            raise self._unreadable(error) from error
        self._feed.read(len(plain) + 1)
        self._reader = self._records()
        return [name.strip() for name in header]

    def _plain_header(self, head: bytes) -> bool:
        """Whether the first line is a whole record although names in it are quoted."""
        line = head.split(b"\n", 1)[0]
        return b"\n" in head and b"\r" not in line.removesuffix(b"\r") and line.count(b'"') % 2 == 0

    def pieces(self) -> Iterator[list[Any]]:
        """The columns of the next rows: Arrow text, or object arrays of text.

        Raises InputFault naming the row that does not fit the header, or the byte that is no
        UTF-8.
        """
        if self._fast:
            yield from self._fast_pieces()
        width = max(1, len(self.header))
        while rows := list(islice(self._reader, max(1, min(_ROWS, _CELLS // width)))):
            yield [np.array(cells, dtype=object) for cells in zip(*rows, strict=True)]

    def _unreadable(self, error: csv.Error) -> InputFault:
        return InputFault(f"{self._path} is not readable CSV: {error}")

    def _records(self) -> Iterator[list[str]]:
        """The remaining records that are not blank, by the csv module; the header is the first."""
        reader = csv.reader(self._lines(), delimiter=self._delimiter, strict=True)
        try:
            for row in reader:
                if not row:
                    continue
                if self.header:
                    self._row += 1
                    self._check_width(row)
                yield row
        except csv.Error as error:
            raise self._unreadable(error) from error

    def _check_width(self, row: Sequence[str]) -> None:
        if len(row) != len(self.header):
            raise InputFault(
                f"{self._path}: row {self._row} has {len(row)} cells, the header has "
                f"{len(self.header)}",
                advice="Quote cells that hold the delimiter.",
            )

    def _lines(self) -> Iterator[str]:
        """The remaining text in lines that end as they were written."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        carry = ""
        while block := self._feed.read(self._block_bytes):
            sound, fault = self._sound(block, len(decoder.getstate()[0]), decoder)
            lines = list(io.StringIO(carry + sound, newline=""))
            carry = "" if lines[-1:] and lines[-1].endswith("\n") else "".join(lines[-1:])
            yield from lines[: len(lines) - bool(carry)]
            if fault is not None:
                raise fault
            if len(carry) > _LINE_MAX:
                raise InputFault(
                    f"{self._path} has a line of more than {_LINE_MAX} characters",
                    advice="It is not CSV, or its lines are not separated.",
                )
        if waiting := decoder.getstate()[0]:
            raise _not_utf8(self._path, self._feed.offset - len(waiting), waiting[0])
        if carry:
            yield carry

    def _sound(
        self, block: bytes, waiting: int, decoder: codecs.IncrementalDecoder
    ) -> tuple[str, InputFault | None]:
        """The block's text up to the first byte that is none, and the fault of that byte."""
        start = self._feed.offset - len(block)
        fault = None
        try:
            text = decoder.decode(block)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode("utf-8")
            at = start - waiting + error.start
            fault = _not_utf8(self._path, at, error.object[error.start])
        if (position := text.find("\0")) >= 0:
            text = text[:position]
            at = start - waiting + len(text.encode())
            fault = InputFault(
                f"{self._path} is not text: byte {at} is 0x00",
                advice="Save it as UTF-8; UTF-16 and binary files have such bytes.",
            )
        return text, fault

    def _fast_pieces(self) -> Iterator[list[Any]]:
        """Blocks of whole lines through Arrow, up to the first that it must not judge."""
        while block := self._block():
            columns = _parsed(block, self._delimiter, self.header)
            if columns is None:
                self._feed.put_back(block)
                return
            if len(columns[0]):
                self._row += len(columns[0])
                yield columns

    def _block(self) -> bytes:
        """Whole lines, 4 MB or one line of them; b"" where the csv module has to go on."""
        data = self._feed.read(self._block_bytes)
        while data and b"\n" not in data and len(data) < _LINE_MAX:
            more = self._feed.read(self._block_bytes)
            if not more:
                break
            data += more
        end = data.rfind(b"\n") + 1
        self._feed.put_back(data[end:])
        return data[:end]


def _parsed(block: bytes, delimiter: str, header: Sequence[str]) -> list[Any] | None:
    """The block's cells by column as Arrow text; None where its meaning is not plain."""
    import pyarrow as pa  # noqa: PLC0415  an extra
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.csv as arrow_csv  # noqa: PLC0415

    if b'"' in block or b"\0" in block or block.count(b"\r") != block.count(b"\r\n"):
        return None
    names = [str(position) for position in range(len(header))]
    try:
        table = arrow_csv.read_csv(
            pa.py_buffer(block),
            read_options=arrow_csv.ReadOptions(column_names=names, block_size=len(block) + 1),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, quote_char=False, double_quote=False, escape_char=False,
                newlines_in_values=False, ignore_empty_lines=True,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False,
            ),
        )  # fmt: skip
    except pa.ArrowException:
        return None
    columns = [table.column(position).combine_chunks() for position in range(len(header))]
    columns = [c.chunk(0) if isinstance(c, pa.ChunkedArray) else c for c in columns]
    longest = csv.field_size_limit()
    if len(block) > longest and any(
        (pc.max(pc.binary_length(column)).as_py() or 0) > longest for column in columns
    ):
        return None
    return columns


def _decoded(data: bytes, path: Path, offset: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, offset + error.start, data[error.start]) from error


def _not_utf8(path: Path, at: int, byte: int) -> InputFault:
    return InputFault(
        f"{path} is not UTF-8 text: byte {at} is {byte:#04x}", advice="Save it as UTF-8."
    )

"""The form of a backup, written and read block by block. Pure.

Guards: a reader holds one block at a time and never more than ``BLOCK_MAX_BYTES`` of it, whatever
the file claims; nothing after the first byte that does not fit is believed. A file is whole when
its last block, the seal, names the SHA-256 of all bytes before it and how many rows each table has.

    MAGIC, then blocks: 4 bytes of length (big endian), 32 bytes of SHA-256, a zstd frame
    first a ``Header``, then ``Rows`` in the header's order of tables, last the ``Seal``
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import msgspec
import zstandard

from edge_contract.errors import InputFault
from edge_contract.typed import msgpack_decoder

MAGIC = b"edge-fleet backup 1\n"
BLOCK_MAX_BYTES = 64 * 1024 * 1024
"""Of a block, packed or not: some hundred times what a writer puts into one."""
TABLES_MAX = 256
_HEAD_BYTES = 4 + 32

Value = Any
"""int, float, str, bytes, bool or None; who restores it holds each to its column."""


class TableForm(msgspec.Struct, frozen=True):
    """A table and its columns, in the order of each row's values."""

    name: str
    columns: tuple[str, ...]


class Header(msgspec.Struct, frozen=True, tag="header"):
    """What the file holds. ``version``: of the schema. ``created_ms``: since 1970 UTC."""

    version: int
    created_ms: int
    fleet: str
    kind: str
    program: str
    tables: tuple[TableForm, ...]


class Rows(msgspec.Struct, frozen=True, tag="rows"):
    """Rows of the table at index ``table`` of the header."""

    table: int
    rows: list[list[Value]]


class Seal(msgspec.Struct, frozen=True, tag="seal"):
    """How many rows each table has; ``sha256``: of all bytes before this block."""

    rows: dict[str, int]
    sha256: bytes


Block = Header | Rows | Seal
_BLOCK = msgpack_decoder(Block)


class Writer:
    """Writes a backup to ``file``; ``seal`` is its last word."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._file, self._header = file, header
        self._hash = hashlib.sha256()
        self._counts = {table.name: 0 for table in header.tables}
        self._packer = zstandard.ZstdCompressor(level=3, write_checksum=False)
        self.size_bytes = 0
        self._put(MAGIC)
        self._block(header)

    def rows(self, table: int, rows: list[list[Value]]) -> None:
        """Some rows of one table."""
        self._block(Rows(table, rows))
        self._counts[self._header.tables[table].name] += len(rows)

    def seal(self) -> dict[str, int]:
        """End it; the rows of each table."""
        self._block(Seal(self._counts, self._hash.digest()))
        return self._counts

    def _block(self, block: Block) -> None:
        plain = msgspec.msgpack.encode(block)
        if len(plain) > BLOCK_MAX_BYTES:
            raise InputFault(f"a row of {len(plain)} bytes is more than a backup takes")
        packed = self._packer.compress(plain)
        self._put(len(packed).to_bytes(4, "big") + hashlib.sha256(packed).digest() + packed)

    def _put(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)
        self.size_bytes += len(data)


def blocks(file: BinaryIO, told: Callable[[int], None] = lambda _bytes: None) -> Iterator[Block]:
    """Each block, in order, the seal last. Raises InputFault at the first thing that is wrong.

    ``told`` is called with the bytes read so far.
    """
    hashed = hashlib.sha256()
    counts: dict[str, int] = {}
    at = _expect(file.read(len(MAGIC)), hashed)
    header: Header | None = None
    last = -1
    while True:
        before = hashed.digest()
        block, read = _next(file, hashed, at)
        at += read
        told(at)
        match block:
            case Header() if header is None:
                header = _checked(block)
                counts = {table.name: 0 for table in header.tables}
            case Rows() if header is not None and last <= block.table < len(header.tables):
                last = max(block.table, 0)
                form = header.tables[last]
                if block.table < 0 or any(len(row) != len(form.columns) for row in block.rows):
                    raise _wrong(at, f"a row of table {form.name} does not fit its columns")
                counts[form.name] += len(block.rows)
            case Seal() if header is not None:
                if block.sha256 != before or block.rows != counts or file.read(1):
                    raise _wrong(at, "its seal does not fit what is before or behind it")
                yield block
                return
            case _:
                raise _wrong(at, "a part stands where it does not belong")
        yield block


def _expect(magic: bytes, hashed: hashlib._Hash) -> int:
    if magic != MAGIC:
        raise InputFault(
            "this is no backup of edge-fleet, or one of a later edge-pack",
            advice="A backup is a file that `edge-fleet backup` wrote.",
        )
    hashed.update(magic)
    return len(magic)


def _next(file: BinaryIO, hashed: hashlib._Hash, at: int) -> tuple[Block, int]:
    """The block at offset ``at``, and its length in the file."""
    head = file.read(_HEAD_BYTES)
    size = int.from_bytes(head[:4], "big")
    if len(head) == _HEAD_BYTES and size > BLOCK_MAX_BYTES:
        raise _wrong(at, f"a part claims {size} bytes, at most {BLOCK_MAX_BYTES} are taken")
    packed = file.read(size)
    if len(head) < _HEAD_BYTES or len(packed) < size:
        raise _wrong(at, "it ends too early")
    if hashlib.sha256(packed).digest() != head[4:]:
        raise _wrong(at, "a part has another SHA-256 than it had when it was written")
    hashed.update(head + packed)
    try:
        unpacked = zstandard.frame_content_size(packed)
        if not 0 <= unpacked <= BLOCK_MAX_BYTES:
            raise _wrong(at, f"a part claims to unpack to {unpacked} bytes")
        plain = zstandard.ZstdDecompressor().decompress(packed, max_output_size=BLOCK_MAX_BYTES)
        return _BLOCK.decode(plain), len(head) + size
    except (zstandard.ZstdError, msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _wrong(at, f"a part cannot be read ({str(error)[:120]})") from error


def _checked(header: Header) -> Header:
    names = [table.name for table in header.tables]
    if len(names) > TABLES_MAX or len(set(names)) != len(names) or header.version < 1:
        raise InputFault("the backup is damaged: its header makes no sense")
    return header


def _wrong(at: int, why: str) -> InputFault:
    return InputFault(
        f"the backup is damaged near byte {at}: {why}",
        advice="Take another backup; nothing was changed.",
    )

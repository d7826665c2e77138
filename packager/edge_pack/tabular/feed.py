"""A file's bytes from first to last, counted and hashed on the way, with some handed back."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from edge_contract.errors import InputFault

BLOCK_BYTES = 4 * 1024**2


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.sha256.update(data)
        return len(data)


class Feed:
    """The plain bytes of a file, unpacked where its name ends in ``.gz``.

    Attributes:
        offset: of the next byte that ``read`` gives, in the plain bytes.
    """

    def __init__(self, file: IO[bytes], *, packed: bool) -> None:
        self._hashed = _Hashed(file)
        self._source = io.BufferedReader(self._hashed, BLOCK_BYTES)
        self._plain: Any = gzip.GzipFile(fileobj=self._source) if packed else self._source
        self._back = b""
        self.offset = 0

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; b"" at the end."""
        if self._back:
            data, self._back = self._back[:size], self._back[size:]
        else:
            data = cast(bytes, self._plain.read(size))
        self.offset += len(data)
        return data

    def put_back(self, data: bytes) -> None:
        """Have ``data``, just read, be what is read next."""
        self._back = data + self._back
        self.offset -= len(data)

    def digest(self) -> str:
        """SHA-256 of the whole file as it lies on disk."""
        while self._source.read(BLOCK_BYTES):
            pass
        return self._hashed.sha256.hexdigest()


@contextmanager
def open_feed(path: Path) -> Iterator[Feed]:
    """The file's feed. Raises InputFault when it cannot be read or unpacked."""
    try:
        with path.open("rb", buffering=0) as file:
            yield Feed(cast(IO[bytes], file), packed=path.name.lower().endswith(".gz"))
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise InputFault(f"cannot read {path}: {said}") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file. Raises InputFault when it cannot be read."""
    with open_feed(path) as feed:
        return feed.digest()

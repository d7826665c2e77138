"""Unpacks a model archive into a temporary folder: .tar.gz, .tgz, .tar and .zip.

Guards, at each member: 1. its name stays inside the folder; 2. it is a plain file or a folder,
never a link or a device; 3. the number of members, the bytes that come out and the length of
every header are bounded while reading; 4. no file is written twice. Owners, modes and times in
the archive are ignored.
"""

from __future__ import annotations

import errno
import gzip
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from edge_contract.errors import InputFault, MachineFault

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
MEMBERS_MAX = 10_000
UNPACKED_MAX_BYTES = 8 * 1024**3
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EMFILE})
"""What the disk says; any other system error comes of an offset or a name in the archive."""
_BLOCK_BYTES = 1024**2
_READ_MAX_BYTES = 4 * 1024**2
"""The longest single read; a tar header that claims more is a bomb, for it is read whole."""


def is_archive(path: Path) -> bool:
    """Whether the name says so."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path, *, size_max: int = UNPACKED_MAX_BYTES) -> None:
    """Put the archive's files into ``folder``, which exists and is empty.

    Raises:
        InputFault: damaged, too large, or a member that is refused (which one, and why).
        MachineFault: the disk refuses.
    """
    out = _Out(archive, folder, size_max)
    try:
        if archive.name.lower().endswith(".zip"):
            _unpack_zip(archive, out)
        else:
            _unpack_tar(archive, out)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError,
            NotImplementedError, RuntimeError, OSError) as error:  # fmt: skip
        if isinstance(error, OSError) and error.errno in _DISK:
            raise MachineFault(
                f"cannot unpack {archive.name}: {error.strerror}",
                advice="Check the free space of the temporary folder (TMPDIR).",
            ) from error
        raise InputFault(
            f"{archive.name} is not a readable archive: {type(error).__name__}: {error}",
            advice="It is damaged or cut off: copy or pack it again.",
        ) from error


class _Out:
    """Where members go, and what they may still add up to."""

    def __init__(self, archive: Path, folder: Path, size_max: int) -> None:
        self._archive, self._folder = archive, folder
        self._size_max = self._left = size_max
        self._members = 0

    def fault(self, name: str, reason: str, advice: str = "") -> InputFault:
        return InputFault(f"{self._archive.name}: member {name[:200]!r} {reason}", advice=advice)

    def place(self, name: str) -> Path:
        """1., 3. Where the member goes."""
        self._members += 1
        if self._members > MEMBERS_MAX:
            raise InputFault(f"{self._archive.name} holds more than {MEMBERS_MAX} members")
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "\0" in name or ":" in path.parts[:1]:
            raise self.fault(name, "would be written outside of its folder")
        return self._folder / path

    def write(self, name: str, target: Path, source: IO[bytes]) -> None:
        """3., 4. Copy one file, counting."""
        if target.exists():
            raise self.fault(name, "stands twice, or is both a file and a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while block := source.read(_BLOCK_BYTES):
                self._left -= len(block)
                if self._left < 0:
                    raise InputFault(
                        f"{self._archive.name} unpacks to more than {self._size_max} bytes"
                    )
                file.write(block)


class _Bounded:
    """A file whose reads are short, for a reader that believes the lengths it finds."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _READ_MAX_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return cast(bytes, self._file.read(size))

    def seek(self, position: int, whence: int = 0) -> int:
        return int(self._file.seek(position, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def seekable(self) -> bool:
        return True


def _unpack_tar(archive: Path, out: _Out) -> None:
    packed = archive.name.lower().endswith(("gz",))
    with archive.open("rb") as raw:
        plain = gzip.GzipFile(fileobj=raw) if packed else raw
        with tarfile.open(fileobj=cast(Any, _Bounded(plain)), mode="r:") as tar:
            while (member := tar.next()) is not None:
                cast(Any, tar).members.clear()  # a list of all of them is of no use here
                target = out.place(member.name)
                if member.isdir():
                    continue
                if not member.isreg():  # 2.
                    kind = "is a link" if member.issym() or member.islnk() else "is no file"
                    raise out.fault(member.name, kind, "Pack the files themselves: tar -h.")
                source = tar.extractfile(member)
                if source is not None:
                    out.write(member.name, target, source)


def _unpack_zip(archive: Path, out: _Out) -> None:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            target = out.place(member.filename)
            if member.is_dir():
                continue
            mode = member.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):  # 2.
                kind = "is a link" if stat.S_ISLNK(mode) else "is no file"
                raise out.fault(member.filename, kind, "Pack the files themselves.")
            with packed.open(member) as source:
                out.write(member.filename, target, source)

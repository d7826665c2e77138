"""Writing that survives a power cut: write, fsync, rename, fsync the directory.

On ext4 and xfs, without the last step a cut after ``write_atomic`` returned brought back the OLD
file; with it, the new one. A folder that was made is a name in the one above it, and is lost with
all that is in it until that one was flushed too: POSIX says no more, and not every file system
does. Nothing in this project writes a file in place.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edge_contract.errors import InputFault, MachineFault

TEMPORARY = ".tmp"
"""How the names of files end that are being written; they begin with a dot."""
_ADVICE = "Check free space, permissions and that the disk is not read-only."


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put ``data`` at ``path``, wholly or not at all, and have it on disk when this returns.

    Raises MachineFault when the disk is full, read-only or not ours, or ``path`` is a folder or a
    device.
    """
    import tempfile  # noqa: PLC0415 - compression, chance and more with it: who only reads needs none

    temporary = ""
    try:
        _check_regular(path)
        make_folder(path.parent)
        handle, temporary = tempfile.mkstemp(TEMPORARY, f".{path.name}.", path.parent)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        sync_directory(path.parent)
        temporary = ""
    except OSError as error:
        raise MachineFault(
            f"cannot write {path}: {error.strerror or error}", advice=_ADVICE
        ) from error
    finally:
        if temporary:  # the disk refused, or the user interrupted
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def check_place(path: Path) -> None:
    """Before long work: raise MachineFault where ``path`` could not be written afterwards."""
    try:
        _check_regular(path)
        folder = path.absolute().parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise MachineFault(f"cannot write {path}: {folder} is not a folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise MachineFault(f"cannot write {path}: {folder} is not writable", advice=_ADVICE)
    except OSError as error:
        raise MachineFault(
            f"cannot write {path}: {error.strerror or error}", advice=_ADVICE
        ) from error


def _check_regular(path: Path) -> None:
    """A rename onto /dev/null would put a file in the place of the device, for everyone."""
    if path.exists() and not path.is_file():
        raise MachineFault(
            f"cannot write {path}: it is there and is no regular file", advice="Name another file."
        )


def sync_directory(path: Path) -> None:
    """Make renames and removals in ``path`` durable. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Have the folder ``path`` on disk, and those above it that are missing. Raises OSError."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def settle(folder: Path, pattern: str = f".*{TEMPORARY}", *, deep: bool = True) -> None:
    """After a start, while nobody else writes here: clear up after a writer that was cut off.

    Its temporary files go; its renames become durable, which it did not live to see to. Nothing
    here that cannot be done is worth more than the start.

    Args:
        deep: in the folders below as well. pattern: of the names of temporary files.
    """
    for place in (folder, *(path for path in folder.rglob("*") if deep and path.is_dir())):
        with contextlib.suppress(OSError):
            for path in list(place.glob(pattern)):
                if path.is_file():
                    path.unlink()
            sync_directory(place)


def read_bounded(path: Path, size_max: int) -> bytes:
    """The file's bytes.

    Raises InputFault when it does not exist, cannot be read or is over ``size_max`` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(size_max + 1)
    except OSError as error:
        raise InputFault(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > size_max:
        raise InputFault(f"{path} is over the limit of {size_max} bytes")
    return data

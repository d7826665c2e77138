"""Writing that survives a power cut: write, fsync, rename, fsync the directory.

On ext4 and xfs, without the last step a cut after ``write_atomic`` returned brought back the OLD
file; with it, the new one. Nothing in this project writes a file in place.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from edge_contract.errors import InputFault, MachineFault


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put ``data`` at ``path``, wholly or not at all, and have it on disk when this returns.

    Raises MachineFault when the disk is full, read-only or not ours.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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
            f"cannot write {path}: {error.strerror or error}",
            advice="Check free space, permissions and that the disk is not read-only.",
        ) from error
    finally:
        if temporary:  # the disk refused, or the user interrupted
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def sync_directory(path: Path) -> None:
    """Make renames and removals in ``path`` durable. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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

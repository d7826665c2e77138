"""Fetches a file or a folder from a URI into a temporary folder, through fsspec.

Guards: bytes are counted while they come, never trusted from a header; a name that would leave
the folder is refused; no credential stands in a message.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from edge_contract.errors import EdgeError, InputFault, MachineFault, PeerFault
from edge_pack.extras import need
from edge_pack.origins.uris import DRIVERS, recorded, without_secrets

FETCH_MAX_BYTES = 8 * 1024**3
"""Four times the largest ONNX file without external data."""
FILES_MAX = 1000
BLOCK_BYTES = 1024**2

Progress = Callable[[int, int | None], None]
"""Told the bytes fetched so far, and of how many where the other side says."""


def fetch(uri: str, folder: Path, progress: Progress, *, size_max: int = FETCH_MAX_BYTES) -> Path:
    """The file or folder at ``uri``, copied into ``folder``.

    Raises:
        InputFault: nothing there, or more than ``size_max`` bytes or 1000 files.
        MachineFault: the driver of the scheme is not installed, or the disk is full.
        PeerFault: the other side refuses or fails.
    """
    system, path, scheme = _open(uri)
    try:
        return _Copy(system, folder, progress, size_max).all_of(path, uri)
    except EdgeError:
        raise
    except ImportError as error:
        raise _no_driver(scheme, uri, error) from error
    except Exception as error:  # each driver has errors of its own
        raise _failed(uri, error) from error


def _open(uri: str) -> tuple[Any, str, str]:
    scheme = uri.partition(":")[0].lower()
    core = need("fsspec.core", f"fetching {scheme}://")
    try:
        system, path = core.url_to_fs(uri)
    except ImportError as error:
        raise _no_driver(scheme, uri, error) from error
    except Exception as error:
        raise InputFault(
            f"{recorded(uri)} is not usable: {without_secrets(str(error), uri)[:300]}"
        ) from error
    return system, path, scheme


def _no_driver(scheme: str, uri: str, error: ImportError) -> MachineFault:
    driver = DRIVERS[scheme]
    return MachineFault(
        f"fetching {recorded(uri)} needs {driver or error.name}, which is not installed",
        advice=f"Install it with: pip install {driver or error.name}",
    )


def _failed(uri: str, error: Exception) -> EdgeError:
    """What a driver's error means: nothing there, or a side that refuses or is not there."""
    cause: BaseException = error
    if isinstance(error, FileNotFoundError):
        cause = error.__cause__ or error  # over HTTP, every failure at first is "not found"
        gone = getattr(cause, "status", 0) in (404, 410) or isinstance(cause, FileNotFoundError)
        if gone:
            return InputFault(f"there is nothing at {recorded(uri)}")
    said = without_secrets(str(cause), uri).strip().splitlines()
    return PeerFault(
        f"cannot fetch {recorded(uri)}: {type(cause).__name__}: "
        f"{said[0][:300] if said else 'no reason given'}",
        advice="Check the address, the network and the credentials in the environment.",
    )


class _Copy:
    """One fetch, with its counters."""

    def __init__(self, system: Any, folder: Path, progress: Progress, size_max: int) -> None:
        self._system, self._folder, self._progress = system, folder, progress
        self._left = self._size_max = size_max
        self._total: int | None = None

    def all_of(self, path: str, uri: str) -> Path:
        info = self._system.info(path)
        name = _name_of(recorded(uri).partition("#")[0])
        if info.get("type") != "directory":
            self._total = _size(info)
            self._refuse_large(self._total or 0, uri)
            return self._file(path, self._folder / name, uri)
        found = self._system.find(path, detail=True)
        if len(found) > FILES_MAX:
            raise InputFault(
                f"{recorded(uri)} holds {len(found)} files, more than {FILES_MAX}",
                advice="Name the model's own folder or file.",
            )
        if not found:
            raise InputFault(f"there is nothing at {recorded(uri)}")
        self._total = sum(_size(entry) or 0 for entry in found.values())
        self._refuse_large(self._total, uri)
        root = self._folder / name
        for remote in sorted(found):
            self._file(remote, root / _inside(remote, path, uri), uri)
        return root

    def _file(self, remote: str, target: Path, uri: str) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._system.open(remote, "rb", block_size=BLOCK_BYTES, cache_type="readahead") as (
            source
        ):
            try:
                with target.open("wb") as file:
                    while block := source.read(BLOCK_BYTES):
                        self._left -= len(block)
                        if self._left < 0:
                            self._refuse_large(self._size_max + 1, uri)
                        file.write(block)
                        self._progress(self._size_max - self._left, self._total)
            except OSError as error:
                if error.errno is None or error.filename is None:
                    raise
                raise MachineFault(f"cannot write {target}: {error.strerror}") from error
        return target

    def _refuse_large(self, size: int, uri: str) -> None:
        if size > self._size_max:
            raise InputFault(f"{recorded(uri)} is over the limit of {self._size_max} bytes")


def _size(info: dict[str, Any]) -> int | None:
    size = info.get("size")
    return size if isinstance(size, int) else None


def _name_of(uri: str) -> str:
    """The last part of the URI's path; ``model`` where it has none."""
    name = posixpath.basename(uri.partition("://")[2].rstrip("/").partition("/")[2])
    return name if name not in ("", ".", "..") else "model"


def _inside(remote: str, root: str, uri: str) -> PurePosixPath:
    """The remote name relative to its folder. Raises InputFault when it would leave it."""
    stem = root.rstrip("/") + "/"
    relative = PurePosixPath(remote.removeprefix(stem) if remote.startswith(stem) else "/")
    if relative.is_absolute() or ".." in relative.parts or "\0" in remote:
        raise InputFault(f"{recorded(uri)} lists {remote[:200]!r}, which is outside of it")
    return relative

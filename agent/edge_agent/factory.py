"""The factory's bundles: what answers when nothing else does.

Guards: one answers only where no version that was delivered can; only when a root that this device
trusts, the one pinned at enrolment or the newest, vouches for it, and it is not below the signed
floor; one whose load ended the agent again and again is left alone.

They lie outside of the agent's folder, where it cannot write, and are read when they are needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from edge_agent.delivery import sealed
from edge_agent.model import Model
from edge_contract import bundle as bundles
from edge_contract import manifest as manifests
from edge_contract import wire
from edge_contract.bundle import BUNDLE_MAX_BYTES, MANIFEST_MEMBER
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.manifest import MANIFEST_MAX_BYTES, Manifest
from edge_contract.messages import Count, Pointer, Sha256
from edge_contract.names import version_key
from edge_contract.ports.disk import read_bounded, write_atomic

log = logging.getLogger(__name__)

DEFAULT_FOLDER = Path("/usr/share/edge-agent/factory")
SUFFIX = ".edgepack"
_TALLY_MAX_BYTES = 4096


class _Tally(Struct, frozen=True, kw_only=True):
    """How often a factory bundle's load was begun and not ended."""

    schema: int = 1
    sha256: Sha256
    loads: Count


class Factory:
    """Bundles in ``source``, a file or a folder of them; one that is not there is empty.

    Args:
        models: those that this device runs; empty: all.
        roots: root metadata that this device trusts.
        pointer: the pointer that was verified last, or None.
        tally: file that counts loads. loads_max: so many that do not end are enough.
        trouble: hears why a bundle is of no use.
    """

    def __init__(
        self,
        source: Path,
        *,
        models: tuple[str, ...],
        roots: Callable[[], list[bytes]],
        pointer: Callable[[], Pointer | None],
        tally: Path,
        loads_max: int,
        trouble: Callable[[EdgeError], None],
    ) -> None:
        self._roots = roots
        self._pointer = pointer
        self._tally = tally
        self._loads_max = loads_max
        self._trouble = trouble
        self._paths: dict[str, Path] = {}
        for path in _files(source):
            try:
                manifest = peek(path)
            except EdgeError as error:
                trouble(error)
                continue
            if not models or manifest.name in models:
                self._paths.setdefault(manifest.name, path)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that there are bundles for."""
        return tuple(sorted(self._paths))

    def load(self, name: str, *, threads: int = 1) -> Model | None:
        """The factory's model called ``name``, or None when there is none or it is of no use.

        ``ended`` is to be called when it answers, or failed to.
        """
        path = self._paths.get(name)
        if path is None:
            return None
        try:
            bundle = bundles.read(read_bounded(path, BUNDLE_MAX_BYTES))
            sealed.verify(bundle, self._roots())
            self._check_floor(bundle.manifest)
            self._begin(bundle.digest)
            return Model.from_bundle(bundle, threads=threads)
        except EdgeError as error:
            self._trouble(type(error)(f"factory bundle {path}: {error.what}", advice=error.advice))
            return None

    def ended(self) -> None:
        """The load came to its end, good or bad: the agent still lives."""
        self._tally.unlink(missing_ok=True)

    def _check_floor(self, manifest: Manifest) -> None:
        pointer = self._pointer()
        track = pointer.models.get(manifest.name) if pointer else None
        if track and track.floor and version_key(manifest.version) < version_key(track.floor):
            raise InputFault(f"version {manifest.version} is below the floor {track.floor}")

    def _begin(self, sha256: str) -> None:
        """Count this load; on a disk that takes nothing it cannot be."""
        loads = 0
        try:
            data = read_bounded(self._tally, _TALLY_MAX_BYTES)
            found = wire.decode_json(data, _Tally, size_max=_TALLY_MAX_BYTES)
            loads = found.loads if found.sha256 == sha256 else 0
        except InputFault:
            pass
        if loads >= self._loads_max:
            raise MachineFault(f"the agent ended {loads} times while it loaded this")
        try:
            write_atomic(self._tally, wire.encode_json(_Tally(sha256=sha256, loads=loads + 1)))
        except MachineFault as error:
            log.warning("the load of a factory bundle is not counted: %s", error.what)


def peek(path: Path) -> Manifest:
    """What a bundle's file says it is: its first member, nothing of it verified.

    Raises InputFault when it is no bundle.
    """
    import tarfile  # noqa: PLC0415 - most devices have no such file

    try:
        with tarfile.open(path, "r:") as archive:
            member = archive.next()
            if member is None or member.name != MANIFEST_MEMBER or not member.isreg():
                raise InputFault(f"{path} is no .edgepack file")
            if member.size > MANIFEST_MAX_BYTES:
                raise InputFault(f"{path}: the manifest is {member.size} bytes")
            stream = archive.extractfile(member)
            return manifests.decode(stream.read() if stream else b"")
    except (OSError, tarfile.TarError) as error:
        raise InputFault(f"cannot read the factory bundle {path}: {error}") from error


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.iterdir() if path.suffix == SUFFIX)
    return [source] if source.exists() else []

"""The folder of a broker's accounts: ``accounts.json``, and ``passwords`` and ``acl`` from it.

Guards: one change at a time, whole or not at all; the broker's files keep their owner and mode,
so that a broker with a user of its own can still read them; secrets are 0600 and in ``secrets/``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_contract.access import registry
from edge_contract.access.registry import Registry
from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports.disk import read_bounded, write_atomic


class Box:
    """A registry that is being changed; put the new one into ``now``."""

    def __init__(self, was: Registry) -> None:
        self.was = was
        self.now = was


class Accounts:
    """The accounts in ``folder``.

    Args:
        clock_s: seconds since 1970 UTC, for tokens that expire.
    """

    def __init__(self, folder: Path, *, clock_s: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock_s = clock_s

    @property
    def path(self) -> Path:
        """The truth."""
        return self.folder / "accounts.json"

    @property
    def passwords(self) -> Path:
        """mosquitto's password_file."""
        return self.folder / "passwords"

    @property
    def acl(self) -> Path:
        """mosquitto's acl_file."""
        return self.folder / "acl"

    @property
    def ca(self) -> Path:
        """The authority's certificate; its key is beside it, ``ca.key``."""
        return self.folder / "tls" / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """The authority's private key."""
        return self.folder / "tls" / "ca.key"

    def secret(self, name: str) -> Path:
        """A file for a secret or certificate that is to be carried to where it is used."""
        return self.folder / "secrets" / name

    @property
    def exists(self) -> bool:
        """Whether there is any account."""
        return self.path.exists()

    def now_s(self) -> int:
        """This moment."""
        return max(int(self._clock_s()), 0)

    def read(self) -> Registry:
        """What there is. Raises InputFault when there is nothing, or it is no registry."""
        if not self.exists:
            raise InputFault(
                f"there are no accounts in {self.folder}",
                advice="`edge-pack broker-acl FOLDER --fleet FLEET` makes them.",
            )
        return registry.decode(read_bounded(self.path, registry.REGISTRY_MAX_BYTES))

    @contextlib.contextmanager
    def changing(self, *, create: bool = False) -> Iterator[Box]:
        """Change the registry under a lock; kept, and the broker's files written, at the end.

        Raises MachineFault when the folder cannot be written; then nothing changed.
        """
        with self._locked():
            box = Box(Registry() if create and not self.exists else self.read())
            yield box
            now_s = self.now_s()
            if box.now != box.was or not self.exists:
                write_atomic(self.path, registry.encode(box.now), mode=0o600)
            # Also without a change: a cut between the files, or a token that expired.
            _write_kept(self.passwords, registry.passwords_file(box.now, now_s), 0o600)
            _write_kept(self.acl, registry.acl_file(box.now, now_s), 0o644)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "secrets").mkdir(mode=0o700, exist_ok=True)
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MachineFault(
                f"cannot use folder {self.folder}: {error.strerror}",
                advice="Check that it exists and that this user may write it.",
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _write_kept(path: Path, text: str, mode: int) -> None:
    """Replace a file of the broker's in one step; its owner and mode stay what they are."""
    data = text.encode()
    try:
        known = path.stat()
        if path.read_bytes() == data:
            return
    except OSError:
        write_atomic(path, data, mode=mode)
        return
    write_atomic(path, data, mode=known.st_mode & 0o777)
    if known.st_uid != os.geteuid() or known.st_gid != path.stat().st_gid:
        with contextlib.suppress(PermissionError):  # who may not give it away wrote it before
            os.chown(path, known.st_uid, known.st_gid)

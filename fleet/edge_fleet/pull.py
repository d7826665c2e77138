"""How a bundle's profile is fetched from its chunks, one bundle at a time. Pure.

Guards: nothing is believed before its digest matches: the manifest's is the record's bundle
digest, the manifest names the profile, an index names its chunks. A pull holds at most one profile
in memory, which the manifest's bounds limit.
"""

from __future__ import annotations

import hashlib

from edge_contract import chunks
from edge_contract.chunks import Chunk
from edge_contract.errors import InputFault
from edge_contract.manifest import File
from edge_fleet.library import known_of, manifest_of, profile_file

WANTED_MAX = 8
"""Chunks asked for at once: one SUBSCRIBE."""


class Pull:
    """Feed it what arrives; it says what it wants next.

    ``wanted``: digests to ask for now. ``blobs``: once ``done``, the manifest's bytes and the
    stored profile by digest, both checked as far as a decoded profile.
    """

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle
        self.blobs: dict[str, bytes] = {}
        self.done = False
        self._file: File | None = None
        self._plan: tuple[Chunk, ...] = ()
        self._parts: dict[str, bytes] = {}

    @property
    def wanted(self) -> tuple[str, ...]:
        """What to ask for now, at most ``WANTED_MAX`` digests."""
        if self.done:
            return ()
        if self.bundle not in self.blobs:
            return (self.bundle,)
        if not self._plan:
            assert self._file is not None
            return (self._file.index,)
        missing = dict.fromkeys(c.sha256 for c in self._plan if c.sha256 not in self._parts)
        return tuple(missing)[:WANTED_MAX]

    def feed(self, sha256: str, data: bytes) -> None:
        """Take one message. One that nobody asked for changes nothing.

        Raises InputFault or PeerFault when the bytes are not what their name says, or what they
        say is not valid: this bundle's profile cannot be had.
        """
        if sha256 not in self.wanted:
            return
        if hashlib.sha256(data).hexdigest() != sha256:
            raise InputFault(f"the bytes under {sha256} have another digest")
        if sha256 == self.bundle:
            self._take_manifest(data)
        elif not self._plan:
            assert self._file is not None
            self._plan = chunks.plan(self._file, data)
        else:
            self._parts[sha256] = data
        if self._plan and all(chunk.sha256 in self._parts for chunk in self._plan):
            self._finish()

    def _take_manifest(self, data: bytes) -> None:
        self._file = profile_file(manifest_of(self.bundle, data))
        self.blobs[self.bundle] = data
        if self._file is None:
            self.done = True
        elif not self._file.index:
            self._plan = chunks.plan(self._file, b"")

    def _finish(self) -> None:
        assert self._file is not None
        stored = b"".join(self._parts[chunk.sha256] for chunk in self._plan)
        known_of(self.bundle, manifest_of(self.bundle, self.blobs[self.bundle]), stored)
        self.blobs[self._file.sha256] = stored
        self._parts.clear()
        self.done = True

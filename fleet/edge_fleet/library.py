"""Bundles whose profile is known: from the store, as content-addressed bytes.

Guards: bytes are believed only for the digest that they have; a profile is the one that the
bundle's manifest names, and the manifest is the one that a record names. A record may name any
bytes that the store has: those that are no bundle are an unknown one.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from edge_contract import bundle as bundles
from edge_contract import manifest as manifests
from edge_contract import profile as profiles
from edge_contract.errors import InputFault
from edge_contract.manifest import PROFILE_FILE, File, Manifest
from edge_contract.profile import Profile
from edge_contract.residuals import Residuals
from edge_fleet.drift.edetector import DriftTable

KNOWN_MAX = 64
"""Tables kept in memory; 20 features take 0.2 MB, a thousand 10 MB."""


class Blobs(Protocol):
    """Content-addressed bytes; a ``store.base.Transaction`` is one."""

    def blob(self, sha256: str) -> bytes | None:
        """The bytes, or None."""
        ...


@dataclass(frozen=True)
class Known:
    """A bundle with its profile."""

    bundle: str
    manifest: Manifest
    profile: Profile

    @cached_property
    def table(self) -> DriftTable:
        """The bets on its monitors."""
        return DriftTable(self.profile)

    @cached_property
    def reference(self) -> Residuals:
        """What the counts of its windows are read with."""
        return Residuals(self.profile)

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's labels as text."""
        return tuple(str(label) for label in self.manifest.outputs.labels)


def manifest_of(bundle: str, data: bytes) -> Manifest:
    """The manifest in ``data``. Raises InputFault when it is not the bundle's."""
    if hashlib.sha256(data).hexdigest() != bundle:
        raise InputFault(f"the bytes under {bundle} have another digest")
    return manifests.decode(data)


def profile_file(manifest: Manifest) -> File | None:
    """The profile's entry; None when the bundle has no profile.

    Raises InputFault when it is larger than any profile may be.
    """
    if all(file.name != PROFILE_FILE for file in manifest.files):
        return None
    file = manifest.file(PROFILE_FILE)
    if max(file.size, file.raw_size) > profiles.PROFILE_MAX_BYTES:
        raise InputFault(f"the profile of {manifest.name} {manifest.version} is too large")
    return file


def known_of(bundle: str, manifest: Manifest, stored: bytes) -> Known:
    """A bundle from its manifest and its stored profile. Raises InputFault."""
    file = profile_file(manifest)
    if file is None:
        return Known(bundle, manifest, Profile(rows=0, monitors=()))
    profile = profiles.decode(bundles.decode_member(file, stored))
    return Known(bundle, manifest, profile)


class Library:
    """Finds known bundles, the ones used last from memory."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()

    def find(self, blobs: Blobs, bundle: str) -> Known | None:
        """The bundle, or None when the store lacks its manifest or profile, or it is none."""
        known = self._known.get(bundle)
        if known is None:
            try:
                known = _load(blobs, bundle)
            except InputFault:
                return None
            if known is None:
                return None
            self._known[bundle] = known
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(bundle)
        return known


def _load(blobs: Blobs, bundle: str) -> Known | None:
    data = blobs.blob(bundle)
    if data is None:
        return None
    manifest = manifest_of(bundle, data)
    file = profile_file(manifest)
    stored = blobs.blob(file.sha256) if file else b""
    return None if stored is None else known_of(bundle, manifest, stored)

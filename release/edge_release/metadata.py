"""Making, signing and reading TUF metadata: bytes in, typed object out. No disk, no clock.

Equal content gives equal bytes: canonical order, no white space, Ed25519 signatures.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from edge_contract.errors import InputFault
from edge_release import roles
from edge_release.roles import Profile

SIGNED_AT = "signed_at"
"""Extra field of a timestamp: a device without a clock learns from it that it is later."""

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)
AnySigned = Signed

_SERIALIZER = JSONSerializer(compact=True)


def seal(signed: T, signers: Sequence[Signer]) -> bytes:
    """The bytes of metadata signed by all ``signers``."""
    wrapped = Metadata[T](signed)
    for signer in signers:
        wrapped.sign(signer, append=True)
    return bytes(wrapped.to_bytes(_SERIALIZER))


def parse(data: bytes, kind: type[T], where: str) -> T:
    """The signed part. Raises InputFault when ``data`` is not metadata of that kind."""
    return parse_signed(data, kind, where).signed


def parse_signed(data: bytes, kind: type[T], where: str) -> Metadata[T]:
    """Metadata with its signatures, not verified. Raises InputFault as ``parse``."""
    try:
        wrapped = Metadata[T].from_bytes(data)
    except (DeserializationError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputFault(f"{where} is not TUF metadata: {error}") from error
    if not isinstance(wrapped.signed, kind):
        raise InputFault(f"{where} is {wrapped.signed.type} metadata, not {kind.type}")
    return wrapped


def expiry(profile: Profile, role: str, now: datetime) -> datetime:
    """When a signature of ``role`` made ``now`` ends."""
    return now.replace(microsecond=0) + roles.LIFETIMES[profile][role]


def half_gone(signed: Signed, lifetime: timedelta, now: datetime) -> bool:
    """Whether less than half of a signature's life is left: time to sign anew."""
    return signed.expires - now < lifetime / 2


def first_root(profile: Profile, public: dict[str, list[Key]], now: datetime) -> Root:
    """Root version 1. ``public``: keys by top-level role."""
    root = Root(version=1, expires=expiry(profile, roles.ROOT, now), consistent_snapshot=True)
    for role in (roles.ROOT, roles.TARGETS, roles.SNAPSHOT, roles.TIMESTAMP):
        for key in public[role]:
            root.add_key(key, role)
        root.roles[role].threshold = roles.threshold(profile, role)
    return root


def first_targets(profile: Profile, public: dict[str, list[Key]], now: datetime) -> Targets:
    """Top-level targets version 1: delegations only."""
    delegated = {
        role: DelegatedRole(
            role,
            [key.keyid for key in public[role]],
            roles.threshold(profile, role),
            True,
            paths=list(paths),
        )
        for role, paths in roles.PATHS.items()
    }
    keys = {key.keyid: key for role in roles.PATHS for key in public[role]}
    return Targets(
        version=1,
        expires=expiry(profile, roles.TARGETS, now),
        delegations=Delegations(keys, delegated),
    )


def snapshot(version: int, files: dict[str, tuple[int, bytes]], expires: datetime) -> Snapshot:
    """A snapshot of targets roles: role -> (version, bytes)."""
    meta = {
        f"{role}.json": MetaFile.from_data(number, data, ["sha256"])
        for role, (number, data) in sorted(files.items())
    }
    return Snapshot(version=version, expires=expires, meta=meta)


def timestamp(
    version: int, snapshot_version: int, data: bytes, *, expires: datetime, now: datetime
) -> Timestamp:
    """A timestamp over a snapshot's bytes, with the time of signing."""
    return Timestamp(
        version=version,
        expires=expires,
        snapshot_meta=MetaFile.from_data(snapshot_version, data, ["sha256"]),
        unrecognized_fields={SIGNED_AT: now.strftime("%Y-%m-%dT%H:%M:%SZ")},
    )


def verify(delegator: Root | Targets, role: str, data: bytes, kind: type[T], where: str) -> T:
    """The signed part of ``data``, signed by enough of the keys that ``delegator`` names.

    Raises InputFault when it is not.
    """
    wrapped = parse_signed(data, kind, where)
    try:
        delegator.verify_delegate(role, wrapped.signed_bytes, wrapped.signatures)
    except (RepositoryError, VerificationError, ValueError) as error:
        raise InputFault(f"{where} is not signed by the {role} key: {error}") from error
    return wrapped.signed


def delegation_keys(targets: Targets, role: str) -> tuple[list[Key], int]:
    """The public keys of a delegated role and how many must sign."""
    found = targets.delegations
    if found is None or found.roles is None or role not in found.roles:
        raise InputFault(f"the targets metadata delegates nothing to {role}")
    entry = found.roles[role]
    return [found.keys[keyid] for keyid in entry.keyids if keyid in found.keys], entry.threshold

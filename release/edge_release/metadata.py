"""Making, signing and reading TUF metadata: bytes in, typed object out. No disk, no clock.

Equal content gives equal bytes: canonical order, no white space, Ed25519 signatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeVar

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
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

from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_release import roles
from edge_release.roles import Profile

SIGNED_AT = "signed_at"
"""Extra field of a timestamp: a device without a clock learns from it that it is later."""
ROOT_VERSION = "root_version"
"""Extra field of a timestamp: the root it was signed under. It makes writing ``timestamp.json`` the
one moment at which a new root counts, on the publisher's disk."""
AUDIT = "audit"
"""Extra field of a timestamp: entries and head of the audit log, so that a cut is seen."""

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)

_SERIALIZER = JSONSerializer(compact=True)


def seal(signed: T, signers: Sequence[Signer]) -> bytes:
    """The bytes of metadata signed by all ``signers``, as ``add_signatures``."""
    return add_signatures(Metadata[T](signed), signers)


def add_signatures(wrapped: Metadata[Any], signers: Sequence[Signer]) -> bytes:
    """The bytes of metadata with a signature of each of ``signers`` added.

    Raises MachineFault when a token or key service does not sign, or its signature does not hold.
    """
    for signer in signers:
        try:
            signature = wrapped.sign(signer, append=True)
            signer.public_key.verify_signature(signature, wrapped.signed_bytes)
        except UnverifiedSignatureError as error:
            raise MachineFault(
                f"the signature of key {signer.public_key.keyid[:8]} does not hold: its token or"
                " service signs with another key, or something else than it was given",
                advice="Remove the key with `edge-pack keys remove`, and add the right one.",
            ) from error
        except UnsignedMetadataError as error:
            if isinstance(error.__cause__, EdgeError):
                raise error.__cause__ from error
            said = str(error.__cause__) or type(error.__cause__).__name__
            raise MachineFault(
                f"key {signer.public_key.keyid[:8]} does not sign: {said}",
                advice="Check that its token or service can be reached, and the PIN or"
                " credentials.",
            ) from error
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


def parse_role(data: bytes, role: str, where: str) -> Metadata[Any]:
    """Metadata of whichever kind ``role`` has, not verified. Raises InputFault as ``parse``."""
    match role:
        case roles.ROOT:
            return parse_signed(data, Root, where)
        case roles.SNAPSHOT:
            return parse_signed(data, Snapshot, where)
        case roles.TIMESTAMP:
            return parse_signed(data, Timestamp, where)
    return parse_signed(data, Targets, where)


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
    version: int,
    snapshot_version: int,
    data: bytes,
    *,
    expires: datetime,
    now: datetime,
    extra: Mapping[str, object] = MappingProxyType({}),
) -> Timestamp:
    """A timestamp over a snapshot's bytes, with the time of signing and ``extra`` fields."""
    return Timestamp(
        version=version,
        expires=expires,
        snapshot_meta=MetaFile.from_data(snapshot_version, data, ["sha256"]),
        unrecognized_fields={SIGNED_AT: now.strftime(TIME_FORMAT), **extra},
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


def keys_of(delegator: Root | Targets, role: str) -> tuple[list[Key], int]:
    """The public keys of a role and how many of them must sign. InputFault: no such role."""
    if isinstance(delegator, Root):
        listed, entry = delegator.keys, delegator.roles[role]
        return [listed[keyid] for keyid in entry.keyids], entry.threshold
    found = delegator.delegations
    if found is None or found.roles is None or role not in found.roles:
        raise InputFault(f"the targets metadata delegates nothing to {role}")
    delegated = found.roles[role]
    listed = found.keys
    return [listed[keyid] for keyid in delegated.keyids if keyid in listed], delegated.threshold


def signed_by(
    delegator: Root | Targets, role: str, wrapped: Metadata[Any]
) -> tuple[set[str], bool]:
    """Key ids of the role whose signatures hold, and whether they are enough."""
    try:
        result = delegator.get_verification_result(role, wrapped.signed_bytes, wrapped.signatures)
    except ValueError as error:
        raise InputFault(f"no such role: {role}") from error
    return set(result.signed), result.verified

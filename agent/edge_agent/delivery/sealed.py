"""The signature inside a bundle, checked on a device that has nothing but a root.

Guards: a bundle that did not come through TUF is used only when the models key of a root that this
device trusts signed for its manifest; the manifest names every byte of it by digest.

A DSSE envelope (github.com/secure-systems-lab/dsse, v1) over an in-toto Statement v1, with the
targets metadata that names the models key. To verify, in this order:
 1. the root is signed by itself;
 2. the targets metadata is signed by the root's targets keys;
 3. the envelope is signed by the models keys that targets delegates this manifest's path to;
 4. the statement is about this manifest, by SHA-256.
Expiry is not asked: what is trusted to run is not stopped by a calendar.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct
from securesystemslib.exceptions import VerificationError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Key, Metadata, Root, Targets
from tuf.api.serialization import DeserializationError

from edge_agent.delivery.roots import check_distinct, check_root
from edge_contract import signature as signatures
from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_contract.messages import manifest_path
from edge_contract.signature import PAYLOAD_TYPE
from edge_contract.typed import json_decoder

_ADVICE = "Build it with --keys DIR of the publisher that this device is enrolled with."


class _Subject(Struct, frozen=True):
    digest: dict[str, str]


class _Statement(Struct, frozen=True):
    subject: tuple[_Subject, ...]


def verify(bundle: Bundle, roots: Iterable[bytes]) -> None:
    """Return when one of the roots vouches for the bundle.

    Raises InputFault that says why the last one does not.
    """
    fault = InputFault("no root to check the bundle's signature against")
    for root in roots:
        try:
            return _verify(bundle, root)
        except InputFault as error:
            fault = error
    raise fault


def _verify(bundle: Bundle, root: bytes) -> None:
    who = f"bundle {bundle.manifest.name} {bundle.manifest.version}"
    if not bundle.signature:
        raise InputFault(f"{who} carries no signature", advice=_ADVICE)
    envelope, carried = signatures.read(bundle.signature)
    # 1. the root is signed by itself
    check_root(root)
    anchor = Metadata[Root].from_bytes(root).signed
    try:
        # 2. the targets metadata is signed by the root's targets keys
        wrapped = Metadata[Targets].from_bytes(carried)
        if not isinstance(wrapped.signed, Targets):
            raise ValueError(f"it carries {wrapped.signed.type} metadata in place of targets")
        anchor.verify_delegate(Targets.type, wrapped.signed_bytes, wrapped.signatures)
        check_distinct(wrapped.signed)
        # 3. the envelope is signed by the models keys that targets delegates the path to
        keys, role = _delegated(wrapped.signed, bundle)
        envelope.verify(keys, role.threshold)
    except (RepositoryError, DeserializationError, VerificationError, ValueError) as error:
        raise InputFault(
            f"{who} is not signed by the models key of a root that this device trusts: {error}",
            advice=_ADVICE,
        ) from error
    # 4. the statement is about this manifest
    if envelope.payload_type != PAYLOAD_TYPE or _subject(envelope.payload) != bundle.digest:
        raise InputFault(f"the signature in {who} is about another manifest", advice=_ADVICE)


def _delegated(targets: Targets, bundle: Bundle) -> tuple[list[Key], DelegatedRole]:
    """The role that may sign this manifest, and its keys. Raises ValueError."""
    path = manifest_path(bundle.manifest.name, bundle.manifest.version)
    found = targets.delegations
    for role in (found.roles or {}).values() if found else ():
        if found and role.is_delegated_path(path):
            return [found.keys[keyid] for keyid in role.keyids if keyid in found.keys], role
    raise ValueError(f"nobody may sign {path}")


def _subject(payload: bytes) -> str:
    """SHA-256 of the manifest that the statement is about; "" when it is about none or several."""
    try:
        (subject,) = json_decoder(_Statement).decode(payload).subject
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return ""
    return subject.digest.get("sha256", "")

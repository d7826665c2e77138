"""The signature inside a bundle: who vouches for its manifest, checked without a broker.

A DSSE envelope (github.com/secure-systems-lab/dsse, v1) over an in-toto Statement v1 with SLSA
provenance (``statement``) whose subject is the manifest by SHA-256; the manifest names every
member by digest. The envelope carries the targets metadata that names the models key, so that the
root alone is enough to check it. On a device the TUF metadata decides, not this.

To verify, in this order:
 1. the root is signed by itself, or comes from the user's own repository;
 2. the targets metadata is signed by the root's targets key;
 3. the envelope is signed by the models key that targets delegates to;
 4. with a repository: the targets metadata that the bundle carries is signed by its targets key
    too, or by one that it had before: `verify --root` and others would go by it;
 5. the statement is about this manifest, by name, version and SHA-256, and names its materials.
"""

from __future__ import annotations

from pathlib import Path

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from tuf.api.metadata import Root, Targets

from edge_contract import signature as signatures
from edge_contract.bundle import SIGNATURE_MAX_BYTES, Bundle
from edge_contract.errors import InputFault
from edge_contract.manifest import decode, digest
from edge_contract.signature import PAYLOAD_TYPE
from edge_release import metadata, roles, statement
from edge_release.commit import signers
from edge_release.keys import Secrets, no_secrets
from edge_release.repository import Repository
from edge_release.shelf import Shelf, versioned

_ADVICE = "Do not use it: get the bundle again from its publisher, or check the keys you name."


def sign_bundle(manifest_bytes: bytes, keys_dir: Path, secrets: Secrets = no_secrets) -> bytes:
    """The member ``signature.json`` for a manifest, signed by the repository's models key.

    The same manifest, keys and repository give the same bytes. Raises InputFault when the key or
    the repository is not there, or the statement is too long.
    """
    repository = Repository(keys_dir, secrets=secrets)
    state = repository.shelf.read()
    targets = state.targets[roles.TARGETS]
    payload = statement.encode(decode(manifest_bytes), digest(manifest_bytes))
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    for signer in signers(repository.desk, state, roles.MODELS):
        envelope.sign(signer)
    data = signatures.write(envelope, state.files[versioned(roles.TARGETS, targets.version)])
    if len(data) > SIGNATURE_MAX_BYTES:
        raise InputFault(
            f"the signature is {len(data)} bytes, over the limit of {SIGNATURE_MAX_BYTES}",
            advice="The build's options are part of it: pass fewer or shorter ones.",
        )
    return data


def verify_bundle(bundle: Bundle, *, root: bytes | None, keys_dir: Path | None) -> None:
    """Return when the bundle's signature holds; exactly one of ``root`` and ``keys_dir`` is given.

    Args:
        root: bytes of the root metadata that is trusted.
        keys_dir: the signing repository, whose own root and targets are trusted.

    Raises InputFault that says which step failed.
    """
    if not bundle.signature:
        raise InputFault(
            f"bundle {bundle.manifest.name} {bundle.manifest.version} carries no signature",
            advice="Build it with --keys DIR to sign it.",
        )
    envelope, carried = signatures.read(bundle.signature)
    trusted, targets_bytes = _anchor(root, keys_dir, carried)
    # 1. the root is signed by itself
    anchor = metadata.parse(trusted, Root, "the root")
    metadata.verify(anchor, roles.ROOT, trusted, Root, "the root")
    # 2. the targets metadata is signed by the root's targets key
    targets = metadata.verify(anchor, roles.TARGETS, targets_bytes, Targets, "targets metadata")
    # 3. the envelope is signed by the models key
    public, threshold = metadata.keys_of(targets, roles.MODELS)
    try:
        envelope.verify(public, threshold)
    except (VerificationError, ValueError) as error:
        raise InputFault(
            f"the bundle is not signed by the models key of this root: {error}", advice=_ADVICE
        ) from error
    # 4. what the bundle carries is of this repository too
    if keys_dir is not None:
        _check_carried(carried, keys_dir)
    # 5. the statement is about this manifest
    if envelope.payload_type != PAYLOAD_TYPE:
        raise InputFault(f"the signature is over a {envelope.payload_type}", advice=_ADVICE)
    try:
        statement.check(envelope.payload, bundle.manifest, bundle.digest)
    except InputFault as error:
        raise InputFault(error.what, advice=_ADVICE) from error


def _check_carried(carried: bytes, keys_dir: Path) -> None:
    """The targets metadata in a bundle: the repository's own, of now or of a former time.

    A device, or `verify --root`, would go by it. Raises InputFault when no root of ours vouches.
    """
    wrapped = metadata.parse_signed(carried, Targets, "the targets metadata in the bundle")
    shelf = Shelf(keys_dir)
    state = shelf.read()
    for version in range(state.root.version, 0, -1):
        name = versioned(roles.ROOT, version)
        root = metadata.parse(shelf.root(version), Root, name)
        if metadata.signed_by(root, roles.TARGETS, wrapped)[1]:
            return
    raise InputFault(
        "the targets metadata in the bundle is signed by no targets key that this repository ever"
        " had",
        advice=_ADVICE,
    )


def _anchor(root: bytes | None, keys_dir: Path | None, carried: bytes) -> tuple[bytes, bytes]:
    """The root to trust and the targets metadata to check against it."""
    if keys_dir is not None:
        state = Shelf(keys_dir).read()
        targets = state.targets[roles.TARGETS].version
        return (
            state.files[versioned(roles.ROOT, state.root.version)],
            state.files[versioned(roles.TARGETS, targets)],
        )
    if root is None:
        raise InputFault("nothing to check the signature against: name a root or a key folder")
    return root, carried

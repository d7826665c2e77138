"""The signature in a bundle: made by the models key, about exactly one manifest."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_release import create, fingerprint, sign_bundle, verify_bundle


def signed(bundle: Bundle, keys_dir: Path) -> Bundle:
    return replace(bundle, signature=sign_bundle(bundle.manifest_bytes, keys_dir))


def root_of(keys_dir: Path) -> bytes:
    return (keys_dir / "repository" / "metadata" / "1.root.json").read_bytes()


def test_a_signed_bundle_is_verified_by_the_repository_and_by_the_root_alone(
    keys_dir: Path, new_bundle: Callable[..., Bundle]
) -> None:
    bundle = signed(new_bundle(), keys_dir)
    verify_bundle(bundle, root=None, keys_dir=keys_dir)
    verify_bundle(bundle, root=root_of(keys_dir), keys_dir=None)


def test_the_same_manifest_is_signed_with_the_same_bytes(
    keys_dir: Path, new_bundle: Callable[..., Bundle]
) -> None:
    assert signed(new_bundle(), keys_dir).signature == signed(new_bundle(), keys_dir).signature


def test_an_unsigned_bundle_is_refused(keys_dir: Path, new_bundle: Callable[..., Bundle]) -> None:
    with pytest.raises(InputFault, match="carries no signature"):
        verify_bundle(new_bundle(), root=None, keys_dir=keys_dir)


def test_another_repositorys_signature_is_refused(
    keys_dir: Path, tmp_path: Path, now: datetime.datetime, new_bundle: Callable[..., Bundle]
) -> None:
    other = tmp_path / "other"
    create(other, "home", now=now)
    bundle = signed(new_bundle(), other)
    with pytest.raises(InputFault, match="not signed by the models key"):
        verify_bundle(bundle, root=None, keys_dir=keys_dir)
    with pytest.raises(InputFault, match="not signed by the targets key"):
        verify_bundle(bundle, root=root_of(keys_dir), keys_dir=None)


def test_a_signature_does_not_hold_for_another_manifest(
    keys_dir: Path, new_bundle: Callable[..., Bundle]
) -> None:
    first = signed(new_bundle("1.0"), keys_dir)
    second = replace(new_bundle("2.0"), signature=first.signature)
    with pytest.raises(InputFault, match="about another manifest"):
        verify_bundle(second, root=None, keys_dir=keys_dir)


def test_no_byte_of_the_envelope_can_change(
    keys_dir: Path, new_bundle: Callable[..., Bundle]
) -> None:
    bundle = signed(new_bundle(), keys_dir)
    root = root_of(keys_dir)
    meaningless = 0
    for at in range(0, len(bundle.signature), 7):
        altered = bytearray(bundle.signature)
        altered[at] ^= 1
        try:
            verify_bundle(replace(bundle, signature=bytes(altered)), root=root, keys_dir=None)
        except InputFault:
            continue
        # What may pass is an equal meaning: base64's unused bits.
        meaningless += 1
        assert chr(altered[at]).isalnum() or chr(altered[at]) in "+/"
    assert meaningless <= 4


@pytest.mark.parametrize(
    "junk", [b"", b"{}", b"[]", b"null", b'{"payload":1}', b"\xff", b"[" * 9999]
)
def test_junk_for_an_envelope_is_refused_with_the_one_error(
    junk: bytes, keys_dir: Path, new_bundle: Callable[..., Bundle]
) -> None:
    with pytest.raises(InputFault):
        verify_bundle(replace(new_bundle(), signature=junk), root=None, keys_dir=keys_dir)


def test_the_envelope_is_what_dsse_and_in_toto_readers_expect(
    keys_dir: Path, new_bundle: Callable[..., Bundle]
) -> None:
    import base64

    bundle = signed(new_bundle(), keys_dir)
    envelope = json.loads(bundle.signature)
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "manifest.json", "digest": {"sha256": bundle.digest}}]
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    predicate = statement["predicate"]
    assert set(predicate) == {"buildDefinition", "runDetails"}
    definition = predicate["buildDefinition"]
    assert definition["externalParameters"] == {"name": "pump", "version": "1.0"}
    assert {"name": "model", "digest": {"sha256": "0" * 64}} in definition["resolvedDependencies"]
    assert {"uri": "pkg:pypi/onnx@1.17"} in definition["resolvedDependencies"]
    assert predicate["runDetails"]["builder"]["id"].startswith("https://")


def test_keys_are_private_never_overwritten_and_named_by_the_root(
    keys_dir: Path, now: datetime.datetime
) -> None:
    assert keys_dir.stat().st_mode & 0o777 == 0o700
    before = {file: file.read_bytes() for file in keys_dir.glob("*.pem")}
    assert len(before) == 6
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in before)
    with pytest.raises(InputFault, match="never overwritten"):
        create(keys_dir, "home", now=now)
    assert {file: file.read_bytes() for file in keys_dir.glob("*.pem")} == before
    assert fingerprint(root_of(keys_dir)).startswith("sha256:")
    assert not list(keys_dir.parent.glob(".keys.*"))


def test_a_team_needs_two_of_three_root_keys(tmp_path: Path, now: datetime.datetime) -> None:
    create(tmp_path / "team", "managed", now=now)
    root = json.loads(root_of(tmp_path / "team"))
    assert root["signed"]["roles"]["root"]["threshold"] == 2
    assert len(root["signed"]["roles"]["root"]["keyids"]) == 3


def test_targets_metadata_of_a_stranger_inside_a_bundle_is_refused_by_the_repository_too(
    keys_dir: Path, tmp_path: Path, now: datetime.datetime, new_bundle: Callable[..., Bundle]
) -> None:
    """The repository has its own; what the bundle carries would mislead whoever has a root only."""
    from edge_release import keyring
    from edge_release.repository import Repository

    create(tmp_path / "other", "home", now=now)
    bundle, stranger = signed(new_bundle(), keys_dir), signed(new_bundle(), tmp_path / "other")
    document = json.loads(bundle.signature)
    document["edgeTargets"] = json.loads(stranger.signature)["edgeTargets"]
    forged = replace(bundle, signature=json.dumps(document).encode())
    with pytest.raises(InputFault, match="signed by no targets key that this repository ever had"):
        verify_bundle(forged, root=None, keys_dir=keys_dir)
    # A bundle from before the targets key was replaced is still whole.
    assert keyring.rotate(Repository(keys_dir), "targets", now=now).done
    verify_bundle(bundle, root=None, keys_dir=keys_dir)
    # And one from before the models key was replaced is not: that key may be stolen.
    assert keyring.rotate(Repository(keys_dir), "models", now=now).done
    with pytest.raises(InputFault, match="not signed by the models key"):
        verify_bundle(bundle, root=None, keys_dir=keys_dir)

"""What a bundle's signature vouches for: an in-toto Statement with SLSA provenance. Pure.

in-toto.io/Statement/v1 (github.com/in-toto/attestation) about the manifest by SHA-256, with the
predicate slsa.dev/provenance/v1: of what model, data and code, by which libraries, with which
parameters. All of it is derived from the manifest, so the same manifest gives the same bytes.

Guards: a statement holds for one manifest; it names no other model or data than that names. What
later versions add to a predicate does not make it invalid.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from edge_contract.errors import InputFault
from edge_contract.manifest import Manifest, Provenance
from edge_contract.typed import json_decoder

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://edge-pack.dev/build/v1"
BUILDER_ID = "https://edge-pack.dev/edge-pack"
SUBJECT = "manifest.json"
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


class _Subject(Struct, frozen=True):
    name: str
    digest: dict[str, str]


class _Dependency(Struct, frozen=True, omit_defaults=True):
    """An in-toto ResourceDescriptor v1."""

    name: str = ""
    uri: str = ""
    digest: dict[str, str] = {}
    annotations: dict[str, bool] = {}


class _Parameters(Struct, frozen=True, omit_defaults=True):
    name: str
    version: str
    command: tuple[str, ...] = ()


class _Definition(Struct, frozen=True):
    buildType: str  # noqa: N815 - SLSA's words, as those below
    externalParameters: _Parameters  # noqa: N815
    resolvedDependencies: tuple[_Dependency, ...] = ()  # noqa: N815


class _Builder(Struct, frozen=True):
    id: str
    version: dict[str, str] = {}


class _Run(Struct, frozen=True):
    builder: _Builder


class _Predicate(Struct, frozen=True):
    buildDefinition: _Definition  # noqa: N815
    runDetails: _Run  # noqa: N815


class _Statement(Struct, frozen=True, rename={"kind": "_type"}):
    kind: str
    subject: tuple[_Subject, ...]
    predicateType: str  # noqa: N815
    predicate: _Predicate


def encode(manifest: Manifest, sha256: str) -> bytes:
    """The statement about the manifest whose bytes have that digest."""
    libraries = manifest.provenance.libraries
    ours = {name: libraries[name] for name in ("edge-pack",) if name in libraries}
    definition = _Definition(
        BUILD_TYPE,
        _Parameters(manifest.name, manifest.version, manifest.provenance.command),
        _dependencies(manifest.provenance),
    )
    predicate = _Predicate(definition, _Run(_Builder(BUILDER_ID, ours)))
    subject = _Subject(SUBJECT, {"sha256": sha256})
    return msgspec.json.encode(_Statement(STATEMENT_TYPE, (subject,), PREDICATE_TYPE, predicate))


def check(payload: bytes, manifest: Manifest, sha256: str) -> None:
    """Return when the statement is about that manifest. Raises InputFault, and nothing else."""
    try:
        found = json_decoder(_Statement).decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputFault(f"the signed statement is not valid: {error}") from error
    parameters = found.predicate.buildDefinition.externalParameters
    named = {d.name: d.digest for d in found.predicate.buildDefinition.resolvedDependencies}
    said: tuple[Any, ...] = (
        found.kind, found.predicateType, found.subject, parameters.name, parameters.version,
    )  # fmt: skip
    expected: tuple[Any, ...] = (
        STATEMENT_TYPE, PREDICATE_TYPE, (_Subject(SUBJECT, {"sha256": sha256}),), manifest.name,
        manifest.version,
    )  # fmt: skip
    ours = {d.name: d.digest for d in _dependencies(manifest.provenance) if d.name}
    if said != expected or any(named.get(name) != digest for name, digest in ours.items()):
        raise InputFault(
            f"the signature is about another manifest than {manifest.name} {manifest.version}"
            f" with SHA-256 {sha256}"
        )


def _dependencies(source: Provenance) -> tuple[_Dependency, ...]:
    """What the bundle was made of, by digest, and what it was made with, by package URL."""
    md5s = {entry.role: entry.md5 for entry in source.tracked}
    found = [_file("model", source.source_sha256, md5s.get("model", ""), source.source_uri)]
    if source.data_sha256:
        found.append(_file("data", source.data_sha256, md5s.get("data", "")))
    if _COMMIT.fullmatch(source.commit):
        changed = {"dirty": True} if source.dirty else {}
        found.append(_Dependency("code", "", {"gitCommit": source.commit}, changed))
    found += [
        _Dependency(uri=f"pkg:pypi/{quote(name.lower())}@{quote(version, safe='')}")
        for name, version in sorted(source.libraries.items())
        if name != "edge-pack"
    ]
    return tuple(found)


def _file(name: str, sha256: str, md5: str, uri: str = "") -> _Dependency:
    return _Dependency(name, uri, {"sha256": sha256} | ({"md5": md5} if md5 else {}))

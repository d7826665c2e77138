"""The signed statement: SLSA provenance derived from one manifest, and about no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_contract.manifest import Manifest, Provenance, Tracked
from edge_release import statement

DIGEST = "d" * 64
SOURCE = Provenance(
    source_sha256="1" * 64, source_type="skops", data_sha256="2" * 64, commit="c" * 40, dirty=True,
    libraries={"edge-pack": "0.1.0", "torch": "2.13.0+cpu"}, command=("build", "m.skops"),
    source_uri="s3://bucket/m.skops",
    tracked=(Tracked(role="data", md5="3" * 32, record="dvc.lock", record_sha256="4" * 64),),
)  # fmt: skip


@pytest.fixture
def manifest(new_bundle: Callable[..., Bundle]) -> Manifest:
    return msgspec.structs.replace(new_bundle().manifest, provenance=SOURCE)


def test_materials_are_named_by_digest(manifest: Manifest) -> None:
    found = json.loads(statement.encode(manifest, DIGEST))
    definition = found["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"] == [
        {"name": "model", "uri": "s3://bucket/m.skops", "digest": {"sha256": "1" * 64}},
        {"name": "data", "digest": {"sha256": "2" * 64, "md5": "3" * 32}},
        {"name": "code", "digest": {"gitCommit": "c" * 40}, "annotations": {"dirty": True}},
        {"uri": "pkg:pypi/torch@2.13.0%2Bcpu"},
    ]
    assert definition["externalParameters"]["command"] == ["build", "m.skops"]
    assert found["predicate"]["runDetails"]["builder"]["version"] == {"edge-pack": "0.1.0"}


def test_a_commit_that_is_no_digest_is_no_material(manifest: Manifest) -> None:
    source = msgspec.structs.replace(SOURCE, commit="v1.2")
    data = statement.encode(msgspec.structs.replace(manifest, provenance=source), DIGEST)
    assert b"v1.2" not in data


def _changed(data: bytes, change: Callable[[Any], None]) -> bytes:
    document = json.loads(data)
    change(document)
    return json.dumps(document).encode()


def _set(*path: str | int, to: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = to

    return change


_DEFINITION = ("predicate", "buildDefinition")


@pytest.mark.parametrize(
    "change",
    [
        _set("_type", to="https://in-toto.io/Statement/v2"),
        _set("predicateType", to="https://example.org/other"),
        _set("subject", 0, "digest", "sha256", to="e" * 64),
        _set("subject", 0, "name", to="model.onnx"),
        _set("subject", to=[]),
        _set(*_DEFINITION, "externalParameters", "name", to="other"),
        _set(*_DEFINITION, "externalParameters", "version", to="9"),
        _set(*_DEFINITION, "resolvedDependencies", 0, "digest", "sha256", to="9" * 64),
        _set(*_DEFINITION, "resolvedDependencies", 1, "digest", to={}),
        _set(*_DEFINITION, "resolvedDependencies", 2, "digest", "gitCommit", to="a" * 40),
        _set(*_DEFINITION, "resolvedDependencies", to=[]),
        _set("predicate", to=[]),
    ],
)
def test_a_statement_about_anything_else_is_refused(
    change: Callable[[Any], None], manifest: Manifest
) -> None:
    data = statement.encode(manifest, DIGEST)
    statement.check(data, manifest, DIGEST)
    with pytest.raises(InputFault):
        statement.check(_changed(data, change), manifest, DIGEST)


def test_what_a_later_version_adds_does_no_harm(manifest: Manifest) -> None:
    data = statement.encode(manifest, DIGEST)
    for path in (("extra",), ("predicate", "extra"), (*_DEFINITION, "internalParameters")):
        statement.check(_changed(data, _set(*path, to={"a": 1})), manifest, DIGEST)


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b"\xff", b"[" * 99_999, b'{"_type":"x"}'])
def test_junk_is_refused_with_the_one_error(junk: bytes, manifest: Manifest) -> None:
    with pytest.raises(InputFault, match="not valid"):
        statement.check(junk, manifest, DIGEST)

"""A decoded manifest is complete and consistent; nothing else decodes."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract import manifest
from edge_contract.errors import InputFault

DIGEST = "ab" * 32


def document(**changes: Any) -> dict[str, Any]:
    """A valid manifest as plain JSON values, with ``changes`` on top."""
    base: dict[str, Any] = {
        "schema": 1,
        "name": "pump",
        "version": "1.0",
        "task": "classification",
        "features": [{"name": "a"}, {"name": "b", "type": "category", "categories": ["x"]}],
        "inputs": [
            {"name": "num", "dtype": "float32", "shape": [None, 1], "features": ["a"]},
            {"name": "cat", "dtype": "string", "shape": [None, 1], "features": ["b"]},
        ],
        "outputs": {"tensors": ["l", "p"], "label": "l", "scores": "p", "labels": [0, 1]},
        "files": [
            {
                "name": "model.onnx",
                "size": 1,
                "sha256": DIGEST,
                "raw_size": 1,
                "raw_sha256": DIGEST,
            }
        ],
        "runtime": {
            "ir": 8,
            "opsets": {"": 17},
            "ops": ["Add"],
            "onnxruntime": "1.18",
            "ram_bytes": 1,
        },
        "compression": {"mode": "none", "stock_bytes": 1},
        "parity": {
            "rows": 1,
            "flips": 0,
            "flips_max": 0.001,
            "diff_max": 0.0,
            "diff_p99": 0.0,
            "diff_budget": 0.1,
        },
        "provenance": {"source_sha256": DIGEST, "source_type": "sklearn", "libraries": {}},
    }
    return base | changes


def decode(**changes: Any) -> manifest.Manifest:
    return manifest.decode(msgspec.json.encode(document(**changes)))


def test_a_manifest_survives_a_round_trip_to_the_byte() -> None:
    data = manifest.encode(decode())
    assert manifest.encode(manifest.decode(data)) == data


def test_unknown_fields_are_ignored_and_a_newer_schema_is_refused() -> None:
    assert decode(something_new={"deep": [1]}).name == "pump"
    with pytest.raises(InputFault, match="schema 2"):
        decode(schema=2)


def _without(key: str) -> dict[str, Any]:
    shorter = document()
    del shorter[key]
    return shorter


@pytest.mark.parametrize("key", [k for k in document() if k != "metrics"])
def test_a_manifest_without_a_required_part_is_refused(key: str) -> None:
    with pytest.raises(InputFault, match=key):
        manifest.decode(msgspec.json.encode(_without(key)))


FILE = document()["files"][0]


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"name": "a/b"}, "not a valid name"),
        ({"version": "../1"}, "not a valid name"),
        ({"files": []}, "0 files"),
        ({"files": [FILE, FILE]}, "twice"),
        ({"files": [FILE | {"name": "other.onnx"}]}, "no model.onnx"),
        ({"files": [FILE | {"sha256": "AB" * 32}]}, "SHA-256"),
        ({"files": [FILE | {"size": -1}]}, "size out of range"),
        ({"files": [FILE | {"raw_size": 2**40}]}, "size out of range"),
        ({"features": [{"name": "a"}, {"name": "a"}]}, "twice"),
        ({"features": [{"name": "a"}]}, "without a declaration: b"),
        ({"inputs": []}, "no input tensor"),
        ({"outputs": {"tensors": ["l"], "label": "missing"}}, "not among"),
        ({"outputs": {"tensors": ["p"], "scores": "p"}}, "no labels"),
        ({"task": "poetry"}, "task"),
    ],
)
def test_an_inconsistent_manifest_is_refused(changes: dict[str, Any], finding: str) -> None:
    with pytest.raises(InputFault, match=finding):
        decode(**changes)


def test_a_manifest_cut_off_at_any_length_is_refused() -> None:
    data = manifest.encode(decode())
    for length in range(len(data)):
        with pytest.raises(InputFault):
            manifest.decode(data[:length])


def test_a_manifest_over_the_limit_is_refused_both_ways() -> None:
    with pytest.raises(InputFault, match="over the limit"):
        manifest.decode(b" " * (manifest.MANIFEST_MAX_BYTES + 1))
    with pytest.raises(InputFault, match="over the limit"):
        manifest.encode(decode(intended_use="x" * manifest.MANIFEST_MAX_BYTES))


@settings(max_examples=300)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=12,
    ),
    st.sampled_from(sorted(document())),
)
def test_only_the_declared_error_escapes(value: Any, key: str) -> None:
    try:
        data = msgspec.json.encode(document(**{key: value}))
    except (UnicodeEncodeError, OverflowError):
        return
    with contextlib.suppress(InputFault):
        manifest.decode(data)

"""A bundle has one valid encoding; everything else is refused with the declared error."""

from __future__ import annotations

import io
import tarfile

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract import bundle, manifest
from edge_contract.errors import EdgeError, InputFault
from edge_contract.manifest import (
    Compression,
    Feature,
    Manifest,
    Outputs,
    Parity,
    Provenance,
    Runtime,
    Tensor,
)


def make(version: str = "1.0", model: bytes = b"a model", signature: bytes = b"") -> bytes:
    """A small bundle; the members need not be a real model for the archive's rules."""
    entries = [
        bundle.encode_member(name, raw)
        for name, raw in (("model.onnx", model), ("golden.json", b"{}"), ("profile.json", b"{}"))
    ]
    described = Manifest(
        schema=1,
        name="pump",
        version=version,
        task="regression",
        features=(Feature(name="a"), Feature(name="b")),
        inputs=(Tensor(name="x", dtype="float32", shape=(None, 2), features=("a", "b")),),
        outputs=Outputs(tensors=("y",), value="y"),
        files=tuple(entry for entry, _ in entries),
        runtime=Runtime(ir=8, opsets={"": 17}, ops=("MatMul",), onnxruntime="1.18", ram_bytes=1),
        compression=Compression(mode="none", stock_bytes=7),
        parity=Parity(rows=1, flips=0, flips_max=0, diff_max=0, diff_p99=0, diff_budget=0),
        provenance=Provenance(source_sha256="0" * 64, source_type="onnx", libraries={}),
    )
    stored = {entry.name: data for entry, data in entries}
    return bundle.write(manifest.encode(described), stored, signature)


def test_a_bundle_reads_back_as_it_was_written() -> None:
    read = bundle.read(make(signature=b"signed"))
    assert read.manifest.name == "pump"
    assert read.file("model.onnx") == b"a model"
    assert read.signature == b"signed"
    assert bundle.write(read.manifest_bytes, read.stored, read.signature) == make(
        signature=b"signed"
    )


def test_the_digest_is_the_manifests_and_not_the_signatures() -> None:
    assert bundle.read(make()).digest == bundle.read(make(signature=b"signed")).digest
    assert bundle.read(make()).digest != bundle.read(make(version="1.1")).digest


def test_tar_lists_and_extracts_the_members() -> None:
    with tarfile.open(fileobj=io.BytesIO(make())) as archive:
        assert archive.getnames() == [
            "manifest.json",
            "model.onnx.z",
            "golden.json.z",
            "profile.json.z",
        ]
        member = archive.extractfile("manifest.json")
        assert member is not None
        assert manifest.decode(member.read()).version == "1.0"


def test_a_version_that_changes_only_the_manifest_shares_every_member() -> None:
    one, two = bundle.read(make("1.0")), bundle.read(make("1.1"))
    assert one.stored == two.stored


def test_a_bundle_cut_off_at_any_length_is_refused() -> None:
    whole = make(signature=b"signed")
    for length in range(len(whole)):
        with pytest.raises(InputFault):
            bundle.read(whole[:length])


def test_a_bundle_altered_in_any_byte_is_refused_or_another_bundle() -> None:
    """No altered byte goes unnoticed but within the manifest or the signature.

    Those two are what a signature is checked against: an altered manifest that still reads is
    another bundle with another digest.
    """
    whole = make(signature=b"signed")
    original = bundle.read(whole)
    for at in range(len(whole)):
        altered = bytearray(whole)
        altered[at] ^= 0x01
        try:
            read = bundle.read(bytes(altered))
        except InputFault:
            continue
        assert (read.digest, read.signature) != (original.digest, original.signature)


def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(InputFault, match="does not end"):
        bundle.read(make() + bytes(512))


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b", "", ".", "x" * 65, "ü"])
def test_a_member_with_a_path_in_its_name_is_refused(name: str) -> None:
    whole = bundle.read(make())
    files = (msgspec.structs.replace(whole.manifest.files[0], name=name), *whole.manifest.files)
    described = msgspec.json.encode(msgspec.structs.replace(whole.manifest, files=files))
    with pytest.raises(InputFault):
        manifest.decode(described)


def test_an_archive_made_by_tar_with_other_headers_is_refused() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in (("manifest.json", bundle.read(make()).manifest_bytes),):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(InputFault, match="no valid header") as fault:
        bundle.read(out.getvalue())
    assert "get it again" in fault.value.advice


def test_a_link_or_a_huge_size_in_a_header_is_refused() -> None:
    whole = bytearray(make())
    for field, value in ((156, b"2"), (124, b"77777777777\0"), (124, b"-0000000001\0")):
        altered = bytearray(whole)
        altered[field : field + len(value)] = value
        with pytest.raises(InputFault):
            bundle.read(bytes(altered))


@settings(max_examples=200)
@given(st.data())
def test_only_the_declared_error_escapes(data: st.DataObject) -> None:
    whole = bytearray(make())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    try:
        bundle.read(bytes(whole))
    except EdgeError as error:
        assert isinstance(error, InputFault)


@settings(max_examples=200)
@given(st.binary(max_size=2000))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(InputFault):
        bundle.read(garbage)

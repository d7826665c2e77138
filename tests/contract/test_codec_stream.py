"""A blob that comes in pieces gives the same bytes, in little memory, and never one too many."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract import bundle
from edge_contract.codec import CodecError, decode, decode_pieces, encode
from edge_contract.codec._stream import compress, uvarint
from edge_contract.errors import InputFault
from edge_contract.manifest import File

MIB = 1 << 20
STORED, ZSTD, COLUMNS, BLOCKS = 0, 1, 2, 3
HEAD_BYTES = 4 + 2 + 4  # and the size


def weights(size: int, kind: str = "<f4") -> bytes:
    made = np.random.default_rng(3).normal(size=size // np.dtype(kind).itemsize)
    return made.astype(kind).tobytes()


@cache
def large(name: str) -> bytes:
    """Files above the size from which they are packed to be streamed."""
    return {
        "float weights": lambda: b"onnx" + weights(3 * MIB),
        "half weights": lambda: weights(3 * MIB, "<f2"),
        "double weights": lambda: weights(2 * MIB, "<f8") + b"tail",
        "noise": lambda: random.Random(5).randbytes(2 * MIB + 1),
        "zeros": lambda: bytes(3 * MIB),
        "noise twice": lambda: random.Random(6).randbytes(3 * MIB // 2) * 2,
    }[name]()


CODECS = {
    "float weights": BLOCKS,
    "half weights": BLOCKS,
    "double weights": BLOCKS,
    "noise": STORED,
    "zeros": ZSTD,
    "noise twice": ZSTD,
}


@cache
def blob(name: str) -> bytes:
    return encode(large(name))


def cut(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """``data`` in pieces of random sizes, some of them empty."""
    at = 0
    while at < len(data):
        size = rng.choice([0, 1, 7, 4096, 120 * 1024])
        yield data[at : at + size]
        at += size


@pytest.mark.parametrize("name", CODECS)
def test_a_large_file_comes_back_from_pieces_of_any_size(name: str) -> None:
    packed = blob(name)
    assert packed[5] == CODECS[name]
    for seed in range(3):
        pieces = list(decode_pieces(cut(packed, random.Random(seed)), size_max=len(large(name))))
        assert b"".join(pieces) == large(name), f"seed {seed}"


@pytest.mark.parametrize("name", CODECS)
def test_memory_does_not_grow_with_the_file(name: str) -> None:
    size = len(large(name))
    packed = [blob(name)[at : at + 120 * 1024] for at in range(0, len(blob(name)), 120 * 1024)]
    tracemalloc.start()
    try:
        digest = hashlib.sha256()
        for piece in decode_pieces(packed, size_max=size):
            digest.update(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert digest.digest() == hashlib.sha256(large(name)).digest()
    # Four blocks at a time; what libzstd allocates is measured by benchmarks/transfer.py.
    assert peak < 2 * MIB


def test_weights_are_packed_as_small_as_their_exponents_allow() -> None:
    assert len(blob("float weights")) < 0.85 * len(large("float weights"))


@pytest.mark.parametrize("name", ["float weights", "zeros", "noise"])
def test_what_ends_early_or_goes_on_is_refused(name: str) -> None:
    packed = blob(name)
    ends = [0, 3, HEAD_BYTES, len(packed) // 2, len(packed) - 1]
    for wrong in (*(packed[:end] for end in ends), packed + b"\x00"):
        with pytest.raises(CodecError):
            list(decode_pieces([wrong], size_max=len(large(name))))


@settings(max_examples=60)
@given(st.sampled_from(["float weights", "zeros", "noise"]), st.data())
def test_drawn_changes_end_in_one_error_and_never_in_wrong_bytes(
    name: str, data: st.DataObject
) -> None:
    changed = bytearray(blob(name))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        got = decode(bytes(changed), size_max=len(large(name)))
    except CodecError:
        return
    assert got == large(name)


def header(version: int, codec: int, size: int) -> bytes:
    return b"EPCC" + bytes([version, codec]) + uvarint(size) + bytes(4)


BOMB = 64 * MIB
HOSTILE = {
    "zstd that goes on": header(1, ZSTD, MIB) + compress(bytes(BOMB)),
    "zstd of a full window that goes on": header(1, ZSTD, 300_000) + compress(bytes(BOMB)),
    "an empty block for ever": header(1, ZSTD, MIB) + b"\x00\x58" + b"\x00\x00\x00" * 50_000,
    "runs for ever": header(1, ZSTD, MIB) + b"\x00\x58" + b"\x02\x00\x10z" * 50_000,
    "a block over 128 KiB": header(1, ZSTD, MIB) + b"\x00\x58" + b"\x05\x00\x20" + bytes(500_000),
    "a reserved block": header(1, ZSTD, MIB) + b"\x00\x58" + b"\x07\x00\x00",
    "stored that goes on": header(1, STORED, 10) + bytes(BOMB),
    "a plane that is a bomb": header(2, BLOCKS, 1000)
    + b"\x01"
    + uvarint(len(compress(bytes(MIB))) << 1 | 1)
    + compress(bytes(MIB)),
    "a plane longer than its block": header(2, BLOCKS, 1000) + b"\x01" + uvarint(1 << 50),
    "words of nothing": header(2, BLOCKS, 1000) + b"\x00" + bytes(2000),
    "words of nine bytes": header(2, BLOCKS, 1000) + b"\x09" + bytes(2000),
    "blocks in version 1": header(1, BLOCKS, 0),
    "columns in version 2": header(2, COLUMNS, 0),
    "version 0": header(0, STORED, 0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bomb_goes_no_further_than_one_block(name: str) -> None:
    whole = HOSTILE[name]
    size = 2 * MIB
    pieces = [whole[at : at + 120 * 1024] for at in range(0, len(whole), 120 * 1024)]
    given_out = 0
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            for piece in decode_pieces(pieces, size_max=size):
                given_out += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert given_out <= size
    assert peak < MIB


def test_a_plane_of_one_byte_and_of_none_is_a_block_as_well() -> None:
    for data in (b"", b"x", b"xyz"):
        planes = b"".join(uvarint(len(data[k::5]) << 1) + data[k::5] for k in range(5))
        crc = zlib.crc32(data).to_bytes(4, "little")
        made = b"EPCC\x02\x03" + uvarint(len(data)) + crc + (b"\x05" + planes if data else b"")
        assert decode(made, size_max=10) == data


def member(raw: bytes, **changes: object) -> tuple[File, bytes]:
    file, stored = bundle.encode_member("model.onnx", raw)
    fields = {name: getattr(file, name) for name in File.__struct_fields__}
    return File(**{**fields, **changes}), stored


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"raw_size": 9_999}, "over the limit"),
        ({"raw_size": 10_001}, "decoded bytes"),
        ({"raw_sha256": "0" * 64}, "decoded bytes"),
        ({"size": 3}, "digest is not"),
        ({"sha256": "0" * 64}, "digest is not"),
    ],
)
def test_a_member_that_is_not_the_manifests_ends_in_an_error(
    changes: dict[str, object], said: str
) -> None:
    file, stored = member(random.Random(1).randbytes(10_000), **changes)
    with pytest.raises(InputFault, match=said):
        list(bundle.decode_pieces(file, [stored[:5_000], stored[5_000:]]))

"""Whatever goes into the codec comes out of it; whatever else is decoded ends in CodecError."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract.codec import CodecError, decode, encode
from edge_contract.codec._cells import Cells, Kind, expand
from edge_contract.codec._columnar import decode_columns, encode_columns
from edge_contract.codec._forest import Forest, Guess, guess
from edge_contract.codec._protobuf import find_holes
from edge_contract.codec._shape import Known, ShapeReader
from edge_contract.codec._stream import Reader, compress, decompress, uvarint
from edge_contract.errors import InputFault

STORED, ZSTD, COLUMNS = 0, 1, 2
HEADER_MAX_BYTES = 20
LIMIT_BYTES = 1 << 20


def field(number: int, content: bytes) -> bytes:
    return uvarint(number << 3 | 2) + uvarint(len(content)) + content


def attribute(name: str, values: list[int] | list[float] | list[bytes]) -> bytes:
    body = field(1, name.encode())
    for value in values:
        if isinstance(value, int):
            body += b"\x40" + uvarint(value % (1 << 64))
        elif isinstance(value, float):
            body += b"\x3d" + struct.pack("<f", value)
        else:
            body += field(9, value)
    return field(5, body + b"\xa0\x01\x07")


def tree(
    rng: random.Random, depth: int, modes: list[bytes], true: list[int], false: list[int]
) -> int:
    """Append one tree in preorder; returns its number of nodes."""
    here = len(modes)
    if depth == 0 or rng.random() < 0.2:
        modes.append(b"LEAF")
        true.append(0)
        false.append(0)
        return 1
    modes.append(b"BRANCH_LEQ")
    true.append(1)
    false.append(0)
    left = tree(rng, depth - 1, modes, true, false)
    false[here] = 1 + left
    return 1 + left + tree(rng, depth - 1, modes, true, false)


def forest(trees: int = 6, depth: int = 4, seed: int = 1) -> bytes:
    """A tree ensemble in ONNX as skl2onnx writes it; no two libraries, no two results."""
    rng = random.Random(seed)
    modes: list[bytes] = []
    tree_ids: list[int] = []
    node_ids: list[int] = []
    true: list[int] = []
    false: list[int] = []
    for number in range(trees):
        before = len(modes)
        size = tree(rng, depth, modes, true, false)
        tree_ids += [number] * size
        node_ids += range(size)
        for i in range(before, before + size):
            if modes[i] != b"LEAF":
                true[i], false[i] = i - before + 1, false[i] + i - before
    leaves = [i for i, mode in enumerate(modes) if mode == b"LEAF"]
    branch = [mode != b"LEAF" for mode in modes]
    grid = [rng.randrange(1, 40) / 4 for _ in range(12)]
    node = field(4, b"TreeEnsembleClassifier")
    node += attribute("class_ids", [k for _ in leaves for k in range(3)])
    node += attribute("class_nodeids", [node_ids[i] for i in leaves for _ in range(3)])
    node += attribute("class_treeids", [tree_ids[i] for i in leaves for _ in range(3)])
    picks = [rng.randrange(3) for _ in leaves]
    node += attribute("class_weights", [float(k == pick) for pick in picks for k in range(3)])
    node += attribute("nodes_falsenodeids", false)
    node += attribute("nodes_featureids", [rng.randrange(8) if b else 0 for b in branch])
    node += attribute("nodes_hitrates", [1.0] * len(modes))
    node += attribute("nodes_modes", modes)
    node += attribute("nodes_nodeids", node_ids)
    node += attribute("nodes_treeids", tree_ids)
    node += attribute("nodes_truenodeids", true)
    node += attribute("nodes_values", [rng.choice(grid) if b else 0.0 for b in branch])
    return b"\x08\x08" + field(7, field(1, node) + field(2, b"graph"))


def tensor(data_type: int, raw: bytes, number: int = 9) -> bytes:
    content = b"\x08\x20\x10" + bytes([data_type]) + field(8, b"w") + field(number, raw)
    return field(7, field(5, content))


def normal(count: int) -> bytes:
    return np.random.default_rng(0).normal(size=count).astype("<f4").tobytes()


MODEL = forest()
PACKED = b"".join(uvarint(i * i) for i in range(400))
INPUTS = {
    "empty": b"",
    "one byte": b"\x00",
    "text": b"no model at all",
    "zeros": bytes(10_000),
    "noise": random.Random(2).randbytes(5_000),
    "forest": MODEL,
    "many small forests": b"".join(forest(1, 5, seed) for seed in range(9)),
    "big forest": forest(300, 7),
    "half a forest": MODEL[: len(MODEL) // 2],
    "float weights": tensor(1, normal(3_000)),
    "int8 weights": tensor(3, normal(1_000)),
    "double weights": tensor(11, normal(1_000)),
    "a part of a word": tensor(1, normal(1_000)[:-1]),
    "packed ints": tensor(7, PACKED, 7),
    "negative ints": field(7, field(1, attribute("axes", [-(i % 5) for i in range(99)]))),
    "padded varints": field(7, field(1, field(5, field(1, b"a") + b"\x40\x80\x00" * 90))),
    "deep nesting": b"".join(field(7, b"") for _ in range(40)) * 9,
    "an endless length": b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" * 20,
    "many texts": field(7, field(1, attribute("names", [b"%d" % (i % 400) for i in range(900)]))),
    "too many texts together": field(
        7,
        b"".join(
            field(1, attribute("names", [b"%d.%d" % (k, i % 200) for i in range(300)]))
            for k in range(3)
        ),
    ),
    "leaves only": field(7, field(1, attribute("nodes_modes", [b"LEAF"] * 50))),
    "no tree": field(7, field(1, attribute("nodes_modes", [b"LEAF", b"BRANCH_LT"] * 50))),
}


@cache
def encoded(name: str) -> bytes:
    return encode(INPUTS[name])


@pytest.mark.parametrize("name", INPUTS)
def test_any_bytes_come_back_and_hardly_grow(name: str) -> None:
    data = INPUTS[name]
    blob = encoded(name)
    assert decode(blob, size_max=len(data)) == data
    assert len(blob) <= len(data) + HEADER_MAX_BYTES


@pytest.mark.parametrize("name", ["forest", "many small forests", "big forest", "float weights"])
def test_models_travel_as_columns(name: str) -> None:
    blob = encoded(name)
    assert blob[5] == COLUMNS
    assert len(blob) < len(compress(INPUTS[name]))


@settings(max_examples=40)
@given(st.binary(max_size=300))
def test_drawn_bytes_come_back(data: bytes) -> None:
    assert decode(encode(data), size_max=len(data)) == data


@settings(max_examples=40)
@given(st.data())
def test_a_damaged_model_comes_back_as_damaged(data: st.DataObject) -> None:
    model = bytearray(MODEL)
    for at in data.draw(st.lists(st.integers(0, len(model) - 1), max_size=4)):
        model[at] = data.draw(st.integers(0, 255))
    cut = bytes(model[data.draw(st.integers(0, 50)) : data.draw(st.integers(50, len(model)))])
    assert decode(encode(cut), size_max=len(cut)) == cut
    # Without the fall-back to zstd: the columns themselves must be exact.
    columns = encode_columns(cut)
    assert columns is None or decode_columns(columns, 0, len(cut)) == cut


def test_what_is_not_canonical_stays_in_the_skeleton() -> None:
    assert find_holes(INPUTS["padded varints"]) == []
    assert len(find_holes(INPUTS["negative ints"])) == 1


def test_the_blob_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "import sys; from edge_contract.codec import encode;"
        "sys.stdout.buffer.write(encode(sys.stdin.buffer.read()))"
    )
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=INPUTS["many small forests"],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        )
        assert done.stdout == encode(INPUTS["many small forests"])


GOLDEN = bytes.fromhex(
    "455043430102c026fd5d6a10e803f7040000b50900c28f3a2f60770e300c70cb4a008518610d04cc1a7e2371b7"
    "c51c5fd5ac437a4fed4906ae5b854e377d178790d0d22652ca2403a5d4a992bc52959e2b72eb976ab03f07d87f"
    "e328d3b84157674f95454b81ad61aa8a3dbb603faeafe93902ade57e1d5b22a19df5c9baca768e3a0136b635c0"
    "8fad1c0589c48d6b0db5a323745dcfb4d2d390a9af274befeac7a058ccf6820609433e16f846f0373936f92570"
    "d1c0f38187896fc1cf33bfd50e12a35f8fde0571deb55aadcbf1cd98f159a01f7bdfeac8dffbf8eaec89dfbe04"
    "dffbd0f9827f45fe9232f1b963d9803215cec443d91af232b16cb4e6c3fc3505322228c04448d50140c8b9b9a0"
    "690e9ac82c3ac85d8da8a30032c83a3031319464cd24cbe87e9183d4f0495808760c3c422903b14659cc9bcf38"
    "d8ed567b24762ecb434fe50a05ccbd279e0c97499e3899748c2793930256500723120411704043214521424274"
    "7517405636143406000000000000803f9218452429264c42461425916444868c2291a1240000f50000c282060e"
    "d0a53100830738ae9e008b76770a75f0f05ddff37bb978900300450553399728802489472805122402953a546a"
    "a69a03a103"
)
GOLDEN_LIBZSTD = (1, 5, 7)


def test_version_1_keeps_decoding() -> None:
    assert decode(GOLDEN, size_max=len(MODEL)) == MODEL


@pytest.mark.skipif(
    zstandard.ZSTD_VERSION != GOLDEN_LIBZSTD, reason="another libzstd packs otherwise"
)
def test_version_1_keeps_encoding() -> None:
    assert encode(MODEL).hex() == GOLDEN.hex()


# plan, body, count, width, values
STEPS = {
    "const": ("00ac02", "", 3, 2, [300, 300, 300]),
    "raw": ("010208", "0100ff00", 2, 4, [1, 255]),
    "planes": ("02020404", "01020300", 2, 4, [0x0301, 0x0002]),
    "pack 1": ("030102", "05", 4, 1, [1, 0, 1, 0]),
    "pack 2": ("030202", "e4", 4, 1, [0, 1, 2, 3]),
    "pack 4": ("030404", "2103", 3, 1, [1, 2, 3]),
    "delta": ("04010106", "020103", 3, 1, [1, 0, 254]),
    "dictionary": ("0502010104010104", "07090001", 2, 1, [7, 9]),
    "rows": ("060202010108030102", "0102030402", 4, 1, [1, 2, 3, 4]),
    "cycle": ("0905030000", "", 7, 1, [0, 1, 2, 0, 1, 2, 0]),
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_reads_what_the_format_says(name: str) -> None:
    plan, body, count, width, values = STEPS[name]
    left = Reader(bytes.fromhex(body))
    reader = ShapeReader(Reader(bytes.fromhex(plan)), left, Known())
    got = reader.read(count, width)
    assert got.tolist() == values
    assert got.dtype == f"<u{width}"
    assert left.left == 0


MODES = Cells(Kind.RECORDS, 0x4A, 3, 1, (b"\x4a\x09BRANCH_LT", b"\x4a\x04LEAF"))
FORMS = {0: MODES, 1: Cells(Kind.WORDS, 0, 3, 1), 2: Cells(Kind.WORDS, 0, 2, 1), 3: MODES}
KNOWN = {0: [0, 1, 1], 1: [5, 5, 9], 2: [1, 2], 3: [0, 0]}
FAULTS = {
    "an index outside its group": "080102000100010001",
    "a group of fewer keys": "080202000100000000",
    "groups that are not the table": "080103000100000000",
    "a split of other nodes": "070300000000",
    "a split in a split": "0700070000000000000000",
    "a guess from a shorter column": "090200020000",
    "a guess from an unknown column": "0902000b0000",
    "a guess from no modes": "0900010000",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_shape_that_does_not_fit_is_refused(name: str) -> None:
    values = {number: np.array(column, "<u1") for number, column in KNOWN.items()}
    plan = Reader(bytes.fromhex(FAULTS[name]))
    reader = ShapeReader(plan, Reader(bytes(range(8))), Known(FORMS, values))
    with pytest.raises(CodecError):
        reader.read(3, 1)


def test_a_group_counts_inside_itself() -> None:
    known = Known({}, {1: np.array([5, 9, 5], "<u1")})
    plan = "080103010104010106010106"
    reader = ShapeReader(
        Reader(bytes.fromhex(plan)), Reader(bytes([2, 1, 70, 71, 90, 1, 0, 0])), known
    )
    assert reader.read(3, 1).tolist() == [71, 90, 70]


@pytest.mark.parametrize(
    ("cells", "values", "size_max"),
    [
        (MODES, [0, 2, 1], 100),
        (MODES, [0, 0, 0], 32),
        (Cells(Kind.VARINT, 0x40, 3, 2), [1, 300, 2], 6),
        (Cells(Kind.PACKED, 0, 3, 2), [1, 300, 2], 3),
        (Cells(Kind.WORDS, 0, 3, 2), [1, 300, 2], 5),
        (Cells(Kind.FIXED32, 0x3D, 3, 4), [1, 300, 2], 14),
    ],
)
def test_values_are_written_within_bounds(cells: Cells, values: list[int], size_max: int) -> None:
    with pytest.raises(CodecError):
        expand(cells, np.array(values, f"<u{cells.width}"), (), size_max)


def test_a_blob_over_the_callers_limit_is_refused() -> None:
    for data in (INPUTS["noise"], INPUTS["zeros"], MODEL):
        with pytest.raises(CodecError):
            decode(encode(data), size_max=len(data) - 1)


def test_the_structure_follows_from_the_leaves() -> None:
    #      0          0
    #    1   4      1   2
    #   2 3
    leaf = np.array([0, 0, 1, 1, 1, 0, 1, 1], bool)
    trees = Forest(leaf)
    numbers = np.array([0, 1, 2, 3, 4, 0, 1, 2], "<u1")
    assert guess(Guess.TREE, trees, None).tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert guess(Guess.COUNTER, trees, None).tolist() == numbers.tolist()
    assert guess(Guess.FIRST_CHILD, trees, numbers).tolist() == [1, 2, 0, 0, 0, 1, 0, 0]
    assert guess(Guess.SECOND_CHILD, trees, numbers).tolist() == [4, 3, 0, 0, 0, 2, 0, 0]
    assert guess(Guess.AT_LEAVES, trees, numbers).tolist() == [2, 3, 4, 1, 2]


def opened(blob: bytes) -> bytes:
    """The same blob with its plan and streams in the clear, so that changes reach the reader."""
    header = Reader(blob, 6)
    size = header.uvarint(1 << 40)
    header.take(4)
    start = len(blob) - header.left
    head_size = header.uvarint(1 << 40)
    stored = header.uvarint(1 << 40)
    head = header.take(stored >> 1)
    if stored & 1:
        head = decompress(head, head_size)
    assert size
    return (
        blob[:start]
        + uvarint(head_size)
        + uvarint(head_size << 1)
        + head
        + header.take(header.left)
    )


BLOBS: dict[str, Callable[[], bytes]] = {
    "columns": lambda: encode(MODEL),
    "columns in the clear": lambda: opened(encode(MODEL)),
    "many forests in the clear": lambda: opened(encode(INPUTS["many small forests"])),
    "zstd": lambda: encode(bytes(10_000)),
    "stored": lambda: encode(INPUTS["noise"][:200]),
}


def refuses_or_gives(blob: bytes, data: bytes | None = None) -> None:
    """Only CodecError may escape, and a result that the CRC let pass is the right one."""
    try:
        result = decode(blob, size_max=LIMIT_BYTES)
    except CodecError as error:
        assert isinstance(error, InputFault)
        return
    assert data is None or result == data


@pytest.mark.parametrize("name", BLOBS)
def test_a_truncated_blob_is_refused_at_each_length(name: str) -> None:
    blob = BLOBS[name]()
    for length in range(len(blob)):
        with pytest.raises(CodecError):
            decode(blob[:length], size_max=LIMIT_BYTES)
    with pytest.raises(CodecError):
        decode(blob + b"\x00", size_max=LIMIT_BYTES)


@pytest.mark.parametrize("name", BLOBS)
def test_each_byte_changed_is_refused_or_harmless(name: str) -> None:
    blob = BLOBS[name]()
    data = decode(blob, size_max=LIMIT_BYTES)
    rng = random.Random(3)
    for at in range(0, len(blob), 1 + len(blob) // 500):
        changed = bytearray(blob)
        changed[at] ^= rng.randrange(1, 256)
        refuses_or_gives(bytes(changed), data)


OPENED = opened(encode(MODEL))


@settings(max_examples=40)
@given(st.data())
def test_drawn_changes_end_in_one_error(data: st.DataObject) -> None:
    changed = bytearray(OPENED)
    for at in data.draw(st.lists(st.integers(6, len(changed) - 1), min_size=1, max_size=6)):
        changed[at] = data.draw(st.sampled_from([0, 1, 2, 5, 9, 127, 128, 255]))
    refuses_or_gives(bytes(changed))


@settings(max_examples=40)
@given(st.binary(max_size=200), st.sampled_from([STORED, ZSTD, COLUMNS]), st.integers(0, 2_000))
def test_drawn_bodies_end_in_one_error(body: bytes, codec: int, size: int) -> None:
    refuses_or_gives(b"EPCC\x01" + bytes([codec]) + uvarint(size) + bytes(4) + body)


def blob_of(codec: int, size: int, body: bytes, data: bytes = b"") -> bytes:
    return (
        b"EPCC\x01" + bytes([codec]) + uvarint(size) + zlib.crc32(data).to_bytes(4, "little") + body
    )


def column_blob(
    size: int, count: int, shape: bytes, skeleton: bytes = b"", *, width: int = 1, taken: int = 0
) -> bytes:
    """One column of ``count`` words, and one hole for ``taken`` or all of them.

    The CRC is of as many zeros as an unchecked join would give.
    """
    plan = b"\x01" + bytes([0, 0, width]) + uvarint(count) + shape
    head = plan + b"\x01\x00\x00" + uvarint(taken or count) + skeleton
    crc_of = bytes((taken or size - len(skeleton)) + len(skeleton))
    return blob_of(COLUMNS, size, uvarint(len(head)) + uvarint(len(head) << 1) + head, crc_of)


def test_a_column_of_one_value_needs_no_stream() -> None:
    assert decode(column_blob(1_000, 1_000, b"\x00\x00"), size_max=1_000) == bytes(1_000)


BOMB = compress(bytes(50_000_000))
NESTED = b"\x04" * 5 + b"\x00\x00"
HOSTILE = {
    "larger than allowed": blob_of(STORED, 1 << 40, b""),
    "stored less than it says": blob_of(STORED, LIMIT_BYTES, b""),
    "zstd bomb": blob_of(ZSTD, 1_000, BOMB),
    "zstd frame with its own size": blob_of(
        ZSTD, 1_000, zstandard.ZstdCompressor().compress(bytes(1 << 26))[4:]
    ),
    "zstd window of 16 MB": blob_of(
        ZSTD, 1_000, b"\x00\x70" + compress(bytes(1_000))[2:], bytes(1_000)
    ),
    "head larger than a file": blob_of(COLUMNS, 1_000, uvarint(1 << 30) + b"\x03\x00"),
    "more values than bytes": column_blob(1_000, 100_000_000, b"\x00\x00"),
    "wider values than bytes": column_blob(LIMIT_BYTES, LIMIT_BYTES, b"\x00\x00", width=8),
    "values beyond the file": column_blob(1_000, 1_001, b"\x00\x00"),
    "a hole for less than its column": column_blob(1_000, 1_000, b"\x00\x00", taken=990),
    "skeleton too long": column_blob(1_000, 1_000, b"\x00\x00", b"\x00", taken=1_000),
    "skeleton too short": column_blob(1_000, 990, b"\x00\x00", b"\x00", taken=990),
    "a step too deep": column_blob(1_000, 1_000, b"\x04" * 6 + b"\x00\x00"),
    "steps without end": column_blob(1_000, 1_000, b"\x04" * 900),
    "a dictionary larger than its column": column_blob(
        1_000, 1_000, b"\x05\xe9\x07\x00\x00\x00\x00"
    ),
    "an index without a dictionary": column_blob(1_000, 1_000, b"\x05\x00\x00\x00\x00\x00"),
    "rows of nothing": column_blob(1_000, 1_000, b"\x06\x00\x00\x00\x00\x00\x00"),
    "a split without modes": column_blob(1_000, 1_000, b"\x07\x00\x00\x00\x00\x00"),
    "a guess from nothing": column_blob(1_000, 1_000, b"\x09\x00\x00\x00\x00"),
    "a guess of no kind": column_blob(1_000, 1_000, b"\x09\x77\x00\x00\x00"),
    "another magic": b"EPCD" + blob_of(STORED, 0, b"")[4:],
    "another version": b"EPCC\x02" + blob_of(STORED, 0, b"")[5:],
    "another codec": blob_of(3, 0, b""),
    "another CRC": blob_of(STORED, 1, b"a"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_blob_is_refused_without_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            decode(HOSTILE[name], size_max=LIMIT_BYTES)
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()


def test_a_deep_but_allowed_shape_decodes() -> None:
    assert decode(column_blob(1_000, 1_000, NESTED), size_max=1_000) == bytes(1_000)


@pytest.mark.parametrize("name", ["forest", "big forest", "float weights"])
def test_decoding_needs_little_more_than_the_output(name: str) -> None:
    data, blob = INPUTS[name], encoded(name)
    tracemalloc.start()
    decode(blob, size_max=len(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * len(data) + 100_000

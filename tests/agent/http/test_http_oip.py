"""Requests of the Open Inference Protocol are read wholly or refused in one way."""

from __future__ import annotations

import contextlib
import json
import struct

import numpy as np
import pytest

from edge_agent.doors import oip
from edge_contract.errors import InputFault

LEAST = -(2**63)


def body(**given: object) -> bytes:
    """A request with one input, whose fields can be replaced."""
    tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4.5]} | given
    return json.dumps({"inputs": [{k: v for k, v in tensor.items() if v is not ...}]}).encode()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [[1, 2], [3, 4.5]]),
        ({"data": [[1, 2], [3, 4.5]]}, [[1, 2], [3, 4.5]]),
        ({"shape": [4]}, [1, 2, 3, 4.5]),
        ({"shape": [1, 2, 2], "data": [[[1, 2], [3, 4]]]}, [[[1, 2], [3, 4]]]),
        ({"shape": [0, 2], "data": []}, np.empty((0, 2))),
        (
            {"datatype": "INT64", "data": [1, -(2**63), 2**63 - 1, 0]},
            [[1, -(2**63)], [2**63 - 1, 0]],
        ),
        ({"datatype": "BOOL", "data": [True, False, True, True]}, [[True, False], [True, True]]),
        ({"datatype": "BYTES", "data": ["a", "", "ü", "b"]}, [["a", ""], ["ü", "b"]]),
    ],
)
def test_data_flat_or_nested_is_the_tensor(given, expected) -> None:
    infer = oip.decode(body(**given))
    found = infer.tensors["x"]
    assert found.shape == np.array(expected).shape
    assert found.tolist() == np.array(expected, dtype=found.dtype).tolist()


def test_null_is_a_missing_number() -> None:
    found = oip.decode(body(data=[1, None, 3, 4])).tensors["x"]
    assert np.isnan(found[0, 1]) and found.dtype == np.float32


@pytest.mark.parametrize(
    "given",
    [
        {"data": [1, 2, 3]},
        {"shape": [0, 2**31, 2**31, 2**31], "data": []},
        {"data": [[1, 2], [3]]},
        {"data": [[1, 2, 3, 4]]},
        {"data": ["1", 2, 3, 4]},
        {"data": [True, 2, 3, 4]},
        {"data": {"a": 1}},
        {"data": ...},
        {"datatype": "FP31"},
        {"datatype": "INT8", "data": [1, 2, 3, 128]},
        {"datatype": "UINT8", "data": [1, 2, 3, -1]},
        {"datatype": "INT64", "data": [1, 2, 3, 2**63]},
        {"datatype": "INT64", "data": [1, 2, 3, 4.5]},
        {"datatype": "INT64", "data": [1, 2, 3, None]},
        {"datatype": "BYTES", "data": [1, 2, 3, 4]},
        {"shape": [-1, 2]},
        {"shape": [2**40, 2**40]},
        {"shape": [2**31, 2**31, 2**31], "data": []},
        {"shape": [1] * 17},
        {"shape": "2,2"},
        {"name": 3},
        {"parameters": {"binary_data_size": 16}},
        {"data": ..., "parameters": {"binary_data_size": 16}},
        {"data": ..., "parameters": {"binary_data_size": -1}},
        {"data": ..., "parameters": {"binary_data_size": "16"}},
        {"data": ..., "parameters": {"binary_data_size": True}},
    ],
)
def test_what_does_not_fit_is_refused(given) -> None:
    with pytest.raises(InputFault):
        oip.decode(body(**given))


def test_a_name_twice_no_input_and_no_json_are_refused() -> None:
    one = json.loads(body())["inputs"][0]
    for request in ({"inputs": [one, one]}, {"inputs": []}, {}, [], 3):
        with pytest.raises(InputFault):
            oip.decode(json.dumps(request).encode())
    for raw in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"inputs":' + b"[" * 100_000):
        with pytest.raises(InputFault):
            oip.decode(raw)


def with_bytes(data: bytes, *, size: int | None = None, **given: object) -> tuple[bytes, int]:
    """A request whose tensor follows the JSON."""
    size = len(data) if size is None else size
    head = body(data=..., parameters={"binary_data_size": size}, **given)
    return head + data, len(head)


def test_bytes_behind_the_json_are_the_tensor() -> None:
    floats = np.arange(4, dtype="<f4").reshape(2, 2)
    assert oip.decode(*with_bytes(floats.tobytes())).tensors["x"].tolist() == floats.tolist()
    texts = b"".join(struct.pack("<I", len(t)) + t for t in (b"a", b"", "ü".encode(), b"b"))
    found = oip.decode(*with_bytes(texts, datatype="BYTES")).tensors["x"]
    assert found.tolist() == [["a", ""], ["ü", "b"]]


@pytest.mark.parametrize(
    ("data", "given"),
    [
        (b"\0" * 15, {}),
        (b"\0" * 17, {}),
        (b"\0" * 16, {"size": 17}),
        (b"\0" * 16, {"size": 15}),
        (b"\0" * 16, {"size": 2**62}),
        (b"\2" * 4, {"datatype": "BOOL"}),
        (b"\4\0\0\0abc", {"datatype": "BYTES", "shape": [1]}),
        (b"\xff\xff\xff\xff", {"datatype": "BYTES", "shape": [1]}),
        (b"\1\0\0", {"datatype": "BYTES", "shape": [1]}),
        (b"\1\0\0\0\xff", {"datatype": "BYTES", "shape": [1]}),
        (b"\0\0\0\0" * 2, {"datatype": "BYTES", "shape": [1]}),
    ],
)
def test_bytes_that_do_not_fit_are_refused(data, given) -> None:
    with pytest.raises(InputFault):
        oip.decode(*with_bytes(data, **given))


def test_every_truncation_and_a_wrong_json_size_are_refused() -> None:
    whole, size = with_bytes(np.arange(4, dtype="<f4").tobytes())
    for cut in range(len(whole)):
        with pytest.raises(InputFault):
            oip.decode(whole[:cut], size)
    for wrong in (*range(size), *range(size + 1, len(whole) + 3), -1, 2**63):
        with pytest.raises(InputFault):
            oip.decode(whole, wrong)


def test_altered_bytes_never_raise_anything_else() -> None:
    whole, size = with_bytes(np.arange(4, dtype="<f4").tobytes())
    seed = 20261121
    print("seed", seed)
    rng = np.random.default_rng(seed)
    for _ in range(3000):
        data = bytearray(whole)
        for at in rng.integers(0, size, rng.integers(1, 5)):
            data[at] = rng.integers(0, 256)
        with contextlib.suppress(InputFault):
            oip.decode(bytes(data), size)

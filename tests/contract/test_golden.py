"""Golden samples hold a device to the outputs that the packager saw."""

from __future__ import annotations

import numpy as np
import pytest

from edge_contract import golden
from edge_contract.errors import InputFault
from edge_contract.golden import Array, Golden, Tolerance

OUTPUTS = {
    "label": np.array(["a", "b"], dtype=object),
    "scores": np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32),
    "count": np.array([3, 4], dtype=np.int64),
}
SAMPLES = Golden(
    inputs=(golden.pack("x", np.zeros((2, 1), dtype=np.float32)),),
    outputs=tuple(golden.pack(name, value) for name, value in OUTPUTS.items()),
    tolerance={
        "default": Tolerance(absolute=1e-5, relative=0.0),
        "exact": Tolerance(absolute=0.0, relative=0.0),
    },
)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint16", "int64", "bool"]
)
def test_a_tensor_survives_packing(dtype: str) -> None:
    value = np.array([[0, 1], [1, 0]]).astype(dtype)
    restored = golden.unpack(golden.pack("x", value))
    assert restored.dtype == value.dtype
    assert np.array_equal(restored, value)


def test_equal_outputs_have_no_finding() -> None:
    decoded = golden.decode(golden.encode(SAMPLES))
    assert golden.compare(decoded, OUTPUTS, "x86_64") == []


def test_the_tolerance_is_the_machines_own() -> None:
    near = OUTPUTS | {"scores": OUTPUTS["scores"] + np.float32(1e-6)}
    assert golden.compare(SAMPLES, near, "aarch64") == []
    assert "differs by up to" in golden.compare(SAMPLES, near, "exact")[0]


def test_the_rows_that_are_off_are_named_with_how_far() -> None:
    off = OUTPUTS["scores"].copy()
    off[1, 0] += np.float32(0.25)
    (found,) = golden.mismatches(SAMPLES, OUTPUTS | {"scores": off}, "x86_64")
    assert (found.output, found.rows, found.wrong, found.values) == ("scores", (1,), 1, 4)
    assert found.worst == 0.25
    assert found.allowed == 1e-5
    (found,) = golden.mismatches(SAMPLES, OUTPUTS | {"label": np.array(["b", "a"])}, "x86_64")
    assert (found.rows, found.wrong, found.worst) == ((0, 1), 2, None)
    (found,) = golden.mismatches(SAMPLES, OUTPUTS | {"scores": np.full_like(off, np.inf)}, "x86_64")
    assert found.worst is None


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"label": np.array(["a", "a"], dtype=object)}, "1 of 2"),
        ({"count": np.array([3, 5])}, "1 of 2"),
        ({"scores": np.full((2, 2), np.nan, dtype=np.float32)}, "NaN"),
        ({"scores": np.zeros((2, 3), dtype=np.float32)}, "shape"),
    ],
)
def test_what_differs_is_said(change: dict[str, np.ndarray], finding: str) -> None:
    findings = golden.compare(SAMPLES, OUTPUTS | change, "x86_64")
    assert len(findings) == 1
    assert finding in findings[0]


def test_a_missing_output_is_said() -> None:
    only = {"label": OUTPUTS["label"], "scores": OUTPUTS["scores"]}
    assert golden.compare(SAMPLES, only, "x86_64") == ["output 'count' is missing"]


@pytest.mark.parametrize(
    "array",
    [
        Array(name="x", dtype="float32", shape=(2,), data=b"123"),
        Array(name="x", dtype="string", shape=(2,), text=("a",)),
        Array(name="x", dtype="object", shape=(1,), data=bytes(8)),
        Array(name="x", dtype="no such", shape=(1,), data=bytes(8)),
        Array(name="x", dtype="float64", shape=(2**31, 2**31), data=b""),
    ],
)
def test_a_tensor_whose_shape_and_bytes_disagree_is_refused(array: Array) -> None:
    with pytest.raises(InputFault):
        golden.unpack(array)

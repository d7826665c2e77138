"""Rows become tensors, or are refused by the name of their row and feature."""

from __future__ import annotations

import math
import random

import msgspec
import numpy as np
import pytest

from edge_agent.inputs import ROWS_MAX, Batch, Inputs, row_count
from edge_contract.errors import InputFault
from edge_contract.manifest import (
    Compression,
    Feature,
    File,
    Manifest,
    Outputs,
    Parity,
    Provenance,
    Runtime,
    Tensor,
)

NAMES = ("a", "b", "c")
GOOD = {"a": 1.5, "b": -2, "c": 0.25}


def manifest(features: tuple[Feature, ...], inputs: tuple[Tensor, ...]) -> Manifest:
    return Manifest(
        schema=1, name="m", version="1", task="tensors", features=features, inputs=inputs,
        outputs=Outputs(tensors=("y",)),
        files=(File(name="model.onnx", size=1, sha256="0" * 64, raw_size=1, raw_sha256="0" * 64),),
        runtime=Runtime(ir=8, opsets={}, ops=(), onnxruntime="1.18", ram_bytes=0),
        compression=Compression(mode="none", stock_bytes=1),
        parity=Parity(rows=0, flips=0, flips_max=0, diff_max=0, diff_p99=0, diff_budget=0),
        provenance=Provenance(source_sha256="0" * 64, source_type="onnx", libraries={}),
    )  # fmt: skip


def numbers(dtype: str = "float32", missing: str = "refuse", order=NAMES) -> Inputs:
    """Three numbers in one tensor."""
    return Inputs(
        manifest(
            tuple(Feature(name=name, missing=missing) for name in NAMES),
            (Tensor(name="X", dtype=dtype, shape=(None, 3), features=order),),
        )
    )


def mixed(missing: str = "refuse") -> Inputs:
    """A number, a category and an integer, a tensor each."""
    return Inputs(
        manifest(
            (
                Feature(name="n", missing=missing),
                Feature(name="k", type="category", categories=("x", "y"), missing=missing),
                Feature(name="i"),
            ),
            (
                Tensor(name="N", dtype="float32", shape=(None, 1), features=("n",)),
                Tensor(name="K", dtype="string", shape=(None, 1), features=("k",)),
                Tensor(name="I", dtype="int64", shape=(None, 1), features=("i",)),
            ),
        )
    )


def image() -> Inputs:
    """One whole tensor without features."""
    return Inputs(manifest((), (Tensor(name="img", dtype="uint8", shape=(None, 2, 2)),)))


def kept(batch: Batch) -> list[list[float]]:
    return batch.number_rows().tolist()


class Table:
    """What a DataFrame looks like from outside."""

    def __init__(self, columns: dict) -> None:
        self._columns = columns

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str):
        return self._columns[name]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))


EVERY_FORM = [
    GOOD,
    [GOOD],
    [1.5, -2, 0.25],
    (1.5, -2, 0.25),
    [[1.5, -2, 0.25]],
    np.array([1.5, -2, 0.25]),
    np.array([[1.5, -2, 0.25]]),
    np.array([[1.5, -2, 0.25]], dtype=np.float32),
    np.array([[1.5, -2, 0.25]], dtype=object),
    [np.array([1.5, -2, 0.25])],
    Table({"c": [0.25], "a": [1.5], "b": [-2]}),
    {"X": np.array([[1.5, -2, 0.25]])},
    {"a": np.float32(1.5), "b": np.int8(-2), "c": np.float64(0.25)},
]


@pytest.mark.parametrize("rows", EVERY_FORM, ids=lambda rows: type(rows).__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_every_form_gives_the_same_tensor_and_keeps_the_same_numbers(rows, dtype: str) -> None:
    batch = numbers(dtype).read(rows)
    assert batch.rows == 1
    assert batch.feeds["X"].dtype == np.dtype(dtype)
    assert batch.feeds["X"].tolist() == [[1.5, -2.0, 0.25]]
    assert kept(batch) == [[1.5, -2.0, 0.25]]


def test_a_real_dataframe_is_read_by_column_name() -> None:
    import pandas as pd

    table = pd.DataFrame({"c": [1, 2], "b": [True, False], "a": [0.5, 1.5]})
    batch = numbers().read(table)
    assert batch.feeds["X"].tolist() == [[0.5, 1.0, 1.0], [1.5, 0.0, 2.0]]
    with pytest.raises(InputFault, match="row 1: feature 'a' is missing"):
        numbers().read(pd.DataFrame({"a": [1.0, pd.NA], "b": [1, 2], "c": [1, 2]}, dtype=object))


def test_only_one_row_by_itself_is_single() -> None:
    reader = numbers()
    assert reader.read(GOOD).single
    assert reader.read([1, 2, 3]).single
    assert reader.read(np.array([1.0, 2, 3])).single
    assert not reader.read([GOOD]).single
    assert not reader.read(np.array([[1.0, 2, 3]])).single


def test_columns_follow_the_tensor_whatever_the_manifests_order() -> None:
    reader = numbers(order=("c", "a", "b"))
    for rows in (GOOD, [GOOD], np.array([[1.5, -2, 0.25]])):
        batch = reader.read(rows)
        assert batch.feeds["X"].tolist() == [[0.25, 1.5, -2.0]]
        assert kept(batch) == [[1.5, -2.0, 0.25]]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"a": 1, "b": 2}, "feature 'c' is missing"),
        ({"a": 1, "b": 2, "d": 3}, "feature 'c' is missing"),
        ({**GOOD, "d": 3}, "unknown feature 'd'"),
        ({**GOOD, "b": "2"}, "feature 'b' is text '2', expected a number"),
        ({**GOOD, "b": ""}, "feature 'b' is text ''"),
        ({**GOOD, "b": None}, "feature 'b' is missing"),
        ({**GOOD, "b": math.nan}, "feature 'b' is missing"),
        ({**GOOD, "b": math.inf}, "feature 'b' is infinite"),
        ({**GOOD, "b": -math.inf}, "feature 'b' is infinite"),
        ({**GOOD, "b": 1e39}, "feature 'b' is 1e+39, which float32 cannot hold"),
        ({**GOOD, "b": 10**400}, "feature 'b' is beyond any float's range"),
        ({**GOOD, "b": [1]}, "feature 'b' is a list"),
        ({**GOOD, "b": {}}, "feature 'b' is a dict"),
        ({**GOOD, "b": 1j}, "feature 'b' is a complex"),
        ([GOOD, {**GOOD, "c": "x"}], "row 1: feature 'c' is text"),
        ([GOOD, {"a": 1}], "row 1: features 'b', 'c' are missing"),
        ([GOOD, 3], "row 1: a int is no row"),
        ([GOOD, "abc"], "row 1: a str is no row"),
        ([[1, 2, 3], [1, 2]], "row 1: 2 values for 3 features"),
        ([[1, 2, 3], [1, 2, math.nan]], "row 1: feature 'c' is missing"),
        (np.array([[1.0, 2, 3], [1, math.inf, 3]]), "row 1: feature 'b' is infinite"),
        (np.array([[1.0, 2, 1e39]]), "row 0: feature 'c' is 1e+39"),
        (np.array([["1", "2", "3"]]), "row 0: feature 'a' is text"),
        (np.zeros((2, 4)), "expected [rows, 3]"),
        (np.zeros((2, 3, 1)), "expected [rows, 3]"),
        (np.float64(3), "rows are a float64"),
        (np.zeros((0, 3)), "0 rows"),
        ([], "0 rows"),
        ("abc", "rows are a str"),
        (None, "rows are a NoneType"),
        (3, "rows are a int"),
        (Table({"a": [1], "b": [2]}), "feature 'c' is missing"),
        (Table({"a": [1], "b": [2], "c": ["x"]}), "row 0: feature 'c' is text 'x'"),
        ({}, "features 'a', 'b', 'c' are missing"),
        ({1: 2}, "are missing"),
        ({"Y": np.zeros((2, 3))}, "tensor 'X' is missing"),
        ({"X": np.zeros((2, 4))}, "shape [2, 4], expected [any, 3]"),
        ({"X": np.array([[1.0, 2, math.inf]])}, "infinite"),
        ({"X": np.array([[1.0, 2, 1e39]])}, "cannot"),
        ({"X": np.array([[1.0, 2, math.nan]])}, "row 0: feature 'c' is missing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(rows, says: str) -> None:
    with pytest.raises(InputFault) as caught:
        numbers().read(rows)
    assert says in caught.value.what


def test_missing_numbers_pass_where_the_model_was_shown_them() -> None:
    reader = numbers(missing="allow")
    for value in (None, math.nan):
        batch = reader.read({**GOOD, "b": value})
        assert np.isnan(batch.feeds["X"][0, 1])
        assert np.isnan(kept(batch)[0][1])
    assert np.isnan(reader.read(np.array([[1, math.nan, 2]])).feeds["X"][0, 1])
    with pytest.raises(InputFault, match="infinite"):
        reader.read({**GOOD, "b": math.inf})


def test_bools_are_zero_and_one() -> None:
    assert numbers().read({"a": True, "b": False, "c": 1}).feeds["X"].tolist() == [[1, 0, 1]]


def test_a_row_that_the_caller_changes_afterwards_is_counted_as_it_was() -> None:
    for row in (np.array([[1.0, 2.0, 3.0]]), np.array([1.0, 2, 3], dtype=np.float32)):
        batch = numbers("float64").read(row)
        row[...] = 9
        assert kept(batch) == [[1.0, 2.0, 3.0]]


def test_rows_are_bounded() -> None:
    assert numbers().read(np.zeros((ROWS_MAX, 3))).rows == ROWS_MAX
    for rows in (np.zeros((ROWS_MAX + 1, 3)), [[0, 0, 0]] * (ROWS_MAX + 1)):
        with pytest.raises(InputFault, match=f"expected 1 to {ROWS_MAX}"):
            numbers().read(rows)


def test_categories_and_integers_reach_their_tensors() -> None:
    batch = mixed().read([{"n": 1, "k": "x", "i": 2**53 + 1}, {"n": 2, "k": "never", "i": -4}])
    assert batch.feeds["N"].tolist() == [[1.0], [2.0]]
    assert batch.feeds["K"].tolist() == [["x"], ["never"]]
    assert batch.feeds["I"].tolist() == [[2**53 + 1], [-4]]
    assert batch.categories == (("x",), ("never",))
    assert kept(batch)[1] == [2.0, -4.0]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"n": 1, "k": 3, "i": 1}, "feature 'k' is a int, expected text"),
        ({"n": 1, "k": None, "i": 1}, "feature 'k' is missing"),
        ({"n": 1, "k": "", "i": 1}, "feature 'k' is missing"),
        ({"n": 1, "k": math.nan, "i": 1}, "feature 'k' is missing"),
        ({"n": 1, "k": "x", "i": 1.5}, "feature 'i' is 1.5, which int64 cannot hold"),
        ({"n": 1, "k": "x", "i": 2.0**63}, "which int64 cannot hold"),
        ({"n": 1, "k": "x", "i": 2**63}, "which int64 cannot hold"),
        ({"n": 1, "k": "x", "i": 2**80}, "which int64 cannot hold"),
        ({"n": 1, "k": "x", "i": math.nan}, "feature 'i' is missing"),
    ],
)
def test_mixed_rows_that_do_not_fit(row: dict, says: str) -> None:
    with pytest.raises(InputFault) as caught:
        mixed().read(row)
    assert says in caught.value.what


def test_missing_text_is_empty_text_where_it_is_allowed() -> None:
    for value in (None, "", math.nan):
        batch = mixed("allow").read({"n": 1, "k": value, "i": 1})
        assert batch.feeds["K"].tolist() == [[""]]
        assert batch.categories == (("",),)


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("int8", [-128, 127, 0], [128, -129, 0.5]),
        ("uint8", [0, 255], [-1, 256, 1e9]),
        ("int32", [2**31 - 1, -(2**31)], [2**31, -(2**31) - 1]),
        ("uint64", [2**64 - 1, 0], [2**64, -1]),
        ("bool", [0, 1, True], [2, -1, 0.5]),
        ("float16", [65504, -65504], [65520, 1e6]),
    ],
)
def test_integers_keep_their_value_or_are_refused(dtype: str, good: list, bad: list) -> None:
    reader = Inputs(
        manifest(
            (Feature(name="v"),),
            (Tensor(name="V", dtype=dtype, shape=(None, 1), features=("v",)),),
        )
    )
    for value in good:
        assert reader.read({"v": value}).feeds["V"].item() == value
    for value in bad:
        with pytest.raises(InputFault, match="cannot hold"):
            reader.read({"v": value})


def test_whole_tensors_are_checked_by_name_type_and_shape() -> None:
    reader = image()
    batch = reader.read({"img": [[[1, 2], [3, 4]]]})
    assert batch.feeds["img"].dtype == np.uint8
    assert (batch.rows, batch.numbers) == (1, b"")
    for rows, says in [
        ({"img": np.zeros((1, 2, 3))}, "has shape"),
        ({"img": np.zeros((2, 2))}, "has shape"),
        ({"img": np.full((1, 2, 2), 256)}, "cannot"),
        ({"img": np.full((1, 2, 2), 0.5)}, "cannot"),
        ({"img": [[["a", "b"], ["c", "d"]]]}, "expected uint8"),
        ({"img": [[[1, 2], [3]]]}, "not a regular array"),
        ({"pic": np.zeros((1, 2, 2))}, "tensor 'img' is missing"),
        ({}, "tensor 'img' is missing"),
        (np.zeros((1, 2, 2)), "for a model of whole tensors"),
        ([[1]], "for a model of whole tensors"),
    ]:
        with pytest.raises(InputFault) as caught:
            reader.read(rows)
        assert says in caught.value.what


def test_a_tensor_that_cannot_hold_its_feature_is_refused_at_once() -> None:
    with pytest.raises(InputFault, match="is a category, its tensor 'X' holds float32"):
        Inputs(
            manifest(
                (Feature(name="a", type="category"),),
                (Tensor(name="X", dtype="float32", shape=(None, 1), features=("a",)),),
            )
        )


def test_rows_that_were_refused_are_counted_as_the_caller_meant_them() -> None:
    assert row_count({"a": 1}) == 1
    assert row_count([{}, {}]) == 2
    assert row_count([]) == 1
    assert row_count(3) == 1


def test_the_quick_path_agrees_with_the_slow_one_on_random_rows() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    values = [
        0, 1, -1, True, 1.5, 1e38, 3.4028234663852886e38, 3.5e38, 1e39, 1e308, 10**39, 10**309,
        math.nan, math.inf, None, "1", b"1", np.float32(1), np.int64(7), np.float64(1e300), [],
    ]  # fmt: skip
    reader = numbers()
    for _ in range(3000):
        row = {name: rng.choice(values) for name in NAMES}

        def outcome(rows, *, numbered: bool) -> object:
            try:
                batch = reader.read(rows)
            except InputFault as error:
                return error.what.removeprefix("row 0: ") if numbered else error.what
            return (batch.feeds["X"].tobytes(), batch.number_rows().tobytes())

        assert outcome(row, numbered=False) == outcome([row], numbered=True), row


def test_batches_cannot_be_altered() -> None:
    batch = numbers().read(GOOD)
    with pytest.raises(AttributeError):
        batch.rows = 2
    assert msgspec.structs.replace(batch, rows=1).rows == 1

"""A forest says what its original computes, and an inconsistent one does not exist."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_contract.errors import BuildFault
from edge_pack.trees import form
from edge_pack.trees.form import LEAF, LEQ, LT, MEMBER, Codes, Forest


def stump(**changes: Any) -> Forest:
    """``x0 <= 1`` to 10, else ``code(x1)`` in {0, 3} to 20, else 30; a second tree is a leaf."""
    plain: dict[str, Any] = {
        "width": 2,
        "roots": np.array([0, 5]),
        "column": np.array([0, -1, 1, -1, -1, -1]),
        "test": np.array([LEQ, LEAF, MEMBER, LEAF, LEAF, LEAF]),
        "cut": np.array([1.0, 0, 0, 0, 0, 0]),
        "yes": np.array([1, 1, 3, 3, 4, 5]),
        "no": np.array([2, 1, 4, 3, 4, 5]),
        "missing_yes": np.zeros(6, bool),
        "values": np.array([[0.0], [10], [0], [20], [30], [0.5]]),
        "target": np.zeros(2, np.int64),
        "outputs": 1,
        "base": np.array([100.0]),
        "member": np.array([-1, -1, 0, -1, -1, -1]),
        "cover": np.zeros(6),
        "sets": ((0, 3),),
        "codes": (Codes(1, ("a", "b"), text=True),),
    }
    return Forest(**{**plain, **changes})


def test_each_row_follows_its_nodes() -> None:
    codes = stump().codes[0].encode(np.array(["a", "a", "b", "never seen", None], dtype=object))
    assert codes.tolist() == [0, 0, 1, 2, 3]
    rows = np.column_stack([[1.0, 1.5, 2, np.nan, 2], codes])
    assert form.totals(stump(), rows)[:, 0].tolist() == [110.5, 120.5, 130.5, 130.5, 120.5]
    halved = form.totals(stump(divisor=2.0), rows)[:, 0]
    assert halved.tolist() == [105.25, 110.25, 115.25, 115.25, 110.25]


def test_a_combination_counts_through_its_parts() -> None:
    parts = (Codes(0, ("a", "b"), text=True), Codes(1, ("x",), text=True))
    both = Codes(1, (), text=True, parts=parts)
    values = np.array([["a", "x"], ["a", None], ["b", "x"], ["?", "?"], [None, ""]], dtype=object)
    assert both.size == 12
    assert both.encode(values).tolist() == [0, 2, 3, 7, 11]
    rows = np.column_stack([np.full(5, 2.0), both.encode(values)])
    found = form.totals(stump(codes=(both,)), rows)[:, 0]
    assert found.tolist() == [120.5, 130.5, 120.5, 130.5, 130.5]


def test_a_missing_number_goes_where_the_node_says() -> None:
    rows = np.array([[np.nan, 1.0]])
    assert form.totals(stump(missing_yes=np.ones(6, bool)), rows)[0, 0] == 110.5


@pytest.mark.parametrize(
    ("test", "value", "expected"),
    [(LEQ, 1.0, 110.5), (LT, 1.0, 130.5), (LT, np.nextafter(1.0, 0), 110.5)],
)
def test_a_cut_is_on_its_side(test: int, value: float, expected: float) -> None:
    forest = stump(test=np.array([test, LEAF, MEMBER, LEAF, LEAF, LEAF]))
    assert form.totals(forest, np.array([[value, 1.0]]))[0, 0] == expected


def test_float32_rounds_the_value_first() -> None:
    rows = np.array([[1 + 1e-9, 1.0]])
    assert form.totals(stump(), rows)[0, 0] == 130.5
    assert form.totals(stump(compares="float32"), rows)[0, 0] == 110.5


def test_a_tie_is_the_first_label_and_a_threshold_holds() -> None:
    two = stump(labels=("no", "yes"), base=np.array([-10.5]))
    rows = np.array([[0.0, 0], [2, 0]])
    assert form.winners(two, rows).tolist() == [0, 1]
    assert form.winners(replace(two, threshold=0.0), rows).tolist() == [1, 1]
    wide = stump(
        values=np.tile(stump().values, 2), outputs=2, base=np.zeros(2), labels=("no", "yes")
    )
    assert form.winners(wide, rows).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"yes": np.array([0, 1, 3, 3, 4, 5])}, "leads back"),
        ({"yes": np.array([5, 1, 3, 3, 4, 5])}, "out of its tree"),
        ({"no": np.array([1, 1, 4, 3, 4, 5])}, "no parent, or two"),
        ({"no": np.array([2, 2, 4, 3, 4, 5])}, "leaf leads on"),
        ({"roots": np.array([0, 0])}, "roots"),
        ({"column": np.array([7, -1, 1, -1, -1, -1])}, "out of range"),
        ({"cut": np.full(6, np.nan)}, "not a number"),
        ({"values": np.full((6, 1), np.inf)}, "not a number"),
        ({"cover": np.zeros(5)}, "length"),
        ({"target": np.array([0, 1])}, "no output"),
        ({"labels": ("a", "b", "c")}, "1 outputs for 3 labels"),
        ({"member": np.array([-1, -1, 4, -1, -1, -1])}, "set that is not there"),
        ({"codes": ()}, "codes"),
        ({"codes": (Codes(0, ("a",)), Codes(1, ("a",)))}, "codes"),
        ({"codes": (Codes(1, (), parts=(Codes(0, (1.0,)),)),)}, "columns of text"),
        ({"base": np.zeros(2)}, "values for 1 outputs"),
    ],
)
def test_an_inconsistent_forest_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BuildFault, match=said):
        stump(**changes)


def test_nobody_alters_a_forest() -> None:
    with pytest.raises(ValueError, match="read-only"):
        stump().cut[0] = 2.0

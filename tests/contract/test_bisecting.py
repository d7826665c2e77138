"""Counting by ``bisect`` and counting by numpy are one: each is the other's oracle."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import bisecting
from edge_contract import profile as profiles
from edge_contract.profile import Kind, Monitor

EDGES = st.lists(
    st.floats(-1e6, 1e6) | st.integers(-5, 5).map(float), min_size=2, max_size=12, unique=True
).map(sorted)


def near(edges: list[float]) -> st.SearchStrategy[float]:
    """Values on the edges, right beside them, anywhere, and none."""
    on = st.sampled_from(edges)
    beside = st.tuples(on, st.sampled_from([-1e-6, -1e-7, 1e-7, 1e-6, 1e-5, 0.25])).map(sum)
    step = st.tuples(on, st.sampled_from([-math.inf, math.inf])).map(lambda e: math.nextafter(*e))
    odd = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0])
    return on | beside | step | odd | st.floats()


@given(st.data(), EDGES, st.sampled_from(["quantile", "lattice"]))
def test_numbers(data: st.DataObject, edges: list[float], kind: Kind) -> None:
    if kind == "lattice":
        edges = edges[: data.draw(st.integers(1, len(edges)))]
    monitor = Monitor(name="x", kind=kind, edges=tuple(edges), counts=())
    values = data.draw(st.lists(near(edges), max_size=40))
    cell = bisecting.number_cell(monitor)
    with np.errstate(invalid="ignore", over="ignore"):
        bulk = profiles.count_numbers(monitor, np.array(values, dtype=np.float64))
    assert bisecting.count(monitor, [cell(value) for value in values]) == bulk.tolist()


@given(st.lists(st.sampled_from(["a", "b", "rare", "new", "", None]), max_size=30))
def test_categories(values: list[str | None]) -> None:
    monitor = Monitor(name="x", kind="category", categories=("a", "b"), others=("rare",), counts=())
    cell = bisecting.category_cell(monitor)
    bulk = profiles.count_categories(monitor, values)
    assert bisecting.count(monitor, [cell(value) for value in values]) == bulk.tolist()


@given(
    st.sampled_from([(0.0, 1.0), (0.0, 0.3, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0)]),
    st.lists(st.tuples(st.integers(-1, 3), near([0.0, 0.25, 0.3, 1.0])), max_size=30),
)
def test_scores(edges: tuple[float, ...], rows: list[tuple[int, float]]) -> None:
    monitor = Monitor(
        name="prediction", kind="score", source="output", edges=edges, labels=3, counts=()
    )
    cell = bisecting.score_cell(monitor)
    labels = np.array([label for label, _ in rows], dtype=np.int64)
    scores = np.array([score for _, score in rows], dtype=np.float64)
    bulk = profiles.count_scores(monitor, labels, scores)
    assert bisecting.count(monitor, [cell(*row) for row in rows]) == bulk.tolist()


def test_every_kind_has_its_way() -> None:
    assert set(get_args(Kind)) == {"quantile", "lattice", "category", "score"}

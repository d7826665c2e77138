"""No figure of fewer than k rows leaves, also not by subtraction; and all rows are still there."""

import numpy as np
import pytest
from fleet_kit import category, lattice, number, score
from hypothesis import given
from hypothesis import strategies as st

from edge_contract.errors import InputFault
from edge_contract.profile import Monitor
from edge_fleet import disclosure

_rng = np.random.default_rng(6)
NUMBER = number("t", _rng.normal(20, 2, 4000))
LATTICE = lattice("level", _rng.integers(0, 5, 4000).astype(np.float64))
COLOUR = category("colour", [str(c) for c in _rng.choice(list("abcdefgh"), 4000)])
SCORE = score(_rng.integers(0, 3, 4000), _rng.random(4000), 3)
MONITORS = (NUMBER, LATTICE, COLOUR, SCORE)


@st.composite
def counted(draw: st.DrawFn) -> tuple[Monitor, np.ndarray, int]:
    monitor = draw(st.sampled_from(MONITORS))
    cell = st.one_of(st.just(0), st.integers(0, 12), st.integers(0, 5000))
    counts = draw(st.lists(cell, min_size=monitor.cells, max_size=monitor.cells))
    return monitor, np.array(counts, dtype=np.int64), draw(st.integers(0, 40))


@given(counted())
def test_each_part_is_of_k_rows_or_none_and_together_they_are_all_cells_and_rows(
    case: tuple[Monitor, np.ndarray, int],
) -> None:
    monitor, counts, k = case
    found = disclosure.parts(monitor, counts, k)
    if 0 < counts.sum() < k:
        assert found == ()
        return
    assert sorted(cell for part in found for cell in part.cells) == list(range(monitor.cells))
    assert sum(part.rows for part in found) == counts.sum()  # nothing is left to subtract
    for part in found:
        assert part.rows == counts[list(part.cells)].sum()
        assert part.rows == 0 or part.rows >= k


@given(counted())
def test_what_is_computed_from_the_parts_knows_the_parts_alone(
    case: tuple[Monitor, np.ndarray, int],
) -> None:
    """Two worlds with equal parts are told as one, and telling it again tells no more."""
    monitor, counts, k = case
    told = disclosure.safe_counts(monitor, counts, k)
    found = disclosure.parts(monitor, counts, k)
    assert told.min() >= 0
    assert told.sum() == (counts.sum() if found else 0)
    for part in found:
        assert told[list(part.cells)].sum() == part.rows


@given(counted())
def test_cells_that_are_large_enough_stay_as_they_are(
    case: tuple[Monitor, np.ndarray, int],
) -> None:
    monitor, counts, k = case
    large = np.where(counts < k, 0, counts)
    found = disclosure.parts(monitor, large, k)
    assert all(len(part.cells) == 1 for part in found)
    assert (disclosure.safe_counts(monitor, large, k) == large).all()


def of(monitor: Monitor, **rows: int) -> np.ndarray:
    """Counts by the name of a regular or special cell."""
    names = [*(monitor.categories or map(str, range(monitor.regular))), *monitor.specials]
    counts = np.zeros(monitor.cells, dtype=np.int64)
    for name, many in rows.items():
        counts[names.index(name.lstrip("_"))] = many
    return counts


def test_bins_merge_with_the_smaller_neighbour_that_has_rows() -> None:
    counts = of(NUMBER, _3=50, _4=4, _5=20, _9=30)
    found = {part.cells: part.rows for part in disclosure.parts(NUMBER, counts, 10)}
    assert found[4, 5] == 24
    assert found[(3,)] == 50
    assert found[(9,)] == 30
    assert found[(6,)] == 0  # that nobody is there is told


def test_a_value_beyond_the_reference_is_a_neighbour_of_its_last_bin() -> None:
    last = NUMBER.regular - 1
    counts = of(NUMBER, **{f"_{last}": 15, "over": 3, "_0": 40})
    (part,) = [x for x in disclosure.parts(NUMBER, counts, 10) if x.rows == 18]
    assert part.cells == (last, NUMBER.regular + 1)
    assert disclosure.bounds(NUMBER, part) == (NUMBER.edges[last], None)


def test_a_lone_small_category_takes_the_next_smallest_with_it() -> None:
    """Were it withheld by itself, the total would give it back."""
    counts = of(COLOUR, a=100, b=3, c=40, d=60)
    found = disclosure.parts(COLOUR, counts, 10)
    merged = [part for part in found if len(part.cells) > 1]
    assert [part.rows for part in merged] == [43]
    assert {COLOUR.categories[cell] for cell in merged[0].cells if cell < COLOUR.regular} == {
        "b", "c",
    }  # fmt: skip


def test_a_label_of_few_rows_is_told_with_another_one() -> None:
    counts = np.zeros(SCORE.cells, dtype=np.int64)
    bins = len(SCORE.edges) - 1
    counts[[2, 3]] = 30, 4  # of the first label
    counts[[bins + 2, bins + 9]] = 2, 3  # of the second, 5 in all
    counts[2 * bins + 8] = 25  # of the third
    found = disclosure.parts(SCORE, counts, 10)
    assert sorted(part.rows for part in found if part.rows) == [30, 34]


def test_too_few_rows_are_not_told_at_all() -> None:
    counts = of(COLOUR, a=5, b=4)
    assert disclosure.parts(COLOUR, counts, 10) == ()
    assert disclosure.safe_counts(COLOUR, counts, 10).sum() == 0


def test_counts_of_another_profile_are_refused() -> None:
    with pytest.raises(InputFault, match="cells of 't'"):
        disclosure.parts(NUMBER, np.zeros(3, dtype=np.int64), 10)
    with pytest.raises(InputFault):
        disclosure.parts(LATTICE, np.full(LATTICE.cells, -1), 10)

"""Steps before the trees, folded into their tests: what is left asks raw columns only.

A scaler, an imputer or an encoder before the trees is arithmetic that a device would have to
repeat to the last bit. Instead each test is asked of raw values, and the fitted steps themselves
answer: a test of a number turns at one place, which is found by halving between float64 values
(``cuts.bisect``); a test of a category is the set of those categories for which it is true. So
the folded forest is exact without a formula of any step standing here.

Guards: it is folded only what ``trace`` follows and what turns once, shown on the given rows and
on both neighbours of every cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.intake import Rows
from edge_pack.trees import cuts
from edge_pack.trees.form import LEAF, LEQ, LT, MEMBER, Codes, Floats, Forest
from edge_pack.trees.prefix import Prefix, constant
from edge_pack.trees.read_sklearn import codes_of

UNSEEN = "\\x00edge-pack-unseen"
_MAGNITUDES = (float(np.finfo(np.float64).max), float(np.finfo(np.float32).max), 1e30)
_CELLS = 4_000_000
"""Bounds a table that the steps transform at once: 32 MB."""


def fold(forest: Forest, prefix: Prefix, rows: Rows) -> Forest | None:
    """The forest over raw columns; None where a step turns a test more than once,
    or the trees combine columns.

    Args:
        forest: over the columns behind the steps. rows: raw rows to show it on.
    """
    if any(codes.parts for codes in forest.codes):
        return None
    tests = _Tests.of(forest)
    categories = np.array([origin.known is not None for origin in prefix.origins], dtype=bool)
    if not len(tests.column):
        return replace(forest, width=len(prefix.columns))
    of_category = categories[tests.column]
    coded = np.isin(tests.column, [codes.column for codes in forest.codes]) & ~of_category
    numbers = _fold_numbers(prefix, tests.where(~of_category & ~coded), rows)
    members = _fold_categories(forest, prefix, tests.where(of_category))
    kept = _keep_codes(forest, prefix, tests.where(coded))
    if numbers is None or members is None or kept is None:
        return None
    return _rebuilt(forest, prefix, tests, numbers, members + kept)


@dataclass(frozen=True)
class _Tests:
    """The different tests of a forest.

    Attributes:
        node: int64 [nodes], the number of a node's test; -1 in leaves.
        rounds: a value is rounded to float32 before it is compared.
    """

    column: NDArray[np.int64]
    kind: NDArray[np.int64]
    cut: Floats
    member: NDArray[np.int64]
    missing: NDArray[np.bool_]
    number: NDArray[np.int64]
    node: NDArray[np.int64]
    rounds: bool

    @classmethod
    def of(cls, forest: Forest) -> _Tests:
        asks = np.flatnonzero(~forest.leaf)
        fields = [forest.column, forest.test, cuts.ordinal(forest.cut + 0.0), forest.member,
                  forest.missing_yes.astype(np.int64)]  # fmt: skip
        table = np.stack([field[asks] for field in fields], axis=1).reshape(-1, 5)
        unique, which = np.unique(table, axis=0, return_inverse=True)
        node = np.full(forest.nodes, -1, dtype=np.int64)
        node[asks] = which.ravel()
        rounds = forest.compares == "float32"
        return cls(unique[:, 0], unique[:, 1], cuts.value(unique[:, 2]), unique[:, 3],
                   unique[:, 4].astype(bool), np.arange(len(unique)), node, rounds)  # fmt: skip

    def where(self, chosen: NDArray[np.bool_]) -> _Tests:
        return _Tests(self.column[chosen], self.kind[chosen], self.cut[chosen],
                      self.member[chosen], self.missing[chosen], self.number[chosen],
                      self.node, self.rounds)  # fmt: skip

    def passes(self, found: Floats) -> NDArray[np.bool_]:
        """Whether a value behind the steps passes each test; NaN goes where the node says."""
        if self.rounds:
            with np.errstate(over="ignore"):
                found = found.astype(np.float32).astype(np.float64)
        passed = np.where(self.kind == LT, found < self.cut, found <= self.cut)
        return np.where(np.isnan(found), self.missing, passed)


@dataclass(frozen=True)
class _Numbers:
    """For tests of numbers: ``x <= cut`` passes, or fails where ``swapped``."""

    number: NDArray[np.int64]
    cut: Floats
    swapped: NDArray[np.bool_]
    missing: NDArray[np.bool_]


def _fold_numbers(prefix: Prefix, tests: _Tests, rows: Rows) -> _Numbers | None:
    if not len(tests.column):
        empty = np.zeros(0, dtype=bool)
        return _Numbers(tests.number, np.zeros(0), empty, empty)
    raw = np.array([prefix.origins[column].raw for column in tests.column])
    text = any(prefix.columns[i].text for i in np.unique(raw))
    ends = None if text else _ends(prefix, np.unique(raw))
    if ends is None:
        return None
    low, high = ends[0][raw], ends[1][raw]

    def passed(values: Floats) -> NDArray[np.bool_]:
        return tests.passes(_behind(prefix, raw, tests.column, values))

    at_low, at_high = passed(low), passed(high)
    swapped = at_high & ~at_low
    turns = at_low != at_high
    first = cuts.bisect(lambda values: ~turns | (passed(values) == at_high), low, high)
    cut = np.where(turns, np.nextafter(first, -np.inf), np.where(at_low, np.inf, -np.inf))
    try:
        missing = passed(np.full(len(raw), np.nan))
    except ValueError:  # the steps refuse missing values, and so does the original
        missing = np.zeros(len(raw), dtype=bool)
    found = _Numbers(tests.number, cut, swapped, missing)
    return found if _turns_once(prefix, tests, found, rows) else None


def _behind(
    prefix: Prefix, raw: NDArray[np.int64], column: NDArray[np.int64], values: Floats
) -> Floats:
    """What the steps make of one value of each test's raw column, in the test's column."""
    order = np.argsort(raw, kind="stable")
    starts = np.searchsorted(raw[order], raw[order])
    slot = np.empty(len(raw), dtype=np.int64)
    slot[order] = np.arange(len(raw)) - starts
    used = np.unique(raw)
    step = max(1, _CELLS // max(len(prefix.columns), len(prefix.origins)))
    found = np.empty(len(raw))
    for begin in range(0, int(slot.max()) + 1, step):
        here = (slot >= begin) & (slot < begin + step)
        count = int(slot[here].max()) - begin + 1
        given = {int(i): constant(prefix.typical[i], count) for i in used}
        for i in used:
            chosen = here & (raw == i)
            given[int(i)][slot[chosen] - begin] = values[chosen]
        found[here] = prefix.ask(given)[slot[here] - begin, column[here]]
    return found


def _ends(prefix: Prefix, used: NDArray[np.int64]) -> tuple[Floats, Floats] | None:
    """The least and the largest value of each raw column that the steps take at all."""
    for magnitude in _MAGNITUDES:
        ends = []
        for edge in (-magnitude, magnitude):
            found = _edge(prefix, used, edge)
            if found is None:
                break
            ends.append(found)
        if len(ends) == 2:
            return ends[0], ends[1]
    return None


def _edge(prefix: Prefix, used: NDArray[np.int64], edge: float) -> Floats | None:
    columns = len(prefix.columns)
    found = np.array([0.0 if isinstance(t, str) else t for t in prefix.typical])
    typical = found.copy()

    def taken(values: Floats) -> NDArray[np.bool_]:
        behind = prefix.ask({int(i): values[i : i + 1] for i in used})[0]
        taken = np.ones(columns, dtype=bool)
        for column, origin in enumerate(prefix.origins):
            taken[origin.raw] &= not np.isnan(behind[column])
        return taken

    found[used] = edge
    try:
        if taken(found).all():
            return found
        # Where a step has no answer out there, such as a logarithm, go as far as it has one.
        if edge > 0:
            mirrored = cuts.bisect(lambda v: taken(-v), -found, -typical)
            return np.where(taken(found), found, -mirrored)
        return np.where(taken(found), found, cuts.bisect(taken, found, typical))
    except ValueError:
        return None


def _turns_once(prefix: Prefix, tests: _Tests, folded: _Numbers, rows: Rows) -> bool:
    """Whether each folded test agrees with the steps on every given value and beside every cut."""
    raw = np.array([prefix.origins[column].raw for column in tests.column])
    grids: list[tuple[int, int, Floats]] = []
    for i in np.unique(raw):
        near = folded.cut[raw == i]
        near = near[np.isfinite(near)]
        seen = rows.columns[prefix.columns[i].name]
        seen = seen[np.isfinite(seen)]
        grid = np.unique(np.concatenate([seen, near, np.nextafter(near, np.inf)]))
        grids += [(i, j, grid) for j in np.unique(tests.column[raw == i])]
    sizes = [len(grid) for _, _, grid in grids]
    behind = _behind(
        prefix,
        np.repeat([i for i, _, _ in grids], sizes),
        np.repeat([j for _, j, _ in grids], sizes),
        np.concatenate([grid for _, _, grid in grids]),
    )
    if np.isnan(behind).any():  # a present value that the steps make missing
        return False
    parts = np.split(behind, np.cumsum(sizes)[:-1])
    for (_, j, grid), found in zip(grids, parts, strict=True):
        here = tests.column == j
        cut, swapped = folded.cut[here], folded.swapped[here]
        if not _agrees(tests.where(here), cut, swapped, grid, found):
            return False
    return True


def _agrees(
    tests: _Tests, cut: Floats, swapped: NDArray[np.bool_], grid: Floats, found: Floats
) -> bool:
    """One column: the extremes on both sides of each cut tell about all values there."""
    below = np.searchsorted(grid, cut, side="right")
    none, lots = np.array([-np.inf]), np.array([np.inf])
    most = np.fmax.accumulate(np.concatenate([none, found]))[below]
    least = np.fmin.accumulate(np.concatenate([lots, found]))[below]
    most_above = np.fmax.accumulate(np.concatenate([none, found[::-1]]))[::-1][below]
    least_above = np.fmin.accumulate(np.concatenate([lots, found[::-1]]))[::-1][below]
    passing = np.where(swapped, most_above, most)
    failing = np.where(swapped, least, least_above)
    none_passing = np.where(swapped, below == len(grid), below == 0)
    none_failing = np.where(swapped, below == 0, below == len(grid))
    return bool(
        (none_passing | tests.passes(passing)).all()
        and (none_failing | ~tests.passes(failing)).all()
    )


@dataclass(frozen=True)
class _Members:
    """For tests of one raw column's categories: the set of codes that passes each."""

    codes: Codes
    number: NDArray[np.int64]
    sets: tuple[tuple[int, ...], ...]


def _fold_categories(forest: Forest, prefix: Prefix, tests: _Tests) -> list[_Members] | None:
    found = []
    raw = np.array([prefix.origins[column].raw for column in tests.column], dtype=np.int64)
    for i in np.unique(raw):
        mine = tests.where(raw == i)
        encoded = [o.known for o in prefix.origins if o.raw == i and o.known is not None]
        known = dict.fromkeys(item for each in encoded for item in each)
        codes = codes_of(int(i), np.array([*known], dtype=object))
        if codes.text != prefix.columns[i].text:
            return None
        behind = _categories(prefix, int(i), codes)
        passed = np.stack([_code_passes(forest, mine, row) for row in behind], axis=1)
        found.append(_Members(codes, mine.number, _as_sets(passed)))
    return found


def _as_sets(passed: NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in passed)


def _categories(prefix: Prefix, raw: int, codes: Codes) -> list[Floats]:
    """What the steps make of each category, of an unknown one and of a missing one.

    Where the steps refuse one of the last two, the original refuses such rows, and the answer
    does not matter.
    """
    kind = object if codes.text else np.float64
    found = list(prefix.ask({raw: np.array(codes.known, dtype=kind)})) if codes.known else []
    unseen = UNSEEN if codes.text else max((0.0, *map(float, codes.known))) + 1.5
    for value in (unseen, np.nan):
        try:
            found.append(prefix.ask({raw: np.array([value], dtype=kind)})[0])
        except (ValueError, TypeError):
            found.append(np.full(len(prefix.origins), np.nan))
    return found


def _code_passes(forest: Forest, tests: _Tests, behind: Floats) -> NDArray[np.bool_]:
    """Which tests the columns of one category pass; it may be coded once more behind."""
    passed = tests.passes(behind[tests.column])
    for codes in forest.codes:
        here = np.flatnonzero((tests.kind == MEMBER) & (tests.column == codes.column))
        code = int(codes.encode(behind[[codes.column]])[0]) if len(here) else 0
        for test in here:
            passed[test] = code in forest.sets[tests.member[test]]
    return passed


def _keep_codes(forest: Forest, prefix: Prefix, tests: _Tests) -> list[_Members] | None:
    """Categories of the trees' own that the steps pass on as they are."""
    found = []
    for codes in forest.codes:
        mine = tests.where(tests.column == codes.column)
        origin = prefix.origins[codes.column]
        if not len(mine.number):
            continue
        if not origin.plain or codes.text != prefix.columns[origin.raw].text:
            return None
        sets = []
        missing = codes.missing
        if not codes.text:  # an imputer on the way may know better
            behind = prefix.ask({origin.raw: np.array([np.nan])})[:, codes.column]
            missing = int(codes.encode(behind)[0])
        for member in mine.member:
            inside = set(forest.sets[member])
            stays = inside - {codes.missing}
            sets.append(tuple(sorted(stays | ({codes.missing} if missing in inside else set()))))
        found.append(_Members(replace(codes, column=origin.raw), mine.number, tuple(sets)))
    return found


def _rebuilt(
    forest: Forest, prefix: Prefix, tests: _Tests, numbers: _Numbers, members: list[_Members]
) -> Forest:
    """The forest with every test replaced."""
    count = len(tests.number)
    column = np.array([prefix.origins[each].raw for each in tests.column], dtype=np.int64)
    cut, swapped, missing = np.zeros(count), np.zeros(count, bool), np.zeros(count, bool)
    member = np.full(count, -1, dtype=np.int64)
    cut[numbers.number], swapped[numbers.number] = numbers.cut, numbers.swapped
    missing[numbers.number] = numbers.missing
    plain = set(column[numbers.number].tolist())
    width, codes = len(prefix.columns), []
    sets: dict[tuple[int, ...], int] = {}
    for each in members:
        placed = each.codes
        if placed.column in plain:  # also compared with cuts, or coded twice: a column of its own
            placed = replace(placed, column=width, source=placed.raw)
            width += 1
        plain.add(placed.column)
        codes.append(placed)
        column[each.number] = placed.column
        member[each.number] = [sets.setdefault(one, len(sets)) for one in each.sets]
    asks = ~forest.leaf
    pick = tests.node[asks]

    def of_nodes(values: NDArray[Any], leaf: Any) -> NDArray[Any]:
        full = np.full(forest.nodes, leaf, dtype=values.dtype)
        full[asks] = values[pick]
        return full

    swap = of_nodes(swapped, False)
    return replace(
        forest,
        width=width,
        column=of_nodes(column, -1),
        test=of_nodes(np.where(member >= 0, MEMBER, LEQ), LEAF),
        cut=of_nodes(cut, 0.0),
        yes=np.where(swap, forest.no, forest.yes),
        no=np.where(swap, forest.yes, forest.no),
        missing_yes=of_nodes(missing, False) ^ swap,
        member=of_nodes(member, -1),
        sets=tuple(sets),
        codes=tuple(codes),
        compares="float64",
    )

"""The manifest's metrics: of all rows, of each slice, and between slices. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_contract.manifest import Metric, Slice, Task
from edge_pack.answers import Answers
from edge_pack.gates import clusters, disparity, resample
from edge_pack.gates.case import Case, case_of
from edge_pack.gates.measures import FLAGGED, LEADING, SILHOUETTE, Measure, measures
from edge_pack.gates.slices import Group
from edge_pack.intake import Rows

END_DIGITS = 4
"""Digits of an interval's end: its Monte-Carlo error is in the second or third."""


@dataclass(frozen=True)
class Sides:
    """What the original and the bundle said of the same given rows."""

    task: Task
    labels: int
    original: Answers
    bundle: Answers


def of_rows(
    sides: Sides,
    truth: NDArray[np.float64] | None,
    rows: Rows,
    groups: Sequence[Group],
    demanded: Collection[str] = (),
) -> tuple[Metric, ...]:
    """Every figure that the rows define, those of all rows first.

    Args:
        truth: [rows] as ``truth.read`` gives it, or None; rows whose truth is NaN are left out.
        groups: slices, one column after the other. demanded: figures to tell of them beyond
            the leading ones.

    Raises MachineFault when there are groups and fairlearn is not installed.
    """
    found: list[Metric] = []
    known = np.flatnonzero(np.isfinite(truth)) if truth is not None else np.empty(0, np.int64)
    if truth is not None and known.size and measures(sides.task):
        found += _judged(sides, truth[known], known, groups, demanded)
    if sides.task == "outliers":
        found += _flagged(sides, groups)
    if sides.task == "clustering":
        found += _silhouette(sides, rows)
    return tuple(found)


def _judged(
    sides: Sides,
    truth: NDArray[np.float64],
    known: NDArray[np.int64],
    groups: Sequence[Group],
    demanded: Collection[str],
) -> list[Metric]:
    wanted = measures(sides.task)
    told = {*LEADING[sides.task], *demanded}
    before, after = (
        case_of(sides.task, answers.take(known), truth, sides.labels)
        for answers in (sides.original, sides.bundle)
    )
    placed = [
        Group(group.slice, np.flatnonzero(np.isin(known, group.rows, assume_unique=True)))
        for group in groups
    ]
    few = [measure for measure in wanted if measure.name in told]
    return _of_cases(wanted, before, after, "") + _of_groups(few, before, after, placed)


def _flagged(sides: Sides, groups: Sequence[Group]) -> list[Metric]:
    before, after = (
        case_of(sides.task, answers, np.zeros(answers.rows), sides.labels)
        for answers in (sides.original, sides.bundle)
    )
    whole = _of_cases((FLAGGED,), before, after, "")
    return whole + _of_groups((FLAGGED,), before, after, groups)


def _silhouette(sides: Sides, rows: Rows) -> list[Metric]:
    where, matrix = clusters.points(rows)
    assert sides.original.labels is not None and sides.bundle.labels is not None
    before = clusters.silhouettes(matrix, sides.original.labels[where])
    after = clusters.silhouettes(matrix, sides.bundle.labels[where])
    if before is None or after is None:
        return []
    return _of_cases((SILHOUETTE,), before, after, "")


def _of_groups(
    wanted: Sequence[Measure], before: Case, after: Case, groups: Sequence[Group]
) -> list[Metric]:
    found: list[Metric] = []
    for group in groups:
        if len(group.rows):
            parts = before.take(group.rows), after.take(group.rows)
            found += _of_cases(wanted, *parts, group.slice.name)
    for column in dict.fromkeys(group.slice.column for group in groups):
        mine = [group for group in groups if group.slice.column == column]
        found += disparity.between(wanted, before, after, mine)
    return found


def _of_cases(wanted: Sequence[Measure], before: Case, after: Case, name: str) -> list[Metric]:
    resamples = resample.draw(after.rows)
    found = []
    for measure in wanted:
        old, new = measure.of(before), measure.of(after)
        if old is None or new is None:
            continue
        ends = resample.interval(
            measure.resampled(after, resamples), new, pivot=measure.pivot, span=measure.span
        )
        low, high = (None, None) if ends is None else ends
        found.append(
            Metric(
                name=measure.name,
                original=measure.short(old),
                bundle=measure.short(new),
                low=None if low is None else measure.short(low, END_DIGITS),
                high=None if high is None else measure.short(high, END_DIGITS),
                slice=name,
            )
        )
    return found


def slices(groups: Sequence[Group]) -> tuple[Slice, ...]:
    """The manifest's entries of the groups."""
    return tuple(group.slice for group in groups)

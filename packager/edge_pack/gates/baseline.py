"""This bundle against an older one on the same rows: what got better, and what broke.

A regression is a row that the older bundle got right and this one gets wrong (a "negative flip",
Yan et al. 2021, Positive-Congruent Training): a model that is better on the whole can still break
what its users relied on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edge_agent.runtime import Session
from edge_contract.bundle import Bundle
from edge_contract.errors import EdgeError, InputFault
from edge_contract.manifest import MODEL_FILE, Baseline, Change, Label, Task
from edge_pack import inference, intake, reading
from edge_pack.answers import Answers, label_indices
from edge_pack.gates import resample
from edge_pack.gates.case import Case, case_of
from edge_pack.gates.measures import measures
from edge_pack.originals import missing
from edge_pack.tables import Table

_INFINITE = (-np.inf, np.inf)
_ORDERLESS = ("accuracy", "balanced_accuracy")
"""Figures that mean the same whatever labels a model has, and in whatever order."""


@dataclass(frozen=True)
class Older:
    """An older bundle's answers. ``rows``: positions of the rows that it answers at all."""

    bundle: Bundle
    rows: NDArray[np.int64]
    answers: Answers

    @property
    def labels(self) -> tuple[Label, ...]:
        """Its labels, in its order."""
        return self.bundle.manifest.outputs.labels


def ask(path: Path, table: Table, task: Task) -> Older:
    """What the bundle in ``path`` says of the table's rows, by its own features' names.

    Raises InputFault when it does not open, has another task, or the table lacks a feature.
    """
    try:
        bundle = reading.open_bundle(path)
        manifest = bundle.manifest
        if manifest.task != task:
            raise InputFault(f"it is of the task {manifest.task}, the model here of {task}")
        takes = reading.intake_of(manifest, table)
        rows = intake.read_rows(takes, table)
        lacking = np.zeros(rows.count, dtype=bool)
        for feature in manifest.features:
            if feature.missing == "refuse":
                lacking |= missing(rows.columns[feature.name])
        answered = np.flatnonzero(~lacking)
        if not len(answered):
            raise InputFault("it answers none of the rows: each lacks a value that it needs")
        session = Session(bundle.file(MODEL_FILE))
        asked = rows.take(answered) if lacking.any() else rows
        answers = inference.answer(session, takes, manifest.features, asked, manifest.outputs)
    except EdgeError as error:
        raise InputFault(f"--baseline {path}: {error.what}", advice=error.advice) from error
    return Older(bundle, answered, answers)


def compare(
    older: Older,
    answers: Answers,
    task: Task,
    labels: tuple[Label, ...],
    truths: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
) -> Baseline:
    """The comparison.

    Args:
        answers: of this bundle to all given rows. labels: its labels.
        truths: the truth of all given rows in the older bundle's labels and in this one's.
    """
    now, before = answers.take(older.rows), older.answers
    manifest = older.bundle.manifest
    changed = 0
    if now.labels is not None and before.labels is not None:
        changed = int(
            np.count_nonzero(translate(before.labels, older.labels, labels) != now.labels)
        )
    found = Baseline(
        digest=older.bundle.digest,
        name=manifest.name,
        version=manifest.version,
        rows=len(older.rows),
        changed=changed,
    )
    if truths is None or not measures(task):
        return found
    known = np.flatnonzero(np.isfinite(truths[1][older.rows]))
    if not len(known):
        return found
    old, new = (
        case_of(task, said.take(known), truth[older.rows][known], len(names))
        for said, truth, names in (
            (before, truths[0], older.labels),
            (now, truths[1], labels),
        )
    )
    regressions, fixed = _flips(old, new)
    return replace(
        found,
        judged=len(known),
        regressions=regressions,
        fixed=fixed,
        metrics=_changes(task, old, new, same_labels=older.labels == labels),
    )


def translate(
    said: NDArray[np.int64], old: tuple[Label, ...], new: tuple[Label, ...]
) -> NDArray[np.int64]:
    """Old label indices as new ones; -2 for a label that the new model does not have."""
    if not old:
        return said
    names = np.empty(len(old), dtype=object)
    names[:] = old
    where = label_indices(names, new)
    where[where < 0] = -2
    return np.where(said < 0, -1, where[np.maximum(said, 0)])


def _flips(old: Case, new: Case) -> tuple[int, int]:
    """Rows right before and wrong now, and the reverse; 0 for a task without labels."""
    if old.said is None or new.said is None:
        return 0, 0
    before, after = old.said == old.truth, new.said == new.truth
    return int(np.count_nonzero(before & ~after)), int(np.count_nonzero(~before & after))


def _changes(task: Task, old: Case, new: Case, *, same_labels: bool) -> tuple[Change, ...]:
    """Every figure that means the same of both, with the paired interval of its difference."""
    resamples = resample.draw(new.rows)
    changes = []
    for measure in measures(task):
        before, after = measure.of(old), measure.of(new)
        comparable = same_labels or measure.name in _ORDERLESS
        if before is None or after is None or not comparable:
            continue
        ends = None
        if measure.paired:
            apart = measure.resampled(new, resamples) - measure.resampled(old, resamples)
            ends = resample.interval(apart, after - before, span=_INFINITE)
        changes.append(
            Change(
                name=measure.name,
                before=measure.short(before),
                after=measure.short(after),
                low=None if ends is None else measure.short(ends[0], 4),
                high=None if ends is None else measure.short(ends[1], 4),
            )
        )
    return tuple(changes)

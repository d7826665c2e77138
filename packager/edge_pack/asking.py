"""Asks the original model about the rows, and turns it into ONNX: the two sides of parity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from edge_agent.runtime import Session
from edge_contract.errors import InputFault
from edge_contract.manifest import MANIFEST_MAX_BYTES, Feature, Label
from edge_pack import describe, inference, intake, parity, probes
from edge_pack.answers import Answers
from edge_pack.config import BuildConfig
from edge_pack.intake import Intake, Rows
from edge_pack.subject import Converted, Original, Subject
from edge_pack.tables import Table

Ask = Callable[[Rows], Answers]
_OFFSETS = (
    "Most often values with a large offset at fine resolution do not survive float32: subtract "
    "the offset before the model, and train on the difference."
)


def _far(feature: Feature) -> bool:
    """Whether a number's middle is 10,000 of its steps away from 0; 10 ranges without steps."""
    low, high = feature.minimum, feature.maximum
    if low is None or high is None:
        return False
    step = feature.resolution or (high - low) / 1000
    return abs(low + high) / 2 > 1e4 * step


@dataclass(frozen=True)
class Asked:
    """The original's answers: first to the ``given`` rows of the data, then to probes of ours.

    Attributes:
        rows: given rows and probes. answers: to all of them.
        converted: set by ``to_onnx``.
    """

    source: Subject
    table: Table
    intake: Intake
    features: tuple[Feature, ...]
    rows: Rows
    given: int
    answers: Answers
    original: Original
    converted: Converted | None = None

    @property
    def data(self) -> Rows:
        """The rows that the user gave."""
        if not self.intake.columns:
            return self.rows
        return self.rows.take(np.arange(self.given))

    @property
    def onnx(self) -> Converted:
        """The converted model; only after ``to_onnx``."""
        assert self.converted is not None
        return self.converted

    @property
    def hint(self) -> str:
        """What the original's steps or the data suggest to do if parity fails, or ""."""
        return self.source.hint or (_OFFSETS if any(map(_far, self.features)) else "")

    def model_answers(self, session: Session) -> Answers:
        """What a loaded model says to all rows."""
        return inference.answer(session, self.intake, self.features, self.rows, self.onnx.outputs)


def ask(
    source: Subject,
    table: Table,
    config: BuildConfig,
    look: Callable[[Intake, Rows], None] = lambda _takes, _given: None,
) -> Asked:
    """The original's answers to the table's rows and to probes drawn from them.

    Args:
        look: shown the rows before the model is asked; may raise.

    Raises InputFault when the data does not fit the model or the model refuses it.
    """
    takes = source.plan(table, config.target, config.time_column)
    given = intake.read_rows(takes, table)
    features = describe.features(takes, given, table.facts if table.part else {})
    _check_room(features)
    look(takes, given)
    original = source.original(takes, given)
    answers = original.answer(given)
    inference.check_finite(answers)
    free = [column.name for column in takes.columns if column.free]
    rows, answers = _with_probes(given, free, answers, original.answer)
    _check_labels(answers, original.labels)
    _check_steady(takes, given, original.answer)
    return Asked(source, table, takes, features, rows, given.count, answers, original)


def _check_room(features: Sequence[Feature]) -> None:
    """Say before the work that the manifest could not hold the features."""
    size = len(msgspec.json.encode(features))
    if size > MANIFEST_MAX_BYTES:
        raise InputFault(
            f"{len(features)} features take {size} bytes of the manifest, whose limit is "
            f"{MANIFEST_MAX_BYTES}",
            advice="Shorten the names and the lists of categories, or have fewer features: "
            "combine or select them before the model, and train on those.",
        )


_STEADY_ROWS = 8
_STEADY = 1e-4
"""Threads that add up in another order stay far below it."""


def _check_steady(takes: Intake, given: Rows, answer: Ask) -> None:
    """Say that the original answers the same rows otherwise when it is asked again."""
    few = given
    if takes.batch != "whole":
        few = given.take(np.arange(min(_STEADY_ROWS, given.count)))
    again = parity.compare(answer(few), answer(few))
    if again.flips or again.diff_max > _STEADY:
        raise InputFault(
            "the original model answers the same rows differently when it is asked twice",
            advice="It draws random numbers or keeps something from call to call: switch dropout "
            "off when it predicts, and let it answer from its inputs alone.",
        )


def _check_labels(answers: Answers, labels: Sequence[Label]) -> None:
    """Say that the labels read off the model are not all that it answers."""
    if answers.labels is None or (answers.labels >= 0).all():
        return
    known = ", ".join(map(str, labels[:8])) + (", ..." if len(labels) > 8 else "")
    raise InputFault(
        f"the model answers a label that is none of {known}",
        advice="Name its labels in the order of the score columns: --task classification "
        "--labels A,B,... ; or export it without the output that holds the label.",
    )


def _with_probes(
    given: Rows, free: Sequence[str], answers: Answers, answer: Ask
) -> tuple[Rows, Answers]:
    """The given rows and those probes that the original answers at all."""
    rows = given
    for more in (probes.draw(given), probes.unseen(given), probes.texts(given, free)):
        if not more.count:
            continue
        try:
            found = answer(more)
            inference.check_finite(found)
        except InputFault:
            continue  # the original refuses such rows, so there is nothing to compare with
        rows = probes.join(rows, more)
        answers = answers.followed_by(found)
    return rows, answers


def to_onnx(asked: Asked, config: BuildConfig) -> Asked:
    """The same with the ONNX model, and without the columns that it does not read.

    Raises BuildFault when a step does not convert.
    """
    found = asked.source.convert(
        asked.original, asked.intake, asked.data, asked.features, config.runtime
    )
    takes = asked.intake
    if found.tensors is not None:
        takes = replace(takes, tensors=found.tensors)
    takes = takes.keep({value.name for value in found.proto.graph.input})
    names = {column.name for column in takes.features}
    features = tuple(feature for feature in asked.features if feature.name in names)
    return replace(asked, intake=takes, features=features, converted=found)

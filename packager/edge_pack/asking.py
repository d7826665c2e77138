"""Asks the original model about the rows, and turns it into ONNX: the two sides of parity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edge_agent.runtime import Session
from edge_contract.errors import InputFault
from edge_contract.manifest import Feature
from edge_pack import convert, describe, graphs, inference, intake, originals, probes
from edge_pack.answers import Answers
from edge_pack.config import BuildConfig
from edge_pack.convert import Converted
from edge_pack.intake import Intake, Rows
from edge_pack.originals import Original
from edge_pack.sources import Estimator, Graph, Source
from edge_pack.steps import float32_hint
from edge_pack.tables import Table

Ask = Callable[[Rows], Answers]


@dataclass(frozen=True)
class Asked:
    """The original's answers: first to the ``given`` rows of the data, then to probes of ours.

    Attributes:
        rows: given rows and probes. answers: to all of them.
        original: the estimator; None for an ONNX file, which is its own original.
        converted: set by ``to_onnx``.
    """

    source: Source
    table: Table
    intake: Intake
    features: tuple[Feature, ...]
    rows: Rows
    given: int
    answers: Answers
    original: Original | None
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
        """What the original's steps suggest to do if parity fails, or ""."""
        return float32_hint(self.original.model) if self.original is not None else ""

    def model_answers(self, session: Session) -> Answers:
        """What a loaded model says to all rows."""
        return inference.answer(session, self.intake, self.features, self.rows, self.onnx.outputs)


def ask(source: Source, table: Table, config: BuildConfig) -> Asked:
    """The original's answers to the table's rows and to probes drawn from them.

    Raises InputFault when the data does not fit the model or the model refuses it.
    """
    takes = intake.plan(source, table, config.target, config.time_column)
    given = intake.read_rows(takes, table)
    features = describe.features(takes, given)
    if isinstance(source, Estimator):
        return _ask_estimator(source, table, takes, features, given)
    return _ask_graph(source, table, takes, features, given, floor=config.runtime)


def _ask_estimator(
    source: Estimator, table: Table, takes: Intake, features: tuple[Feature, ...], given: Rows
) -> Asked:
    text = any(column.text for column in takes.columns)
    original = originals.of_estimator(source.model, text=text)
    answers = original.answer(given)
    if original.task == "regression" and answers.values is not None and answers.values.shape[1] > 1:
        original = replace(original, task="tensors")
    inference.check_finite(answers)
    rows, answers = _with_probes(given, answers, original.answer)
    return Asked(source, table, takes, features, rows, given.count, answers, original)


def _ask_graph(
    source: Graph,
    table: Table,
    takes: Intake,
    features: tuple[Feature, ...],
    given: Rows,
    *,
    floor: str,
) -> Asked:
    converted = convert.from_graph(source, floor)
    session = Session(graphs.serialise(convert.as_given(source)))

    def answer(rows: Rows) -> Answers:
        return inference.answer(session, takes, features, rows, converted.outputs)

    answers = answer(given)
    inference.check_finite(answers)
    rows, answers = _with_probes(given, answers, answer)
    return Asked(
        source, table, takes, features, rows, given.count, answers, None, converted
    )  # fmt: skip


def _with_probes(given: Rows, answers: Answers, answer: Ask) -> tuple[Rows, Answers]:
    """The given rows and those probes that the original answers at all."""
    rows = given
    for more in (probes.draw(given), probes.unseen(given)):
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
    converted = asked.converted
    if converted is None:
        assert asked.original is not None
        converted = convert.from_estimator(asked.original, asked.intake, config.runtime)
    takes = asked.intake.keep({value.name for value in converted.proto.graph.input})
    names = {column.name for column in takes.features}
    features = tuple(feature for feature in asked.features if feature.name in names)
    return replace(asked, intake=takes, features=features, converted=converted)

"""Asks an ONNX model for answers through the agent's own code: the code that will run it.

Guards: raw rows become tensors by the very functions that the agent uses, so what parity and the
golden samples show here is what a device does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent import columns as agent_columns
from edge_agent.runtime import Session
from edge_contract.errors import BuildFault, InputFault
from edge_contract.manifest import Feature, Outputs
from edge_pack.answers import Answers, of_tensors
from edge_pack.intake import Intake, Rows

CHUNK_ROWS = 4096
"""Bounds what the intermediate tensors of one run take."""

Tensors = dict[str, NDArray[Any]]


def feeds_of(intake: Intake, features: Sequence[Feature], rows: Rows) -> Tensors:
    """The input tensors for rows, made as the agent makes them.

    Raises InputFault for a value that its tensor cannot hold.
    """
    if not intake.columns:
        return {t.name: agent_columns.whole(t, rows.tensors[t.name]) for t in intake.tensors}
    ready = {
        feature.name: agent_columns.read(feature, rows.columns[feature.name], numbered=True)
        for feature in features
    }
    return {
        tensor.name: agent_columns.fill(tensor, ready, rows.count, numbered=True)
        for tensor in intake.tensors
    }


def run(session: Session, intake: Intake, features: Sequence[Feature], rows: Rows) -> Tensors:
    """The output tensors for all rows, run in chunks where the model has a row axis."""
    if intake.batch == "whole":
        return session.run(feeds_of(intake, features, rows))
    step = 1 if intake.batch == "single" else CHUNK_ROWS
    parts: list[Tensors] = []
    for start in range(0, rows.count, step):
        chunk = rows.take(np.arange(start, min(start + step, rows.count)))
        parts.append(session.run(feeds_of(intake, features, chunk)))
    return {name: _joined(name, [part[name] for part in parts]) for name in parts[0]}


def _joined(name: str, parts: list[NDArray[Any]]) -> NDArray[Any]:
    try:
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
    except ValueError as error:
        raise BuildFault(
            f"output {name!r} has no row axis that would match the input's: {error}",
            advice="Give the data as one sample.",
        ) from error


def answer(
    session: Session, intake: Intake, features: Sequence[Feature], rows: Rows, outputs: Outputs
) -> Answers:
    """The model's answers to raw rows."""
    found = of_tensors(run(session, intake, features, rows), outputs)
    if found.rows != rows.count and intake.batch != "whole" and intake.columns:
        raise BuildFault(
            f"the model answers {found.rows} rows for {rows.count}",
            advice="Export it with the same dynamic first axis on inputs and outputs.",
        )
    return found


def check_finite(answers: Answers) -> None:
    """Raise InputFault when the original model answers NaN or infinity: no device may."""
    for part in (answers.scores, answers.values):
        if part is None or np.isfinite(part).all():
            continue
        row = int(np.flatnonzero(~np.isfinite(part).all(axis=1))[0])
        raise InputFault(
            f"the original model answers {part[row][~np.isfinite(part[row])][0]} for row {row + 1}",
            advice="If values are missing in that row, fill them in or drop it.",
        )

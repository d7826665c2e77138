"""A file of rows in, a file of answers out: one answer a row, in order.

Guards: every row is answered or refused, and its refusal names its line; what is written is
complete or not there; memory does not grow with the file.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TextIO

import msgspec

from edge_agent.doors import plain
from edge_agent.doors.rows import Block
from edge_agent.outputs import Prediction, listed
from edge_contract.errors import EdgeError, InputFault
from edge_contract.manifest import Manifest

_encode = msgspec.json.Encoder().encode


class Answered(NamedTuple):
    """One row's answer, or why it has none.

    Attributes:
        place: its line or number; see ``Block``.
    """

    place: int
    found: Prediction | EdgeError


def answers(predict: Callable[[Any], Any], blocks: Iterator[Block]) -> Iterator[Answered]:
    """The answer of each row, in order.

    A block with a row that does not fit is asked for again row by row: only that row is refused.
    """
    for block in blocks:
        found = _block(predict, block) if block.places else []
        refused = [Answered(place, fault) for place, fault in block.faults.items()]
        yield from sorted([*found, *refused], key=lambda each: each.place) if refused else found


def _block(predict: Callable[[Any], Any], block: Block) -> list[Answered]:
    try:
        found = listed(predict(block.rows))
    except EdgeError as error:
        if len(block.places) == 1:
            return [Answered(block.places[0], _without_row(error))]
        return [_single(predict, block, at) for at in range(len(block.places))]
    if len(found) == 1 < len(block.places):  # tensors without meaning: one answer for all
        found = _split(found[0], len(block.places))
    return [Answered(place, each) for place, each in zip(block.places, found, strict=True)]


def _single(predict: Callable[[Any], Any], block: Block, at: int) -> Answered:
    try:
        return Answered(block.places[at], listed(predict(block.one(at)))[0])
    except EdgeError as error:
        return Answered(block.places[at], _without_row(error))


def _split(whole: Prediction, rows: int) -> list[Prediction]:
    """An answer of tensors row by row. Raises InputFault where they have no rows."""
    if any(a.ndim == 0 or len(a) != rows for a in whole.outputs.values()):
        raise InputFault(
            "the model's output tensors are not one row an input row",
            advice="Ask for one row at a time.",
        )
    return [
        Prediction(outputs={name: array[i : i + 1] for name, array in whole.outputs.items()})
        for i in range(rows)
    ]


def _without_row(error: EdgeError) -> EdgeError:
    """Every row was the first of its own request."""
    return type(error)(error.what.removeprefix("row 0: "), advice=error.advice)


class JsonLines:
    """Writes a JSON object a line: ``{"line": 2, "label": ...}`` or ``{"line": 3, "error": ...}``.

    A model that answers NaN in a tensor has failed: JSON has none.
    """

    def __init__(self, stream: TextIO, manifest: Manifest) -> None:
        self._stream = stream
        self._manifest = manifest

    def write(self, answer: Answered) -> None:
        """One line."""
        said: dict[str, Any] = {"line": answer.place}
        found = answer.found
        if isinstance(found, Prediction):
            try:
                of = plain.answer_of(self._manifest.name, self._manifest.version, found)
                said |= msgspec.to_builtins(of.predictions)[0]
            except EdgeError as error:
                found = error
        if isinstance(found, EdgeError):
            said["error"] = found.what
        self._stream.write(_encode(said).decode() + "\n")


class CsvTable:
    """Writes a CSV table: ``line``, ``label``, ``value``, ``probability_<label>``, ``error``.

    Raises InputFault for a model whose answers are tensors.
    """

    def __init__(self, stream: TextIO, manifest: Manifest) -> None:
        self._columns = answer_columns(manifest)
        self._write = csv.writer(stream, lineterminator="\n").writerow
        self._write(["line", *self._columns, "error"])

    def write(self, answer: Answered) -> None:
        """One row."""
        found = answer.found
        if isinstance(found, EdgeError):
            self._write([answer.place, *[""] * len(self._columns), found.what])
            return
        row = found.flat()
        self._write([answer.place, *[row.get(name, "") for name in self._columns], ""])


def answer_columns(manifest: Manifest) -> Sequence[str]:
    """What ``Prediction.flat`` of this model holds. Raises InputFault for tensors."""
    outputs = manifest.outputs
    columns = ["label"] if outputs.label or outputs.scores else []
    if outputs.value:
        columns.append("value")
    if outputs.scores:
        columns.extend(f"probability_{label}" for label in outputs.labels)
    if not columns:
        raise InputFault(f"{manifest.name} answers tensors, no table", advice="Ask for --json.")
    return columns

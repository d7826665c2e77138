"""One row answered through buffers that were bound beforehand.

Guards: buffers belong to one call at a time, whatever the number of threads; whatever is out of
the ordinary is left to the general way, which says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.inputs import NOT_PACKED, Batch, Inputs, Row
from edge_agent.outputs import Outputs, Reading
from edge_agent.runtime import FAILURES, Binder, Bound, Session

UNUSUAL: tuple[type[Exception], ...] = (*NOT_PACKED, *FAILURES)
"""What packing and the runtime raise for what the general way explains."""

Write = Callable[[Sequence[NDArray[Any]]], Any]
"""Makes something of the output tensors, which are valid until it returns; None: it cannot."""


class Quick(Protocol):
    """What was read, what was answered, and what ``write`` made of it; None: ask the general way.

    Args:
        write: sees the output tensors in the model's own buffers, once they were interpreted.
    """

    def __call__(
        self, rows: Any, write: Write | None = None, /
    ) -> tuple[Batch, Reading, Any] | None: ...


def copied(found: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The tensors, to be kept: a ``Write``."""
    return [output.copy() for output in found]


class Plan(NamedTuple):
    """The quick ways through a model: what ``Model.predict`` takes, and a row that was checked.

    Attributes:
        row: as ``answer`` for the finite numbers of one row, without predictions: the label's
            index, the score, and what was made; None: ask the general way.
    """

    answer: Quick
    row: Callable[[Sequence[float], Write], tuple[int, float, Any] | None]


def plan(inputs: Inputs, session: Session, outputs: Outputs) -> Plan | None:
    """The quick way through a model, None where it has none."""
    row = inputs.row
    if row is None or outputs.keeps_arrays:
        return None
    make = session.bind(row.tensor, row.shape, row.dtype)
    if make is None:
        return None
    idle = [make()]
    return Plan(_answer(row, make, idle, outputs.read), _row(row, make, idle, outputs.figures))


def _answer(
    row: Row,
    make: Binder,
    idle: list[Bound],
    read: Callable[[Sequence[NDArray[Any]], int], Reading],
) -> Quick:
    take, pack_into = row.take, row.packing.pack_into

    def answer(rows: Any, write: Write | None = None) -> tuple[Batch, Reading, Any] | None:
        values = take(rows)
        if values is None:
            return None
        try:
            bound = idle.pop()  # atomic, as is append
        except IndexError:
            bound = make()
        try:
            pack_into(bound.buffer, 0, *values)
            found = bound.run()
            reading = read(found, 1)
            made = None
            if write is not None:
                made = write(found)  # the next call overwrites them
                if made is None:
                    return None
        except UNUSUAL:
            return None
        finally:
            idle.append(bound)
        return Batch({}, 1, type(rows) is not np.ndarray, b"", (), values), reading, made

    return answer


def _row(
    row: Row,
    make: Binder,
    idle: list[Bound],
    figures: Callable[[Sequence[NDArray[Any]]], tuple[int, float]],
) -> Callable[[Sequence[float], Write], tuple[int, float, Any] | None]:
    pack_into = row.packing.pack_into

    def answer(values: Sequence[float], write: Write) -> tuple[int, float, Any] | None:
        try:
            bound = idle.pop()
        except IndexError:
            bound = make()
        try:
            pack_into(bound.buffer, 0, *values)
            found = bound.run()
            label, score = figures(found)
            made = write(found)
        except UNUSUAL:
            return None
        finally:
            idle.append(bound)
        return None if made is None else (label, score, made)

    return answer

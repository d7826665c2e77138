"""What a model said about rows, in one form for the original and for the bundle.

Pure: arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_contract.manifest import Label, Outputs


@dataclass(frozen=True)
class Answers:
    """Predictions for ``rows`` rows; what the task does not have is None.

    Attributes:
        labels: int64 [rows], index into the model's labels; -1: a label it never declared.
        scores: float64 [rows, labels], probabilities.
        values: float64 [rows, outputs], of a regression or of plain tensors.
        shapes: what a row holds in each plain tensor, side by side in ``values``; () for a
            regression, whose every column is an output of its own.
    """

    labels: NDArray[np.int64] | None = None
    scores: NDArray[np.float64] | None = None
    values: NDArray[np.float64] | None = None
    shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def rows(self) -> int:
        """How many rows were answered."""
        for part in (self.labels, self.scores, self.values):
            if part is not None:
                return len(part)
        return 0

    def take(self, rows: NDArray[np.int64]) -> Answers:
        """The answers of some rows."""
        return Answers(
            None if self.labels is None else self.labels[rows],
            None if self.scores is None else self.scores[rows],
            None if self.values is None else self.values[rows],
            self.shapes,
        )

    def followed_by(self, other: Answers) -> Answers:
        """These answers, then those of ``other``, which has the same parts."""
        return Answers(
            _joined(self.labels, other.labels),
            _joined(self.scores, other.scores),
            _joined(self.values, other.values),
            self.shapes,
        )


_T = TypeVar("_T", bound=np.generic)


def _joined(first: NDArray[_T] | None, second: NDArray[_T] | None) -> NDArray[_T] | None:
    return None if first is None or second is None else np.concatenate([first, second])


def label_indices(found: NDArray[np.generic], labels: Sequence[Label]) -> NDArray[np.int64]:
    """Index of each found label among ``labels``, -1 for one that is not there."""
    where: dict[object, int] = {}
    for index, label in enumerate(labels):
        # ONNX has no truth values as labels: a converter writes 0 and 1.
        where[int(label) if isinstance(label, bool) else label] = index
    plain = [int(item) if isinstance(item, bool) else item for item in found.ravel().tolist()]
    return np.array([where.get(item, -1) for item in plain], dtype=np.int64)


def of_tensors(tensors: Mapping[str, NDArray[np.generic]], outputs: Outputs) -> Answers:
    """The answers in a session's output tensors, read as ``outputs`` declares them.

    Raises BuildFault when a tensor's shape is not what its meaning needs.
    """
    if outputs.value or not (outputs.label or outputs.scores):
        if outputs.value:
            return Answers(values=_flat([tensors[outputs.value]])[0])
        values, shapes = _flat([tensors[name] for name in outputs.tensors])
        return Answers(values=values, shapes=shapes)
    scores = None
    if outputs.scores:
        scores = np.asarray(tensors[outputs.scores], dtype=np.float64)
        if scores.ndim == 1:
            scores = scores.reshape(-1, 1)
        if scores.shape[1] != len(outputs.labels):
            raise BuildFault(
                f"the model gives {scores.shape[1]} scores a row for {len(outputs.labels)} labels"
            )
    if outputs.label:
        return Answers(label_indices(tensors[outputs.label], outputs.labels), scores)
    assert scores is not None
    return Answers(np.argmax(scores, axis=1).astype(np.int64), scores)


def _flat(
    arrays: Sequence[NDArray[np.generic]],
) -> tuple[NDArray[np.float64], tuple[tuple[int, ...], ...]]:
    """All tensors side by side, [rows, elements a row], and what a row holds in each.

    One row when they share no row axis.
    """
    if any(array.dtype.kind not in "biuf" for array in arrays):
        raise BuildFault("the model's outputs are not numbers, so parity cannot be shown")
    rows = {array.shape[0] if array.ndim else 1 for array in arrays}
    count = rows.pop() if len(rows) == 1 else 1
    parts = [np.asarray(array, dtype=np.float64).reshape(count, -1) for array in arrays]
    shapes = tuple(
        array.shape[1:] if array.shape[:1] == (count,) else array.shape for array in arrays
    )
    return np.concatenate(parts, axis=1), shapes

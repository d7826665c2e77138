"""One model's answers to the rows whose truth is known. Pure.

A row whose true label the model never declared counts as wrong; figures of probabilities leave
it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.manifest import Task
from edge_pack.answers import Answers
from edge_pack.extras import need
from edge_pack.gates.resample import Floats

Ints = NDArray[np.int64]


def peer(name: str) -> Any:
    """scikit-learn's metric of that name."""
    return getattr(need("sklearn.metrics", "computing quality figures"), name)


@dataclass(frozen=True)
class Case:
    """One model's answers to rows whose truth is known.

    Attributes:
        labels: how many the model has. truth, said: label index [rows]; ``labels`` in ``truth``
            and ``labels + 1`` in ``said`` stand for a label that the model never declared.
        scores: float64 [rows, labels]. target, value: float64 [rows], of a regression; ``value``
            alone where each row has a figure of its own.
    """

    labels: int = 0
    truth: Ints | None = None
    said: Ints | None = None
    scores: Floats | None = None
    target: Floats | None = None
    value: Floats | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        for part in (self.said, self.value):
            if part is not None:
                return len(part)
        return 0

    def take(self, rows: NDArray[Any]) -> Case:
        """The case of some rows: positions or a mask."""

        def some(part: Any) -> Any:
            return None if part is None else part[rows]

        return Case(
            self.labels, some(self.truth), some(self.said), some(self.scores),
            some(self.target), some(self.value),
        )  # fmt: skip


def case_of(task: Task, answers: Answers, truth: Floats, labels: int) -> Case:
    """The answers to the rows whose truth is known, as figures need them.

    Args:
        truth: finite [rows], as ``truth.read`` gives it.
    """
    if task == "regression":
        assert answers.values is not None
        return Case(target=truth, value=answers.values[:, 0])
    assert answers.labels is not None
    said = answers.labels
    if task == "outliers":  # label 0 is scikit-learn's -1: an outlier, the positive label here
        return Case(2, truth.astype(np.int64), (said == 0).astype(np.int64))
    true = np.where(truth < 0, labels, truth).astype(np.int64)
    return Case(labels, true, np.where(said < 0, labels + 1, said), answers.scores)

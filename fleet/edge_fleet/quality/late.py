"""Quality from labels that came late: right and wrong answers by predicted label and score bin.

Guards: an interval that holds at every look, since labels trickle in and the figure is read again
and again; a figure that the counts cannot give is refused with the reason.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_fleet.quality import figures
from edge_fleet.quality.estimates import BLIND, Estimate, refuse
from edge_fleet.quality.intervals import confidence_sequence

LABELS_MIN = 20
"""Fewer leave an interval from nearly nothing to nearly all."""


def estimate(answers: NDArray[np.int64], level: float = 0.95) -> tuple[Estimate, ...]:
    """Figures of ``[wrong or right, predicted label, bin]`` answers.

    Accuracy, and with two labels precision and recall of the last one, each with a confidence
    sequence; with two labels F1, without one: it is no share of independent rows.
    """
    wrong, right = answers.sum(axis=-1).astype(np.float64)
    rows = float(wrong.sum() + right.sum())
    if rows < LABELS_MIN:
        why = f"{rows:.0f} labels came, at least {LABELS_MIN} are needed"
        return (refuse("accuracy", "labels", why, rows),)
    found = [_share("accuracy", right.sum(), rows, level)]
    if len(wrong) != 2:
        why = "whose label a wrong answer should have had is counted of two labels only"
        return (*found, *(refuse(name, "labels", why, rows) for name in ("recall", "f1")))
    found.append(_share("precision", right[1], right[1] + wrong[1], level))
    found.append(_share("recall", right[1], right[1] + wrong[0], level))
    confusion = np.array([[right[0], wrong[1]], [wrong[0], right[1]]])
    f1 = float(figures.of_confusion(confusion)["f1"])
    if np.isnan(f1):
        return (*found, refuse("f1", "labels", "no positive row among the labels", rows))
    score = Estimate(figure="f1", method="labels", value=f1, rows=rows, blind=BLIND["labels"])
    return (*found, score)


def _share(figure: str, some: float, rows: float, level: float) -> Estimate:
    if not rows:
        return refuse(figure, "labels", "no row for it among the labels")
    low, high = confidence_sequence(np.array(some), np.array(rows), level)
    return Estimate(
        figure=figure, method="labels", value=float(some / rows), low=float(low), high=float(high),
        level=level, rows=float(rows), blind=BLIND["labels"],
    )  # fmt: skip

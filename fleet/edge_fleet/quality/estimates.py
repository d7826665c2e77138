"""What an estimate of quality is: a figure with its interval, its grounds, and its blind spot.

Guards: no figure stands without what it rests on and what it cannot see; an estimate whose grounds
are too thin is refused with the reason, and a refused one has no figure.
"""

from __future__ import annotations

from msgspec import Struct

BLIND = {
    "score": "Blind to a changed meaning of the inputs (concept drift) and to scores that became"
    " over- or underconfident: it takes each score to be as often right as in the reference.",
    "raked": "Blind to a changed meaning of the inputs (concept drift): it takes rows with the"
    " same inputs to have the same labels as in the reference; of the inputs it sees margins,"
    " not what two of them do together.",
    "labels": "Blind to rows without a label: where labels come for some kinds of rows only, it"
    " says nothing of the others; and it is as late as the labels are.",
}


class Estimate(Struct, frozen=True, kw_only=True):
    """One figure.

    Attributes:
        figure: ``accuracy``, ``precision``, ``recall``, ``f1``, ``auc``, ``mae``, ``rmse``,
            ``bias``.
        method: ``score``: from the score histogram alone; ``raked``: from labelled reference rows,
            weighted to look like the window; ``labels``: from late labels.
        value: None when it was refused. low, high: its interval at ``level``, where it has one.
        rows: effective rows that it rests on.
        refused: why there is no value; "" when there is one.
        blind: what it cannot see.
    """

    figure: str
    method: str
    value: float | None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    rows: float = 0.0
    refused: str = ""
    blind: str = ""


def of_enough(estimate: Estimate, k: int) -> Estimate:
    """The estimate, or without value and rows where it rests on some and fewer than ``k``."""
    if not 0 < estimate.rows < k:
        return estimate
    return refuse(estimate.figure, estimate.method, f"fewer than {k} rows for it")


def refuse(figure: str, method: str, why: str, rows: float = 0.0) -> Estimate:
    """An estimate without a value."""
    return Estimate(
        figure=figure, method=method, value=None, refused=why, rows=rows, blind=BLIND[method]
    )

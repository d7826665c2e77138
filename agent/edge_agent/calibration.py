"""Scores put right by the labels that came on this device: a curve, within the publisher's bounds.

Guards: the curve never falls, so no two scores change their order; it never moves a score by more
than the signed bound; it is defined everywhere, also where no label came: there it stays with the
model. Labels are never changed by it. Pure.

What it says is the probability of the last label of two, or that the answered label is right for
more. Isotonic regression on counts by score bin (Barlow, Bartholomew, Bremner, Brunk 1972; Zadrozny
and Elkan, KDD 2002), to which each bin brings ``PRIOR_ROWS`` imagined labels that say what the
model says.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

PRIOR_ROWS = 5.0
"""With as many labels in a bin, its rate is halfway between what they and the model say."""


class Curve(Struct, frozen=True):
    """From score to probability, linear between points.

    Attributes:
        scores, rates: the points, ascending. max_shift: no score moves farther.
        last: the last label of two; "" for more, where a score is that of the answered label.
        shift: the farthest that a point moves, after the bound.
    """

    scores: tuple[float, ...]
    rates: tuple[float, ...]
    max_shift: float
    last: str = ""
    shift: float = 0.0

    def __call__(self, score: float) -> float:
        """The probability that is said for a score of 0 to 1."""
        at = bisect_right(self.scores, score)
        if at == 0:
            rate = self.rates[0]
        elif at == len(self.scores):
            rate = self.rates[-1]
        else:
            left, right = self.scores[at - 1], self.scores[at]
            part = (score - left) / (right - left)
            rate = self.rates[at - 1] + part * (self.rates[at] - self.rates[at - 1])
        bounded = min(max(rate, score - self.max_shift), score + self.max_shift)
        return min(max(bounded, 0.0), 1.0)

    def of(self, label: str, probabilities: Mapping[str, float]) -> float | None:
        """The probability of an answer's label, None where it has none."""
        if self.last:
            score = probabilities.get(self.last)
            if score is None:
                return None
            return self(score) if label == self.last else 1 - self(score)
        score = probabilities.get(label)
        return None if score is None else self(score)


def fit(
    edges: Sequence[float],
    right: Sequence[int],
    counted: Sequence[int],
    max_shift: float,
    last: str = "",
) -> Curve:
    """The curve of labels by score bin.

    Args:
        edges: of the bins. counted: labels in each; right: how many were what the score is of.
    """
    bounds = np.clip(np.asarray(edges, dtype=np.float64), 0.0, 1.0)
    middle = (bounds[:-1] + bounds[1:]) / 2
    weight = np.asarray(counted, dtype=np.float64) + PRIOR_ROWS
    rate = (np.asarray(right, dtype=np.float64) + PRIOR_ROWS * middle) / weight
    rates = isotonic(rate, weight)
    keep = np.concatenate([[True], np.diff(middle) > 0])  # bins beyond 0 to 1 lie on one point
    points, heights = middle[keep], rates[keep]
    curve = Curve(tuple(points.tolist()), tuple(heights.tolist()), max_shift, last)
    shift = max(abs(curve(score) - score) for score in curve.scores)
    return Curve(curve.scores, curve.rates, max_shift, last, shift)


def isotonic(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest values, by weighted squares, that never fall: pool adjacent violators."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, mass, size = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, more, count = blocks.pop()
            mean = (mean * mass + before * more) / (mass + more)
            mass, size = mass + more, size + count
        blocks.append((mean, mass, size))
    return np.repeat([mean for mean, _, _ in blocks], [size for _, _, size in blocks])

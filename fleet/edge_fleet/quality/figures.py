"""Quality figures from confusion matrices and from weighted rows.

Guards: one set of definitions for every estimate, so that a figure estimated without labels, from
labelled rows of old and from late labels are the same figure. A figure that is 0 / 0 is NaN,
never a guess.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def of_confusion(confusion: Floats) -> dict[str, Floats]:
    """Accuracy, precision, recall and F1 of ``[..., true label, predicted label]`` rows.

    Of two labels the last one counts as positive; of more the means over the labels are given
    (macro averages), as scikit-learn has them.
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    predicted, true = confusion.sum(axis=-2), confusion.sum(axis=-1)
    accuracy = _share(right.sum(axis=-1), confusion.sum(axis=(-2, -1)))
    precision, recall = _share(right, predicted), _share(right, true)
    f1 = _share(2 * right, predicted + true)
    if confusion.shape[-1] == 2:
        pick = [each[..., -1] for each in (precision, recall, f1)]
    else:
        pick = [each.mean(axis=-1) for each in (precision, recall, f1)]
    return {"accuracy": accuracy, "precision": pick[0], "recall": pick[1], "f1": pick[2]}


def auc_of_bins(positive: Floats, negative: Floats, edges: Floats) -> Floats:
    """Area under the ROC curve from expected rows a score bin, ``[..., bins]``.

    Within a bin the score still says something. Taking rows to lie evenly in a bin and the chance
    q of a positive one to rise linearly by r across it, a positive row has the higher score in
    q (1 - q) / 2 + r / 12 of the pairs there, where ties alone would give the first term.
    """
    rows = positive + negative
    below = np.cumsum(negative, axis=-1) - negative
    chance = _share(positive, rows)
    inside = rows**2 * _rises(chance, edges) / 12
    pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
    won = (positive * (below + negative / 2) + inside).sum(axis=-1)
    return np.minimum(_share(won, pairs), 1.0)


def _rises(chance: Floats, edges: Floats) -> Floats:
    """By how much the chance rises across each bin, from its neighbours; 0 beside an empty one."""
    middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    if len(middles) < 2:
        return np.zeros_like(chance)
    return np.asarray(np.nan_to_num(np.gradient(chance, middles, axis=-1) * widths))


def weighted_auc(score: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the ROC curve of rows with ``weights [..., rows]``; ties count half."""
    places, where = np.unique(score, return_inverse=True)
    shape = (*weights.shape[:-1], len(places))
    by_place = []
    for mask in (positive, ~positive):
        sums = np.zeros(shape)
        rows = np.flatnonzero(mask)
        np.add.at(np.moveaxis(sums, -1, 0), where[rows], np.moveaxis(weights[..., rows], -1, 0))
        by_place.append(sums)
    plus, minus = by_place
    won = (plus * (np.cumsum(minus, axis=-1) - minus / 2)).sum(axis=-1)
    return _share(won, plus.sum(axis=-1) * minus.sum(axis=-1))


def of_errors(error: Floats, weights: Floats) -> dict[str, Floats]:
    """Mean absolute error, root of the mean square, and bias of ``predicted - true``."""
    total = weights.sum(axis=-1)
    return {
        "mae": _share(weights @ np.abs(error), total),
        "rmse": np.sqrt(_share(weights @ error**2, total)),
        "bias": _share(weights @ error, total),
    }


def _share(part: Floats, whole: Floats) -> Floats:
    part, whole = np.broadcast_arrays(part, whole)
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0))

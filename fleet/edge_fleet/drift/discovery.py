"""Which of many findings to believe, at a stated false discovery rate.

Guards: of the findings shown, at most the stated share is expected to be false, over all that was
tested and not just over what looked interesting.

Source: Benjamini and Hochberg, JRSS B 57, 1995 (tests independent or positively dependent);
Benjamini and Yekutieli, Annals of Statistics 29, 2001 (any dependence); Wang and Ramdas, "False
discovery rate control with e-values", JRSS B 84, 2022 (evidence that was watched all the time).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["bh", "by"]


def adjusted(p: NDArray[np.float64], method: Method = "bh") -> NDArray[np.float64]:
    """The least false discovery rate at which each test is a finding, in the shape of ``p``.

    Args:
        p: p-values in [0, 1], any shape; all that was tested.
        method: ``bh`` for tests that are independent or rise together, ``by`` for any dependence,
            at the price of a factor of about log(tests).
    """
    flat = p.ravel()
    many = len(flat)
    if not many:
        return p.astype(np.float64)
    order = np.argsort(flat)
    ranks = np.arange(1, many + 1)
    factor = float((1.0 / ranks).sum()) if method == "by" else 1.0
    stepped = np.minimum.accumulate((flat[order] * many * factor / ranks)[::-1])[::-1]
    out = np.empty(many)
    out[order] = np.minimum(stepped, 1.0)
    return out.reshape(p.shape)


def e_adjusted(log_e: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least false discovery rate at which each is a finding, under any dependence (e-BH).

    Args:
        log_e: natural logarithms of e-values (mean at most 1 while nothing changed), ``[many]``;
            all that is watched. Evidence M of an e-detector after n windows is one as M / n.
    """
    many = len(log_e)
    order = np.argsort(-log_e)
    ranks = np.arange(1, many + 1)
    stepped = np.minimum.accumulate((np.log(many / ranks) - log_e[order])[::-1])[::-1]
    out = np.empty(many)
    out[order] = np.exp(np.minimum(stepped, 0.0))
    return out

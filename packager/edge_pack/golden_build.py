"""Golden samples: which rows, and how far a device may differ on them.

Guards: a sample is clear-cut, so that rounding on another processor changes no label; the same
rows give the same samples. Pure.

Tolerance: between x86-64 and aarch64 float32 results were seen to differ by up to 2e-5 on
logits of magnitude ~1; hence 2e-5 absolute, and 1e-4 relative for outputs of larger magnitude,
where the same relative rounding (2^-24 a step, some hundred steps) makes larger differences.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_contract import golden as goldens
from edge_contract.golden import Golden, Tolerance
from edge_pack.answers import Answers
from edge_pack.inference import Tensors
from edge_pack.intake import Rows

SAMPLES_MAX = 32
SAMPLES_BYTES = 1024**2
MARGIN = 1e-3
TOLERANCE = Tolerance(absolute=2e-5, relative=1e-4)


def choose(rows: Rows, answers: Answers, row_bytes: int) -> NDArray[np.int64]:
    """Positions of up to 32 clear-cut rows: some of every label, the extremes, and a spread.

    Args:
        row_bytes: size of one row's tensors; wide inputs get fewer samples, at least one.
    """
    limit = max(1, min(SAMPLES_MAX, SAMPLES_BYTES // max(row_bytes, 1), rows.count))
    clear = np.flatnonzero(_clear(answers))
    if not clear.size:
        clear = np.arange(answers.rows)
    chosen: dict[int, None] = {}
    for row in _by_label(clear, answers, limit // 2):
        chosen.setdefault(row)
    usable = set(clear.tolist())
    for row in _extremes(rows):
        if len(chosen) >= (3 * limit) // 4:
            break
        if row in usable:
            chosen.setdefault(row)
    for row in clear[np.linspace(0, len(clear) - 1, min(2 * limit, len(clear)), dtype=int)]:
        if len(chosen) >= limit:
            break
        chosen.setdefault(int(row))
    return np.array(sorted(chosen)[:limit], dtype=np.int64)


def _clear(answers: Answers) -> NDArray[np.bool_]:
    """Rows whose best score leads by a margin that rounding cannot close."""
    if answers.scores is None or answers.scores.shape[1] < 2:
        return np.ones(answers.rows, dtype=bool)
    ordered = np.sort(answers.scores, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2] > MARGIN)


def _by_label(clear: NDArray[np.int64], answers: Answers, limit: int) -> list[int]:
    """Rows of each label in turn, until there are ``limit``."""
    if answers.labels is None:
        return []
    groups = [clear[answers.labels[clear] == label] for label in np.unique(answers.labels[clear])]
    found: list[int] = []
    for turn in range(max((len(group) for group in groups), default=0)):
        found += [int(group[turn]) for group in groups if turn < len(group)]
        if len(found) >= limit:
            break
    return found[:limit]


def _extremes(rows: Rows) -> list[int]:
    """Rows with the least and the greatest value of a feature, feature by feature."""
    found: list[int] = []
    for column in rows.columns.values():
        if column.dtype.kind == "f" and np.isfinite(column).any():
            found += [int(np.nanargmin(column)), int(np.nanargmax(column))]
        elif column.dtype.kind == "O":
            found += [i for i, item in enumerate(column.tolist()) if item is None][:1]
    return found


def build(feeds: Tensors, outputs: Tensors) -> Golden:
    """The golden samples of a run: its input tensors and what came out."""
    return Golden(
        inputs=tuple(goldens.pack(name, value) for name, value in feeds.items()),
        outputs=tuple(goldens.pack(name, value) for name, value in outputs.items()),
        tolerance={"default": TOLERANCE},
    )

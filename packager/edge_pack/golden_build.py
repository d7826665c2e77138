"""Golden samples: which rows, and how far a device may differ on them.

Guards: a sample is clear-cut, so that rounding on another processor changes no label; the same
rows give the same samples, on whatever processor the build runs. Pure.

Tolerance: between x86-64 and aarch64 float32 results were seen to differ by up to 2e-5 on
logits of magnitude ~1; hence 2e-5 absolute, and 1e-4 relative for outputs of larger magnitude,
where the same relative rounding (2^-24 a step, some hundred steps) makes larger differences.

Same bytes: where the model computes in floats, expected outputs are those of ``reference``, in
float64, and differ by rounding from what the building processor says.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_contract import golden as goldens
from edge_contract.golden import Golden, Tolerance
from edge_pack.answers import Answers
from edge_pack.inference import Tensors
from edge_pack.intake import Rows

SAMPLES_MAX = 32
SAMPLES_BYTES = 1024**2
MARGIN, MARGIN_INT8 = 1e-3, 5e-2
"""Where a model computes in int8, a last bit of float32 can move an activation a whole step."""
TOLERANCE = Tolerance(absolute=2e-5, relative=1e-4)


def choose(
    rows: Rows, answers: Answers, row_bytes: int, margin: float = MARGIN
) -> NDArray[np.int64]:
    """Positions of up to 32 clear-cut rows: some of every label, the extremes, and a spread.

    Args:
        row_bytes: size of one row's tensors; wide inputs get fewer samples, at least one.
        margin: by how much the best score leads.
    """
    limit = max(1, min(SAMPLES_MAX, SAMPLES_BYTES // max(row_bytes, 1), rows.count))
    clear = np.flatnonzero(_clear(answers, margin))
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


def _clear(answers: Answers, margin: float) -> NDArray[np.bool_]:
    """Rows whose best score leads by a margin that rounding cannot close."""
    if answers.scores is None or answers.scores.shape[1] < 2:
        return np.ones(answers.rows, dtype=bool)
    ordered = np.sort(answers.scores, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2] > margin)


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


NUDGE = 2.0**-18
"""Some sixty float32 steps: far more than layers before a quantized one differ between machines."""


def slack(run: Callable[[Tensors], Tensors], feeds: Tensors) -> float:
    """How far outputs move when inputs move by a rounding: of a model that computes in int8.

    Rounded up to a power of two, so that every processor finds the same.
    """
    plain = run(feeds)
    found = 0.0
    for factor in (1 - NUDGE, 1 + NUDGE):
        moved = {
            name: (value * factor).astype(value.dtype) if value.dtype.kind == "f" else value
            for name, value in feeds.items()
        }
        for name, output in run(moved).items():
            if output.dtype.kind == "f" and output.size:
                found = max(found, float(np.abs(output - plain[name]).max()))
    return float(2.0 ** np.ceil(np.log2(found))) if found > 0 else 0.0


def build(feeds: Tensors, outputs: Tensors, slack: float = 0.0) -> Golden:
    """The golden samples of a run: its input tensors and what came out.

    Args:
        slack: what a device may differ by beyond the tolerance of float32.
    """
    absolute = min(TOLERANCE.absolute + slack, 1.0)
    tolerance = Tolerance(absolute=absolute, relative=TOLERANCE.relative)
    return Golden(
        inputs=tuple(goldens.pack(name, value) for name, value in feeds.items()),
        outputs=tuple(goldens.pack(name, value) for name, value in outputs.items()),
        tolerance={"default": tolerance},
    )

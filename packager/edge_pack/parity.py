"""The bundle against the original model on the same raw rows: the gate that every build passes.

A flip is a row whose predicted label changed, or is none that the manifest knows. One whose
original was tied to within float64's own rounding is none: its label depends on the order in which
its trees were added up, and scikit-learn's threads do not keep one. A difference is of one
probability, or of a value divided by the standard deviation of the original's values in that
output: a pressure around 101325 leaves no room to a ratio beside it. Accuracy alone is no gate: a
model was seen to move a probability by 0.997 while its accuracy rose.

Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_contract.manifest import Parity, Task
from edge_pack.answers import Answers
from edge_pack.config import MAX_DIFF_PROBABILITY, MAX_DIFF_VALUE

WORST_ROWS = 5


@dataclass(frozen=True)
class Budget:
    """How far a bundle may be from its original: ``flips`` a share of rows, ``diff`` the most."""

    flips: float
    diff: float


@dataclass(frozen=True)
class Row:
    """One row that differs: its position, and what both models said of it."""

    position: int
    original: str
    bundle: str
    diff: float
    flipped: bool


@dataclass(frozen=True)
class Comparison:
    """The figures, and the rows that differ most, flips first."""

    rows: int
    flips: int
    diff_max: float
    diff_p99: float
    worst: tuple[Row, ...]

    def within(self, budget: Budget) -> bool:
        """Whether the budget holds."""
        return self.flips <= budget.flips * self.rows and self.diff_max <= budget.diff


def budget_of(task: Task, max_flips: float, max_diff: float | None) -> Budget:
    """The budget of a task; ``max_diff`` None takes its default."""
    if max_diff is None:
        max_diff = MAX_DIFF_VALUE if task in ("regression", "tensors") else MAX_DIFF_PROBABILITY
    return Budget(max_flips, max_diff)


def compare(original: Answers, bundle: Answers) -> Comparison:
    """Compare answers to the same rows.

    A value that is NaN or infinite on one side only is an infinite difference; on both sides
    it is none.

    Raises BuildFault when the two do not answer in the same form.
    """
    if original.rows != bundle.rows:
        raise BuildFault(f"the bundle answers {bundle.rows} rows for {original.rows}")
    flipped = np.zeros(original.rows, dtype=bool)
    if original.labels is not None and bundle.labels is not None:
        flipped = (original.labels != bundle.labels) & ~_tied(original, bundle)
        flipped |= bundle.labels < 0
    row_diffs = row_differences(original, bundle)
    order = np.lexsort((-row_diffs, ~flipped))[:WORST_ROWS]
    worst = tuple(
        Row(
            int(i),
            _shown(original, int(i)),
            _shown(bundle, int(i)),
            float(row_diffs[i]),
            bool(flipped[i]),
        )
        for i in order
        if flipped[i] or row_diffs[i] > 0
    )
    return Comparison(
        rows=original.rows,
        flips=int(np.count_nonzero(flipped)),
        diff_max=float(row_diffs.max(initial=0.0)),
        diff_p99=float(np.quantile(row_diffs, 0.99, method="higher")) if len(row_diffs) else 0.0,
        worst=worst,
    )


TIE = 1e-12
"""Some thousand additions of float64 shares; no model means a difference so small."""


def _tied(original: Answers, bundle: Answers) -> NDArray[np.bool_]:
    """Rows where the original gives the bundle's label the same score as its own."""
    if original.labels is None or bundle.labels is None or original.scores is None:
        return np.zeros(original.rows, dtype=bool)
    rows = np.arange(original.rows)
    known = (original.labels >= 0) & (bundle.labels >= 0)
    ours = original.scores[rows, np.maximum(bundle.labels, 0)]
    theirs = original.scores[rows, np.maximum(original.labels, 0)]
    return np.asarray(known & (np.abs(ours - theirs) <= TIE))


def row_differences(original: Answers, bundle: Answers) -> NDArray[np.float64]:
    """The largest difference in each row, float64 [rows]. Raises BuildFault as ``compare``."""
    diffs = _differences(original, bundle)
    return diffs.max(axis=1) if diffs.size else np.zeros(original.rows)


def _differences(original: Answers, bundle: Answers) -> NDArray[np.float64]:
    """Differences [rows, columns]: of probabilities as they are, of values by their spread."""
    pairs = ((original.scores, bundle.scores), (original.values, bundle.values))
    for before, after in pairs:
        if before is None or after is None:
            continue
        if before.shape != after.shape:
            raise BuildFault(
                f"the bundle answers {after.shape[1]} columns, the original {before.shape[1]}"
            )
        divisor = 1.0 if before is original.scores else spreads(before, original.shapes)
        with np.errstate(invalid="ignore"):
            diffs = np.abs(before - after) / divisor
        same = (before == after) | (np.isnan(before) & np.isnan(after))
        diffs[same] = 0.0
        diffs[~np.isfinite(diffs)] = np.inf
        return diffs
    return np.zeros((original.rows, 0))


SPREAD_ROWS = 8
"""Fewer rows do not show how far one column of a plain tensor varies; the whole tensor does."""
_ROUNDINGS = 100 * float(np.finfo(np.float32).eps)
"""Of a value's size: a budget of 1 % of it is float32's own rounding."""


def spreads(
    values: NDArray[np.float64], shapes: tuple[tuple[int, ...], ...]
) -> NDArray[np.float64]:
    """The spread of each column's output: of the column itself, or of the tensor it stands in.

    An image, or a sequence, has one spread: its elements are of one kind, and single ones may
    hardly vary. So may a plain tensor's column, where it is saturated.

    Args:
        values, shapes: as in ``Answers``.
    """
    if not shapes:
        return np.array([spread(column) for column in values.T])
    found, start = [], 0
    for shape in shapes:
        width = math.prod(shape)
        part = values[:, start : start + width]
        start += width
        if len(shape) > 1 or len(values) < SPREAD_ROWS:
            found += [spread(part)] * width
        else:
            found += [spread(column, _ROUNDINGS) for column in part.T]
    return np.array(found)


def spread(values: NDArray[np.float64], least: float = 0.0) -> float:
    """Standard deviation of the finite values, but no less than this share of their size.

    Their size, or 1, where they do not vary.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 1.0
    deviation = float(finite.std())
    size = float(np.abs(finite).max())
    return max(deviation, least * size) if deviation > 1e-12 * size else (size or 1.0)


def _shown(answers: Answers, row: int) -> str:
    if answers.values is not None:
        return ", ".join(f"{value:.6g}" for value in answers.values[row][:3])
    label = int(answers.labels[row]) if answers.labels is not None else -1
    if answers.scores is None:
        return f"label #{label}"
    return f"label #{label}, score {float(answers.scores[row].max()):.6g}"


def record(
    comparison: Comparison, budget: Budget, *, synthetic: bool = False, beyond: bool = False
) -> Parity:
    """The manifest's entry; ``forced`` when this budget, or one ``beyond`` it, does not hold.

    Differences are bounds, rounded up: the last digits come from the processor's rounding, and
    the same inputs must give the same bytes on every machine.
    """
    return Parity(
        rows=comparison.rows,
        flips=comparison.flips,
        flips_max=budget.flips,
        diff_max=_bound(comparison.diff_max),
        diff_p99=_bound(comparison.diff_p99),
        diff_budget=budget.diff,
        synthetic=synthetic,
        forced=beyond or not comparison.within(budget),
    )


BOUND_MIN = 2e-6
"""Under this a difference is float32's own rounding."""


def _bound(figure: float) -> float:
    """The next of 1, 2, 5, 10, ... times a power of ten; an infinite difference has no JSON."""
    if figure == 0:
        return 0.0
    if figure > 1e307:
        return 1e308
    exponent = int(np.floor(np.log10(max(figure, BOUND_MIN))))
    steps = [float(f"{digit}e{exponent}") for digit in (1, 2, 5, 10)]
    return next(step for step in steps if step >= max(figure, BOUND_MIN) * (1 - 1e-4))


_UNKNOWN = (
    "The rows above show where: take steps out of the model until it holds, to find the one that "
    "converts otherwise."
)


def refusal(comparison: Comparison, budget: Budget, given: int, hint: str = "") -> BuildFault:
    """What to say when the budget does not hold.

    Args:
        given: rows of the user's own data. hint: what the model's steps, or the data, suggest.
    """
    lines = [
        "the converted model does not answer like the original",
        f"  labels changed     {comparison.flips} of {comparison.rows} rows "
        f"({comparison.flips / max(comparison.rows, 1):.3%}), budget {budget.flips:.3%}",
        f"  largest difference {comparison.diff_max:.4g}, budget {budget.diff:.4g} "
        f"(99 % of rows under {comparison.diff_p99:.4g})",
    ]
    for row in comparison.worst:
        where = f"row {row.position + 1}" if row.position < given else "a probe row"
        lines.append(f"  {where}: {row.original} -> {row.bundle}, difference {row.diff:.4g}")
    return BuildFault(
        "\n".join(lines),
        advice=f"{hint or _UNKNOWN} --max-flips and --max-diff "
        "widen the budget; --force seals the bundle anyway and says so in its manifest.",
    )

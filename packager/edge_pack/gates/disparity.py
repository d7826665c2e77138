"""How far the slices of one column are apart, by fairlearn's ``MetricFrame``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_contract.manifest import Metric
from edge_pack.extras import need
from edge_pack.gates.case import Case
from edge_pack.gates.measures import Measure
from edge_pack.gates.slices import Group


def between(
    measures: Sequence[Measure], original: Case, bundle: Case, groups: Sequence[Group]
) -> list[Metric]:
    """Difference (greatest less least) and ratio (least by greatest) of each figure.

    Groups too small for a gate, and groups whose rows do not define a figure, take no part. A
    ratio is of figures that cannot be negative, where the greatest is not 0.

    Raises MachineFault when fairlearn is not installed.
    """
    gated = [group for group in groups if group.slice.gated]
    if len(gated) < 2:
        return []
    rows = np.concatenate([group.rows for group in gated])
    names = np.concatenate([np.full(len(group.rows), code) for code, group in enumerate(gated)])
    before, after = (_frame(measures, case, rows, names) for case in (original, bundle))
    found = []
    for measure in measures:
        for kind in ("difference", "ratio"):
            if kind == "ratio" and measure.span[0] < 0:
                continue
            old, new = (_apart(each, kind, measure.name) for each in (before, after))
            if old is not None and new is not None:
                found.append(
                    Metric(
                        name=f"{measure.name}_{kind}",
                        slice=gated[0].slice.column,
                        original=measure.short(old),
                        bundle=measure.short(new),
                    )
                )
    return found


def frame() -> Any:
    """fairlearn's MetricFrame. Raises MachineFault naming the extra when it is not installed."""
    return need("fairlearn.metrics", "--slice (disparities between groups)").MetricFrame


def _frame(measures: Sequence[Measure], case: Case, rows: Any, names: Any) -> Any:
    """A frame whose "answers" are row positions: figures of probabilities fit too."""

    def of(measure: Measure) -> Callable[[Any, Any], float]:
        def figure(positions: Any, _: Any) -> float:
            found = measure.of(case.take(np.asarray(positions, dtype=np.int64)))
            return math.nan if found is None else found

        return figure

    return frame()(
        metrics={measure.name: of(measure) for measure in measures},
        y_true=rows,
        y_pred=rows,
        sensitive_features=names,
    )


def _apart(figures: Any, kind: str, name: str) -> float | None:
    if figures.by_group[name].count() < 2:
        return None
    figure = float(getattr(figures, kind)(method="between_groups")[name])
    return figure if math.isfinite(figure) else None

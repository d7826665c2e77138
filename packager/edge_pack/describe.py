"""Features as the reference rows show them: range, resolution, categories, missing values. Pure."""

from __future__ import annotations

from math import gcd
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_contract.manifest import Feature
from edge_pack.intake import Intake, Rows
from edge_pack.originals import missing

DECIMALS_MAX = 9
EXACT_MAX = 2**53


def features(intake: Intake, rows: Rows) -> tuple[Feature, ...]:
    """The manifest's entry for each column that fills a tensor."""
    found = []
    for column in intake.features:
        values = rows.columns[column.name]
        policy: Literal["allow", "refuse"] = "allow" if missing(values).any() else "refuse"
        if column.free:
            found.append(Feature(name=column.name, type="text", lower=column.lower))
            continue
        if column.text:
            seen = {str(item) for item in values.tolist() if item is not None}
            found.append(
                Feature(
                    name=column.name,
                    type="category",
                    categories=tuple(sorted(seen.union(column.known) - {""})),
                    missing=policy,
                )
            )
            continue
        finite = values[np.isfinite(values)]
        found.append(
            Feature(
                name=column.name,
                minimum=float(finite.min()) if finite.size else None,
                maximum=float(finite.max()) if finite.size else None,
                resolution=resolution(finite),
                missing=policy,
            )
        )
    return tuple(found)


def resolution(finite: NDArray[Any]) -> float | None:
    """The greatest step of which all values are whole multiples apart, on a decimal grid.

    None when the values have more than nine decimals, fewer than two differ, or they are too
    large for a decimal grid to mean anything in float64.
    """
    distinct = np.unique(finite)
    if distinct.size < 2:
        return None
    for decimals in range(DECIMALS_MAX + 1):
        scale = 10**decimals
        grid = np.rint(distinct * scale)
        if np.abs(grid).max() > EXACT_MAX:
            return None
        if np.array_equal(grid / scale, distinct):
            steps = np.unique(np.diff(grid)).astype(np.int64).tolist()
            return float(gcd(*steps) / scale)
    return None

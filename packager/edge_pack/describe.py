"""Features as the reference rows show them: range, resolution, categories, missing values. Pure.

Guards: of a file of which a part was kept, every row counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_contract.manifest import Feature
from edge_pack.intake import Intake, Rows
from edge_pack.originals import missing
from edge_pack.tabular.facts import Facts
from edge_pack.tabular.grid import Grid

_NONE: Mapping[str, Facts] = {}


def features(intake: Intake, rows: Rows, facts: Mapping[str, Facts] = _NONE) -> tuple[Feature, ...]:
    """The manifest's entry for each column that fills a tensor.

    Args:
        facts: what all rows of the file show, where ``rows`` are a part of them.
    """
    found = []
    for column in intake.features:
        values, known = rows.columns[column.name], facts.get(column.name)
        if column.free:
            found.append(Feature(name=column.name, type="text", lower=column.lower))
            continue
        if column.text:
            seen = {str(item) for item in values.tolist() if item is not None}
            seen |= (known.texts or frozenset()) if known else frozenset()
            holes = bool(missing(values).any()) or (known is not None and known.empty > 0)
            found.append(
                Feature(
                    name=column.name,
                    type="category",
                    categories=tuple(sorted(seen.union(column.known) - {""})),
                    missing=_policy(holes),
                )
            )
            continue
        found.append(_number(column.name, values, known))
    return tuple(found)


def _number(name: str, values: NDArray[Any], known: Facts | None) -> Feature:
    if known is not None:
        return Feature(
            name=name,
            minimum=known.minimum,
            maximum=known.maximum,
            resolution=known.resolution,
            missing=_policy(known.missing > 0),
        )
    finite = values[np.isfinite(values)]
    return Feature(
        name=name,
        minimum=float(finite.min()) if finite.size else None,
        maximum=float(finite.max()) if finite.size else None,
        resolution=resolution(finite),
        missing=_policy(bool(missing(values).any())),
    )


def _policy(holes: bool) -> Literal["allow", "refuse"]:
    return "allow" if holes else "refuse"


def resolution(finite: NDArray[Any]) -> float | None:
    """The greatest step of which all values are whole multiples apart, on a decimal grid.

    None when the values have more than nine decimals, fewer than two differ, or they are too
    large for a decimal grid to mean anything in float64.
    """
    grid = Grid()
    grid.add(finite)
    return grid.step

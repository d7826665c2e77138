"""What a drift detector looks at; at home in the contract, because the packager calibrates it."""

from __future__ import annotations

from edge_contract.components import (
    DEGREES,
    DOWN_SHARE_MIN,
    GROUP_ROWS_MIN,
    Component,
    Floats,
    components_of,
    group_probabilities,
    groups_of,
    polynomials,
)

__all__ = [
    "DEGREES",
    "DOWN_SHARE_MIN",
    "GROUP_ROWS_MIN",
    "Component",
    "Floats",
    "components_of",
    "group_probabilities",
    "groups_of",
    "polynomials",
]

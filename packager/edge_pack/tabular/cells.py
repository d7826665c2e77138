"""What one cell says: a number, missing, or text. Pure.

Guards: text where a number is expected is never guessed at; ``1_000`` is no number, whatever
Python thinks.
"""

from __future__ import annotations

import math

from edge_contract.errors import InputFault

MISSING_NUMBERS = frozenset({"", "nan", "na", "n/a", "null", "none"})
"""What a cell of a number column may say for "missing", compared without case and blanks."""
_TRUTH = {"true": 1.0, "false": 0.0}


def number_of(cell: object) -> float | None:
    """The cell as a number, NaN where missing; None when it is no number."""
    if cell is None:
        return math.nan
    if isinstance(cell, float):
        return cell
    text = str(cell).strip()
    lowered = text.lower()
    if lowered in MISSING_NUMBERS:
        return math.nan
    if lowered in _TRUTH:
        return _TRUTH[lowered]
    if "_" in text:  # Python reads 1_000 as a number; no one else does
        return None
    try:
        return float(text)
    except ValueError:
        return None


def stray(cell: object, name: str, row: int) -> InputFault:
    """The fault of a cell that is no number. ``row`` counts from 1."""
    return InputFault(
        f"column {name!r}, row {row}: {str(cell).strip()[:80]!r} is not a number",
        advice="Correct the cell, or leave it empty if the value is missing.",
    )


def text_of(cell: object) -> str | None:
    """The cell as text, None where missing; whole numbers without a dot."""
    if cell is None or cell == "":
        return None
    if isinstance(cell, float):
        if math.isnan(cell):
            return None
        return str(int(cell)) if cell.is_integer() else repr(cell)
    return str(cell)

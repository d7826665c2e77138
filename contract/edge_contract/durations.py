"""Lengths of time as people write them: ``500ms``, ``90s``, ``15m``, ``2h``, ``7d``.

Guards: one way to write them in every setting and option; a number alone means nothing.
"""

from __future__ import annotations

import re

from edge_contract.errors import InputFault

UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(ms|s|min|m|h|d|w)")


def seconds(text: str, of: str = "") -> float:
    """The seconds that ``text`` says, 0 to 6.05e14.

    Args:
        of: the setting or option, for the error.

    Raises InputFault where it is no duration.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        said = f"{text[:80]!r} is no duration: expected such as 500ms, 90s, 15m, 2h or 7d"
        raise InputFault(f"{of} {said}".lstrip())
    return float(found[1]) * UNITS_S[found[2]]

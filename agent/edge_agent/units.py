"""Amounts of bytes as a person writes and reads them: ``50 MB``, ``512 kB/s``. Pure."""

from __future__ import annotations

import re

from edge_contract.errors import InputFault

_FACTORS = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
}  # fmt: skip
_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(B|kB|MB|GB|KiB|MiB|GiB)")


def read_bytes(text: str, *, per: str = "") -> int:
    """The number of bytes that ``text`` says: a number and a unit; "" is 0, no limit.

    Args:
        per: what has to follow the unit, such as ``/s``.

    Raises InputFault where it is not of this form, or under one byte.
    """
    if not text:
        return 0
    found = _FORM.fullmatch(text.removesuffix(per)) if text.endswith(per) else None
    if found is None:
        raise InputFault(
            f"{text!r} is no amount: expected a number and one of {', '.join(_FACTORS)}"
            f"{f', then {per}' if per else ''}, such as '512 kB{per}'"
        )
    size = round(float(found[1]) * _FACTORS[found[2]])
    if size < 1:
        raise InputFault(f"{text!r} is under one byte; leave the setting out for no limit")
    return size


def show_bytes(size: float) -> str:
    """``size`` in two or three digits and a decimal unit: ``1.9 MB``."""
    for unit in ("GB", "MB", "kB"):
        factor = _FACTORS[unit]
        if size >= 0.9995 * factor:
            number = size / factor
            return f"{number:.0f} {unit}" if number >= 99.95 else f"{number:.3g} {unit}"
    return f"{size:.0f} B"

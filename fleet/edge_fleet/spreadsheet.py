"""Text that goes into CSV: what devices and publishers name is never taken for a formula."""

from __future__ import annotations

_STARTS = ("=", "+", "-", "@", "\t", "\r")


def plain(text: str) -> str:
    """The text, ``'`` before what a spreadsheet would compute. Source: OWASP, CSV Injection."""
    return f"'{text}" if text.startswith(_STARTS) else text

"""Loads msgspec without what it would only look into.

Guards: a process with other work keeps its memory. msgspec 0.22 takes three names from
typing_extensions where that is installed (Typer's pydantic brings it), 4 MB and 20 ms at each
start, and from ``typing`` where it is not; from Python 3.11 on, they are the same three.

Imports nothing but the standard library at its top.
"""

from __future__ import annotations

import sys
import threading

EXTENSIONS = "typing_extensions"


def load_msgspec() -> None:
    """Import msgspec with typing_extensions out of its sight, where nobody else could miss it."""
    if "msgspec" in sys.modules or EXTENSIONS in sys.modules or threading.active_count() > 1:
        return
    sys.modules[EXTENSIONS] = None  # type: ignore[assignment]  # importlib: it is not there
    try:
        import msgspec  # noqa: F401, PLC0415 - the very point
    finally:
        del sys.modules[EXTENSIONS]

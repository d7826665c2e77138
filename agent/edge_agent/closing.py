"""Ends that do not depend on each other.

Guards: what one part's end raises keeps no other part from its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack


def each(*steps: Callable[[], object]) -> None:
    """Take every step, in this order; then raise what one of them raised, if any did."""
    with ExitStack() as stack:
        for step in reversed(steps):
            stack.callback(step)

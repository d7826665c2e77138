"""How a long-running command is asked to end.

Guards: the first SIGTERM or SIGINT lets everything end in order; the second ends the process at
once, and what it started with it. Nothing is lost by that either: what was not acknowledged comes
again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, within the ``with`` block."""
    stop = threading.Event()
    former = {}
    asked = False

    def ask(number: int, _frame: Any) -> None:
        nonlocal asked
        if asked:
            _end(number)
        asked = True
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        former[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _end(number: int) -> None:
    """At once, as the signal would have without us."""
    for child in _children():
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGTERM)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _children() -> list[int]:
    """Processes that this one started (proc_pid_children(5)); none where the kernel says none."""
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found

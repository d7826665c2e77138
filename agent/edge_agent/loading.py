"""Loads that requests do not feel: the long part of one, in a thread of low priority.

Guards: what runs at low priority holds no lock that a request needs. Above all not the
interpreter's: a thread that stands back while it holds that has everybody stand back with it. So
only calls into ONNX Runtime come here, which let go of it (decision 0021).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

NICENESS = 10
"""Added to the process's: a tenth of the processor when requests want all of it (sched(7))."""
_NICEST = 19

T = TypeVar("T")


def gently(work: Callable[[], T]) -> T:
    """What ``work`` returns or raises, run in a thread of its own at low priority.

    A priority cannot be raised again without privileges, hence the thread. On systems other than
    Linux a priority is the whole process's, and is left alone. Threads that ``work`` starts
    inherit the low priority.
    """
    results: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            _stand_back()
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            faults.append(error)

    thread = threading.Thread(target=run, name="edge-gently", daemon=True)
    thread.start()
    thread.join()
    if faults:
        raise faults.pop()
    return results.pop()


def _stand_back() -> None:
    if sys.platform == "linux":
        nice = min(os.getpriority(os.PRIO_PROCESS, os.getpid()) + NICENESS, _NICEST)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)

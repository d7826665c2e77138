"""Starts a command so that Ctrl-C while its libraries load ends it without a traceback.

Must import nothing but the standard library: whatever it imports could itself be interrupted.
"""

import importlib
import os
import signal
import sys

INTERRUPTED = 130


def start(module: str) -> None:
    """Import ``module`` and call its ``main``."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        # no exception: a library's native half would turn it into an ImportError
        signal.signal(signal.SIGINT, _end)
    main = importlib.import_module(module).main
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, before)
    main()


def _end(*_: object) -> None:
    sys.stderr.write("interrupted\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)  # half-loaded libraries are not asked to clean up

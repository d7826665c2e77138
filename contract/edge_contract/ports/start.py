"""Starts a command so that Ctrl-C while its libraries load ends it without a traceback.

Must import nothing but the standard library: whatever it imports could itself be interrupted.
"""

import importlib
import os
import sys

INTERRUPTED = 130


def start(module: str) -> None:
    """Import ``module`` and call its ``main``."""
    try:
        main = importlib.import_module(module).main
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # half-loaded libraries are not asked to clean up
    main()

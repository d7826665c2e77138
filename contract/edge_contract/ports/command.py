"""The one place where an error becomes a line on stderr and an exit code.

Exit codes: 0 done; 1 the answer is no; 2 wrong input or usage; 3 the build refuses; 4 this
machine cannot; 5 the other side failed; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from edge_contract.errors import EdgeError


def run(app: Callable[[], object]) -> None:
    """Run a command's ``app`` and exit; a user's mistake never shows a traceback."""
    try:
        app()
    except EdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): no fault, but nothing more to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)

"""What power-cut tests need of the machine: strace, and a kernel that lets calls be held."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the sweep's modules are beside the tests

from cut_launch import install


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}: CI cuts the power for real")
    pytest.skip(what)


@pytest.fixture(scope="session")
def strace() -> str:
    """Skips without it."""
    found = shutil.which("strace")
    if found is None:
        _missing("strace is not installed")
    return str(found)


@pytest.fixture(scope="session")
def holding() -> None:
    """Skips where a sandbox forbids seccomp's user notification."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover - runs in the child
        try:
            install()
        except (OSError, KeyError):
            os._exit(1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        pytest.skip("this sandbox or processor has no seccomp user notification")

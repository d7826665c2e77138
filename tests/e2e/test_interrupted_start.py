"""Ctrl-C while a command's libraries load is answered in a word, not by a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize("package", ["edge_pack", "edge_fleet"])
def test_an_interrupt_while_libraries_load_ends_in_a_word(package: str) -> None:
    endings = [_interrupted(package) for _ in range(5)]
    assert all("Traceback" not in said for _, said in endings)
    assert {code for code, _ in endings} <= {0, 130}
    assert (130, "interrupted\n") in endings


def _interrupted(package: str) -> tuple[int, str]:
    """Exit code and stderr of ``--version``, interrupted as soon as numpy or rich is mapped."""
    command = [sys.executable, "-m", package, "--version"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    maps = Path(f"/proc/{process.pid}/maps")
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        if "numpy" in maps.read_text() or "sqlalchemy" in maps.read_text():
            process.send_signal(signal.SIGINT)
            break
    _, said = process.communicate(timeout=60)
    return process.returncode, said

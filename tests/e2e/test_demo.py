"""The demo does the main job, and leaves nothing behind, also when it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
LIMIT_S = 900
INTERRUPTS = [
    ("Start a broker", signal.SIGINT),
    ("Publish version 1.0", signal.SIGTERM),
    ("Publish version 2.0", signal.SIGINT),
]


def processes_in(folder: Path) -> list[str]:
    """Command lines of all processes that work in ``folder`` or below it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            where = (entry / "cwd").readlink()
            words = (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if where.is_relative_to(folder):
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DEMO)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
    )


def read_until(demo: subprocess.Popen[str], words: str) -> str:
    """What the demo printed up to and with the line that holds ``words``."""
    assert demo.stdout is not None
    printed = ""
    for line in demo.stdout:
        printed += line
        if words in line:
            return printed
    raise AssertionError(f"the demo ended before {words!r}:\n{printed}")


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
def test_the_demo_does_the_main_job(tmp_path: Path) -> None:
    demo = start(tmp_path)
    printed, _ = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 0, printed
    assert re.search(r"rooftop.*pixel_2_3", printed)
    assert re.search(r"requests during the swap, 0 failed", printed)
    for device in ("cellar", "garage", "rooftop"):
        assert re.search(rf"{device}: 1\.0 committed", printed)
        assert re.search(rf"{device}: 2\.0 committed", printed)
    assert processes_in(tmp_path) == []


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
@pytest.mark.parametrize(("words", "number"), INTERRUPTS)
def test_an_interrupted_demo_leaves_no_process_behind(
    tmp_path: Path, words: str, number: signal.Signals
) -> None:
    demo = start(tmp_path)
    read_until(demo, words)
    demo.send_signal(number)
    printed, _ = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 130, printed
    deadline = time.monotonic() + 60
    while processes_in(tmp_path) and time.monotonic() < deadline:
        os.sched_yield()
    assert processes_in(tmp_path) == []

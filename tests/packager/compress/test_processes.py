"""A program that we run ends with us: out of time or interrupted, with all that it started."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_contract.errors import MachineFault
from edge_pack import processes

_FOREVER = """
import os, signal, sys
os.fork()
open(sys.argv[1] + str(os.getpid()), "w").close()
signal.pause()
"""
_RUN = f"""
import sys
from edge_pack import processes
processes.run([sys.executable, "-c", {_FOREVER!r}, sys.argv[1]], "waiting", 3600)
"""


def _alive(folder: Path) -> list[str]:
    """Those of the started processes that still run; one that was killed may be a zombie."""
    found = []
    for path in folder.iterdir():
        try:
            stat = Path(f"/proc/{path.name[1:]}/stat").read_text()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] != "Z":
            found.append(path.name)
    return found


def test_what_it_wrote_and_its_exit_code() -> None:
    code = "import sys; print('out'); print('a\\nlast', file=sys.stderr); sys.exit(3)"
    done = processes.run([sys.executable, "-c", code], "a test", 60)
    assert (done.code, done.out, done.complaint) == (3, b"out\n", "last")
    with pytest.raises(MachineFault, match="a test failed"):
        processes.run(["/nowhere/at/all"], "a test", 60)


def test_out_of_time_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(MachineFault, match="longer than 3 seconds"):
        processes.run([sys.executable, "-c", _FOREVER, f"{tmp_path}/p"], "a test", 3)
    while _alive(tmp_path):  # killed: gone as soon as the system takes them down
        pass
    assert len(list(tmp_path.iterdir())) == 2


def test_interrupted_nothing_is_left(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, f"{tmp_path}/p"], stderr=subprocess.DEVNULL
    )
    while len(_alive(tmp_path)) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    while _alive(tmp_path):
        pass

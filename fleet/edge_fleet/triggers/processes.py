"""A command that a trigger runs: its words, no shell, the evidence on its standard input.

Guards: a time limit for it and all that it started; its output is kept as far as its end, never in
memory; when this process is told to stop, so is the command.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

OUTPUT_KEPT_BYTES = 4000
GRACE_S = 5.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Ran:
    """What became of it: ``code`` None when it was ended or never began, and why in words."""

    code: int | None
    output: str
    why: str = ""


def run(
    words: Sequence[str],
    stdin: bytes,
    *,
    folder: Path | None,
    timeout_s: float,
    stop: threading.Event,
    environment: Mapping[str, str],
) -> Ran:
    """Run ``words`` to their end, at most ``timeout_s``; ``environment`` is added to ours."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        given.write(stdin)
        given.seek(0)
        try:
            process = subprocess.Popen(  # noqa: S603 - words from the operator's own settings
                list(words), stdin=given, stdout=output, stderr=subprocess.STDOUT, cwd=folder,
                env={**os.environ, **environment}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Ran(None, "", f"{words[0]} cannot be started: {error.strerror or error}")
        why = _wait(process, time.monotonic() + timeout_s, stop)
        said = _tail(output)
        if why:
            return Ran(None, said, why.format(timeout_s=timeout_s))
        return Ran(process.returncode, said)


def _wait(process: subprocess.Popen[bytes], until_s: float, stop: threading.Event) -> str:
    """Wait for its end; why it was ended, or "". What it left in the background goes on then."""
    ended = False
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
                ended = True
                return ""
            if stop.is_set():
                return "ended, because edge-fleet was told to stop"
            if time.monotonic() >= until_s:
                return "ended after {timeout_s:g} s"
    finally:
        if not ended:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and its process group, kindly first.

    It is waited for without being reaped: until then no other process can have its number.
    """
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    until_s = time.monotonic() + GRACE_S
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
        while os.waitid(os.P_PID, process.pid, how) is None and time.monotonic() < until_s:
            time.sleep(_POLL_S / 4)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(size - OUTPUT_KEPT_BYTES, 0))
    return output.read().decode(errors="replace").strip()

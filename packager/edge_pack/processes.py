"""Runs another program and leaves nothing of it behind, whatever ends the wait."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from edge_contract.errors import MachineFault


@dataclass(frozen=True)
class Done:
    """A program that ended: its exit code, and what it wrote."""

    code: int
    out: bytes
    err: bytes

    @property
    def complaint(self) -> str:
        """The last line of what it wrote to stderr."""
        lines = self.err.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no reason given"


def run(
    command: Sequence[str], what: str, timeout_s: float, env: Mapping[str, str] | None = None
) -> Done:
    """Run a program to its end.

    It is the first of a group of processes that ends with us: interrupted or out of time,
    nothing is left.

    Args:
        what: of the message when it cannot run, such as ``measuring the bundle``.

    Raises MachineFault when it cannot start or takes longer than ``timeout_s``.
    """
    try:
        process = subprocess.Popen(  # noqa: S603  the callers name our own programs
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=env,
        )
    except OSError as error:
        raise MachineFault(f"{what} failed: {error}") from error
    with process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise MachineFault(f"{what} took longer than {timeout_s:g} seconds") from error
        except BaseException:
            _end(process)
            raise
    return Done(process.returncode, out, err)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()

"""Errors that reach a person: each family says whose fault it is.

Only a command's ``main`` turns one into a line on stderr and an exit code. A message says what
happened, what was expected and what was there; ``advice`` says what to do about it.
"""

from __future__ import annotations


class EdgeError(Exception):
    """Something failed in a way that a person can act on.

    Attributes:
        what: one sentence; what happened, what was expected, what was there.
        advice: one sentence; what to do. May be empty.
        code: one of ``telemetry.ERROR_CODES`` where it ended a request; "": not told apart.
        exit_code: what a command returns for this family.
    """

    exit_code = 1

    def __init__(self, what: str, *, advice: str = "", code: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice
        self.code = code

    def __str__(self) -> str:
        return f"{self.what}\n  {self.advice}" if self.advice else self.what


class InputFault(EdgeError):
    """What was handed in is wrong: a file, a row, an option, a message."""

    exit_code = 2


class BuildFault(EdgeError):
    """The inputs are sound but the build refuses: no converter, over budget, a failed gate."""

    exit_code = 3


class MachineFault(EdgeError):
    """This machine cannot do it: disk full, missing extra, out of memory, no permission."""

    exit_code = 4


class PeerFault(EdgeError):
    """The other side failed or lied: broker gone, signature wrong, chunk missing."""

    exit_code = 5

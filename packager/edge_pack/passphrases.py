"""Where a command gets a passphrase or a PIN from: a file, the environment, or the person typing.

Never from an option's value, which other users of the machine can read in the list of processes.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded

PASSPHRASE_VARIABLE = "EDGE_PACK_PASSPHRASE"  # noqa: S105 - the name of a variable
PIN_VARIABLE = "EDGE_PACK_PIN"
_FILE_MAX_BYTES = 4096


class Asking:
    """The ``Secrets`` of a command: each secret is asked for once.

    Args:
        file: holds the passphrase in its first line; None: environment, then the terminal.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, str] = {}

    def __call__(self, what: str) -> str:
        """The secret called ``what``. Raises InputFault when there is nobody to ask."""
        if what not in self._known:
            given = self._given(what)
            self._known[what] = given if given is not None else _typed(what)
        return self._known[what]

    def _given(self, what: str) -> str | None:
        if not what.startswith("passphrase"):
            return os.environ.get(PIN_VARIABLE)
        return of_file(self._file) if self._file else os.environ.get(PASSPHRASE_VARIABLE)

    def for_new(self, *, ask: bool) -> str:
        """The passphrase for a new key, typed twice; "" where none is given and not to ``ask``."""
        given = self._given("passphrase")
        if given or not ask:
            return given or ""
        first = _typed("passphrase for the new keys")
        if _typed("passphrase again") != first:
            raise InputFault("the two passphrases differ", advice="Nothing was written; try again.")
        return first


def of_file(file: Path) -> str:
    """A file's first line. Raises InputFault when it is not there or empty."""
    try:
        lines = read_bounded(file, _FILE_MAX_BYTES).decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputFault(f"{file} is not text") from error
    if not lines or not lines[0]:
        raise InputFault(f"{file} is empty, expected a passphrase in its first line")
    return lines[0]


def _typed(what: str) -> str:
    if not sys.stdin.isatty():
        raise InputFault(
            f"the {what} is needed, and there is no terminal to ask on",
            advice=f"Give it by --passphrase-file FILE or in {PASSPHRASE_VARIABLE}; a hardware"
            f" token's PIN in {PIN_VARIABLE}.",
        )
    return getpass.getpass(f"{what}: ")

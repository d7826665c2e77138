"""Lines on stderr: with a time for a terminal or a file, without one for the journal, which has it.

systemd says in ``JOURNAL_STREAM`` which device and inode the journal's end of stderr has
(systemd.exec(5)). To the journal each line begins with its level as sd-daemon(3) wants it. As JSON
each record is one line, with a time in either case: programs read it far from the journal.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TextIO

PLAIN = "%(asctime)s %(levelname)s %(message)s"
_PRIORITIES = {
    logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2,
}  # fmt: skip


class JournalFormatter(logging.Formatter):
    """``<6>message``; each line of a traceback has the level too. ``form`` makes the lines."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        prefix = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(prefix + line for line in self._form.format(record).splitlines())


def goes_to_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether ``stream`` is the very one that systemd connected to the journal."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def handler(
    stream: TextIO, environment: Mapping[str, str], *, as_json: bool = False
) -> logging.Handler:
    """What writes log lines to ``stream``."""
    made = logging.StreamHandler(stream)
    journal = goes_to_journal(stream, environment)
    form = _json() if as_json else logging.Formatter("%(message)s" if journal else PLAIN)
    made.setFormatter(JournalFormatter(form) if journal else form)
    return made


def _json() -> logging.Formatter:
    from edge_contract.ports.json_log import JsonForm  # noqa: PLC0415 (memory, where nobody asks)

    return JsonForm()

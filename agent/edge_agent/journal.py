"""Lines on stderr: with a time for a terminal or a file, without one for the journal, which has it.

systemd says in ``JOURNAL_STREAM`` which device and inode the journal's end of stderr has
(systemd.exec(5)). To the journal each line begins with its level as sd-daemon(3) wants it.
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
    """``<6>message``; each line of a traceback has the level too."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        prefix = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def goes_to_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether ``stream`` is the very one that systemd connected to the journal."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def handler(stream: TextIO, environment: Mapping[str, str]) -> logging.Handler:
    """What writes log lines to ``stream``."""
    made = logging.StreamHandler(stream)
    journal = goes_to_journal(stream, environment)
    made.setFormatter(JournalFormatter("%(message)s") if journal else logging.Formatter(PLAIN))
    return made

"""Log records as JSON, one object a line, for the programs that read the logs of many machines.

Guards: no secret reaches a log: tokens, bearer headers and passwords in addresses are blacked out
in whatever is said; a line is a line, and ASCII, whatever a device or a broker sent.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

BLACKED = "***"
_SECRETS = (
    re.compile(r"(edgefleet_[0-9a-f]{12}_)[A-Za-z0-9_-]+"),
    re.compile(r"((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"([a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)", re.IGNORECASE),
    re.compile(r"(\b(?:password|passwd|secret|token)\b\s*[=:]\s*)[^\s,;&]+", re.IGNORECASE),
)
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN |= {"color_message"}  # uvicorn says it again, for a terminal


def black_out(text: str) -> str:
    """``text`` without what looks like a secret."""
    for pattern in _SECRETS:
        text = pattern.sub(rf"\1{BLACKED}", text)
    return text


class JsonForm(logging.Formatter):
    """One line of ASCII: ``ts`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, fields.

    Args:
        more: fields that each line gets as well, asked for at each.
    """

    def __init__(self, more: Callable[[], Mapping[str, str]] = dict) -> None:
        super().__init__()
        self._more = more

    def format(self, record: logging.LogRecord) -> str:
        """The record as one JSON object."""
        at = datetime.fromtimestamp(record.created, UTC)
        said: dict[str, Any] = {
            "ts": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": black_out(record.getMessage()),
            **self._more(),
        }
        for name, value in vars(record).items():
            if name not in _PLAIN and name not in said:
                said[name] = _plain(value)
        if record.exc_info:
            said["exception"] = black_out(self.formatException(record.exc_info))
        return json.dumps(said, ensure_ascii=True)


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return black_out(str(value))

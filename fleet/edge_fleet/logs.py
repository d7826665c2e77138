"""What the long-running commands say: text for a person, or one JSON object a line for a program.

Guards: no secret reaches a log: tokens, bearer headers and passwords in addresses are blacked out
in whatever is said; nothing from a device reaches a terminal as more than text. Set up by a
command, once; modules only ever call ``getLogger(__name__)``.
"""

from __future__ import annotations

import json
import logging
import re
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

import typer

from edge_contract.errors import InputFault
from edge_fleet.terminal import clean, print_line

Form = Literal["text", "json"]
LogFormat = Annotated[
    str,
    typer.Option(
        "--log-format",
        metavar="text|json",
        envvar="EDGE_FLEET_LOG_FORMAT",
        help="json: one object a line on stderr, from level INFO on.",
    ),
]
BLACKED = "***"
_SECRETS = (
    re.compile(r"(edgefleet_[0-9a-f]{12}_)[A-Za-z0-9_-]+"),
    re.compile(r"((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"([a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)", re.IGNORECASE),
    re.compile(r"(\b(?:password|passwd|secret|token)\b\s*[=:]\s*)[^\s,;&]+", re.IGNORECASE),
)
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN |= {"color_message"}  # uvicorn says it again, for a terminal
_announcer = logging.getLogger("edge_fleet")

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the HTTP request that is answered here."""


def black_out(text: str) -> str:
    """``text`` without what looks like a secret."""
    for pattern in _SECRETS:
        text = pattern.sub(rf"\1{BLACKED}", text)
    return text


class TextForm(logging.Formatter):
    """UTC times, and nothing from a device that a terminal would obey."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)sZ %(levelname)s %(message)s", "%FT%T")

    def format(self, record: logging.LogRecord) -> str:
        """The record as lines of text."""
        lines = black_out(super().format(record)).splitlines()
        return "\n".join(clean(line) for line in lines)


class JsonForm(logging.Formatter):
    """One line of ASCII: ``ts`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one JSON object."""
        at = datetime.fromtimestamp(record.created, UTC)
        said: dict[str, Any] = {
            "ts": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": black_out(record.getMessage()),
        }
        if request_id.get():
            said["request_id"] = request_id.get()
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


def form_of(text: str) -> Form:
    """What ``--log-format`` says. Raises InputFault."""
    for form in get_args(Form):
        if text == form:
            return form  # type: ignore[no-any-return]
    raise InputFault(f"--log-format {text[:20]!r} is none of {', '.join(get_args(Form))}")


def log_to_stderr(*, verbose: bool, form: str = "text") -> None:
    """Set up logging for a command. Raises InputFault for a form that is none."""
    as_json = form_of(form) == "json"
    handler = logging.StreamHandler()
    handler.setFormatter(JsonForm() if as_json else TextForm())
    level = logging.INFO if verbose or as_json else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler])


def announce(text: object) -> None:
    """A line for whoever started the command: on standard output, or in the JSON log."""
    if any(isinstance(each.formatter, JsonForm) for each in logging.getLogger().handlers):
        _announcer.info("%s", text)
    else:
        print_line(black_out(str(text)))

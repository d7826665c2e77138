"""What the long-running commands say: text for a person, or one JSON object a line for a program.

Guards: no secret reaches a log: tokens, bearer headers and passwords in addresses are blacked out
in whatever is said; nothing from a device reaches a terminal as more than text. Set up by a
command, once; modules only ever call ``getLogger(__name__)``.
"""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from typing import Annotated, Literal, get_args

import typer

from edge_contract.errors import InputFault
from edge_contract.ports.json_log import JsonForm, black_out
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
_announcer = logging.getLogger("edge_fleet")

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the HTTP request that is answered here."""


class TextForm(logging.Formatter):
    """UTC times, and nothing from a device that a terminal would obey."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)sZ %(levelname)s %(message)s", "%FT%T")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        """One line, whatever is in it: only a traceback has several."""
        return clean(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """The record as lines of text."""
        lines = black_out(super().format(record)).splitlines()
        return "\n".join(clean(line) for line in lines)


def json_form() -> JsonForm:
    """With the id of the request that a line belongs to."""

    def more() -> dict[str, str]:
        return {"request_id": request_id.get()} if request_id.get() else {}

    return JsonForm(more)


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
    handler.setFormatter(json_form() if as_json else TextForm())
    level = logging.INFO if verbose or as_json else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler])


def announce(text: object) -> None:
    """A line for whoever started the command: on standard output, or in the JSON log."""
    if any(isinstance(each.formatter, JsonForm) for each in logging.getLogger().handlers):
        _announcer.info("%s", text)
    else:
        print_line(black_out(str(text)))

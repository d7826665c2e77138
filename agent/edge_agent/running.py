"""The command ``edge-agent run``, without what only the other commands use.

Guards: the process that stays in a device's memory reads its own command line, for Typer and what
it brings are 10 MB of it and 100 ms of each start. Whatever these few lines do not know for sure,
the whole command gets to read, which says what is wrong and prints help.

Imports nothing at its top but the standard library: it is asked before anything else is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from edge_agent.config import Config

CONFIG_VARIABLE = "EDGE_AGENT_CONFIG"
LOG_VARIABLE = "EDGE_AGENT_LOG_FORMAT"
LOG_FORMATS = ("text", "json")

CORNERS = ("ipaddress", "securesystemslib._gpg.functions", "shutil")
"""What libraries import at their top, and an agent hardly ever uses: addresses in brackets,
signatures by GnuPG, and removing folders, which brings three kinds of archives."""


class Line(NamedTuple):
    """What a command line asks for; ``config`` "": the usual place."""

    config: str = ""
    verbose: bool = False
    log_format: str = "text"


def read(words: Sequence[str], environment: Mapping[str, str]) -> Line | None:
    """What ``run`` is asked for; None for every other command, help, and what is wrong."""
    if list(words[:1]) != ["run"]:
        return None
    found = {
        "--config": environment.get(CONFIG_VARIABLE, ""),
        "--log-format": environment.get(LOG_VARIABLE, "") or LOG_FORMATS[0],
    }
    verbose = False
    rest = iter(words[1:])
    for word in rest:
        if word in ("--verbose", "-v"):
            verbose = True
            continue
        name, equals, value = word.partition("=")
        if name not in found:
            return None
        found[name] = value if equals else next(rest, "")
        if not found[name] or found[name].startswith("-"):
            return None
    if found["--log-format"] not in LOG_FORMATS:
        return None
    return Line(found["--config"], verbose, found["--log-format"])


def run(line: Line) -> None:
    """Answer, update and report until SIGTERM or SIGINT. Raises an EdgeError."""
    import logging  # noqa: PLC0415 - see the module's text
    import signal  # noqa: PLC0415

    from edge_contract import lean  # noqa: PLC0415

    with lean.put_off(*CORNERS):
        settings = _load(line)
    from edge_agent import local  # noqa: PLC0415
    from edge_agent.agent import Agent  # noqa: PLC0415
    from edge_agent.notify import Notifier  # noqa: PLC0415

    # The kernel may give a signal to any thread, which ends no wait of this one: an Event set by
    # the handler was not seen. The pipe is written to in whichever thread it is.
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT, local.LOOK_SIGNAL):
        signal.signal(number, lambda *_: None)
    with Agent(settings, notifier=Notifier.of(os.environ, os.getpid())) as agent:
        while os.read(woken, 1)[0] == local.LOOK_SIGNAL:
            agent.look()
        logging.getLogger(__name__).info("stopping")


def _load(line: Line) -> Config:
    """The settings, and in memory the libraries that an agent uses. Raises InputFault."""
    import logging  # noqa: PLC0415 - see the module's text
    from pathlib import Path  # noqa: PLC0415

    from edge_contract import lean  # noqa: PLC0415

    lean.load_msgspec()
    from edge_agent import config as configs  # noqa: PLC0415
    from edge_agent import journal  # noqa: PLC0415

    settings = configs.load(Path(line.config or configs.DEFAULT_PATH), os.environ)
    logging.basicConfig(
        handlers=[
            journal.handler(sys.stderr, os.environ, as_json=line.log_format == LOG_FORMATS[1])
        ],
        level=logging.DEBUG if line.verbose else logging.INFO,
    )
    from edge_agent import lean_tuf  # noqa: PLC0415 - faulty settings are said at once

    lean.load_paho()
    lean.load_zoneinfo()
    lean_tuf.load_tuf()
    import edge_agent.agent  # noqa: F401, PLC0415

    return settings


def main() -> None:
    """Entry point, for a command line that ``read`` knows."""
    from edge_contract.ports import command  # noqa: PLC0415 - see the module's text

    command.run(lambda: run(read(sys.argv[1:], os.environ) or Line()))

"""Options and settings that several commands of ``edge-fleet`` have."""

from __future__ import annotations

import dataclasses
import getpass
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import EdgeError, InputFault
from edge_contract.ports.disk import read_bounded

PASSWORD_VARIABLE = "EDGE_FLEET_PASSWORD"  # noqa: S105 - the name of a variable
DEFAULT_DB = "sqlite:///edge-fleet.db"
HOUR_MS = 3_600_000
SECRET_MAX_BYTES = 4096

Db = Annotated[
    str,
    typer.Option(
        "--db", envvar="EDGE_FLEET_DB", help="sqlite:///FILE or postgresql://user@host/database."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


def period_ms(hours: float) -> int:
    """``--hours`` in milliseconds. Raises InputFault for none, and for more than a year."""
    if not 0 < hours <= 24 * 366:
        raise InputFault(f"--hours {hours:g} is not above 0 and at most a year")
    return int(hours * HOUR_MS)


def with_password(url: BrokerUrl) -> BrokerUrl:
    """The password from the environment where the URL names a user and no password.

    Itself, or the file that holds it: containers get secrets as files. Raises InputFault.
    """
    password = os.environ.get(PASSWORD_VARIABLE, "") or from_file(f"{PASSWORD_VARIABLE}_FILE")
    return dataclasses.replace(url, password=password) if url.user and not url.password else url


def user() -> str:
    """The name of who runs this command, for the audit."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in many a container
        return f"uid {os.getuid()}"


def from_file(variable: str) -> str:
    """The first line of the file that an environment variable names; "" where it names none."""
    path = os.environ.get(variable, "")
    if not path:
        return ""
    try:
        return read_bounded(Path(path), SECRET_MAX_BYTES).decode().strip()
    except (EdgeError, OSError, UnicodeDecodeError) as error:
        raise InputFault(
            f"{variable} names {path}, which cannot be read as a password",
            advice="Expected a small file of one line that this user may read.",
        ) from error


def now_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000

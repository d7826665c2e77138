"""Opening the fleet's store for a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from edge_contract.errors import MachineFault
from edge_fleet.options import from_file

if TYPE_CHECKING:
    from edge_fleet.store.sql import SqlStore

PASSWORD_FILE_VARIABLE = "EDGE_FLEET_DB_PASSWORD_FILE"  # noqa: S105 - the name of a variable


@contextmanager
def opened(db: str, *, create: bool = False) -> Iterator[SqlStore]:
    """The store at ``db``, closed at the end. Raises MachineFault without the extra ``fleet``."""
    try:
        from edge_fleet.store.sql import open_store  # noqa: PLC0415 (its library is an extra)
    except ModuleNotFoundError as error:
        raise lacking(error) from error
    store = open_store(with_password(db), create=create)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def reached(db: str, *, create: bool = False) -> Iterator[SqlStore]:
    """As ``opened``, whatever version its tables are of; nothing of it was looked at yet."""
    try:
        from edge_fleet.store.sql import reach  # noqa: PLC0415 (its library is an extra)
    except ModuleNotFoundError as error:
        raise lacking(error) from error
    store = reach(with_password(db), create=create)
    try:
        yield store
    finally:
        store.close()


def with_password(db: str) -> str:
    """``db`` with the password from the file that EDGE_FLEET_DB_PASSWORD_FILE names, if any."""
    password = from_file(PASSWORD_FILE_VARIABLE)
    scheme, mark, rest = db.partition("://")
    user, at, where = rest.partition("@")
    if not (password and mark and at and user) or ":" in user or "/" in user:
        return db
    return f"{scheme}://{user}:{quote(password, safe='')}@{where}"


def lacking(error: ModuleNotFoundError) -> MachineFault:
    """The extra ``fleet`` is not installed."""
    return MachineFault(
        f"edge-fleet needs a package that is not installed here: {error.name}",
        advice="Install it: pip install 'edge-pack[fleet]'",
    )

"""Errors of a database as ours. Pure.

Guards: that there is no room is told apart from that it cannot be reached: a person does something
else about it, and what is there can still be read.
"""

from __future__ import annotations

from sqlite3 import SQLITE_FULL, SQLITE_NOTADB

from edge_contract.errors import InputFault, MachineFault

_DISK_FULL = "53100"
"""https://www.postgresql.org/docs/current/errcodes-appendix.html"""


class Full(MachineFault):
    """The store's disk, or what it may take of it, is used up; what is there can be read."""


def refused(store: str, cause: BaseException) -> InputFault:
    """A value that the database has no room for is its giver's fault: trying again helps nobody."""
    return InputFault(f"the store {store} takes no such value: {_first_line(cause)}")


def fault_of(store: str, cause: BaseException) -> MachineFault:
    """What ``cause``, an error of the database's driver, is to a person."""
    said = f"the store {store} failed: {_first_line(cause)}"
    code = getattr(cause, "sqlstate", None), getattr(cause, "sqlite_errorcode", None)
    if code[0] == _DISK_FULL or code[1] == SQLITE_FULL:
        return Full(said, advice="Make room on its disk; until then it is read and not written.")
    if code[1] == SQLITE_NOTADB:
        advice = "Name the SQLite file of a fleet, or another path for a new one."
        return MachineFault(said, advice=advice)
    return MachineFault(
        said, advice="Check that it is reachable, writable and that its disk is not full."
    )


def _first_line(cause: BaseException) -> str:
    return str(cause).strip().partition("\n")[0]

"""``edge-fleet audit``: who did what and when, and whether anybody changed that afterwards."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from edge_contract.errors import InputFault
from edge_fleet import terminal
from edge_fleet.api.audits import audit_view
from edge_fleet.opening import opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms, user
from edge_fleet.reports import instant
from edge_fleet.store import chain
from edge_fleet.store.audit import Entry
from edge_fleet.store.audit import audit as keep
from edge_fleet.store.base import Store, Transaction

AuditDb = Annotated[
    str,
    typer.Option(
        "--db", envvar="EDGE_FLEET_DB", help="The fleet's store: there it is put into the audit."
    ),
]


def audit(
    *,
    actor: Annotated[str, typer.Option(help="Only of this token or user.")] = "",
    action: Annotated[
        str, typer.Option(help="Only this, such as rollout.start; rollout: all of its kind.")
    ] = "",
    subject: Annotated[str, typer.Option(help="Only about this, such as 'rollout 3'.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 50,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that no entry was altered or taken out.")
    ] = False,
    head: Annotated[
        str,
        typer.Option(
            metavar="SHA256", help="With --verify: a head noted earlier; it has to be there still."
        ),
    ] = "",
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Who did what and when, newest first (UTC): over HTTP, by a command, or the server itself.

    Entries are only added: the database refuses to change or delete one, and each has the SHA-256
    of all before it. --verify walks them and prints the head: note it elsewhere, and who cuts the
    end off or writes a new chain is seen by --head. Exit code 1: something was altered.

    Examples:

      edge-fleet audit

      edge-fleet audit --action rollout --actor nightshift --json

      edge-fleet audit --verify --head 5f0c...
    """
    if head and not re.fullmatch(r"[0-9a-f]{64}", head):
        raise InputFault("--head is not a SHA-256 in 64 lower-case hex digits")
    if head and not verify:
        raise InputFault("--head needs --verify")
    with opened(db) as store:
        if verify:
            found = _verified(store, head)
        else:
            with store.reading() as tx:
                entries = tx.audits_before((), limit, actor=actor, action=action, subject=subject)
    if not verify:
        _show(entries, as_json=as_json)
        return
    _tell(found, as_json=as_json)
    if not found.sound:
        raise typer.Exit(1)


def _verified(store: Store, head: str) -> chain.Checked:
    console = Console(stderr=True)
    with (
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
        store.reading() as tx,
    ):
        return chain.check(bar.track(tx.linked_audits(), description="entries"), head)


def _show(entries: list[Entry], *, as_json: bool) -> None:
    if as_json:
        terminal.print_json([audit_view(each) for each in entries])
    elif entries:
        terminal.print_table(
            ["at (UTC)", "who", "did", "to", "detail"],
            [[instant(e.at_ms), e.actor, e.action, e.subject, e.detail] for e in entries],
        )
    else:
        terminal.print_line("no such entry")


def _tell(found: chain.Checked, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(found)
        return
    for fault in found.faults:
        terminal.print_line(fault)
    if found.held is False:
        terminal.print_line("the head that was noted is not there: the end was cut off, or another"
                            " chain stands in its place")  # fmt: skip
    terminal.print_line(f"{found.entries} entries, head {found.head}")


def did(tx: Transaction, action: str, subject: str, detail: str = "") -> None:
    """Keep what this command does, in the transaction that does it."""
    keep(tx, now_ms(), user(), action=action, subject=subject, detail=detail)


def noted(db: str, action: str, subject: str, detail: str = "") -> None:
    """Keep what a command did elsewhere than in the store, where there is a store.

    Accounts, settings and devices' labels are changed where there may be no database.
    """
    if not db:
        return
    with opened(db) as store, store.transaction() as tx:
        did(tx, action, subject, detail)

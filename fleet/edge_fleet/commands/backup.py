"""``edge-fleet backup`` and ``restore``: the whole store as one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from edge_contract.errors import InputFault
from edge_fleet import terminal
from edge_fleet.opening import lacking, reached
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms, user
from edge_fleet.reports import instant

File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


def backup(
    file: File,
    *,
    db: Db = DEFAULT_DB,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE where it is.")] = False,
    as_json: Json = False,
) -> None:
    """Write the store as it is at this moment to one file, while `serve` goes on.

    The file is of no kind of database: a backup of SQLite can be restored into PostgreSQL and the
    other way round. Only its owner may read it. Signing keys and the broker's accounts are not in
    it: keep those beside it.

    Examples:

      edge-fleet backup fleet-2026-11-21.backup

      edge-fleet backup /mnt/nas/fleet.backup --force --db postgresql://edge@db/fleet
    """
    if file.exists() and not force:
        raise InputFault(f"{file} is there already", advice="Name another file, or --force.")
    with reached(db) as store, _bar("reading") as progress:
        from edge_fleet.backups import taking  # noqa: PLC0415 (its library is an extra)

        taken = taking.take(store, file, now_ms(), progress)
    if as_json:
        terminal.print_json(taken)
        return
    terminal.print_line(
        f"{file}: fleet {taken.fleet or '(none yet)'}, {sum(taken.rows.values())} rows of"
        f" {len(taken.rows)} tables, {taken.size_bytes / 1e6:.1f} MB, schema {taken.version}"
    )


def restore(
    file: File,
    *,
    db: Db = DEFAULT_DB,
    force: Annotated[
        bool, typer.Option("--force", help="Replace all that the database holds.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read and verify FILE, and change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put a backup into an empty database; one of an older edge-fleet is brought up to date.

    Every hash in the file is verified before anything changes, and the change is one transaction:
    interrupted at any point, the database holds what it held. Stop `serve` first.

    Examples:

      edge-fleet restore fleet.backup --check

      edge-fleet restore fleet.backup --db sqlite:///new.db

      edge-fleet restore fleet.backup --db postgresql://edge@db/fleet --force
    """
    try:
        from edge_fleet.backups import restoring  # noqa: PLC0415 (its library is an extra)
    except ModuleNotFoundError as error:
        raise lacking(error) from error
    with _bar("restoring") as progress:
        if check:
            found = restoring.verify(file, progress)
        else:
            with reached(db, create=True) as store:
                found = restoring.restore(
                    store, file, force=force, by=user(), now_ms=now_ms(), progress=progress
                )
    if as_json:
        terminal.print_json(found)
        return
    done = "is whole" if check else "restored"
    upgrade = "" if found.version == found.into else f", schema {found.version} to {found.into}"
    terminal.print_line(
        f"{file} {done}: fleet {found.fleet or '(none yet)'} as of"
        f" {instant(found.created_ms) or 'an unknown time'}, {sum(found.rows.values())} rows of"
        f" {len(found.rows)} tables{upgrade}"
    )


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

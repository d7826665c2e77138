"""``edge-pack keys`` and ``edge-pack publish``: parse, call one function, print."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from edge_contract import broker_url
from edge_contract import bundle as bundles
from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.topics import DEFAULT_PREFIX, Topics

if TYPE_CHECKING:
    from edge_release.keyring import RoleStatus
    from edge_release.publication import Synced
    from edge_release.repository import Published

PASSWORD_VARIABLE = "EDGE_PACK_PASSWORD"  # noqa: S105 - the name of a variable

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_Keys = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of keys.")]

_INIT_HELP = """Make signing keys and an empty repository in DIR.

Prints the root's fingerprint, which devices are enrolled with.

Example: edge-pack keys init keys
"""
_STATUS_HELP = """Show each role's version, expiry and keys.

Exit code 1 when a signature has expired.

Example: edge-pack keys status keys
"""
_PUBLISH_HELP = """Sign BUNDLE and put it on a broker, for the devices of a fleet to pull.

The same command again is harmless: it puts back what the broker lost. The broker's password may
be given in the environment as EDGE_PACK_PASSWORD.

Examples:

  edge-pack publish pump.edgepack --broker mqtt://localhost --keys keys --fleet home

  edge-pack publish pump-2.edgepack --broker mqtts://me@broker.example --keys keys --fleet home
  --candidate
"""


def register(app: typer.Typer) -> None:
    """Add the commands to ``edge-pack``."""
    group = typer.Typer(
        help="Make and look at signing keys.", no_args_is_help=True, rich_markup_mode=None
    )
    group.command("init", help=_INIT_HELP)(_init)
    group.command("status", help=_STATUS_HELP)(_status)
    app.add_typer(group, name="keys")
    app.command("publish", help=_PUBLISH_HELP)(_publish)


def _init(
    folder: _Keys,
    *,
    profile: Annotated[
        str,
        typer.Option(help="home: signatures hold long; managed: short, two of three root keys."),
    ] = "home",
    as_json: _Json = False,
) -> None:
    from edge_release import create  # noqa: PLC0415 - needs an extra; `inspect` does not
    from edge_release.roles import PROFILES, ROOT, key_names  # noqa: PLC0415

    chosen = next((each for each in PROFILES if each == profile), None)
    if chosen is None:
        raise InputFault(f"profile {profile!r} is neither of {', '.join(PROFILES)}")
    fingerprint = create(folder, chosen, now=datetime.now(UTC))
    roots = [f"{name}.pem" for name in key_names(chosen, ROOT)]
    first = folder / "repository" / "metadata" / "1.root.json"
    if as_json:
        _print_json({"fingerprint": _digits(fingerprint), "root": str(first), "profile": chosen})
        return
    sys.stdout.write(
        f"keys and an empty repository are in {folder} (profile {chosen})\n"
        f"root fingerprint: {fingerprint}\n"
        f"enroll each device with: edge-agent enroll --root {fingerprint}\n"
        f"The keys are NOT encrypted; only this user can read them. Keep a copy of the folder off"
        f" line:\nwho has it can sign for your devices, and without {', '.join(roots)} nobody can"
        " ever replace a key.\n"
    )


def _status(folder: _Keys, *, as_json: _Json = False) -> None:
    from edge_release import fingerprint, keyring  # noqa: PLC0415
    from edge_release.repository import Repository  # noqa: PLC0415

    now = datetime.now(UTC)
    repository = Repository(folder)
    rows = list(keyring.status(repository, now=now).roles)
    root = fingerprint(repository.shelf.first_root())
    if as_json:
        found = {"fingerprint": _digits(root), "profile": repository.profile}
        _print_json({**found, "roles": [_role_json(row, now) for row in rows]})
    else:
        sys.stdout.write(f"root fingerprint: {root} (profile {repository.profile})\n")
        Console().print(_role_table(rows, now))
    if any(row.expires <= now for row in rows):
        raise typer.Exit(1)


def _publish(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="An .edgepack file.")],
    *,
    broker: Annotated[str, typer.Option(help="Such as mqtt://localhost or mqtts://me@host.")],
    keys: Annotated[Path, typer.Option(metavar="DIR", help="The folder of keys.")],
    fleet: Annotated[str, typer.Option(help="Whose devices it is for.")],
    channel: Annotated[str, typer.Option(help="Which of the fleet's channels.")] = "stable",
    candidate: Annotated[
        bool, typer.Option("--candidate", help="Only a rollout may choose it.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="What every topic begins with.")] = DEFAULT_PREFIX,
    ca: Annotated[str, typer.Option(metavar="FILE", help="Authority of an mqtts broker.")] = "",
    as_json: _Json = False,
) -> None:
    from edge_release.publication import connect, sync  # noqa: PLC0415
    from edge_release.repository import Repository  # noqa: PLC0415

    topics = Topics(fleet, prefix)
    link = LinkConfig(
        broker=_with_password(broker_url.parse(broker)),
        client_id=f"edge-pack-{secrets.token_hex(4)}",
        ca_file=ca,
    )
    opened = bundles.read(read_bounded(bundle, bundles.BUNDLE_MAX_BYTES))
    repository = Repository(keys)
    started = time.monotonic()
    with repository.locked(), connect(link, topics) as connected:
        published = repository.publish(
            opened, fleet=fleet, channel=channel, candidate=candidate, now=datetime.now(UTC)
        )
        with _bar(f"publishing {opened.manifest.name} {opened.manifest.version}") as progress:
            synced = sync(repository, topics, connected, progress=progress)
    summary = _summary(published, synced, time.monotonic() - started, candidate=candidate)
    if as_json:
        _print_json(summary)
    else:
        sys.stdout.write(_sentence(summary))


def _with_password(url: BrokerUrl) -> BrokerUrl:
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password or url.password:
        return url
    return BrokerUrl(url.host, url.port, url.tls, url.user, password)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, on a terminal only."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _summary(
    published: Published, synced: Synced, seconds: float, *, candidate: bool
) -> dict[str, Any]:
    return {
        "model": published.place.model,
        "version": published.release.version,
        "sha256": published.release.sha256,
        "fleet": published.place.fleet,
        "channel": published.place.channel,
        "candidate": candidate,
        "pointer_version": published.pointer_version,
        "timestamp_version": published.timestamp_version,
        "signed": published.changed,
        "messages": synced.put_messages,
        "bytes": synced.put_bytes,
        "kept_bytes": synced.kept_bytes,
        "seconds": round(seconds, 3),
    }


def _sentence(summary: dict[str, Any]) -> str:
    role = "candidate" if summary["candidate"] else "stable"
    return (
        f"{summary['model']} {summary['version']} is {role} in channel {summary['channel']} of"
        f" fleet {summary['fleet']} (pointer version {summary['pointer_version']})\n"
        f"put {summary['messages']} messages, {summary['bytes']:,} bytes in"
        f" {summary['seconds']:.1f} s; {summary['kept_bytes']:,} bytes were there already\n"
    )


def _role_json(row: RoleStatus, now: datetime) -> dict[str, Any]:
    return {
        "role": row.role,
        "version": row.version,
        "expires": row.expires.isoformat(),
        "days_left": (row.expires - now).days,
        "threshold": row.threshold,
        "keys": [key.name for key in row.keys],
        "key_here": row.present,
        "renew": row.renew,
    }


def _role_table(rows: list[RoleStatus], now: datetime) -> Table:
    table = Table(box=None, header_style="")
    for column in ("role", "version", "expires", "days left", "keys", "key here", "note"):
        table.add_column(column)
    for row in rows:
        if row.expires <= now:
            note = "EXPIRED"
        elif row.renew:
            note = "sign anew: past half its life"
        else:
            note = ""
        table.add_row(
            row.role,
            str(row.version),
            row.expires.strftime("%Y-%m-%d"),
            str((row.expires - now).days),
            f"{row.threshold} of {len(row.keys)}",
            "yes" if row.present else "no",
            note,
        )
    return table


def _digits(fingerprint: str) -> str:
    return fingerprint.removeprefix("sha256:")


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")

"""``edge-fleet labels import``: labels that came late, from a file to the devices."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from edge_contract import broker_url
from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.topics import DEFAULT_PREFIX, Topics
from edge_fleet import label_import, terminal
from edge_fleet.commands.audit import AuditDb, noted
from edge_fleet.options import Json, with_password
from edge_fleet.quality import label_file

app = typer.Typer(
    help="Labels that became known after the answer.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def labels() -> None:
    """Keep `import` a word of its own."""


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV: device,model,id,label; - is stdin.")],
    *,
    fleet: Annotated[str, typer.Option(help="Which fleet.")],
    broker: Annotated[
        str,
        typer.Option(envvar="EDGE_BROKER", help="mqtt://[user:password@]host[:port], mqtts://..."),
    ],
    model: Annotated[str, typer.Option(help="Of rows that name none.")] = "",
    wait_s: Annotated[
        float, typer.Option(help="How long a device may take to tell what became of its labels.")
    ] = 10.0,
    prefix: Annotated[str, typer.Option(help="What all topics begin with.")] = DEFAULT_PREFIX,
    ca_file: Annotated[str, typer.Option(help="TLS authorities, PEM.")] = "",
    cert_file: Annotated[str, typer.Option(help="TLS client certificate, PEM.")] = "",
    key_file: Annotated[str, typer.Option(help="Its key, PEM.")] = "",
    db: AuditDb = "",
    as_json: Json = False,
) -> None:
    """Send labels to the devices whose answers they are for; they count them and report counts.

    The id is the one that came with the answer. A label counts once, so a file may be sent again;
    a device that is away finds its labels within a week. Exit code 1: not all were counted. On a
    broker with accounts one of role `client` may send them.

    Examples:

      edge-fleet labels import inspected.csv --fleet home --broker mqtt://10.0.0.2

      edge-fleet labels import - --fleet plant --broker mqtts://plant.server@broker --model boiler
    """
    if not 0 < wait_s <= 3600:
        raise InputFault(f"--wait-s {wait_s:g} is not above 0 and at most an hour")
    batches = label_file.read(_data(file), model)
    config = LinkConfig(
        with_password(broker_url.parse(broker)), client_id=f"edge-labels-{secrets.token_hex(4)}",
        ca_file=ca_file, cert_file=cert_file, key_file=key_file,
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("labels", total=None)
        found = label_import.send(
            config, Topics(fleet, prefix), batches, wait_s=wait_s,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    noted(db, "labels.import", f"fleet {fleet}", f"{found.sent} sent, {found.counted} counted")
    _print(found, as_json=as_json)
    if found.counted + found.repeated < found.sent:
        raise typer.Exit(1)


def _data(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read(label_file.FILE_MAX_BYTES + 1)
    return read_bounded(file, label_file.FILE_MAX_BYTES)


def _print(found: label_import.Imported, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(found)
        return
    told = ", ".join(
        f"{getattr(found, name)} {name}"
        for name in ("counted", "repeated", "contradicted", "late", "unknown", "refused")
        if getattr(found, name)
    )
    terminal.print_line(f"{found.sent} labels sent: {told or 'no device told of any'}")
    for why in found.said:
        terminal.print_line(f"refused: {why}")
    if found.garbled:
        terminal.print_line(f"an answer without sense from {', '.join(found.garbled)}")
    if found.silent:
        terminal.print_line(
            f"no answer from {', '.join(found.silent)}: labels wait there for up to a week"
        )

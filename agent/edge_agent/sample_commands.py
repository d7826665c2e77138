"""``edge-agent samples export``: rows that were set aside leave the device by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edge_agent import config as configs
from edge_agent import running
from edge_agent.folder import Folder
from edge_contract import sealed
from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded, write_atomic

app = typer.Typer(
    help="Rows set aside for their owner, sealed: see [sampling] in the settings.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def samples() -> None:
    """Keep `export` a word of its own."""


@app.command()
def export(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the sealed files are copied to.")],
    *,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take them off the device once they are copied.")
    ] = False,
    config: Annotated[
        Path, typer.Option("--config", envvar=running.CONFIG_VARIABLE, help="Settings, TOML.")
    ] = configs.DEFAULT_PATH,
) -> None:
    """Copy the rows that were set aside; only who has the key can read them.

    This is the one way that rows leave a device. `edge-fleet samples open DIR --key FILE` reads
    them.

    Example: edge-agent samples export --out /media/usb --remove
    """
    folder = Folder(configs.load(config, os.environ).folder)
    count, size = copy(folder.samples, out, remove=remove)
    done = "moved" if remove else "copied"
    typer.echo(f"{done} {count} files, {size} bytes, to {out}")


def copy(folder: Path, out: Path, *, remove: bool = False) -> tuple[int, int]:
    """Copy the sealed files in ``folder`` to ``out``; how many, of how many bytes.

    With ``remove`` each goes once its copy is on disk. Raises InputFault where there is none.
    """
    paths = sorted(folder.glob("*.sealed")) if folder.is_dir() else []
    if not paths:
        raise InputFault(
            f"no rows were set aside in {folder}",
            advice="[sampling] in the settings says which rows would be.",
        )
    size = 0
    for path in paths:
        data = read_bounded(path, sealed.FILE_MAX_BYTES)
        write_atomic(out / path.name, data, mode=0o600)
        size += len(data)
        if remove:
            path.unlink(missing_ok=True)
    return len(paths), size

"""``edge-fleet samples``: a key for rows that devices set aside, and those rows as a table."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from edge_contract import sealed, wire
from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports.disk import read_bounded, write_atomic
from edge_fleet import terminal
from edge_fleet.spreadsheet import plain

KEY_MAX_BYTES = 4096

app = typer.Typer(
    help="Rows that devices set aside: [sampling] in agent.toml.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


class Row(Struct, frozen=True):
    """As ``edge_agent.sampling.Sample``."""

    why: str
    label: str
    score: float | None
    values: dict[str, float | str | None]


class Parcel(Struct, frozen=True):
    """As ``edge_agent.samples.Parcel``."""

    device: str
    model: str
    version: str
    bundle: str
    at_ms: int
    rows: list[Row]


@app.command()
def key(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the private key goes.")],
) -> None:
    """Make a key: the private half into a file, the public half for the devices on the screen.

    Who has the file can read what the devices set aside; without it nobody can, so keep a copy.

    Example: edge-fleet samples key --out samples.key
    """
    private, public = sealed.new_key()
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InputFault(f"{out} is there already, and may be a key that is needed") from error
    except OSError as error:
        raise MachineFault(f"{out} cannot be written: {error.strerror}") from error
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(private + "\n")
    terminal.print_line(f'recipient = "{public}"')


@app.command("open")
def open_(
    files: Annotated[list[Path], typer.Argument(help="Sealed files, or folders of them.")],
    *,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The private key.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the CSV goes; - is stdout.")] = (
        Path("-")
    ),
) -> None:
    """Read sealed rows into CSV: device, model, version, when, why, label, score, one a feature.

    Example: edge-fleet samples open /media/usb --key samples.key --out rows.csv
    """
    private = read_bounded(key, KEY_MAX_BYTES).decode("ascii", "replace")
    parcels = list(parcels_of(files, private))
    text = table(parcels)
    if str(out) == "-":
        sys.stdout.write(text)
        return
    write_atomic(out, text.encode(), mode=0o600)
    rows = sum(len(parcel.rows) for parcel in parcels)
    terminal.print_line(f"{out}: {rows} rows of {len({p.device for p in parcels})} devices")


def parcels_of(files: list[Path], private: str) -> Iterator[Parcel]:
    """What the files hold, in order of their names. Raises InputFault, naming the file."""
    for given in files:
        paths = sorted(given.glob("*.sealed")) if given.is_dir() else [given]
        if not paths:
            raise InputFault(f"{given} has no sealed files")
        for path in paths:
            try:
                data = sealed.unseal(read_bounded(path, sealed.FILE_MAX_BYTES), private)
                yield wire.decode_json(data, Parcel, size_max=sealed.FILE_MAX_BYTES)
            except InputFault as error:
                raise InputFault(f"{path}: {error.what}", advice=error.advice) from error


def table(parcels: list[Parcel]) -> str:
    """CSV with a column for every feature that any row has."""
    features = dict.fromkeys(name for p in parcels for row in p.rows for name in row.values)
    fixed = ("device", "model", "version", "at_ms", "why", "label", "score")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*fixed, *map(plain, features)])
    for parcel in parcels:
        for row in parcel.rows:
            cells = [
                parcel.device, parcel.model, parcel.version, parcel.at_ms,
                row.why, row.label, row.score, *(row.values.get(name) for name in features),
            ]  # fmt: skip
            writer.writerow([plain(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()

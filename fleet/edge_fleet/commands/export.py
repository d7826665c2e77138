"""``edge-fleet export``: what devices counted, to hand out; and the tables of the fleet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.progress import Progress

from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports import disk
from edge_fleet import disclosure, terminal
from edge_fleet.opening import lacking, opened
from edge_fleet.options import DEFAULT_DB, Db, now_ms

if TYPE_CHECKING:
    from edge_fleet.export import Exported
    from edge_fleet.table_export import Format, Kind

app = typer.Typer(
    help="Data to hand out.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
_SUFFIXES = (".csv", ".parquet", ".json")
DAYS_MAX = 366

K = Annotated[
    int,
    typer.Option(
        "--k",
        min=0,
        max=1_000_000,
        help="No figure is of fewer rows: such cells merge with their neighbours. 0: no merging.",
    ),
]


@app.callback()
def export() -> None:
    """Keep `counts` a word of its own."""


@app.command("counts")
def counts_(
    *,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="FILE.csv, .parquet or .json; - is stdout, CSV.")
    ],
    k: K = disclosure.K,
    days: Annotated[
        int, typer.Option(min=1, max=DAYS_MAX, help="So many whole days of UTC, up to yesterday.")
    ] = 7,
    today: Annotated[
        bool, typer.Option("--today", help="Also the day under way: two such exports differ.")
    ] = False,
    by_device: Annotated[
        bool,
        typer.Option("--by-device", help="A table a device; else one of all devices together."),
    ] = False,
    model: Annotated[str, typer.Option(help="Only this model.")] = "",
    db: Db = DEFAULT_DB,
) -> None:
    """Write how many rows fell into each bin, by day and version, for others to read.

    Cells of fewer than --k rows are merged: bins with their neighbours, categories into `other`.
    Tables of fewer rows are left out. Give out one of the two, by device or of all: somebody who
    has both can subtract them. See docs/privacy.md.

    Examples:

      edge-fleet export counts --out counts.csv

      edge-fleet export counts --out november.parquet --days 30 --by-device --k 20

      edge-fleet export counts --out - --today --model boiler
    """
    if str(out) != "-" and out.suffix not in _SUFFIXES:
        raise InputFault(
            f"--out {out} is neither .csv nor .parquet nor .json", advice="Or - for stdout."
        )
    try:
        from edge_fleet import export as exporting  # noqa: PLC0415 (its library is an extra)
    except ModuleNotFoundError as error:
        raise lacking(error) from error
    with opened(db) as store:
        found = exporting.counts(
            store, now_ms(), days=days, k=k, by_device=by_device, today=today, model=model
        )
    match out.suffix if str(out) != "-" else "-":
        case "-":
            sys.stdout.write(exporting.as_csv(found))
            return
        case ".csv":
            _write(out, exporting.as_csv(found).encode())
        case ".json":
            _write(out, exporting.as_json(found).encode())
        case ".parquet":
            _write(out, _parquet(exporting.as_columns(found)))
    terminal.print_line(_summary(found, out))


def _table(kind: Kind, what: str, example: str) -> None:
    """Make `export KIND` a command."""

    def command(
        *,
        out: Annotated[Path, typer.Option(metavar="FILE", help="Where to; - is stdout, CSV.")],
        format: Annotated[str, typer.Option(help="csv, jsonl or parquet; default: FILE's.")] = "",
        k: K = disclosure.K,
        db: Db = DEFAULT_DB,
    ) -> None:
        printed = str(out) == "-"
        form = _form(format or ("csv" if printed else out.suffix.removeprefix(".")), printed)
        try:
            from edge_fleet import reports, table_export  # noqa: PLC0415 (an extra)
        except ModuleNotFoundError as error:
            raise lacking(error) from error
        console = Console(stderr=True)
        with (
            opened(db) as store,
            Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
        ):
            budget = reports.budget_of(store.settings())
            with store.reading() as tx:
                found = table_export.lines(tx, kind, now_ms(), budget, k)
                told = bar.track(found, total=None, description=kind)
                if printed:
                    table_export.print_lines(kind, form, told)
                    return
                count = table_export.write(out, kind, form, told)
        terminal.print_line(f"{out}: {count} lines")

    command.__doc__ = f"{what}\n\nExample: edge-fleet export {kind} {example}"
    app.command(kind)(command)


def _form(form: str, printed: bool) -> Format:
    if form not in ("csv", "jsonl", "parquet"):
        raise InputFault(
            f"{form!r} is none of csv, jsonl and parquet" if form else "--out has no suffix",
            advice="Name it .csv, .jsonl or .parquet, or give --format; - is stdout.",
        )
    if printed and form == "parquet":
        raise InputFault("Parquet does not go to stdout", advice="Name a file: --out FILE.parquet.")
    return cast("Format", form)


_table("devices", "Write the inventory: a line a device.", "--out devices.csv")
_table("events", "Write what happened on devices, newest first.", "--out events.jsonl")
_table("alarms", "Write drift alarms, newest first.", "--out alarms.parquet")
_table("audit", "Write who did what, newest first.", "--out audit.csv")
_table(
    "windows",
    "Write how much each device answered when: lines of at least --k rows, see docs/privacy.md.",
    "--out windows.parquet --k 20",
)


def _summary(found: Exported, out: Path) -> str:
    left = f"; {found.withheld} tables of fewer rows are left out" if found.withheld else ""
    return (
        f"{out}: {len(found.lines)} lines, {found.first_day} to {found.last_day},"
        f" none of fewer than {found.k} rows{left}"
    )


def _parquet(columns: dict[str, list[object]]) -> bytes:
    try:
        import pyarrow  # noqa: PLC0415 (an extra)
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MachineFault(
            "Parquet needs a package that is not installed here: pyarrow",
            advice="Install it: pip install 'edge-pack[parquet]'; .csv and .json need nothing.",
        ) from error
    out = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), out)
    return bytes(out.getvalue())


def _write(path: Path, data: bytes) -> None:
    disk.write_atomic(path, data)

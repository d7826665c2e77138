"""The command ``predict``: parses, calls one function, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_agent import config as configs
from edge_contract.errors import InputFault


def predict(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [FILE]",
            help="MODEL: a bundle's file, or the name of an installed model; the only one when"
            " left out. FILE: .csv, .npz, or - for CSV on standard input.",
            show_default=False,
        ),
    ] = None,
    *,
    by_line: Annotated[
        bool,
        typer.Option("--lines", help="Answer JSON requests on standard input, line by line."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answers as JSON lines.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the answers here: .csv or .jsonl.", show_default=False),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End at the first row that is refused.")
    ] = False,
    config: Annotated[
        Path, typer.Option("--config", envvar="EDGE_AGENT_CONFIG", help="Settings, TOML.")
    ] = configs.DEFAULT_PATH,
) -> None:
    """Predict every row of a file, or answer requests line by line; no agent or broker needed.

    CSV has a header of feature names; other columns are left alone, empty cells are missing
    values. Answers name the line. A row that does not fit is refused and the others are answered;
    then the exit code is 1.

    Examples:

      edge-agent predict pump-1.0.edgepack rows.csv

      edge-agent predict --config agent.toml rows.csv --output answers.csv

      edge-agent predict pump rows.csv --json | jq .label

      echo '{"temperature": 71.5, "vibration": 0.02}' | edge-agent predict --lines pump
    """
    from edge_agent import predicting  # noqa: PLC0415 - `status` needs no runtime

    given = names or []
    if len(given) > (1 if by_line else 2):
        raise InputFault(f"too many arguments: {' '.join(given)}")
    if by_line:
        if output or as_json or strict:
            raise InputFault("--lines answers on standard output in JSON; leave the others out")
        predicting.lines_of(given[0] if given else "", config)
        return
    if not given or (len(given) == 1 and given[0].endswith(predicting.BUNDLE_SUFFIX)):
        raise InputFault(
            "no file of rows is named", advice="edge-agent predict [MODEL] FILE, or with --lines."
        )
    name = given[0] if len(given) == 2 else ""
    if predicting.file_of(name, given[-1], config, output, as_json=as_json, strict=strict):
        raise typer.Exit(1)


def add(app: typer.Typer) -> None:
    """Give ``app`` the command."""
    app.command()(predict)

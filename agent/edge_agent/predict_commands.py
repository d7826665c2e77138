"""The commands ``predict`` and ``watch``: parse, call one function, print."""

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
    With --lines each line gets its answer or its error, and the exit code is 0.

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


def watch(
    folder: Annotated[Path, typer.Argument(help="Where files come in.")],
    model: Annotated[
        str,
        typer.Argument(help="A bundle's file, or the name of an installed model; as in predict."),
    ] = "",
    *,
    once: Annotated[bool, typer.Option("--once", help="Answer what is there, then end.")] = False,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Of pictures, where the model leaves it open.")
    ] = "",
    layout: Annotated[str, typer.Option(help="Of pictures: nchw or nhwc.")] = "",
    fit: Annotated[str, typer.Option(help="stretch, crop or pad.")] = "stretch",
    scale: Annotated[
        float, typer.Option(help="What a pixel is multiplied by.", show_default="1/255")
    ] = 1 / 255,
    rate: Annotated[int, typer.Option(help="Samples a second of sounds; 0: any.")] = 0,
    keep: Annotated[int, typer.Option(help="So many handled files stay.")] = 1000,
    config: Annotated[
        Path, typer.Option("--config", envvar="EDGE_AGENT_CONFIG", help="Settings, TOML.")
    ] = configs.DEFAULT_PATH,
) -> None:
    """Answer the pictures, sounds, CSV and JSON files that come into a folder, until Ctrl-C.

    A file goes to done/ or failed/ in the folder, with its answer beside it as NAME.json. A running
    agent does the same with [watch] in its settings, and counts.

    Examples:

      edge-agent watch /srv/camera digits-1.0.edgepack --size 8x8

      edge-agent watch /srv/camera digits --once
    """
    from edge_agent import predicting  # noqa: PLC0415 - `status` needs no runtime

    if not folder.is_dir():
        raise InputFault(f"there is no folder {folder}", advice="Name one that is there.")
    settings = {
        "folder": str(folder), "layout": layout, "fit": fit, "scale": scale,
        "rate_hz": rate, "keep": keep, "size": size.lower().split("x") if size else [],
        **({"settle_s": 0.0} if once else {}),
    }  # fmt: skip
    if predicting.watch(settings, model, config, once=once):
        raise typer.Exit(1)


def add(app: typer.Typer) -> None:
    """Give ``app`` the commands."""
    app.command()(predict)
    app.command()(watch)

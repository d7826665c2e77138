"""The command ``edge-pack diff``: parses, calls one function, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edge_pack import printing
from edge_pack.gates import diffing, show_diff


def register(app: typer.Typer) -> None:
    """Add the command to ``edge-pack``."""
    app.command("diff")(diff)


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="The older .edgepack file.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The newer .edgepack file.")],
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code",
            help="Return 1 when a device's caller of A would break with B.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what changed from bundle A to bundle B: schema, labels, metrics, size, profile, answers.

    Examples:

      edge-pack diff pump-1.0.edgepack pump-1.1.edgepack

      edge-pack diff old.edgepack new.edgepack --json --exit-code
    """
    found = diffing.bundles(a, b)
    if json:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        show_diff.show(printing.console(), found)
    if exit_code and found.breaks:
        raise typer.Exit(1)

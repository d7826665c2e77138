"""``edge-pack papers`` and ``edge-pack report``: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_pack import printing, reading
from edge_pack.papers import reporting, words, writing

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="An .edgepack file.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``edge-pack``."""
    app.command("papers", help=_PAPERS_HELP)(_papers)
    app.command("report", help=_REPORT_HELP)(_report)


_PAPERS_HELP = """Write a bundle's model card (Markdown) and bill of materials (CycloneDX).

Both are derived from the bundle alone: NAME.card.md and NAME.bom.json, as a build writes them.

Example: edge-pack papers pump-1.0.edgepack -o papers
"""

_REPORT_HELP = """Write one HTML page about a bundle, which needs no network.

It draws what NAME.measured.json beside the bundle holds; --data and --target ask the bundle about
other rows.

Examples:

  edge-pack report pump-1.0.edgepack

  edge-pack report pump-1.0.edgepack --data june.csv --target failed -o june.html
"""


def _papers(
    bundle: _Bundle,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where to, if not beside it.")
    ] = None,
    json: _Json = False,
) -> None:
    opened = reading.open_bundle(bundle)
    card, bom = writing.write(opened, bundle, out)
    if json:
        found = {"digest": opened.digest, "card": str(card), "bom": str(bom)}
        typer.echo(printing.to_json(found))
        return
    typer.echo(f"{card}\n{bom}")


def _report(
    bundle: _Bundle,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where to [NAME.report.html beside it]."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Other rows for the charts: .csv, .parquet or .npz.")
    ] = None,
    target: Annotated[str, typer.Option(help="Column of those rows with the true answer.")] = "",
    json: _Json = False,
) -> None:
    path, size = reporting.write(bundle, out, data, target)
    if json:
        typer.echo(printing.to_json({"path": str(path), "size_bytes": size}))
        return
    typer.echo(f"{path} ({words.size(size)})")

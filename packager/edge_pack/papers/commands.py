"""``edge-pack papers``: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_pack import printing, reading
from edge_pack.papers import writing

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="An .edgepack file.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``edge-pack``."""
    app.command("papers", help=_PAPERS_HELP)(_papers)


_PAPERS_HELP = """Write a bundle's model card (Markdown) and bill of materials (CycloneDX).

Both are derived from the bundle alone: NAME.card.md and NAME.bom.json, as a build writes them.

Example: edge-pack papers pump-1.0.edgepack -o papers
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

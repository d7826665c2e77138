"""The papers beside a bundle: ``NAME.card.md`` and ``NAME.bom.json``, derived from it alone."""

from __future__ import annotations

from pathlib import Path

from edge_contract.bundle import Bundle
from edge_contract.ports.disk import write_atomic
from edge_pack.papers.bom import bom
from edge_pack.papers.card import card

CARD_SUFFIX, BOM_SUFFIX = ".card.md", ".bom.json"


def paths_of(bundle: Path, folder: Path | None = None) -> tuple[Path, Path]:
    """Where the card and the bill of materials of the bundle's file go."""
    stem = bundle.name.removesuffix(".edgepack")
    place = bundle.parent if folder is None else folder
    return place / f"{stem}{CARD_SUFFIX}", place / f"{stem}{BOM_SUFFIX}"


def write(bundle: Bundle, path: Path, folder: Path | None = None) -> tuple[Path, Path]:
    """Write both; on return they are on disk.

    Args:
        path: the bundle's file. folder: where to, else beside it; made where it is not there.

    Raises MachineFault when the disk refuses.
    """
    card_path, bom_path = paths_of(path, folder)
    write_atomic(card_path, card(bundle).encode())
    write_atomic(bom_path, bom(bundle))
    return card_path, bom_path

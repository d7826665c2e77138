"""Write the published schemas into a folder (by default: beside this file)."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_contract.ports.disk import write_atomic
from edge_contract.schemas import render


def main() -> None:
    """``python -m edge_contract.schemas [FOLDER]``."""
    parser = argparse.ArgumentParser("python -m edge_contract.schemas", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().folder
    for name, text in render().items():
        write_atomic(folder / name, text.encode())


main()

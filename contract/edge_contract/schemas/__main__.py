"""Write the published schemas into a folder (by default: beside this file)."""

from __future__ import annotations

import sys
from pathlib import Path

from edge_contract.ports.disk import write_atomic
from edge_contract.schemas import render


def main() -> None:
    """``python -m edge_contract.schemas [FOLDER]``."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in render().items():
        write_atomic(folder / name, text.encode())


main()

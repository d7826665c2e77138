"""Tries a booster's file in a process of its own before this one reads it.

Guards: the native readers of XGBoost 3.2 and LightGBM 4.7 end the process (segmentation fault,
abort, memory without end) on some files that are damaged or cut off: 5 of 150 cut ``.ubj`` files,
22 of 150 with changed bytes. A build must answer such a file with a message.
"""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from edge_contract.errors import BuildFault, InputFault, MachineFault
from edge_contract.typed import json_decoder
from edge_pack.frameworks.boosters import Model
from edge_pack.intake import Rows
from edge_pack.measure import run_child

MEMORY_MAX_BYTES = 16 * 1024**3
"""Address space of the process: the libraries alone map about 3 GB."""

_CHILD = "import sys; from edge_pack.frameworks.tried import main; main(sys.argv[1])"


class _Said(msgspec.Struct, frozen=True):
    """What the process found wrong with a file; two empty texts when nothing."""

    message: str = ""
    advice: str = ""


def check(path: Path, library: str) -> None:
    """Raise InputFault when a library cannot read the file at ``path``, however it fails."""
    try:
        said = json_decoder(_Said).decode(run_child(_CHILD, str(path), what="reading it"))
    except (MachineFault, msgspec.DecodeError) as error:
        raise InputFault(
            f"{path} makes {library}'s own reader end the process: it is damaged",
            advice="Copy it again from where it was saved, or save the model again.",
        ) from error
    if said.message:
        raise InputFault(said.message, advice=said.advice)


def main(path: str) -> None:
    """In the process: read the file and ask it about a row without values."""
    from edge_pack.frameworks import native  # noqa: PLC0415  which imports this module

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
    said = _Said()
    try:
        found = native.untried(Path(path), Path(path).read_bytes())
        _ask(found[1])
    except InputFault as error:
        said = _Said(error.what, error.advice)
    except BuildFault:
        pass  # this process will meet it too
    sys.stdout.buffer.write(msgspec.json.encode(said))


def _ask(model: Model) -> None:
    columns = {
        f"x{i}": np.array([None], dtype=object) if i in model.texts else np.array([np.nan])
        for i in range(model.width)
    }
    with suppress(*model.refusals):  # where it refuses such a row in Python, all is well
        model.ready(Rows(1, columns, {}))()

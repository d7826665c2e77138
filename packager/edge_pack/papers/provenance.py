"""Where a bundle came from, as far as it can be found out without asking anyone.

Recorded: digests of model and data, library versions and Python's; and, unless the user switches
it off, the commit of the folder that the model lies in (else the data's), what DVC knows of both,
the MLflow run in a local model's ``MLmodel``, and the command. The current folder's commit is
left alone: where somebody stands says nothing of where a model came from, and the same build in
two folders must give the same bytes.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_contract.manifest import Provenance, Tracked
from edge_pack.config import BuildConfig
from edge_pack.origins import Origin
from edge_pack.papers import dvc, git
from edge_pack.papers.command import command_of
from edge_pack.papers.libraries import versions_for
from edge_pack.subject import Subject
from edge_pack.tables import Table

_RUN_ID = re.compile(r"^run_id:[ \t]*['\"]?([0-9A-Za-z_-]{1,64})['\"]?[ \t]*$", re.MULTILINE)
_NONE = ("null", "None", "none")
_MLMODEL_MAX_BYTES = 256 * 1024


@dataclass(frozen=True)
class Found:
    """What the folders around model and data say."""

    commit: str = ""
    dirty: bool = False
    run_id: str = ""
    tracked: tuple[Tracked, ...] = ()
    origin: Origin | None = None


def find(origin: Origin, data: Path | None, notice: Callable[[str], None]) -> Found:
    """Look around the files.

    Args:
        origin: of the model; folders are looked at only where the user named them.
        data: as the user named it; None for none.
        notice: told where a record does not fit its file.
    """
    model = origin.named
    roles: list[tuple[dvc.Role, Path | None]] = [("model", model), ("data", data)]
    files = [(role, path) for role, path in roles if path is not None and path.exists()]
    folders = [path if path.is_dir() else path.parent for _, path in files]
    commit = next((at for folder in folders if (at := git.commit_of(folder))), None)
    entries = [dvc.tracked(role, path, notice) for role, path in files if path.is_file()]
    return Found(
        commit=commit.digest if commit else "",
        dirty=commit.dirty if commit else False,
        run_id=origin.run_id or (_run_of(model) if model is not None else ""),
        tracked=tuple(entry for entry in entries if entry is not None),
        origin=origin,
    )


def record(
    subject: Subject, table: Table, rows: int, config: BuildConfig, found: Found
) -> Provenance:
    """The manifest's entry; what the user named goes before what was found.

    Args:
        rows: rows that the data holds. found: what ``find`` returned, or ``Found()``.
    """
    return Provenance(
        source_sha256=subject.sha256,
        source_type=subject.kind,
        libraries=versions_for(subject),
        data_sha256=table.sha256,
        data_rows=rows,
        commit=config.commit or found.commit,
        dirty=found.dirty and not config.commit,
        run_id=config.run_id or found.run_id,
        python=platform.python_version(),
        tracked=found.tracked,
        command=command_of(config) if config.provenance else (),
        source_uri=found.origin.uri if found.origin else "",
        registered=found.origin.registered if found.origin else "",
    )


def _run_of(model: Path) -> str:
    """The ``run_id`` in the file ``MLmodel`` that MLflow writes beside a model, or ""."""
    path = model / "MLmodel" if model.is_dir() else model.with_name("MLmodel")
    try:
        with path.open("rb") as file:
            text = file.read(_MLMODEL_MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    line = _RUN_ID.search(text)
    return line[1] if line and line[1] not in _NONE else ""

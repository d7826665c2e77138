"""Reads an MLflow model folder's papers: which file, of what flavour, with which inputs.

Guards: the MLmodel file is data, read with YAML's safe loader and bounded; a path in it stays in
the folder; no code of the folder is imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_pack.extras import need

PAPERS = "MLmodel"
_PAPERS_MAX_BYTES = 4 * 1024**2

_FILE_OF = {
    "onnx": "data",
    "skops": "data",
    "xgboost": "data",
    "lightgbm": "data",
    "catboost": "data",
    "keras": "data",
    "sklearn": "pickled_model",
}
"""Flavour -> the key that names its file, in the order of choice: what runs no code first."""
_LIBRARY_OF = {
    "scikit-learn": "sklearn_version", "xgboost": "xgb_version", "lightgbm": "lgb_version",
    "catboost": "catboost_version", "onnx": "onnx_version", "keras": "keras_version",
}  # fmt: skip
_REFUSED = {
    "pytorch": "torch.export.save(torch.export.export(model, example), 'model.pt2')",
    "tensorflow": "model.export('model.onnx', format='onnx') or tf2onnx",
    "spark": "onnxmltools.convert_sparkml",
    "h2o": "H2O's own MOJO, which ONNX cannot carry",
    "prophet": "", "statsmodels": "", "transformers": "optimum-cli export onnx", "python_function":
    "the ONNX exporter of the framework inside it",
}  # fmt: skip
_PIN = re.compile(r"^\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*==\s*([^\s;#]+)")


@dataclass(frozen=True)
class Papers:
    """What an MLmodel folder says of its model."""

    path: Path
    flavour: str
    run_id: str
    columns: tuple[str, ...]
    versions: Mapping[str, str]


def read(folder: Path) -> Papers:
    """The papers in ``folder``.

    Raises:
        InputFault: unreadable, or no flavour that can be built from.
        MachineFault: no YAML reader installed.
    """
    papers = _document(folder)
    flavours = papers.get("flavors")
    if not isinstance(flavours, dict) or not flavours:
        raise InputFault(f"{folder / PAPERS} names no flavour", advice="Log the model again.")
    for flavour, key in _FILE_OF.items():
        entry = flavours.get(flavour)
        if isinstance(entry, dict) and isinstance(entry.get(key), str):
            return Papers(
                path=_inside(folder, entry[key]),
                flavour=flavour,
                run_id=_text(papers.get("run_id")),
                columns=_columns(papers.get("signature")),
                versions=_versions(folder, flavours),
            )
    refused = next((name for name in _REFUSED if name in flavours), "")
    way = _REFUSED.get(refused, "")
    raise InputFault(
        f"{folder} holds an MLflow model of the flavour {', '.join(sorted(map(str, flavours)))}, "
        "which is not built from directly",
        advice=f"Export it first: {way}." if way else f"Expected one of: {', '.join(_FILE_OF)}.",
    )


def _document(folder: Path) -> dict[str, Any]:
    yaml = need("yaml", "reading an MLmodel folder")
    data = read_bounded(folder / PAPERS, _PAPERS_MAX_BYTES)
    try:
        papers = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = str(error).splitlines()
        raise InputFault(
            f"{folder / PAPERS} is not readable YAML: {said[0] if said else type(error).__name__}",
            advice="Log or download the model again.",
        ) from error
    if not isinstance(papers, dict):
        raise InputFault(f"{folder / PAPERS} is not an MLmodel file", advice="Log it again.")
    return papers


def _inside(folder: Path, name: str) -> Path:
    relative = PurePosixPath(name)
    path = folder / relative
    if relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise InputFault(f"{folder / PAPERS} names {name!r}, which is outside of the folder")
    if not path.exists():
        raise InputFault(f"{folder} lacks {name!r}, which its MLmodel file names")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputFault(f"{folder / PAPERS} names {name!r}, a link out of the folder")
    return path


def _columns(signature: object) -> tuple[str, ...]:
    """The names of a signature's inputs; () where they have none or are tensors."""
    inputs = signature.get("inputs") if isinstance(signature, dict) else None
    try:
        entries = json.loads(inputs) if isinstance(inputs, str) else []
    except ValueError:
        return ()
    if not isinstance(entries, list):
        return ()
    plain = [e for e in entries if isinstance(e, dict) and e.get("type") != "tensor"]
    names = [e["name"] for e in plain if isinstance(e.get("name"), str)]
    return tuple(names) if len(names) == len(entries) else ()


def _versions(folder: Path, flavours: Mapping[str, Any]) -> dict[str, str]:
    """Library -> version, from requirements.txt and, first, from the flavours themselves."""
    found: dict[str, str] = {}
    requirements = folder / "requirements.txt"
    if requirements.is_file():
        text = read_bounded(requirements, _PAPERS_MAX_BYTES).decode("utf-8", "replace")
        found = {m[1].lower(): m[2] for line in text.splitlines() if (m := _PIN.match(line))}
    entries = [entry for entry in flavours.values() if isinstance(entry, dict)]
    for library, key in _LIBRARY_OF.items():
        saved = next((str(entry[key]) for entry in entries if entry.get(key)), "")
        if saved:
            found[library] = saved
    python = flavours.get("python_function")
    if isinstance(python, dict) and python.get("python_version"):
        found["python"] = str(python["python_version"])
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

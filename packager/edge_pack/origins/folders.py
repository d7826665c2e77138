"""Finds the one model file in a folder: of SageMaker, Vertex AI, or packed by hand.

Guards: several models are listed and none is guessed; a file is known by its name where that is
plain (``model.joblib``) and by its first bytes where it is not (``xgboost-model``, ``.bst``).
"""

from __future__ import annotations

from pathlib import Path

from edge_contract.errors import InputFault
from edge_pack.origins import content

MODEL_SUFFIXES = frozenset(
    {".onnx", ".joblib", ".pkl", ".pickle", ".skops", ".ubj", ".cbm", ".keras", ".pt2"}
)
"""What a model file is called; other names count by content."""
_BY_CONTENT = frozenset({"", ".json", ".txt", ".bst", ".xgb", ".lgb", ".cb", ".model", ".bin"})
_SUFFIX_OF = {
    "pickle": ".pkl", "lightgbm": ".txt", "catboost": ".cbm", "ubjson": ".ubj", "json": ".json",
    "xgboost": ".bst",
}  # fmt: skip
_WAY_OUT = {
    ".pth": "Export it: torch.export.save(torch.export.export(model, example), 'model.pt2').",
    ".pt": "Export it: torch.export.save(torch.export.export(model, example), 'model.pt2').",
    ".h5": "Save it again with Keras 3: model.save('model.keras').",
    ".pb": "A TensorFlow SavedModel: convert it with tf2onnx, or from Keras 3 with "
    "model.export('model.onnx', format='onnx').",
    ".mar": "A TorchServe archive: export the network inside it to .pt2 or .onnx.",
}
_SKIPPED = frozenset({"code", "__MACOSX", "__pycache__", "variables"})
"""Folders that hold no model: SageMaker's own scripts, macOS's forks, TensorFlow's weights."""
FILES_MAX = 10_000


def papers_in(folder: Path) -> Path | None:
    """The folder that holds an MLmodel file: this one, or the only one right below it."""
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink())]
    found = [place for place in places if (place / "MLmodel").is_file()]
    if found and found[0] == folder:
        return folder
    return found[0] if len(found) == 1 else None


def model_in(folder: Path, shown: str) -> Path:
    """The only model file below ``folder``.

    Args:
        shown: what the user called the folder or archive.

    Raises InputFault when there is none, or several (all of them are listed).
    """
    files = _files(folder)
    found = [path for path in files if _is_model(path)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found[:20])
        first = found[0].relative_to(folder).as_posix()
        raise InputFault(
            f"{shown} holds {len(found)} models: {names}",
            advice=f"Name one: {shown}#{first}",
        )
    way = next((_WAY_OUT[p.suffix.lower()] for p in files if p.suffix.lower() in _WAY_OUT), "")
    held = ", ".join(path.relative_to(folder).as_posix() for path in files[:8]) or "nothing"
    raise InputFault(
        f"{shown} holds no model that this reads; it holds {held}",
        advice=way
        or f"Expected a file {', '.join(sorted(MODEL_SUFFIXES))}, a booster's own "
        "format or an MLmodel folder.",
    )


def member(folder: Path, name: str, shown: str) -> Path:
    """The file ``name`` inside ``folder``. Raises InputFault when it is not there."""
    path = folder / name
    if ".." in Path(name).parts or not path.exists():
        held = ", ".join(p.relative_to(folder).as_posix() for p in _files(folder)[:8])
        raise InputFault(f"{shown} holds no {name!r}", advice=f"It holds {held or 'nothing'}.")
    return path


def plain_suffix(path: Path) -> str:
    """The suffix that says what the file is: its own, or one for what its first bytes say."""
    own = path.suffix.lower()
    if own in MODEL_SUFFIXES or own not in _BY_CONTENT:
        return own
    return _SUFFIX_OF.get(content.kind_of(content.head_of(path)), own)


def _files(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part in _SKIPPED for part in inner)
        if not hidden and path.is_file() and not path.is_symlink():
            found.append(path)
        if len(found) > FILES_MAX:
            raise InputFault(f"{folder} holds more than {FILES_MAX} files: name the model file")
    return found


def _is_model(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in MODEL_SUFFIXES:
        return True
    if suffix not in _BY_CONTENT:
        return False
    head = content.head_of(path)
    kind = content.kind_of(head)
    if kind == "json":  # any JSON is one of these; XGBoost's own begins with its learner
        return b'"learner"' in head or b'"version":[' in head
    if kind == "ubjson":
        return b"learner" in head
    return kind in _SUFFIX_OF

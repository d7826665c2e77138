"""Which booster a file or an unpickled object is, told by its content.

Guards: a ``.json`` may be XGBoost's or CatBoost's; a ``.txt`` is LightGBM's or nothing we read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_pack.extras import need
from edge_pack.frameworks import boosters, catboost_, lightgbm_, tried, xgboost_
from edge_pack.frameworks.boosters import Booster, Model, fault_of
from edge_pack.frameworks.onnx_ import MODEL_MAX_BYTES

SUFFIXES = (".json", ".ubj", ".txt", ".cbm")


def load(path: Path) -> Booster | None:
    """The booster in a file with one of ``SUFFIXES``; None for any other suffix.

    Raises:
        InputFault: missing, damaged, or of another library.
        BuildFault: a model that is not made of trees.
        MachineFault: its library is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        return None
    data = read_bounded(path, MODEL_MAX_BYTES)
    library = _library_of(path, data, suffix)
    need(library.lower(), f"packaging a model of {library}")
    if library == "LightGBM":
        lightgbm_.check_whole(path, data)  # what Python can tell, before a process is begun
    tried.check(path, library)
    kind, model = untried(path, data)
    return Booster(kind, hashlib.sha256(data).hexdigest(), model)


def untried(path: Path, data: bytes) -> tuple[str, Model]:
    """The kind of a file and its model, read in this process. Raises as ``load``."""
    suffix = path.suffix.lower()
    library = _library_of(path, data, suffix)
    model: Model
    if library == "LightGBM":
        kind, model = "lightgbm-text", lightgbm_.load(path, data)
    elif library == "CatBoost":
        form = suffix[1:]
        kind, model = f"catboost-{form}", catboost_.load(path, data, form)
    else:
        kind, model = f"xgboost-{suffix[1:]}", xgboost_.load(path, data)
    try:
        boosters.read_in_full(model)
    except (LookupError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise fault_of(path, library, error) from error
    return kind, model


def _library_of(path: Path, data: bytes, suffix: str) -> str:
    if suffix == ".ubj":
        return "XGBoost"
    if suffix == ".cbm":
        return "CatBoost"
    if suffix == ".txt":
        if not data.startswith(b"tree\n"):
            raise _foreign(path, "a text file of LightGBM, which begins with a line 'tree'")
        return "LightGBM"
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputFault(
            f"{path} is not JSON: {error}", advice="It is damaged or cut off: copy it again."
        ) from error
    if isinstance(found, dict) and "learner" in found:
        return "XGBoost"
    if isinstance(found, dict) and "features_info" in found:
        return "CatBoost"
    raise _foreign(path, "a JSON document of XGBoost ('learner') or CatBoost ('features_info')")


def _foreign(path: Path, expected: str) -> InputFault:
    return InputFault(
        f"{path} is no model that this reads: expected {expected}",
        advice="Save the model with its library's save_model.",
    )


def of_object(kind: str, sha256: str, found: Any) -> Booster | None:
    """The booster that an unpickled object is; None when it is anything else."""
    of = _OF_OBJECT.get(_library(type(found)))
    model = of(found) if of else None
    return Booster(kind, sha256, model) if model is not None else None


def _library(kind: type) -> str:
    """The library that an object's class, or one it is derived from, comes from."""
    roots = (base.__module__.partition(".")[0] for base in kind.__mro__)
    return next((root for root in roots if root in _OF_OBJECT), "")


_OF_OBJECT: dict[str, Callable[[Any], Model | None]] = {
    "xgboost": xgboost_.of_object,
    "lightgbm": lightgbm_.of_object,
    "catboost": catboost_.of_object,
}

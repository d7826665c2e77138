"""Loads the model that is to be packaged, from the file that its origin names.

Guards: what a pickle may do is said before it is done (it runs code of whoever wrote it), and
one that is not from the user's own path is not loaded without ``--trust``;
a ``.skops`` file runs nothing that its reader did not agree to; whatever a damaged or foreign
file makes a library raise, one InputFault with cause and advice comes out.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_pack.extras import need
from edge_pack.frameworks import loading, native
from edge_pack.frameworks.meaning import UNDECLARED, Declared
from edge_pack.frameworks.onnx_ import MODEL_MAX_BYTES
from edge_pack.frameworks.sklearn_ import Estimator
from edge_pack.origins import Origin, content
from edge_pack.origins.trust import allow_pickle, version_notices
from edge_pack.subject import Subject

SUFFIXES = {".joblib": "joblib", ".pkl": "pickle", ".pickle": "pickle", ".skops": "skops"}


Notice = Callable[[str], None]
"""Who tells the user what they should know although nothing is wrong."""


def load(
    model: Path | Origin,
    notice: Notice,
    *,
    trust: bool = False,
    declared: Declared = UNDECLARED,
) -> Subject:
    """The model in a file.

    Args:
        model: a path that the user named, or what ``origins.resolve`` made of a URI.
        notice: told that a pickle runs code before one is loaded, and of versions that differ.
        trust: agree to the types in a ``.skops`` file that skops does not trust by itself, and
            to a pickle that is not from a path of the user's.
        declared: what a network's outputs are, where the user says so.

    Raises:
        InputFault: no such file, another kind of file, damaged, written by libraries that are
            not here, not fitted, or a ``.skops`` file with types nobody agreed to.
    """
    origin = model if isinstance(model, Origin) else Origin(model)
    path = origin.path
    content.check(path)
    told = _Once(notice)
    for text in version_notices(origin.versions):
        told(text)
    network = loading.load(origin, told, trust=trust, declared=declared)
    if network is not None:
        return network
    loading.check_undeclared(declared)
    booster = native.load(path)
    if booster is not None:
        return booster
    suffix = path.suffix.lower()
    kind = SUFFIXES.get(suffix)
    if kind is None:
        known = sorted({*SUFFIXES, *loading.SUFFIXES, *native.SUFFIXES})
        raise InputFault(
            f"{path} is none of the kinds of model file this reads ({suffix or 'no suffix'})",
            advice=f"Expected one of: {', '.join(known)}.",
        )
    data = read_bounded(path, MODEL_MAX_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if kind == "skops":
        estimator = _load_skops(path, data, told, trust=trust)
    else:
        estimator = _load_pickle(origin, told, trust=trust)
    found = native.of_object(kind, digest, estimator)
    if found is not None:
        return found
    _check_estimator(path, estimator)
    return Estimator(kind, digest, estimator)


class _Once:
    """Tells each thing once: a library and a model's papers may both know of a version."""

    def __init__(self, notice: Notice) -> None:
        self._notice = notice
        self._said: set[str] = set()

    def __call__(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._notice(text)


def _load_pickle(origin: Origin, notice: Notice, *, trust: bool) -> Any:
    joblib = need("joblib", "reading a pickle")
    path = origin.path
    allow_pickle(origin, trust, notice)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = joblib.load(path)
        except (Exception, SystemExit) as error:  # a pickle that exits is no build that was done
            raise InputFault(
                f"{path} cannot be loaded: {type(error).__name__}: {error}",
                advice=_pickle_advice(error, [str(item.message) for item in caught]),
            ) from error
    for text in _version_notices(caught):
        notice(text)
    return model


def _version_notices(caught: list[warnings.WarningMessage]) -> list[str]:
    """One notice a pair of versions, from scikit-learn's InconsistentVersionWarning."""
    pairs = {
        (item.message.original_sklearn_version, item.message.current_sklearn_version)
        for item in caught
        if hasattr(item.message, "original_sklearn_version")
        and hasattr(item.message, "current_sklearn_version")
    }
    return [
        f"saved by scikit-learn {saved}, loaded by {current}: answers may differ; "
        f"build with scikit-learn {saved} to be sure"
        for saved, current in sorted(pairs)
    ]


def _pickle_advice(error: BaseException, said: list[str]) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"Install the package that defines {error.name!r} here, as it was for training."
    if isinstance(error, pickle.UnpicklingError | EOFError):
        return "The file is damaged or not a pickle: save the model again with joblib.dump."
    versions = next((text for text in said if "version" in text), "")
    hint = f" ({versions.splitlines()[0][:200]})" if versions else ""
    return (
        f"It was probably saved by other library versions{hint}: load it where it was trained "
        "and save it again, best as .skops, or install those versions here."
    )


def _load_skops(path: Path, data: bytes, notice: Notice, *, trust: bool) -> Any:
    skops = need("skops.io", "reading a .skops file")
    try:
        untrusted = sorted(skops.get_untrusted_types(data=data))
    except Exception as error:
        raise InputFault(
            f"{path} is not a readable .skops file: {type(error).__name__}: {error}",
            advice="Save the model again with skops.io.dump.",
        ) from error
    if untrusted and not trust:
        raise InputFault(
            f"{path} holds types that skops does not trust: {', '.join(untrusted)}",
            advice="If you know who wrote the file, pass --trust.",
        )
    if untrusted:
        notice(f"trusted because of --trust: {', '.join(untrusted)}")
    try:
        return skops.loads(data, trusted=untrusted)
    except Exception as error:
        raise InputFault(
            f"{path} cannot be loaded: {type(error).__name__}: {error}",
            advice="Save the model again with skops.io.dump, with this scikit-learn's version.",
        ) from error


def _check_estimator(path: Path, model: Any) -> None:
    validation = need("sklearn.utils.validation", "reading a scikit-learn model")
    exceptions = need("sklearn.exceptions", "reading a scikit-learn model")
    if not hasattr(model, "predict"):
        held = f" with keys {', '.join(map(str, model))}"[:200] if isinstance(model, dict) else ""
        raise InputFault(
            f"{path} holds a {type(model).__name__}{held}, not an estimator that predicts",
            advice="Save the fitted estimator or pipeline itself: joblib.dump(pipeline, path).",
        )
    try:
        validation.check_is_fitted(model)
    except exceptions.NotFittedError as error:
        raise InputFault(
            f"{path} holds a {type(model).__name__} that is not fitted",
            advice="Call fit before saving it.",
        ) from error
    except TypeError as error:
        raise InputFault(
            f"{path} holds a {type(model).__name__}, not a scikit-learn estimator: {error}",
            advice="Convert it to .onnx with its own framework's exporter and build from that.",
        ) from error

"""The versions that can change a bundle's bytes or its original's answers: those, and no others.

Guards: what is recorded depends on the model, not on what else was imported or is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from edge_pack.subject import Subject

ALWAYS = ("edge-pack", "numpy", "onnx", "onnxruntime", "protobuf", "zstandard")
"""They read, run, write and compress every bundle."""
OF_PACKAGE = {
    "sklearn": ("scikit-learn", "scipy", "skl2onnx"),
    "xgboost": ("xgboost", "xgboost-cpu"),
    "lightgbm": ("lightgbm",),
    "catboost": ("catboost",),
    "torch": ("torch", "onnxscript"),
    "keras": ("keras",),
}
"""Import package -> the distributions that matter where a model is made of it."""
_DEPTH_MAX = 12


def versions_for(subject: Subject) -> dict[str, str]:
    """Distribution -> version, sorted: of what every build uses, and of the model's own kind."""
    names = {*ALWAYS, *getattr(subject, "libraries", ())}  # such as Keras's backend
    for package in packages_of(subject):
        names.update(OF_PACKAGE.get(package, ()))
    return {name: found for name in sorted(names) if (found := _version_of(name))}


def packages_of(subject: Subject) -> frozenset[str]:
    """Import packages that the model's objects come from, with that of its framework module.

    A scikit-learn pipeline that ends in an XGBoost classifier needs both.
    """
    module = type(subject).__module__.rpartition(".")[2].removesuffix("_")
    found = {module}
    model = getattr(subject, "model", None)
    if model is not None:
        found.update(type(part).__module__.partition(".")[0] for part in _parts(model, 0))
    return frozenset(found)


def _parts(model: object, depth: int) -> Iterator[object]:
    """An estimator and those inside it, at any depth that a person writes."""
    yield model
    if depth == _DEPTH_MAX:
        return
    for value in list(getattr(model, "__dict__", {}).values()):
        for item in value if isinstance(value, list | tuple) else (value,):
            inner = item[1] if isinstance(item, tuple) and len(item) > 1 else item
            if hasattr(inner, "get_params") and not isinstance(inner, type):
                yield from _parts(inner, depth + 1)


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""

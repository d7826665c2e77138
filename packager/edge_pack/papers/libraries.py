"""The versions that can change a bundle's bytes or its original's answers: those, and no others.

Guards: what is recorded depends on the model, not on what else was imported or is installed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from edge_pack.extras import need
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
    names = set(ALWAYS)
    packages = packages_of(subject)
    for package in packages:
        names.update(OF_PACKAGE.get(package, ()))
    if "keras" in packages:  # it computes with another library: torch, tensorflow or jax
        names.add(str(need("keras.config", "reading a Keras model").backend()))
    return {name: found for name in sorted(names) if (found := _version_of(name))}


def packages_of(subject: Subject) -> frozenset[str]:
    """Import packages that the model's objects come from, at any depth.

    A scikit-learn pipeline that ends in an XGBoost classifier needs both.
    """
    parts = [subject, *_parts(getattr(subject, "model", None), 0)]
    return frozenset(_package(type(part).__module__) for part in parts)


def _package(module: str) -> str:
    """The package that a class is of; of one of ours, the framework that its module is for."""
    first, _, rest = module.partition(".")
    return rest.rpartition(".")[2].removesuffix("_") if first == "edge_pack" else first


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


@functools.cache
def _version_of(distribution: str) -> str:
    """As installed, or ""; looked up once: each look reads every folder of the import path."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""

"""What the base install leaves out, asked for by name where it is needed."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from edge_contract.errors import MachineFault

BUILD_ADVICE = "Install it with: pip install 'edge-pack[build]'"
_EXTRA_OF = {
    "aiohttp": "fetch",
    "alembic": "registry",
    "catboost": "catboost",
    "fairlearn": "fairness",
    "fsspec": "fetch",
    "h5py": "keras",
    "keras": "keras",
    "lightgbm": "lightgbm",
    "mlflow": "registry",
    "onnxscript": "torch",
    "torch": "torch",
    "xgboost": "xgboost",
}
"""Top-level module -> the extra that brings it, where that is not ``build``."""
_BUILD_MODULES = ("onnx", "skl2onnx", "sklearn", "skops", "pandas", "yaml")


def need(module: str, purpose: str) -> ModuleType:
    """The module, imported. Raises MachineFault naming the extra when it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MachineFault(
            f"{purpose} needs {error.name or module}, which is not part of the base install",
            advice=advice_for(module),
        ) from error


def advice_for(module: str) -> str:
    """The command that installs what ``module`` is part of."""
    extra = _EXTRA_OF.get(module.partition(".")[0])
    return f"Install it with: pip install 'edge-pack[{extra}]'" if extra else BUILD_ADVICE


def need_build() -> None:
    """Raise MachineFault when the libraries that convert a model are not installed."""
    for module in _BUILD_MODULES:
        if not _there(module):
            need(module, "edge-pack build")


def _there(module: str) -> bool:
    """Whether it could be imported: to import all of them takes seconds, used or not."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False

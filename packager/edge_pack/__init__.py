"""The workstation's half: a trained model in, a small, checked, signed bundle out.

Importing this needs the base install only; conversion libraries are imported when a build runs.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_pack.building import Built, build
    from edge_pack.config import BuildConfig

__all__ = ["BuildConfig", "Built", "build"]

_HOMES = {
    "BuildConfig": "edge_pack.config",
    "Built": "edge_pack.building",
    "build": "edge_pack.building",
}


def __getattr__(name: str) -> object:
    """Each on first use: a command is interrupted cleanly from its first moment on."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

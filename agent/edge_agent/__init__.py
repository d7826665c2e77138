"""Runs bundles on a device: ``Model.open("x.edgepack").predict({...})``, or a whole ``Agent``."""

import importlib
from typing import TYPE_CHECKING

from edge_contract import lean

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.ensemble import Ensemble
    from edge_agent.model import Model
    from edge_agent.outputs import Prediction

__all__ = ["Agent", "Ensemble", "Model", "Prediction"]

_HOMES = {
    "Agent": "edge_agent.agent",
    "Ensemble": "edge_agent.ensemble",
    "Model": "edge_agent.model",
    "Prediction": "edge_agent.outputs",
}


def __getattr__(name: str) -> object:
    """Each on first use: who runs a model needs no TUF, who asks for a status no runtime."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    lean.load_msgspec()
    return getattr(importlib.import_module(_HOMES[name]), name)

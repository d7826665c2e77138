"""Runs bundles on a device: ``Model.open("x.edgepack").predict({...})``, or a whole ``Agent``."""

from typing import TYPE_CHECKING

from edge_agent.model import Model
from edge_agent.outputs import Prediction

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["Agent", "Model", "Prediction"]


def __getattr__(name: str) -> object:
    """``Agent`` on first use: whoever only runs a model needs neither MQTT nor TUF in memory."""
    if name == "Agent":
        from edge_agent.agent import Agent  # noqa: PLC0415

        return Agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Runs bundles on a device: ``Model.open("x.edgepack").predict({...})``."""

from edge_agent.model import Model
from edge_agent.outputs import Prediction

__all__ = ["Model", "Prediction"]

"""Inference over HTTP: the Open Inference Protocol, plain JSON by feature name, metrics."""

from edge_agent.doors.http.door import HttpDoor

__all__ = ["HttpDoor"]

"""Where requests come in: each door speaks one protocol and asks a ``Live`` model."""

from edge_agent.doors.mqtt import DoorCounts, MqttDoor

__all__ = ["DoorCounts", "MqttDoor"]

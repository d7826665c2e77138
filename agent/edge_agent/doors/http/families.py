"""Figures of the machine and of the MQTT door, for ``/metrics``. Pure."""

from __future__ import annotations

import msgspec

from edge_agent.doors.http.metrics import Family, Sample
from edge_agent.doors.mqtt import DoorCounts
from edge_contract.messages import Strain


def families_of(strain: Strain, mqtt: DoorCounts) -> list[Family]:
    """How strained the machine is, and what became of requests over MQTT."""
    found = [
        Family(
            "edge_agent_strained",
            "gauge",
            "1: heat, voltage or want of memory slows the machine down.",
            [Sample(bool(strain.signs))],
        ),
        Family(
            "edge_agent_strained_total", "counter", "How often that began.", [Sample(strain.times)]
        ),
        Family(
            "edge_agent_memory_stalled_ratio",
            "gauge",
            "Share of 10 s in which everything waited for memory.",
            [Sample(strain.stalled_percent / 100)],
        ),
        Family(
            "edge_agent_mqtt_requests_total",
            "counter",
            "Requests over MQTT, by what became of them.",
            [Sample(count, {"end": end}) for end, count in msgspec.structs.asdict(mqtt).items()],
        ),
    ]
    if strain.temperature_c is not None:
        said = "Of the hottest zone."
        celsius = [Sample(strain.temperature_c)]
        found.append(Family("edge_agent_temperature_celsius", "gauge", said, celsius))
    return found

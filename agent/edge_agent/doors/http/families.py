"""Figures of the doors, the models and the machine, for ``/metrics``. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edge_agent.doors.http.metrics import Family, Sample
from edge_agent.doors.mqtt import DoorCounts
from edge_agent.model import Model
from edge_agent.overload import Counts
from edge_contract.messages import Strain


def families_of_door(
    statuses: Mapping[int, int], line: Counts, models: Mapping[str, Model]
) -> list[Family]:
    """How many answers of which status, what waits and was turned away, and which models answer."""
    answers = [
        Sample(count, {"status": str(status)})
        for status, count in sorted(statuses.items())
        if count
    ]
    versions = [
        Sample(1, {"model": name, "version": model.manifest.version, "digest": model.digest})
        for name, model in sorted(models.items())
    ]
    return [
        Family("edge_agent_http_responses_total", "counter", "Answers by status.", answers),
        Family(
            "edge_agent_http_waiting",
            "gauge",
            "Requests that wait for or are with a model's thread.",
            [Sample(line.waiting + line.running)],
        ),
        Family(
            "edge_agent_http_turned_away_total",
            "counter",
            "Requests that were not computed: the line was full, or their time was up.",
            [Sample(line.full, {"reason": "full"}), Sample(line.late, {"reason": "late"})],
        ),
        Family("edge_agent_model_info", "gauge", "What answers.", versions),
    ]


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

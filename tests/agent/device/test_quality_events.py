"""Faults of the input on a whole device: events that wait off line, and a line of the status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_agent import show
from edge_contract.errors import InputFault
from edge_contract.topics import Topics

TOPICS = Topics("home")


def refuse(agent: Any) -> None:
    """Ask what cannot be answered, often enough to be a fault of the input."""
    for _ in range(120):
        with pytest.raises(InputFault):
            agent.predict("pump", {"temp": None, "hum": 0.2, "rpm": 0.1, "volt": 1.0})


def test_a_fault_that_began_off_line_is_home_once_the_broker_is_back(
    world: Any, tiny_bundle: Callable[..., bytes]
) -> None:
    world.publisher.publish(tiny_bundle("1.0"))
    device = world.device
    with device.agent() as agent:
        device.wait_at("1.0")
        world.broker.stop()
        world.until(lambda: not agent.status().connected, "the connection's end")
        refuse(agent)
        world.until(lambda: agent.status().quality, "the finding")
        status = agent.status()
        world.until(lambda: agent.status().events_waiting, "the event on the disk")
        (line,) = status.quality["pump"]
        assert line.startswith("refused: ")
        assert f"  bad input {line}" in show.lines(status)
    world.broker.start()  # it remembers nothing
    world.until(lambda: world.client.link.up, "the client's connection")
    world.client.link.subscribe([TOPICS.events("pi1")]).wait(60)
    with device.agent() as agent:
        (event,) = world.until(lambda: world.client.events("quality-fault"), "the event")
        assert (event.boot, event.model, event.version) == (status.boot, "pump", "1.0")
        assert event.detail == line
        refuse(agent)
        world.until(lambda: len(world.client.events("quality-fault")) == 2, "the next fault")
        agent.predict("pump", np.random.default_rng(4).normal(size=(3_000, 4)).tolist())
        world.until(lambda: world.client.events("quality-restored"), "its end")
        world.until(lambda: not agent.status().quality, "a clean status")

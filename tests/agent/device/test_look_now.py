"""``edge-agent look``: for updates, now."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

TIMESTAMP = "edge/1/home/tuf/m/timestamp.json"


def look(device: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", "look", "--config", device.path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_running_agent_looks_when_it_is_told_to(
    world: Any, tiny_bundle: Callable[..., bytes]
) -> None:
    device, looks = world.device, []

    def count(passing: Any) -> None:
        if passing.client_id == "pi1-dl" and passing.message.topic == TIMESTAMP:
            looks.append(passing)

    world.publisher.publish(tiny_bundle("1.0"))
    device.start()
    device.wait_at("1.0")
    world.broker.add_tap(count)
    asked = look(device)
    assert asked.returncode == 0, asked.stderr
    assert f"process {device.process.pid}, looks for updates now" in asked.stdout
    world.until(lambda: "asked to look for updates now" in device.log.read_text(), "the word")
    world.until(lambda: looks, "the look")
    assert look(device).returncode == 0  # and it lives on
    assert device.stop() == 0


def test_who_cannot_be_asked_is_left_alone(world: Any) -> None:
    device = world.device
    nobody = look(device)
    assert nobody.returncode == 4
    assert "no agent is seen to run" in nobody.stderr
    with device.agent():  # in this process, which the signal would end
        other = look(device)
    assert other.returncode == 4
    assert "is no `edge-agent run`" in other.stderr

"""A committed version in whose hands the agent dies again and again: the one before it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_agent.update import LIVES_MAX


@pytest.mark.slow
def test_a_device_that_dies_five_times_goes_back_and_proves_the_version_anew(
    world: Any, tiny_bundle: Callable[..., bytes]
) -> None:
    """Killed from outside, so that the version proves sound and is committed again."""
    device = world.device
    device.set(trial={"requests": 1000, "seconds": 5.0})
    world.publisher.publish(tiny_bundle("1.0"))
    device.start()
    device.wait_at("1.0")
    world.publisher.publish(tiny_bundle("2.0"))
    device.wait_at("2.0")
    device.kill()
    for life in range(1, LIVES_MAX + 1):
        device.start()
        world.until(lambda: world.client.ask("pi1").version == "2.0", f"life {life}")
        device.kill()
    assert device.at("2.0"), "so far it may have been anything"
    device.start()
    world.until(lambda: world.client.events("probation"), "the fleet hears of it")
    assert "died 5 times in a row while 2.0 answered" in world.client.events("probation")[0].detail
    device.wait_at("2.0")
    assert world.client.ask("pi1").version == "2.0"
    assert device.stop() == 0

"""A whole device whose counts wait for noise and whose rows stay, sealed; an older one goes on."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent.show import lines
from edge_contract import aside, sealed, telemetry
from edge_fleet.commands.sample import parcels_of

pytest.importorskip("cryptography", reason="pip install 'edge-pack[samples]'")
ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}


def windows(world: Any) -> list[telemetry.Record]:
    """Windows that came home."""
    found = [m.payload for m in list(world.client.heard) if "/t/" in m.topic]
    return [telemetry.decode(data) for data in found if not aside.is_aside(data)]


def test_no_bare_count_leaves_and_what_waits_is_there_after_a_restart(world, tiny_bundle) -> None:
    device = world.device
    private, public = sealed.new_key()
    device.set(
        telemetry={"window_s": 86400.0},
        sampling={"recipient": public, "random": 1.0, "per_day": 48},
        **{"privacy.noise": {"epsilon_per_day": 4.0}},
    )
    with device.agent() as agent:
        world.publisher.publish(tiny_bundle("1.0"))
        device.wait_at("1.0")
        answers = [agent.predict("pump", ROW) for _ in range(30)]
        agent.feedback(answers[0].id, "bad")
    with device.agent() as agent:
        for _ in range(20):
            agent.predict("pump", ROW)
        said = lines(agent.status())
    assert windows(world) == []
    assert not any("/t/" in m.topic for m in list(world.client.heard)), "nor of labels"
    [held] = device.folder.private.glob("[0-9a-f]*.json")
    assert '"rows":50' in held.read_text()
    assert any(line.startswith("noise       epsilon 0 spent") for line in said)
    rows = [row for parcel in parcels_of([device.folder.samples], private) for row in parcel.rows]
    assert 1 <= len(rows) <= 4, "an hour's part of the day's rows each"
    assert rows[0].values == ROW
    assert not any(b'"temp"' in path.read_bytes() for path in device.folder.path.rglob("*.sealed"))

"""A whole device with bindings: it answers its sensors, and its status tells of it."""

from __future__ import annotations

import json
import subprocess
import sys

BINDING = """
[[bindings]]
name = "cellar"
model = "pump"
on = "message"
homeassistant = {}
[bindings.inputs]
temp = { topic = "cellar/pump", field = "/t", aggregate = "mean", over = 3, at_least = 3 }
hum = { topic = "cellar/pump", field = "/h" }
rpm = { topic = "cellar/pump", field = "/more/rpm" }
volt = { value = 1.0 }
"""
READINGS = [{"t": t, "h": 0.2, "more": {"rpm": 0.1}} for t in (0.5, 1.0, 1.5)]
ANSWERS = "edge/1/home/d/pi1/out/cellar"


def test_an_agent_answers_its_sensors_and_its_status_tells_of_it(world, tiny_bundle) -> None:
    device = world.device
    device.path.write_text(device.path.read_text() + BINDING)
    world.publisher.publish(tiny_bundle("1.0"))
    heard = world.client.heard
    world.client.link.subscribe([ANSWERS, "homeassistant/#"]).wait(60)
    device.start()
    device.wait_at("1.0")

    def answered() -> bool:
        for reading in READINGS:
            world.client.link.publish("cellar/pump", json.dumps(reading).encode()).wait(60)
        return any(message.topic == ANSWERS for message in heard)

    world.until(answered, "an answer to the sensors")
    answer = json.loads(next(message.payload for message in heard if message.topic == ANSWERS))
    assert answer["model"] == "pump"
    assert answer["label"] in ("bad", "good")
    sensor = world.until(
        lambda: [m for m in heard if m.topic.startswith("homeassistant/sensor/")], "a sensor"
    )[0]
    assert json.loads(sensor.payload)["state_topic"] == ANSWERS
    report = world.until(
        lambda: (found := device.status.bindings.get("cellar")) and found.predictions and found,
        "the status to tell of the binding",
    )
    assert report.connected and report.published >= 1
    said = subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", "status", "--config", str(device.path)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "binding     cellar of pump" in said and "samples" in said
    assert device.stop() == 0

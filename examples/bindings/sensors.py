"""A pump with three simulated sensors: what Zigbee2MQTT, Tasmota and a vibration board publish.

After half a minute its bearing wears: it hums at 50 Hz, draws more power and warms up.

Example: python examples/bindings/sensors.py --broker mqtt://127.0.0.1:18830
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator

from edge_contract import broker_url
from edge_contract.ports.mqtt import Link, LinkConfig

RATE_HZ = 400
WEARS_AT_S = 30.0


def messages(second: float, rng: random.Random) -> Iterator[tuple[str, dict[str, object]]]:
    """What the sensors say in this second: topic and document."""
    wear = min(max(second - WEARS_AT_S, 0.0) / 20.0, 1.0)
    temperature = 20.0 + 10.0 * wear + rng.gauss(0, 0.1)
    yield "zigbee2mqtt/cellar", {"temperature": round(temperature, 2), "linkquality": 120}
    power = 100.0 + 40.0 * wear + rng.gauss(0, 2)
    yield "tele/pump/SENSOR", {"Time": "2026-01-01T00:00:00", "ENERGY": {"Power": round(power)}}
    hum = [
        0.05 * rng.gauss(0, 1) + (0.02 + wear) * math.sin(2 * math.pi * 50 * i / RATE_HZ)
        for i in range(RATE_HZ)
    ]
    yield "acc/pump", {"x": [round(value, 4) for value in hum]}


def main() -> None:
    """Publish once a second until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="mqtt://127.0.0.1:18830")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311 - noise of a simulated sensor
    link = Link(LinkConfig(broker=broker_url.parse(options.broker), client_id="sensors"))
    link.start(10)
    try:
        begin = time.monotonic()
        while True:
            second = time.monotonic() - begin
            for topic, document in messages(second, rng):
                link.publish(topic, json.dumps(document).encode(), qos=0)
            time.sleep(1.0)
    except KeyboardInterrupt:
        link.stop()


if __name__ == "__main__":
    main()

"""What bindings cost a device: CPU of a message taken in, and of a row made of full windows.

    python benchmarks/bindings.py [--quick] [--json FILE]

Microseconds are CPU time, medians over rounds, in one process. Goals: a message of four values is
taken in within 100 us, so that a hundred a second take a hundredth of a core; and a row of ten
aggregates over 1,000 samples each is made within 500 us.
"""

from __future__ import annotations

import argparse
import json
import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.bindings.bound import Bound
from edge_agent.bindings.join import Moment
from edge_agent.bindings.payloads import Decoded
from edge_agent.bindings.settings import Binding
from edge_agent.bindings.sparkplug import Names

NAMES = ("temp", "hum", "rpm", "volt")
MESSAGE_GOAL_US, ROW_GOAL_US = 100.0, 500.0
AGGREGATES = ("mean", "min", "max", "std", "rms", "slope", "band", "mean", "std", "slope")


def sparkplug() -> bytes:
    """Four metrics of type Double, by the wire format of Protocol Buffers."""
    body = b""
    for i, name in enumerate(NAMES):
        metric = b"\x0a" + bytes([len(name)]) + name.encode()
        metric += b"\x20\x0a\x69" + struct.pack("<d", 1.5 + i)
        body += b"\x12" + bytes([len(metric)]) + metric
    return body


DOCUMENT = json.dumps({name: 1.5 + i for i, name in enumerate(NAMES)}).encode()
FORMATS = {
    "json": ("t", "/{}", DOCUMENT),
    "zigbee2mqtt": ("zigbee2mqtt/t", "{}", DOCUMENT),
    "sparkplug": ("spBv1.0/g/DDATA/n/d", "{}", sparkplug()),
}


def bound(inputs: dict[str, Any]) -> Bound:
    """A binding of these inputs."""
    binding = msgspec.convert({"model": "m", "every": "1h", "inputs": inputs}, Binding)
    return Bound(binding, Names(NAMES), 0.0)


def measure(call: Callable[[int], object], rounds: int, calls: int) -> float:
    """Median microseconds of CPU a call."""
    found = []
    for turn in range(rounds):
        begin = time.process_time_ns()
        for i in range(calls):
            call(turn * calls + i)
        found.append((time.process_time_ns() - begin) / calls / 1000)
    return statistics.median(found)


def message_us(kind: str, rounds: int) -> float:
    """One message of four values, decoded and taken into four inputs."""
    topic, field, payload = FORMATS[kind]
    inputs = {name: {"topic": topic, "format": kind, "field": field.format(name)} for name in NAMES}
    at = bound(inputs)
    by = frozenset((topic,))

    def take(i: int) -> None:
        at.take(Decoded(topic, payload), by, Moment(float(i), None), retained=False)

    took = measure(take, rounds, 500)
    assert not at.row(0.0).missing
    return took


def row_us(rounds: int) -> float:
    """A row of ten aggregates over full windows."""
    inputs = {
        f"f{i}": {
            "topic": "t", "field": "/v", "aggregate": kind, "over": 1000, "rate_hz": 100.0,
            "band": [5.0, 20.0],
        }
        for i, kind in enumerate(AGGREGATES)
    }  # fmt: skip
    at = bound(inputs)
    values = np.random.default_rng(1).normal(size=1000).round(4).tolist()
    at.take(
        Decoded("t", json.dumps({"v": values}).encode()), {"t"}, Moment(1.0, None), retained=False
    )
    assert not at.row(1.0).missing
    return measure(lambda _: at.row(1.0), rounds, 50)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, help="write {'goals': {name: [figure, goal, met]}}")
    options = parser.parse_args()
    rounds = 10 if options.quick else 60
    goals: dict[str, tuple[float, float, bool]] = {}
    for kind in FORMATS:
        took = message_us(kind, rounds)
        goals[f"message_{kind}_us"] = (round(took, 2), MESSAGE_GOAL_US, took <= MESSAGE_GOAL_US)
    took = row_us(rounds)
    goals["row_us"] = (round(took, 2), ROW_GOAL_US, took <= ROW_GOAL_US)
    for name, (figure, goal, met) in goals.items():
        print(f"{name:<24} {figure:>9.2f}  goal {goal:g}  {'met' if met else 'MISSED'}")
    if options.json:
        options.json.write_text(json.dumps({"goals": goals}, indent=2) + "\n")


if __name__ == "__main__":
    main()

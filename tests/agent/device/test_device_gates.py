"""Real agents, a broker, a collector and a planner: what gates stop, and what they let on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from edge_contract import broker_url
from edge_contract import bundle as bundles
from edge_contract.manifest import MODEL_FILE
from edge_contract.topics import Topics
from edge_fleet.cli import app
from edge_fleet.collector import Collector, CollectorConfig, now_ms
from edge_fleet.rollouts.runner import RolloutRun, running
from edge_fleet.store.sql import open_store

pytestmark = pytest.mark.slow

NAMES = ("temp", "hum", "rpm", "volt")
TURNS = 20_000
"""Of a loop that does nothing, before each answer: some ten milliseconds."""


def slower(bundle: bytes) -> bytes:
    """The bundle whose model gives the same answers after ``TURNS`` turns of a loop."""
    import odd_bundles

    whole = bundles.read(bundle)
    model = onnx.load_model_from_string(whole.file(MODEL_FILE))
    for node in model.graph.node:
        node.input[:] = ["late" if name == "X" else name for name in node.input]
    value, make = helper.make_tensor_value_info, helper.make_node
    body = helper.make_graph(
        [make("Identity", ["go"], ["going"]), make("Identity", ["v"], ["w"])], "body",
        [value("turn", TensorProto.INT64, []), value("go", TensorProto.BOOL, []),
         value("v", TensorProto.FLOAT, None)],
        [value("going", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model.graph.initializer.extend([
        helper.make_tensor("turns", TensorProto.INT64, [], [TURNS]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
    ])  # fmt: skip
    model.graph.node.insert(0, make("Loop", ["turns", "yes", "X"], ["late"], body=body))
    return odd_bundles.with_member(bundle, MODEL_FILE, model.SerializeToString())


class Fleet:
    """Two agents that are asked all the time, and what `edge-fleet` says of them."""

    def __init__(self, world: Any, folder: Any) -> None:
        self.world, self.db = world, f"sqlite:///{folder}/fleet.db"
        self.devices = [world.new_device(name) for name in ("pi1", "pi2")]
        for device in self.devices:
            device.set(update={"report_s": 1.0})
        self.stop = threading.Event()

    def run(self, *words: str) -> Any:
        broker = ["--broker", self.world.broker.url] if words[:2] == ("rollout", "start") else []
        found = CliRunner().invoke(app, [*words, *broker, "--db", self.db, "--json"])
        assert found.exit_code in (0, 1) and found.output, (found.output, found.exception)
        return json.loads(found.output)

    def ask(self, agent: Any) -> None:
        """Until the end, rows as the model was trained on."""
        rng = np.random.default_rng(7)
        while not self.stop.wait(0.01):
            agent.predict("pump", dict(zip(NAMES, rng.normal(size=4).tolist(), strict=True)))

    @contextmanager
    def alive(self) -> Iterator[None]:
        store, started = open_store(self.db, create=True), threading.Event()
        config = CollectorConfig(broker_url.parse(self.world.broker.url), "home")
        collector = Collector(config, store)
        thread = threading.Thread(target=collector.run, args=(self.stop, started.set))
        plans = RolloutRun(store, Topics("home"), now_ms)
        with ExitStack() as stack:
            stack.callback(store.close)
            thread.start()
            stack.callback(thread.join, 60)
            assert started.wait(60)
            stack.enter_context(
                running(plans, store, config.link("-rollouts", durable=False), self.stop, 0.5)
            )
            agents = [stack.enter_context(device.agent()) for device in self.devices]
            for device in self.devices:
                device.wait_at("1.0")
            threads = [threading.Thread(target=self.ask, args=(agent,)) for agent in agents]
            for one in threads:
                one.start()
                stack.callback(one.join, 60)
            stack.callback(self.stop.set)
            yield

    def windows(self) -> int:
        """Of the device that has the fewest."""
        found = self.run("devices")
        return min(one["windows"] for one in found) if len(found) == 2 else 0

    def gate(self, name: str) -> Any:
        (found,) = self.run("rollout", "status")[-1:]
        return next((one for one in found["gates"] if one["gate"] == name), None)

    def phase(self) -> str:
        return str(self.run("rollout", "status")[-1]["phase"])


@pytest.fixture
def fleet(world: Any, tmp_path: Any) -> Fleet:
    return Fleet(world, tmp_path)


def test_a_slower_candidate_is_halted_at_the_first_wave(
    fleet: Fleet, tiny_bundle: Callable[..., bytes]
) -> None:
    world = fleet.world
    world.publisher.publish(tiny_bundle("1.0"))
    with fleet.alive():
        world.publisher.publish(slower(tiny_bundle("2.0")), candidate=True)
        world.until(lambda: fleet.windows() >= 20, "each device has a past")
        fleet.run("rollout", "start", "pump@2.0", "--waves", "1,100%", "--bake", "1h")
        world.until(lambda: fleet.phase() != "running", "it was stopped")
        found = fleet.run("rollout", "status")[-1]
        assert (found["phase"], found["wave"]) == ("halted", 1)
        assert "latency: " in found["reason"] and "times as long as before" in found["reason"]
        assert found["gates"] and sum(found["devices"].values()) == 1
        assert sum(device.at("2.0") for device in fleet.devices) == 1, "nobody but the canary"


def test_a_candidate_that_disagrees_in_the_shadow_is_never_followed_and_a_like_one_is(
    fleet: Fleet, tiny_bundle: Callable[..., bytes]
) -> None:
    world = fleet.world
    world.publisher.publish(tiny_bundle("1.0"))
    words = ("--waves", "100%", "--shadow", "100%", "--on", "2", "--bake", "1s", "--gate",
             "shadow_latency=1000")  # fmt: skip
    with fleet.alive():
        world.publisher.publish(tiny_bundle("2.0", threshold=0.999), candidate=True)
        world.until(lambda: fleet.windows() >= 1, "both devices are known")
        fleet.run("rollout", "start", "pump@2.0", *words)
        world.until(lambda: fleet.phase() != "running", "it was stopped")
        found = fleet.run("rollout", "status")[-1]
        assert found["phase"] == "halted" and "agreement: " in found["reason"], found
        assert found["devices"] == {}, "nobody was asked to follow it"
        assert all(device.at("1.0") for device in fleet.devices)

        world.publisher.publish(tiny_bundle("2.5", golden_shift=0.1), candidate=True)
        fleet.run("rollout", "start", "pump@2.5", *words)
        world.until(lambda: fleet.phase() != "running", "it failed its self-test")
        assert "devices ended the candidate" in fleet.run("rollout", "status")[-1]["reason"]

        world.publisher.publish(tiny_bundle("3.0"), candidate=True)
        fleet.run("rollout", "start", "pump@3.0", *words)
        world.until(lambda: fleet.phase() != "running", "it came to an end")
        found = fleet.run("rollout", "status")[-1]
        assert found["phase"] == "finished", found
        assert any("beside the live version on 2 devices" in n["said"] for n in found["notes"])
        for device in fleet.devices:
            device.wait_at("3.0")


def test_a_candidate_answers_a_share_and_both_arms_are_compared(
    fleet: Fleet, tiny_bundle: Callable[..., bytes]
) -> None:
    world = fleet.world
    world.publisher.publish(tiny_bundle("1.0"))
    with fleet.alive():
        world.publisher.publish(tiny_bundle("2.0"), candidate=True)
        world.until(lambda: fleet.windows() >= 1, "both devices are known")
        words = ("--waves", "100%", "--ab", "50%", "--on", "2", "--bake", "15s")
        fleet.run("rollout", "start", "pump@2.0", *words, "--gate", "latency=100")

        def both() -> bool:
            found = fleet.gate("errors")
            return bool(found and found["interval"] and found["interval"][0] > -0.9)

        world.until(both, "the difference has an interval")
        low, high = fleet.gate("errors")["interval"]
        assert low <= 0 <= high
        world.until(lambda: fleet.phase() != "running", "it came to an end")
        assert fleet.phase() == "finished", fleet.run("rollout", "status")

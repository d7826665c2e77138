"""Two real agents, a broker, a collector and a planner: a rollout that ends, one that stops."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from edge_contract import broker_url
from edge_contract.topics import Topics
from edge_fleet.cli import app
from edge_fleet.collector import Collector, CollectorConfig, now_ms
from edge_fleet.rollouts.runner import RolloutRun, running
from edge_fleet.store.sql import open_store


@contextmanager
def server(url: str, db: str) -> Iterator[None]:
    """What `edge-fleet serve` does, with rounds five a second."""
    store, stop, started = open_store(db, create=True), threading.Event(), threading.Event()
    config = CollectorConfig(broker_url.parse(url), "home")
    collector = Collector(config, store)
    thread = threading.Thread(target=collector.run, args=(stop, started.set))
    run = RolloutRun(store, Topics("home"), now_ms)
    thread.start()
    try:
        assert started.wait(60)
        with running(run, store, config.link("-rollouts", durable=False), stop, 0.2):
            yield
    finally:
        stop.set()
        thread.join(60)
        store.close()


@pytest.mark.slow
def test_a_healthy_version_goes_round_goes_back_and_a_bad_one_stops_with_its_canary(
    world: Any, tiny_bundle: Callable[..., bytes], tmp_path: Any
) -> None:
    db = f"sqlite:///{tmp_path}/fleet.db"

    def rollout(*words: str, code: int = 0) -> Any:
        broker = ["--broker", world.broker.url] if words[0] == "start" else []
        found = CliRunner().invoke(app, ["rollout", *words, *broker, "--db", db, "--json"])
        assert found.exit_code == code, (found.output, found.exception)
        return json.loads(found.output)

    def phase(number: int) -> str:
        words = ["rollout", "status", str(number), "--db", db, "--json"]
        return str(json.loads(CliRunner().invoke(app, words).output)[0]["phase"])

    devices = [world.new_device(name) for name in ("pi1", "pi2")]
    world.publisher.publish(tiny_bundle("1.0"))
    with ExitStack() as stack:
        stack.enter_context(server(world.broker.url, db))
        for device in devices:
            stack.enter_context(device.agent())
        for device in devices:
            device.wait_at("1.0")
        world.publisher.publish(tiny_bundle("2.0", seed=8), candidate=True)

        def both_known() -> bool:
            words = ["devices", "--db", db, "--json"]
            return len(json.loads(CliRunner().invoke(app, words).output)) == 2

        world.until(both_known, "both devices are known")
        made = rollout("start", "pump@2.0", "--waves", "1,100%", "--bake", "1s")
        assert (made["phase"], made["selected"], len(made["digest"])) == ("running", 2, 64)
        world.until(lambda: phase(1) == "finished", "the rollout ended")
        for device in devices:
            device.wait_at("2.0")
        rollout("rollback", "1")
        for device in devices:
            device.wait_at("1.0")
        world.until(lambda: phase(1) == "rolled-back", "the devices are back")

        world.publisher.publish(tiny_bundle("3.0", golden_shift=0.1), candidate=True)
        rollout("start", "pump@3.0", "--waves", "1,100%", "--bake", "1s")
        world.until(lambda: phase(2) == "halted", "the bad version stopped")
        (found,) = rollout("status", "2", code=1)
        assert "1 of 1 devices refuse the version" in found["reason"]
        assert sum(found["devices"].values()) == 1, "nobody but the canary was chosen"
        for device in devices:
            assert device.at("1.0")

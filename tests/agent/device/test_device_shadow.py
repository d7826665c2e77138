"""A candidate of the channel beside the live version of a whole device, by settings and by word."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from edge_contract import aside, broker_url, messages, telemetry
from edge_contract import bundle as bundles
from edge_contract import profile as profiles
from edge_contract.aside import Shadow
from edge_contract.manifest import MODEL_FILE, PROFILE_FILE
from edge_contract.messages import Beside, Desired
from edge_contract.topics import Topics
from edge_fleet import reports
from edge_fleet.collector import Collector, CollectorConfig
from edge_fleet.store.sql import open_store

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
TOPICS = Topics("home")


def shadows(world: Any) -> list[Shadow]:
    found = {}
    for message in list(world.client.heard):
        if "/t/" in message.topic and aside.is_aside(message.payload):
            record = aside.decode(message.payload)
            found[record.boot, record.seq] = record
    return [each for each in found.values() if isinstance(each, Shadow)]


def windows(world: Any) -> dict[str, int]:
    """Rows that came home as answered, by version."""
    found = {}
    for message in list(world.client.heard):
        if "/t/" in message.topic and not aside.is_aside(message.payload):
            record = telemetry.decode(message.payload)
            found[record.boot, record.seq] = record
    rows: dict[str, int] = {}
    for record in found.values():
        rows[record.version] = rows.get(record.version, 0) + record.rows
    return rows


def want(world: Any, revision: int, **beside: Beside) -> None:
    desired = Desired(revision=revision, beside=beside)
    world.client.link.publish(TOPICS.desired("pi1"), messages.encode(desired), retain=True).wait(60)


def began(world: Any, version: str) -> bool:
    return any(e.version == version for e in world.client.events("shadow-began"))


def test_the_channels_candidate_runs_unheard_and_its_agreement_comes_home(
    world, tiny_bundle
) -> None:
    device = world.device
    device.set(shadow={"models": ["pump"], "share": 1.0})
    world.publisher.publish(tiny_bundle("1.0"))
    with device.agent() as agent:
        device.wait_at("1.0")
        world.publisher.publish(tiny_bundle("2.0", seed=8), candidate=True)
        world.until(lambda: began(world, "2.0"), "the shadow began")
        before = windows(world)
        answers = {agent.predict("pump", ROW).label for _ in range(30)}
        assert len(answers) == 1
        world.until(lambda: sum(s.rows for s in shadows(world)) == 30, "30 rows compared")
        world.until(lambda: windows(world).get("1.0", 0) - before.get("1.0", 0) >= 30, "30 live")
        assert "2.0" not in windows(world), "what nobody heard is no window"
        assert {(s.live_version, s.version) for s in shadows(world)} == {("1.0", "2.0")}
        assert device.at("1.0"), "the live version is what it was"


def test_a_candidate_that_fails_its_self_test_is_never_loaded(world, tiny_bundle) -> None:
    device = world.device
    device.set(shadow={"models": ["pump"], "share": 1.0})
    world.publisher.publish(tiny_bundle("1.0"))
    with device.agent() as agent:
        device.wait_at("1.0")
        world.publisher.publish(tiny_bundle("2.0", golden_shift=0.1), candidate=True)
        (event,) = world.until(lambda: world.client.events("shadow-ended"), "it was refused")
        assert "self-test failed" in event.detail
        assert agent.predict("pump", ROW).label in ("bad", "good")
        assert shadows(world) == []


def test_a_candidate_that_cannot_be_counted_is_ended_and_windows_still_close(
    world, tiny_bundle, seal_bundle
) -> None:
    device = world.device
    device.set(shadow={"models": ["pump"], "share": 1.0})
    world.publisher.publish(tiny_bundle("1.0"))
    own = bundles.read(tiny_bundle("2.0", seed=8))
    profile = profiles.decode(own.file(PROFILE_FILE))
    first, *others = profile.monitors
    odd = seal_bundle(
        own.file(MODEL_FILE), version="2.0", features=own.manifest.features,
        inputs=own.manifest.inputs, outputs=own.manifest.outputs,
        profile=replace(profile, monitors=(replace(first, name="pressure"), *others)),
        golden_inputs={"X": np.zeros((4, 4), np.float32)},
    )  # fmt: skip
    with device.agent() as agent:
        device.wait_at("1.0")
        world.publisher.publish(odd, candidate=True)
        (event,) = world.until(lambda: world.client.events("shadow-ended"), "it was ended")
        assert "'pressure', which is no feature" in event.detail
        assert not began(world, "2.0")
        before = windows(world).get("1.0", 0)
        assert agent.predict("pump", ROW).label in ("bad", "good")
        world.until(lambda: windows(world).get("1.0", 0) > before, "the window to close")


def test_the_fleet_names_a_version_by_word_and_takes_it_back(world, tiny_bundle) -> None:
    device = world.device
    world.publisher.publish(tiny_bundle("1.0"))
    world.publisher.publish(tiny_bundle("2.0", seed=8), candidate=True)
    with device.agent() as agent:
        device.wait_at("1.0")
        want(world, 1, pump=Beside(version="2.0", share=1.0))
        world.until(lambda: began(world, "2.0"), "the shadow began")
        agent.predict("pump", ROW)
        world.until(lambda: shadows(world), "a comparison came home")
        want(world, 2)

        def gone() -> bool:
            return agent._running().shadows.status() == {}

        world.until(gone, "it is gone")
        slots = device.folder.slots
        world.until(lambda: len(list(slots.iterdir())) >= 1, "the live slot stays")
        assert agent.predict("pump", ROW).label in ("bad", "good")


@pytest.mark.parametrize("by_key", [True, False])
def test_a_candidate_answers_its_share_and_each_side_is_counted_as_its_version(
    world, tiny_bundle, by_key: bool
) -> None:
    device = world.device
    world.publisher.publish(tiny_bundle("1.0"))
    world.publisher.publish(tiny_bundle("2.0", seed=8), candidate=True)
    with device.agent() as agent:
        device.wait_at("1.0")
        want(world, 1, pump=Beside(share=0.5, answers=True))
        world.until(lambda: began(world, "2.0"), "the split began")
        seat = agent._running().serving.models["pump"]
        world.until(lambda: seat.split is not None and seat.split.share, "it has its share")
        keys = [f"machine {n}" if by_key else "" for n in range(100)]
        for key in keys:
            agent.predict("pump", ROW, key=key)
        world.until(lambda: sum(windows(world).values()) >= 100, "all counted")
        rows = windows(world)
        assert 20 < rows["2.0"] < 80
        assert rows["1.0"] + rows["2.0"] >= 100
        assert shadows(world) == []


def test_a_candidate_that_is_promoted_answers_and_is_no_shadow_any_more(world, tiny_bundle) -> None:
    device = world.device
    device.set(shadow={"models": ["pump"], "share": 1.0})
    world.publisher.publish(tiny_bundle("1.0"))
    world.publisher.publish(tiny_bundle("2.0", seed=8), candidate=True)
    with device.agent() as agent:
        device.wait_at("1.0")
        world.until(lambda: began(world, "2.0"), "the shadow began")
        world.publisher.publish(tiny_bundle("2.0", seed=8))
        device.wait_at("2.0")
        world.until(lambda: agent._running().shadows.status() == {}, "no shadow")
        assert agent.predict("pump", ROW).label in ("bad", "good")


def test_what_a_device_compares_and_is_told_reaches_the_fleets_reports(
    world, tiny_bundle, tmp_path
) -> None:
    """Agent, broker, collector, store and command, all real; every record delivered twice."""
    store = open_store(f"sqlite:///{tmp_path}/fleet.db", create=True)
    stop, started = threading.Event(), threading.Event()
    config = CollectorConfig(broker_url.parse(world.broker.url), "home")
    collector = threading.Thread(
        target=lambda: Collector(config, store).run(stop, started.set), daemon=True
    )
    collector.start()
    assert started.wait(60)
    device = world.device
    device.set(shadow={"models": ["pump"], "share": 1.0})
    world.publisher.publish(tiny_bundle("1.0"))
    world.publisher.publish(tiny_bundle("2.0", seed=8), candidate=True)
    with device.agent() as agent:
        device.wait_at("1.0")
        world.until(lambda: began(world, "2.0"), "the shadow began")
        rows = np.random.default_rng(4).normal(size=(50, 4)).tolist()
        answers = agent.predict("pump", rows)
        for answer, row in zip(answers, rows, strict=True):
            agent.feedback(answer.id, "bad" if row[0] > 0 else "good")
        world.until(lambda: sum(s.rows for s in shadows(world)) == 50, "50 rows compared")
        right = sum(
            a.label == ("bad" if r[0] > 0 else "good") for a, r in zip(answers, rows, strict=True)
        )
    for message in list(world.client.heard):  # all of it once more
        if "/t/" in message.topic:
            world.client.link.publish(message.topic, message.payload).wait(60)
    world.until(lambda: reports.accuracy(store), "labels arrived")
    world.until(lambda: sum(s.rows for s in reports.shadow(store)) == 50, "shadows arrived")
    world.until(lambda: sum(a.labelled for a in reports.accuracy(store)) == 50, "50 labels")
    stop.set()
    collector.join(60)
    (accuracy,) = reports.accuracy(store)
    assert (accuracy.version, accuracy.labelled, accuracy.right) == ("1.0", 50, right)
    with store.reading() as tx:
        assert all(d.version == "1.0" for d in tx.all_detectors()), "no drift of what is unheard"
        assert [f.kind for f in tx.faults()] == []
    store.close()
    for command, seen in (("shadow", '"version": "2.0"'), ("accuracy", f'"right": {right}')):
        found = subprocess.run(
            [sys.executable, "-m", "edge_fleet", command, "--json", "--db",
             f"sqlite:///{tmp_path}/fleet.db"],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        assert seen in found.stdout

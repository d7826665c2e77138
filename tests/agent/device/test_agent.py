"""An agent against a real broker and a real publisher: updates, refusals, faults."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from typing import Any

import pytest

from edge_agent.folder import last_boot
from edge_contract import messages, telemetry
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.messages import Reported, Status
from edge_fleet.broker import Outcome

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
TOPICS = "edge/1/home/d/pi1"


def slow(value: str) -> Any:
    """One of several that show the same: the others are enough for a quick run."""
    return pytest.param(value, marks=pytest.mark.slow)


class Asker(threading.Thread):
    """Asks without a pause; counts answers by version's first label and keeps what failed."""

    def __init__(self, agent: Any) -> None:
        super().__init__(daemon=True)
        self.agent = agent
        self.answers = 0
        self.failures: list[EdgeError] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.0005):  # or it would take the processor from those it watches
            try:
                self.agent.predict("pump", ROW)
                self.answers += 1
            except EdgeError as error:
                self.failures.append(error)

    def __enter__(self) -> Asker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.join()


# -- the way of an update -----------------------------------------------------------------------


def test_a_published_version_is_pulled_proven_and_answers(world, tiny_bundle) -> None:
    device = world.device
    publisher = world.publisher
    client = world.client
    broker = world.broker
    until = world.until
    publisher.publish(tiny_bundle("1.0"))
    with device.agent() as agent:
        device.wait_at("1.0")
        assert agent.predict("pump", ROW).label == "bad"
        answer = client.ask("pi1")
        assert (answer.version, len(answer.predictions)) == ("1.0", 1)

        def active(report: Reported) -> bool:
            return report.models["pump"].active == "1.0"

        def reports() -> list[Reported]:
            retained = broker.retained(f"{TOPICS}/reported").values()
            return [messages.decode(data, Reported) for data in retained]

        (reported,) = until(lambda: [r for r in reports() if active(r)], "the report")
        assert reported.boot == agent.status().boot
        assert reported.channel == agent.status().channel
        assert reported.synchronised is agent.status().clock_synchronised
        room = reported.room
        assert room.free_bytes is not None
        assert room.total_bytes is not None
        assert 0 < room.free_bytes <= room.total_bytes
        assert 0 <= room.spool_bytes <= room.spool_max_bytes > 0
        until(lambda: client.events("committed"), "the event")
        kinds = ["fetching", "staged", "self-test-passed", "trial", "committed"]
        assert [len(client.events(kind)) for kind in kinds] == [1] * 5

    # Stopped in order: the windows are home, the status says so, nothing is left behind.
    def counted() -> int:
        heard = [telemetry.decode(m.payload) for m in client.heard if "/t/" in m.topic]
        return sum(record.rows for record in heard)

    until(lambda: counted() == 2, "telemetry")
    status = messages.decode(broker.retained(f"{TOPICS}/status").popitem()[1], Status)
    assert (status.online, status.boot) == (False, reported.boot)
    assert list(device.folder.spool.iterdir()) == []
    assert {
        t.name for t in threading.enumerate() if t.name.startswith(("edge-a", "mqtt-"))
    } == set()


def test_a_second_version_takes_over_without_one_failed_request(world, tiny_bundle) -> None:
    device = world.device
    publisher = world.publisher
    until = world.until
    publisher.publish(tiny_bundle("1.0"))
    with device.agent() as agent:
        device.wait_at("1.0")
        with Asker(agent) as asker:
            publisher.publish(tiny_bundle("2.0", seed=8))
            device.wait_at("2.0")
        assert asker.failures == []
        assert asker.answers > 100
        model = agent.status().models["pump"]
        assert (model.previous, model.candidate, model.reason) == ("1.0", "", "")
        publisher.publish(tiny_bundle("3.0", seed=9))
        device.wait_at("3.0")
        until(lambda: len(list(device.folder.slots.iterdir())) == 2, "the pruning of 1.0")


def test_altered_golden_outputs_never_answer_and_the_old_version_does(world, tiny_bundle) -> None:
    device = world.device
    publisher = world.publisher
    client = world.client
    until = world.until
    publisher.publish(tiny_bundle("1.0"))
    with device.agent() as agent:
        device.wait_at("1.0")
        before = agent.predict("pump", ROW)
        with Asker(agent) as asker:
            publisher.publish(tiny_bundle("2.0", seed=8, golden_shift=0.1))
            device.wait_at("1.0", "idle")
        assert asker.failures == []
        assert agent.predict("pump", ROW).probabilities == before.probabilities
        model = agent.status().models["pump"]
        assert model.quarantined == ("2.0",)
        assert "differs by up to 0.1" in model.reason
        until(lambda: client.events("self-test-failed"), "the event")
        assert client.events("trial")[-1].version == "1.0"
        # It stays refused until it is named anew, by a rising revision here.
        client.want("pi1", 1, pump="1.0")
        device.wait_at("1.0", "committed")
        client.want("pi1", 2, pump="stable")
        until(lambda: len(client.events("self-test-failed")) == 2, "another self-test")


def test_a_failing_trial_rolls_back_with_evidence(world, tiny_bundle, failing_bundle) -> None:
    publisher = world.publisher
    client = world.client
    until = world.until
    device = world.new_device(trial={"requests": 10, "seconds": 30, "max_error_rate": 0.2})
    publisher.publish(tiny_bundle("1.0"))
    with device.agent() as agent:
        until(lambda: agent.status().requests.get("pump"), "the trial")
        for _ in range(10):
            agent.predict("pump", ROW)
        device.wait_at("1.0")
        publisher.publish(failing_bundle("2.0"))
        until(lambda: agent.status().models["pump"].phase == "trial", "a trial")
        until(lambda: client.ask("pi1").version == "2.0", "the candidate's answers")
        bad = {**ROW, "temp": -1.0}
        while device.model().phase == "trial":
            client.ask("pi1", bad)
        device.wait_at("1.0", "idle")
        assert client.ask("pi1", bad).version == "1.0"
        model = agent.status().models["pump"]
        assert model.quarantined == ("2.0",)
        assert "the trial failed" in model.reason
        until(lambda: client.events("rolled-back"), "the event")
        assert "failed, in" in client.events("rolled-back")[0].detail


def test_refused_rows_are_not_held_against_a_trial(world, tiny_bundle) -> None:
    publisher = world.publisher
    until = world.until
    device = world.new_device(trial={"requests": 5, "seconds": 30, "max_error_rate": 0.0})
    publisher.publish(tiny_bundle("1.0"))
    with device.agent() as agent:
        until(lambda: agent.status().requests.get("pump"), "the trial")
        for _ in range(5):
            with pytest.raises(InputFault):
                agent.predict("pump", {"temp": "warm"})
        for _ in range(5):
            agent.predict("pump", ROW)
        device.wait_at("1.0")


def test_a_bundle_that_this_machine_cannot_run_is_refused_before_its_first_chunk(
    world, tiny_bundle
) -> None:
    publisher = world.publisher
    broker = world.broker
    client = world.client
    until = world.until
    device = world.new_device(update={"ram_bytes_max": 999_999})
    publisher.publish(tiny_bundle("1.0"))
    for topic in broker.retained("edge/1/home/c/#"):
        broker.erase_retained(topic)  # asking for a chunk would end otherwise
    with device.agent() as agent:
        device.wait_at("", "idle")
        until(lambda: client.events("refused"), "the event")
        model = agent.status().models["pump"]
        assert model.quarantined == ("1.0",)
        assert "999999 are allowed here" in model.reason
        with pytest.raises(MachineFault, match="not installed"):
            agent.predict("pump", ROW)


# -- what is wanted -----------------------------------------------------------------------------


def test_desired_chooses_and_an_older_revision_is_ignored(world, tiny_bundle) -> None:
    device = world.device
    publisher = world.publisher
    client = world.client
    until = world.until
    publisher.publish(tiny_bundle("1.0"))
    publisher.publish(tiny_bundle("2.0", seed=8), candidate=True)
    with device.agent() as agent:
        device.wait_at("1.0")
        client.want("pi1", 5, pump="candidate")
        device.wait_at("2.0")
        client.want("pi1", 4, pump="1.0")
        client.want("pi1", 6, pump="9.9")
        until(lambda: agent.status().revision == 6, "the revision")
        assert device.at("2.0")
        reason = agent.status().models["pump"].reason
        assert "9.9 of pump is not released" in reason
        client.want("pi1", 7, pump="1.0")
        device.wait_at("1.0")
    with device.agent() as agent:
        assert agent.status().revision == 7
        assert agent.predict("pump", ROW)


def test_garbage_on_its_topics_changes_nothing(world, tiny_bundle) -> None:
    device = world.device
    publisher = world.publisher
    broker = world.broker
    until = world.until
    publisher.publish(tiny_bundle("1.0"))
    with device.agent() as agent:
        device.wait_at("1.0")
        before = device.folder.state("pump").read_bytes()
        for payload in (b"", b"{", b'{"revision":-1}', b"\xff" * 100, b"[" * 100_000):
            broker.publish(f"{TOPICS}/desired", payload, retain=True)
            broker.publish("edge/1/home/tuf/m/timestamp.json", payload)
        until(lambda: agent.status().last_error, "the complaint")
        assert device.folder.state("pump").read_bytes() == before
        assert agent.predict("pump", ROW)


def test_a_version_withdrawn_while_it_is_fetched_is_not_fetched_to_its_end(
    world, tiny_bundle
) -> None:
    device = world.device
    publisher = world.publisher
    broker = world.broker
    client = world.client
    until = world.until
    publisher.publish(tiny_bundle("1.0"))
    with device.agent():
        device.wait_at("1.0")
        with_chunks = set(broker.retained("edge/1/home/c/#"))

        def hold(passing: Any) -> Any:  # chunks of the second version never arrive
            held = passing.message.topic.startswith("edge/1/home/c/")
            new = passing.message.topic not in with_chunks
            return () if held and new and passing.client_id == "pi1-dl" else None

        broker.add_tap(hold)
        publisher.publish(tiny_bundle("2.0", seed=8))
        until(lambda: device.model().phase == "fetching", "the fetch")
        client.want("pi1", 1, pump="1.0")
        device.wait_at("1.0")
        assert device.model().quarantined == ()
        until(lambda: client.events("superseded"), "the event")


def test_every_model_of_the_channel_or_only_those_named(
    world, tiny_bundle, regression_bundle
) -> None:
    publisher = world.publisher
    until = world.until
    publisher.publish(tiny_bundle("1.0"))
    publisher.publish(regression_bundle("1.0"))
    one = world.new_device("one", agent={"models": ["flow"]})
    with world.new_device("all").agent() as agent, one.agent():

        def committed() -> list[str]:
            models = agent.status().models
            return sorted(name for name in models if models[name].phase == "committed")

        until(lambda: committed() == ["flow", "pump"], "both models")
        one.wait_at("1.0", name="flow")
        assert one.folder.known_models() == ("flow",)
        assert agent.predict("flow", ROW).value is not None


# -- faults -------------------------------------------------------------------------------------


def test_without_a_broker_the_device_answers_from_its_disk_and_comes_back(
    world, tiny_bundle
) -> None:
    device = world.device
    publisher = world.publisher
    broker = world.broker
    until = world.until
    publisher.publish(tiny_bundle("1.0"))
    with device.agent():
        device.wait_at("1.0")
    state = broker.retained("#")
    broker.kill()
    with device.agent() as agent:
        assert agent.predict("pump", ROW).label == "bad"  # as soon as start returns
        assert not agent.status().connected
        for _ in range(3):
            agent.predict("pump", ROW)
        until(lambda: agent.status().spool_records > 0, "a window on disk")
        broker.start()
        for topic, payload in state.items():
            broker.publish(topic, payload, retain=True)
        until(lambda: world.client.link.up, "somebody who listens")
        world.client.link.subscribe(["edge/1/home/t/+/+"]).wait(60)  # a new broker knows nobody
        until(lambda: agent.status().connected, "the connection")
        until(lambda: agent.status().spool_records == 0, "the windows to go home")
        publisher.publish(tiny_bundle("2.0", seed=8))
        device.wait_at("2.0")
        assert broker.retained(f"{TOPICS}/reported")


@pytest.mark.slow
def test_a_broker_that_goes_away_during_a_fetch_only_delays_it(world, tiny_bundle) -> None:
    device = world.device
    publisher = world.publisher
    broker = world.broker
    until = world.until
    publisher.publish(tiny_bundle("1.0"))
    with device.agent() as agent:
        device.wait_at("1.0")

        def stall(passing: Any) -> Any:
            chunk = passing.message.topic.startswith("edge/1/home/c/")
            return () if chunk and passing.client_id == "pi1-dl" else None

        broker.add_tap(stall)
        publisher.publish(tiny_bundle("2.0", seed=8))
        until(lambda: device.model().phase == "fetching", "the fetch")
        state = broker.retained("#")
        broker.kill()
        until(lambda: device.model().reason, "the failure")
        assert device.model().quarantined == ()
        assert agent.predict("pump", ROW)
        broker.start()
        broker.clear_taps()
        for topic, payload in state.items():
            broker.publish(topic, payload, retain=True)
        device.wait_at("2.0")


@pytest.mark.parametrize(
    "spoiled", ["model.onnx", *(slow(name) for name in ("manifest.json", "golden.json", "all"))]
)
def test_a_damaged_slot_lets_the_previous_answer_and_is_fetched_again(
    world, spoiled, tiny_bundle
) -> None:
    device = world.device
    publisher = world.publisher
    client = world.client
    until = world.until
    for version, seed in (("1.0", 7), ("2.0", 8)):
        publisher.publish(tiny_bundle(version, seed=seed))
        with device.agent():
            device.wait_at(version)
    slot = device.folder.slot(device.model().digest)
    if spoiled == "all":
        shutil.rmtree(slot)
    else:
        data = bytearray((slot / spoiled).read_bytes())
        data[len(data) // 2] ^= 1
        (slot / spoiled).write_bytes(data)
    with device.agent() as agent:
        assert agent.predict("pump", ROW)  # by 1.0, at once
        device.wait_at("2.0")
        assert [e.version for e in until(lambda: client.events("slot-damaged"), "event")] == ["2.0"]
        assert agent.status().models["pump"].quarantined == ()


def test_a_lost_state_is_rebuilt_from_the_slots_without_a_broker(world, tiny_bundle) -> None:
    device = world.device
    publisher = world.publisher
    broker = world.broker
    publisher.publish(tiny_bundle("1.0"))
    with device.agent():
        device.wait_at("1.0")
    broker.kill()
    device.folder.state("pump").write_bytes(b"")
    with device.agent() as agent:
        device.wait_at("1.0")
        assert agent.predict("pump", ROW)


def test_leftovers_of_an_interrupted_agent_are_gone_after_a_start(world, tiny_bundle) -> None:
    device = world.device
    publisher = world.publisher
    publisher.publish(tiny_bundle("1.0"))
    with device.agent():
        device.wait_at("1.0")
    for name in (f".{'a' * 64}.partial", "b" * 64, f".gone-{'c' * 64}"):
        (device.folder.slots / name).mkdir()
        (device.folder.slots / name / "model.onnx").write_bytes(b"half")
    with device.agent():
        assert [p.name for p in device.folder.slots.iterdir()] == [device.model().digest]


@pytest.mark.parametrize(
    "attack", ["altered", slow("missing"), slow("oversized"), slow("signed by another key")]
)
def test_what_a_broker_does_to_a_version_keeps_the_old_one_answering(
    attack, world, tiny_bundle, tmp_path
) -> None:
    world.publisher.publish(tiny_bundle("1.0"))
    with world.device.agent() as agent:
        world.device.wait_at("1.0")
        before = set(world.broker.retained("edge/1/home/c/#"))
        spoil = {
            "altered": lambda data: bytes([data[0] ^ 1]) + data[1:],
            "missing": lambda data: b"",
            "oversized": lambda data: data + b"x",
        }

        def tap(passing: Any) -> Any:
            message = passing.message
            chunk = message.topic.startswith("edge/1/home/c/") and message.topic not in before
            if not chunk or passing.client_id != "pi1-dl":
                return None
            payload = spoil[attack](message.payload)
            return (Outcome(message._replace(payload=payload)),) if payload else ()

        with Asker(agent) as asker:
            if attack == "signed by another key":
                other = type(world.publisher)(tmp_path / "other-keys", world.broker.url)
                for i in range(5):  # versions of metadata beyond the genuine ones
                    other.publish(tiny_bundle(f"6.{i}", seed=8))
            else:
                world.broker.add_tap(tap)
                world.publisher.publish(tiny_bundle("2.0", seed=8))
            world.until(
                lambda: agent.status().last_error or world.device.model().reason, "a refusal"
            )
            assert world.device.model().active == "1.0"
            assert world.device.model().quarantined == ()
        assert asker.failures == []
        # The broker is mended: the device gets there without help.
        world.broker.clear_taps()
        if attack == "signed by another key":
            for topic in world.broker.retained("edge/1/home/tuf/#"):
                world.broker.erase_retained(topic)
            world.publisher.publish(tiny_bundle("2.0", seed=8))
        world.device.wait_at("2.0")


def test_an_older_state_of_the_channel_replayed_changes_nothing(world, tiny_bundle) -> None:
    world.publisher.publish(tiny_bundle("1.0"))
    old = world.broker.retained("edge/1/home/tuf/#")
    with world.device.agent() as agent:
        world.device.wait_at("1.0")
        world.publisher.publish(tiny_bundle("2.0", seed=8))
        world.device.wait_at("2.0")
        for topic, payload in old.items():
            world.broker.publish(topic, payload, retain=True)
        world.until(lambda: agent.status().last_error, "a refusal")
        assert world.device.at("2.0")
    with world.device.agent() as agent:
        world.until(lambda: agent.status().last_error, "a refusal")
        assert world.device.at("2.0")
        assert agent.predict("pump", ROW)


def test_an_orderly_stop_during_a_trial_is_not_held_against_the_version(world, tiny_bundle) -> None:
    device = world.new_device(trial={"requests": 3, "seconds": 3600})
    world.publisher.publish(tiny_bundle("1.0"))
    for _ in range(4):
        with device.agent() as agent:
            world.until(lambda: "pump" in agent.status().requests, "the trial")
            assert device.model().phase == "trial"
    with device.agent() as agent:
        for _ in range(3):
            agent.predict("pump", ROW)
        device.wait_at("1.0")


def test_a_full_disk_delays_an_update_and_is_said(world, tiny_bundle, small_disk) -> None:
    device = world.new_device(agent={"folder": str(small_disk)})
    world.publisher.publish(tiny_bundle("1.0"))
    with device.agent() as agent:
        device.wait_at("1.0")
        filler = small_disk / "filler"
        with filler.open("wb") as file:
            free = os.statvfs(small_disk)
            file.write(bytes(free.f_bavail * free.f_frsize - 4096))
        world.publisher.publish(tiny_bundle("2.0", seed=8))
        world.until(lambda: agent.status().last_error or device.model().reason, "a complaint")
        assert device.model().active == "1.0"
        with Asker(agent) as asker:
            world.until(lambda: asker.answers > 200, "answers")
        assert asker.failures == []
        filler.unlink()
        device.wait_at("2.0")


@pytest.mark.parametrize("fault", ["full", slow("read-only")])
@pytest.mark.parametrize("phase", ["committed", "trial"])
def test_a_start_on_a_disk_that_takes_nothing_still_answers(
    phase, fault, world, tiny_bundle, small_disk
) -> None:
    trial = {"requests": 1000, "seconds": 0.5}
    device = world.new_device(agent={"folder": str(small_disk)}, trial=trial)
    world.publisher.publish(tiny_bundle("1.0"))
    with device.agent() as agent:
        device.wait_at("1.0")
    if phase == "trial":
        device.set(trial={"seconds": 3600})
        world.publisher.publish(tiny_bundle("2.0", seed=8))
        with device.agent():
            world.until(lambda: device.model().phase == "trial", "the trial")
    free = os.statvfs(small_disk)
    filler = small_disk / "filler"
    if fault == "full":
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize))
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    boot = last_boot(device.folder)
    for _ in range(2):
        with device.agent() as agent:
            assert agent.predict("pump", ROW).label == "bad"
            assert agent.status().models["pump"].active == "1.0"
            assert agent.status().boot > boot
            world.until(lambda: agent.status().connected, "the broker")
            assert world.client.ask("pi1").version == "1.0"
    if fault == "full":
        filler.unlink()
    else:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    device.set(trial={"seconds": 0.5})
    with device.agent():
        device.wait_at("2.0" if phase == "trial" else "1.0")


def test_a_device_that_trusts_nobody_says_how_to_enroll(world, tmp_path) -> None:
    device = world.new_device()
    shutil.rmtree(device.folder.path / "tuf")
    with pytest.raises(InputFault, match="not enrolled") as caught:
        device.agent().start()
    assert "edge-agent enroll" in caught.value.advice


def test_one_agent_a_folder_and_start_stop_start(world) -> None:
    device = world.device
    with device.agent() as agent:
        with pytest.raises(MachineFault, match="another agent is running"):
            device.agent().start()
        with pytest.raises(InputFault, match="runs already"):
            agent.start()
        first = agent.status().boot
        agent.stop()
        agent.stop()
        with pytest.raises(MachineFault, match="does not run"):
            agent.predict("pump", ROW)
        agent.start()
        assert agent.status().boot == first + 1
    assert not device.status.running

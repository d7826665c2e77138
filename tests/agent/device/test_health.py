"""Versions that hang, eat, crash or are slow are given up with evidence; the old one answers on."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from odd_bundles import with_budget

from edge_agent import Agent, state
from edge_contract import bundle as bundles
from edge_contract import messages
from edge_contract.bundle import MANIFEST_MEMBER
from edge_contract.errors import EdgeError, MachineFault
from edge_contract.messages import Release
from edge_release.pointers import Place

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
SECONDS = {"requests": 1000, "seconds": 0.5}


class Asker(threading.Thread):
    """Asks the agent without a pause."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(daemon=True)
        self.agent = agent
        self.failures: list[str] = []
        self.answers = 0
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                self.agent.predict("pump", ROW)
                self.answers += 1
            except EdgeError as error:
                self.failures.append(error.what)

    def __enter__(self) -> Asker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()


def committed(world: Any, device: Any, bundle: bytes, version: str = "1.0") -> None:
    """The device has ``version``, and its agent is not running."""
    world.publisher.publish(bundle)
    with device.agent():
        device.wait_at(version)


def failed(world: Any, kind: str, version: str = "2.0") -> messages.Event:
    """The event of a version that failed, as the fleet hears it."""
    (event,) = world.until(lambda: world.client.events(kind), f"the event {kind}")
    assert event.version == version
    return event


# -- condemned before it answers ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "golden_temp", "ended"),
    [
        ("looping", 1e18, "no result within 5 s"),
        ("crashing", None, "the test process was killed: SIGSEGV"),
        ("greedy", 1e11, ""),
        ("nan", None, ""),
    ],
)
def test_what_misbehaves_is_given_up_while_the_old_version_answers(
    kind: str, golden_temp: float | None, ended: str, world: Any, request: Any
) -> None:
    tiny_bundle, odd_bundle = map(request.getfixturevalue, ("tiny_bundle", "odd_bundle"))
    device = world.new_device(update={"self_test_timeout_s": 5.0})
    committed(world, device, tiny_bundle("1.0"))
    with device.agent() as agent, Asker(agent) as asker:
        world.publisher.publish(odd_bundle(kind, "2.0", golden_temp))
        device.wait_at("1.0", "idle")
        model = agent.status().models["pump"]
    assert asker.failures == []
    assert asker.answers > 10
    assert model.quarantined == ("2.0",)
    event = failed(world, "self-test-failed")
    assert event.findings.ended == ended
    assert model.failure.findings == event.findings
    assert (model.failure.version, model.active) == ("2.0", "1.0")


def test_slower_than_the_manifests_budget_on_this_machine_is_given_up_with_both_figures(
    world: Any, tiny_bundle: Any
) -> None:
    device = world.device
    committed(world, device, tiny_bundle("1.0"))
    with device.agent() as agent:
        world.publisher.publish(with_budget(tiny_bundle("2.0", seed=8), latency_ms_max=1e-4))
        device.wait_at("1.0", "idle")
        assert agent.predict("pump", ROW)
    seen = failed(world, "self-test-failed").findings
    assert seen.latency_limit_ms == 1e-4
    assert seen.latency_p99_ms > seen.latency_limit_ms
    # The evidence outlives the agent, for a person at the device.
    command = [sys.executable, "-m", "edge_agent", "status", "--config", str(device.path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "failed    2.0" in said
    assert "ms (limit 0.0001 ms)" in said


# -- given up on trial --------------------------------------------------------------------------


def on_trial(world: Any, device: Any, agent: Any, bundle: bytes) -> None:
    """Version 2.0 is published and answers on trial: what answers begins to count anew."""
    agent.predict("pump", ROW)
    world.publisher.publish(bundle)
    world.until(lambda: agent.status().models["pump"].phase == "trial", "a trial")
    world.until(lambda: agent.status().requests.get("pump", (1, 0))[0] == 0, "its answers")


def ask_until_back(device: Any, agent: Any, row: dict[str, float]) -> list[str]:
    """Ask until the trial is over; what was said of requests that failed."""
    said = []
    while device.model().phase == "trial":
        try:
            agent.predict("pump", row)
        except EdgeError as error:
            said.append(error.what)
    device.wait_at("1.0", "idle")
    return said


def test_a_version_that_is_slow_on_real_requests_is_rolled_back_with_figures(
    world: Any, tiny_bundle: Any, odd_bundle: Any
) -> None:
    """Its golden samples are quick; what it is asked is not."""
    device = world.new_device(trial={"requests": 50, "seconds": 600})
    committed_by_seconds(world, device, tiny_bundle("1.0"))
    with device.agent() as agent:
        bundle = with_budget(odd_bundle("looping", "2.0"), latency_ms_max=20.0)
        on_trial(world, device, agent, bundle)
        assert ask_until_back(device, agent, {**ROW, "temp": 3e5}) == []
        assert agent.predict("pump", ROW).label == "bad"
    event = failed(world, "trial-failed")
    assert "rows took longer than 20 ms" in event.detail
    seen = event.findings
    assert seen.slow >= 3
    assert seen.latency_p99_ms > seen.latency_limit_ms == 20.0
    assert seen.failures == seen.stalled == 0


def test_a_version_that_eats_memory_on_real_requests_is_rolled_back_with_figures(
    world: Any, tiny_bundle: Any, odd_bundle: Any
) -> None:
    device = world.new_device(trial={"requests": 10_000_000, "seconds": 600})
    committed_by_seconds(world, device, tiny_bundle("1.0"))
    with device.agent() as agent:
        bundle = with_budget(odd_bundle("greedy", "2.0"), ram_bytes_max=40_000_000)
        on_trial(world, device, agent, bundle)
        ask_until_back(device, agent, {**ROW, "temp": 5e7})
        assert agent.predict("pump", ROW).label == "bad"
    event = failed(world, "trial-failed")
    assert "MB of memory are over 40.0 MB" in event.detail
    assert event.findings.ram_bytes > event.findings.ram_limit_bytes == 40_000_000


def test_a_version_that_hangs_on_a_real_request_is_rolled_back_and_the_request_ended(
    world: Any, tiny_bundle: Any, odd_bundle: Any
) -> None:
    device = world.new_device(update={"stall_s": 2.0}, trial={"requests": 10_000, "seconds": 600})
    committed_by_seconds(world, device, tiny_bundle("1.0"))
    with device.agent() as agent:
        on_trial(world, device, agent, odd_bundle("looping", "2.0"))
        with pytest.raises(MachineFault, match="did not come to an end"):
            agent.predict("pump", {**ROW, "temp": 1e18})
        device.wait_at("1.0", "idle")
        assert agent.predict("pump", ROW).label == "bad"
    event = failed(world, "trial-failed")
    assert "a request did not come to an end" in event.detail
    assert event.findings.stalled >= 1


def test_a_request_over_mqtt_that_hangs_is_answered_with_an_error_and_the_next_one_is_answered(
    world: Any, odd_bundle: Any
) -> None:
    """Also of a committed version, and by the door's only thread."""
    device = world.new_device(update={"stall_s": 2.0})
    world.publisher.publish(odd_bundle("looping", "1.0"))
    with device.agent():
        device.wait_at("1.0")
        answer = world.client.ask("pi1", {**ROW, "temp": 1e18})
        assert "did not come to an end" in answer.error.what
        assert world.client.ask("pi1", ROW).version == "1.0"


def committed_by_seconds(world: Any, device: Any, bundle: bytes) -> None:
    """Version 1.0, by a short trial; the device's own trial rules hold afterwards."""
    rules = dict(device._sections["trial"])
    device.set(trial=SECONDS)
    committed(world, device, bundle)
    device.set(trial=rules)


def wait_on_trial(world: Any, device: Any, attempt: int) -> None:
    """The process is at this attempt of the trial."""

    def there() -> bool:
        now = load_state(device)
        return (now.phase, now.attempts) == ("trial", attempt)

    try:
        world.until(there, f"attempt {attempt}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {load_state(device)}\n{device.log.read_text()}") from None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_version_whose_trial_ends_in_a_crash_of_the_agent_is_condemned_after_three(
    number: int, world: Any, tiny_bundle: Any
) -> None:
    """A segfault of its own, the OOM killer, systemd's watchdog: each ends the whole process."""
    device = world.new_device(trial={"requests": 1_000_000, "seconds": 3600})
    committed_by_seconds(world, device, tiny_bundle("1.0"))
    world.publisher.publish(tiny_bundle("2.0", seed=8))
    for attempt in (1, 2, 3):
        device.start()
        wait_on_trial(world, device, attempt)
        device.signal(number)
        device.process.wait(120)
    device.start()
    device.wait_at("1.0", "idle")
    assert device.model().quarantined == ("2.0",)
    assert "trial was cut off 3 times" in device.model().reason
    assert device.stop() == 0


# -- the agent's own start ----------------------------------------------------------------------


def load_state(device: Any) -> state.State:
    """As the disk has it."""
    return state.decode(device.folder.state("pump").read_bytes())


def install(device: Any, bundle: bytes, version: str) -> Release:
    """A slot on disk, as if it had been delivered and proven."""
    whole = bundles.read(bundle)
    slot = device.folder.slot(whole.digest)
    slot.mkdir(parents=True)
    (slot / MANIFEST_MEMBER).write_bytes(whole.manifest_bytes)
    for file in whole.manifest.files:
        (slot / file.name).write_bytes(whole.file(file.name))
    return messages.release("pump", version, whole.digest)


@pytest.mark.slow
@pytest.mark.parametrize("with_previous", [True, False], ids=["with", "without"])
def test_a_proven_version_whose_load_kills_the_agent_is_found_out_in_a_process_of_its_own(
    with_previous: bool, world: Any, tiny_bundle: Any, odd_bundle: Any
) -> None:
    """As after an update of the runtime that cannot take the model any more."""
    device = world.device
    if with_previous:
        committed(world, device, tiny_bundle("1.0"))
    previous = load_state(device).active if with_previous else None
    bad = install(device, odd_bundle("crashing", "2.0"), "2.0")
    before = state.State(phase="committed", wanted=bad, active=bad, previous=previous)
    state.save(device.folder, "pump", before)
    for loads in (1, 2, 3):
        device.start()
        assert device.process.wait(120) == -signal.SIGSEGV
        assert load_state(device).loads == loads
    device.start()
    world.until(lambda: device.model().quarantined == ("2.0",), "the verdict")
    model = device.model()
    assert model.failure.findings.ended == "the test process was killed: SIGSEGV"
    if with_previous:
        device.wait_at("1.0", "committed" if device.at("1.0") else "idle")
        assert world.client.ask("pi1").version == "1.0"
    else:
        assert model.active == ""
        world.publisher.publish(tiny_bundle("3.0", seed=9))  # it can be helped from afar
        device.wait_at("3.0")
    assert device.stop() == 0


def state_files(device: Any) -> list[Path]:
    """Every file of the agent's folder but the slots' and the lock."""
    root = device.config.folder
    return sorted(
        path.relative_to(root)
        for path in root.rglob("*")
        if path.is_file() and path.name != "lock" and "slots" not in path.parts
        and "pinned" not in path.name
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("how", ["empty", "garbage", "half"])
def test_an_agent_starts_answers_and_updates_whatever_file_of_its_state_is_damaged(
    how: str, world: Any, tiny_bundle: Any
) -> None:
    """Each file in turn, then all at once; the pinned root alone is what nobody can give back."""
    device = world.device
    committed(world, device, tiny_bundle("1.0"))
    files = state_files(device)
    assert {"state.json", "boot.json", "trusted.json", "timestamp.json"} <= {f.name for f in files}
    version = 1
    for damaged in [*([file] for file in files), files]:
        for file in damaged:
            path = device.config.folder / file
            if not path.exists():
                continue
            data = path.read_bytes()
            path.write_bytes(
                {"empty": b"", "garbage": b"\xff\x00{" * 50, "half": data[: len(data) // 2]}[how]
            )
        version += 1
        world.publisher.publish(tiny_bundle(f"{version}.0", seed=7 + version % 2))
        print("damaged", how, damaged)
        with device.agent() as agent:
            device.wait_at(f"{version}.0")
            assert agent.predict("pump", ROW)


# -- back by hand -------------------------------------------------------------------------------


def test_going_back_by_hand_needs_no_broker_and_stops_at_the_floor(
    world: Any, tiny_bundle: Any
) -> None:
    """What was heard before the network went is enough, and expired metadata is no obstacle."""
    device = world.device
    for version, seed in (("1.0", 7), ("2.0", 8)):
        committed(world, device, tiny_bundle(version, seed=seed), version)
    world.broker.kill()
    wanted = messages.Desired(revision=5, models={"pump": "1.0"})
    device.folder.desired.write_bytes(messages.encode(wanted))
    with device.agent() as agent:
        device.wait_at("1.0")
        assert agent.predict("pump", ROW)
        assert device.model().previous == "2.0"
    world.broker.start()
    repository = world.publisher.repository
    with repository.locked():
        repository.set_floor("2.0", Place("home", "stable", "pump"), now=world.publisher.now())
    world.publisher.sync()
    with device.agent():
        device.wait_at("2.0")
        assert device.model().previous == ""  # no fallback any more
    world.broker.kill()
    again = messages.Desired(revision=9, models={"pump": "1.0"})
    device.folder.desired.write_bytes(messages.encode(again))
    with device.agent() as agent:
        assert agent.predict("pump", ROW)
        assert device.at("2.0")


# -- the service manager ------------------------------------------------------------------------


def test_systemd_hears_ready_alive_and_stopping_of_a_real_agent(
    world: Any, tiny_bundle: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    device = world.device
    committed(world, device, tiny_bundle("1.0"))
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ear.bind(str(tmp_path / "notify"))
    ear.settimeout(40)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    device.start()
    heard: list[str] = []
    while not {"READY=1", "WATCHDOG=1"} <= set(heard):
        heard.append(ear.recv(4096).decode())
    device.signal(signal.SIGTERM)
    while "STOPPING=1" not in heard:
        heard.append(ear.recv(4096).decode())
    assert device.process.wait(120) == 0
    ear.close()

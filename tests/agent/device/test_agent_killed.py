"""A real ``edge-agent run`` killed the moment each phase is on disk, and started again.

The killer stops the process (SIGSTOP) whenever the state file was replaced, looks at the phase in
it, and kills it there or lets it go on. No phase is slowed down and the agent has no hook for it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent import slot

pytestmark = pytest.mark.slow

GOOD_ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
BAD_ROW = {**GOOD_ROW, "temp": -1.0}
TRIES = 10
BAD_TRIAL = {"requests": 10, "seconds": 60, "max_error_rate": 0.2}


class Killer(threading.Thread):
    """Kills a device's process when its state on disk is ``phase`` on the way to version 2.0."""

    def __init__(self, device: Any, phase: str) -> None:
        super().__init__(daemon=True)
        self.pid: int = device.process.pid
        self.path: Path = device.folder.state("pump")
        self.phase = phase
        self.killed = False
        self.late = False

    def run(self) -> None:
        seen = self.path.stat().st_ino
        while not (self.killed or self.late):
            if self.path.stat().st_ino != seen:
                os.kill(self.pid, signal.SIGSTOP)
                seen = self.path.stat().st_ino
                self.decide(json.loads(self.path.read_bytes()))

    def decide(self, state: dict[str, Any]) -> None:
        """The process stands still: kill it here, or let it go on."""
        phase = state.get("phase", "idle")
        resting = phase in ("idle", "committed")
        begun = state.get("wanted", {}).get("version") == "2.0"
        if begun and phase == self.phase:
            os.kill(self.pid, signal.SIGKILL)
            self.killed = True
        else:
            self.late = begun and resting
            os.kill(self.pid, signal.SIGCONT)


def install_first(world: Any, name: str, first: bytes, second: bytes, **trial: Any) -> Any:
    """A device whose process runs version 1.0, while 2.0 is published as candidate."""
    if not world.publisher.repository.pointer("home", "stable"):
        world.publisher.publish(first)
        world.publisher.publish(second, candidate=True)
    device = world.new_device(name, trial=trial)
    device.start()
    # A trial by requests wants some.
    world.until(lambda: world.client.send(name, GOOD_ROW) and device.at("1.0"), "version 1.0")
    return device


def kill_at(world: Any, phase: str, bundles: tuple[bytes, bytes], **trial: Any) -> Any:
    """A device whose process was killed in ``phase``, as its disk says."""
    for attempt in range(TRIES):
        device = install_first(world, f"pi{attempt}", *bundles, **trial)
        killer = Killer(device, phase)
        killer.start()
        world.client.want(device.name, 1, pump="candidate")
        while killer.is_alive():
            world.client.send(device.name, BAD_ROW)
            killer.join(0.05)
        if killer.killed:
            device.process.wait()
            assert device.model().phase == phase
            return device
        device.kill()
    raise AssertionError(f"never caught in {phase} in {TRIES} tries")


def check_disk(world: Any, device: Any) -> None:
    """Nothing but whole slots that are kept, and a clean stop."""
    from edge_agent import state

    kept = state.decode(device.folder.state("pump").read_bytes()).kept
    names = lambda: {p.name for p in device.folder.slots.iterdir()}  # noqa: E731
    world.until(lambda: names() == kept, "nothing but kept slots")
    for sha256 in kept:
        slot.verify(device.folder.slot(sha256), sha256)
    assert device.stop() == 0
    assert not list(device.folder.spool.glob(".*"))
    assert not list(device.folder.models.rglob(".*"))


@pytest.mark.parametrize("phase", ["fetching", "staged", "self-testing", "trial", "committed"])
def test_killed_on_the_way_to_a_good_version(
    phase: str, world: Any, tiny_bundle: Callable[..., bytes]
) -> None:
    bundles = (tiny_bundle("1.0"), tiny_bundle("2.0", seed=8))
    device = kill_at(world, phase, bundles, requests=1000, seconds=0.5)
    device.start()
    answer = world.client.ask(device.name, GOOD_ROW)
    assert answer.version == ("2.0" if phase in ("trial", "committed") else "1.0") or device.at(
        "2.0"
    )
    device.wait_at("2.0")
    assert world.client.ask(device.name, GOOD_ROW).version == "2.0"
    model = device.model()
    assert (model.previous, model.quarantined) == ("1.0", ())
    check_disk(world, device)


@pytest.mark.parametrize("phase", ["trial", "rolling-back", "idle"])
def test_killed_on_the_way_back_from_a_bad_version(
    phase: str,
    world: Any,
    tiny_bundle: Callable[..., bytes],
    failing_bundle: Callable[..., bytes],
) -> None:
    bundles = (tiny_bundle("1.0"), failing_bundle("2.0"))
    device = kill_at(world, phase, bundles, **BAD_TRIAL)
    device.start()
    assert world.client.ask(device.name, GOOD_ROW).version in ("1.0", "2.0")
    while not device.at("1.0", "idle"):
        world.client.ask(device.name, BAD_ROW)
    assert world.client.ask(device.name, BAD_ROW).version == "1.0"
    model = device.model()
    assert model.quarantined == ("2.0",)
    assert "the trial failed" in model.reason
    check_disk(world, device)


@pytest.mark.parametrize("phase", ["self-testing", "trial"])
def test_a_crash_loop_ends_in_quarantine(
    phase: str, world: Any, tiny_bundle: Callable[..., bytes]
) -> None:
    bundles = (tiny_bundle("1.0"), tiny_bundle("2.0", seed=8))
    device = kill_at(world, phase, bundles, requests=1000, seconds=0.5)
    device.set(trial={"requests": 1_000_000, "seconds": 3600})
    path = device.folder.state("pump")
    for attempt in (2, 3):
        before = path.stat().st_ino
        device.start()
        while path.stat().st_ino == before:  # counted before it is made
            assert device.process.poll() is None
        device.kill()
        assert json.loads(path.read_bytes())["attempts"] == attempt
        assert device.model().phase == phase
    device.start()
    device.wait_at("1.0", "idle")
    model = device.model()
    assert model.quarantined == ("2.0",)
    assert "was cut off 3 times" in model.reason
    assert world.client.ask(device.name, GOOD_ROW).version == "1.0"
    check_disk(world, device)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_again_and_again(
    seed: int, world: Any, tiny_bundle: Callable[..., bytes]
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    bundles = (tiny_bundle("1.0"), tiny_bundle("2.0", seed=8))
    device = install_first(world, "pi1", *bundles, requests=1000, seconds=0.2)
    world.client.want("pi1", 1, pump="candidate")
    for _ in range(5):
        end = time.monotonic() + rng.uniform(0.0, 2.5)
        while time.monotonic() < end and not device.at("2.0"):
            world.client.send("pi1", GOOD_ROW)
            device.process.poll()
        device.kill()
        device.start()
        assert world.client.ask("pi1", GOOD_ROW).version in ("1.0", "2.0")
    world.client.want("pi1", 2, pump="candidate")  # in case two kills in a trial condemned it
    device.wait_at("2.0")
    check_disk(world, device)

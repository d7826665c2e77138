"""A device that may not download now: it says what it waits for, holds nothing, and goes on."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edge_agent import Agent
from edge_agent.parts import Clocks
from edge_contract import messages
from edge_contract.chunks import CHUNK_BYTES
from edge_contract.messages import Reported
from edge_contract.topics import Topics
from edge_fleet.broker.taps import Direction, Passing

TOPICS = Topics("home")
ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
PARIS = ZoneInfo("Europe/Paris")


class Wall:
    """A wall clock that a test sets; it stands still, unlike the monotonic one."""

    def __init__(self, *when: int) -> None:
        self.at = datetime(*when, tzinfo=PARIS)  # type: ignore[arg-type, misc]
        self.synchronised = True

    @property
    def clocks(self) -> Clocks:
        return Clocks(
            wall=lambda: datetime.timestamp(self.at),
            synchronised=lambda: self.synchronised,
            zone=PARIS,
        )


@pytest.fixture
def wall() -> Wall:
    """Noon in Paris. Metadata was signed by the real clock, which is another day."""
    now = datetime.now(UTC) + timedelta(hours=1)
    return Wall(now.year, now.month, now.day, 12)


def on_disk(device: Any) -> dict[str, int]:
    """Chunks that are here whole, and their bytes."""
    folder = device.folder.path / "chunks"
    paths = [path for path in folder.glob("[0-9a-f]*") if len(path.name) == 64]
    return {path.name: path.stat().st_size for path in paths}


class SentChunks:
    """How many chunks a broker sent."""

    def __init__(self, broker: Any) -> None:
        self.count = 0
        broker.add_tap(self)

    def __call__(self, passing: Passing) -> None:
        chunk = passing.message.topic.startswith(f"{TOPICS.root}/c/")
        self.count += passing.direction is Direction.OUTBOUND and chunk


def waits(device: Any, text: str) -> bool:
    model = device.status.models.get("pump")
    return model is not None and text in model.waits


def reported(world: Any) -> Callable[[], Reported | None]:
    """The newest report of pi1, as the fleet hears it."""
    heard: list[Reported] = []
    world.client.link.subscribe([TOPICS.reported("pi1")]).wait(60)

    def newest() -> Reported | None:
        for message in world.client.heard:
            if message.topic == TOPICS.reported("pi1"):
                heard.append(messages.decode(message.payload, Reported))
        return heard[-1] if heard else None

    return newest


# -- slot and day --------------------------------------------------------------------------------


def test_a_closed_slot_is_said_and_a_newer_version_supersedes_the_waiting_one_at_once(
    world: Any, wall: Wall, big_bundle: Callable[..., bytes]
) -> None:
    device = world.new_device(download={"slot": ["01:00-05:00"]})
    newest = reported(world)
    with Agent(device.config, clocks=wall.clocks) as agent:
        world.publisher.publish(big_bundle("1.0"))
        world.until(lambda: waits(device, "waiting for the slot 01:00-05:00, opens at 01:00"), "it")
        model = agent.status().models["pump"]
        assert (model.phase, model.candidate, model.done_bytes) == ("fetching", "1.0", 0)
        assert model.total_bytes > 500_000
        assert datetime.fromtimestamp(model.until_ms / 1000, PARIS).hour == 1
        world.until(lambda: (found := newest()) and found.models["pump"].waits, "the report")
        assert len(world.until(lambda: world.client.events("waiting"), "the event")) == 1
        assert on_disk(device) == {}

        world.publisher.publish(big_bundle("1.1", seed=2))
        world.until(lambda: agent.status().models["pump"].candidate == "1.1", "1.1 in its place")
        world.until(lambda: len(world.client.events("waiting")) == 2, "the event of 1.1")
        assert world.client.events("superseded")
        wall.at += timedelta(hours=14)
        device.wait_at("1.1")
        assert agent.status().models["pump"].waits == ""
    assert [event.version for event in world.client.events("waiting")] == ["1.0", "1.1"]


def test_a_waiting_download_follows_desired_and_ends_with_the_agent(
    world: Any, wall: Wall, tiny_bundle: Callable[..., bytes]
) -> None:
    device = world.new_device()
    world.publisher.publish(tiny_bundle("1.0"))
    with Agent(device.config, clocks=wall.clocks):
        device.wait_at("1.0")
    device.set(download={"slot": ["01:00-05:00"]})
    with Agent(device.config, clocks=wall.clocks):
        world.publisher.publish(tiny_bundle("2.0", seed=8), candidate=True)
        world.client.want("pi1", 1, pump="candidate")
        world.until(lambda: waits(device, "waiting for the slot"), "the wait for 2.0")
        world.client.want("pi1", 2, pump="stable")
        world.until(lambda: device.at("1.0"), "1.0, wanted again")
        world.client.want("pi1", 3, pump="candidate")
        world.until(lambda: waits(device, "waiting for the slot"), "the wait for 2.0 again")
    model = device.model()
    assert (model.phase, model.candidate, model.active) == ("fetching", "2.0", "1.0")
    wall.at += timedelta(hours=14)
    with Agent(device.config, clocks=wall.clocks):
        device.wait_at("2.0")


def test_what_asks_for_no_chunk_waits_for_no_slot_and_a_second_model_waits_for_the_first(
    world: Any, wall: Wall, tiny_bundle: Callable[..., bytes]
) -> None:
    device = world.new_device()
    world.publisher.publish(tiny_bundle("1.0"))
    with Agent(device.config, clocks=wall.clocks):
        device.wait_at("1.0")
    device.set(download={"slot": ["01:00-05:00"]})
    with Agent(device.config, clocks=wall.clocks) as agent:
        world.publisher.publish(tiny_bundle("1.1"))  # of the same members
        device.wait_at("1.1")
        world.publisher.publish(tiny_bundle("1.0", name="fan", seed=5))
        world.publisher.publish(tiny_bundle("1.0", name="saw", seed=6))

        def said() -> set[str]:
            models = agent.status().models
            return {models[name].waits[:19] for name in ("fan", "saw") if name in models}

        both = {"waiting for the slo", "the download of ano"}
        world.until(lambda: said() == both, "both waits")
        wall.at += timedelta(hours=14)
        device.wait_at("1.0", name="fan")
        device.wait_at("1.0", name="saw")


def test_a_clock_that_is_set_meanwhile_opens_the_slot(
    world: Any, wall: Wall, tiny_bundle: Callable[..., bytes]
) -> None:
    wall.synchronised = False
    wall.at = wall.at.replace(year=2000, hour=2)  # in the slot, as a device that woke up thinks
    device = world.new_device(download={"slot": ["01:00-05:00"]})
    world.publisher.publish(tiny_bundle("1.0"))
    with Agent(device.config, clocks=wall.clocks):
        world.until(lambda: waits(device, "waiting for the clock to be set"), "the wait")
        now = datetime.now(UTC)
        wall.at = datetime(now.year, now.month, now.day, 3, tzinfo=PARIS)
        wall.synchronised = True
        device.wait_at("1.0")


def test_a_daily_cap_stops_at_the_chunk_and_goes_on_the_next_day_where_it_was(
    world: Any, wall: Wall, big_bundle: Callable[..., bytes]
) -> None:
    device = world.new_device(download={"daily_max": "300 kB"})
    bundle = big_bundle("1.0")
    world.publisher.publish(bundle)
    held: dict[str, int] = {}
    days = 0
    while not device.at("1.0"):
        with Agent(device.config, clocks=wall.clocks) as agent:
            world.until(lambda: device.at("1.0") or waits(device, "daily cap of 300 kB"), "the cap")
            if device.at("1.0"):
                break
            model = agent.status().models["pump"]
            assert model.waits == "daily cap of 300 kB reached, goes on at 00:00"
            now = on_disk(device)
            assert held.items() <= now.items()
            came = sum(now.values()) - sum(held.values())
            assert CHUNK_BYTES < came <= 300_000
            assert 0 < model.done_bytes <= sum(now.values())
            held = now
        with Agent(device.config, clocks=wall.clocks):  # the same day, another start
            world.until(lambda: waits(device, "daily cap"), "the cap again")
            assert on_disk(device) == held
        spent = json.loads(device.folder.download.read_bytes())["days"][-1]["spent_bytes"]
        assert came <= spent <= came + 60_000, "metadata is counted"
        wall.at += timedelta(days=1)
        days += 1
    assert days == 2


def test_a_start_is_put_off_and_said_but_is_no_event(
    world: Any, wall: Wall, tiny_bundle: Callable[..., bytes]
) -> None:
    device = world.new_device(download={"start_delay_max_s": 3600})
    world.publisher.publish(tiny_bundle("1.0"))
    with Agent(device.config, clocks=wall.clocks):
        world.until(lambda: waits(device, "random start delay, begins at 12:"), "the delay")
        assert world.client.events("waiting") == []


# -- disk ----------------------------------------------------------------------------------------


def test_a_full_quota_is_said_once_and_a_higher_one_lets_it_go_on(
    world: Any, big_bundle: Callable[..., bytes]
) -> None:
    device = world.new_device(telemetry={"spool_bytes": 65536}, download={"disk_max": "2.5 MB"})
    world.publisher.publish(big_bundle("1.0"))
    with Agent(device.config) as agent:
        device.wait_at("1.0")  # twice its size while it is made
        world.publisher.publish(big_bundle("1.1", seed=2, size=1_400_000))
        world.until(
            lambda: "disk quota: pump 1.1 needs" in agent.status().models["pump"].reason, ""
        )
        model = agent.status().models["pump"]
        assert model.reason.endswith("free of 2.5 MB")
        assert (model.phase, model.active) == ("fetching", "1.0")
        state = device.folder.state("pump")
        world.until(lambda: json.loads(state.read_bytes())["attempts"] >= 4, "four looks")
        assert on_disk(device) == {}, "no chunk was asked for"
        assert len(world.client.events("fetch-failed")) == 1, "said once"
        assert agent.predict("pump", ROW).value is not None
    device.set(download={"disk_max": "6 MB"})
    with Agent(device.config):
        device.wait_at("1.1")


def test_what_an_abandoned_download_left_makes_room_and_versions_in_use_stay(
    world: Any, big_bundle: Callable[..., bytes]
) -> None:
    """Of 1.1 most is here when 1.2 takes its place, which fits only without that."""
    device = world.new_device(
        telemetry={"spool_bytes": 65536}, download={"disk_max": "2.3 MB", "rate_max": "100 kB/s"}
    )
    world.publisher.publish(big_bundle("1.0"))
    with Agent(device.config):
        device.wait_at("1.0")
    # 1.0's slot, and 1.1 of twice 0.7 MB; with 1.1's remains another 0.7 MB twice would not fit.
    first_slot = set(device.folder.slots.iterdir())
    with Agent(device.config):
        world.publisher.publish(big_bundle("1.1", seed=2))
        world.until(lambda: sum(on_disk(device).values()) > 450_000, "most of 1.1")
    left = set(on_disk(device))
    assert not device.at("1.1")
    world.publisher.publish(big_bundle("1.2", seed=3))
    with Agent(device.config):
        device.wait_at("1.2")
        assert not left & set(on_disk(device))
        assert first_slot <= set(device.folder.slots.iterdir()), "the former version is kept"


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts an empty file system with limits of its own."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        where = tmp_path / f"disk{len(mounted)}"
        where.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
        if subprocess.run(words, check=False, capture_output=True).returncode:
            pytest.skip("mounting a tmpfs needs root and the right to mount")
        mounted.append(where)
        return where

    yield mount
    for where in mounted:
        subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_disk_that_fills_up_in_the_middle_costs_no_byte_until_there_is_room(
    world: Any, tmpfs: Callable[[str], Path], big_bundle: Callable[..., bytes], what: str
) -> None:
    disk = tmpfs("size=6m,nr_inodes=400")
    device = world.new_device(
        agent={"folder": str(disk / "state")}, download={"rate_max": "250 kB/s"},
        update={"backoff_min_s": 0.05, "backoff_max_s": 0.1},
    )  # fmt: skip
    world.publisher.publish(big_bundle("1.0"))
    root = world.publisher.repository.shelf.read().files["1.root.json"]
    from edge_agent.pull import enroll

    enroll(device.config, root, "")
    newest, sent = reported(world), SentChunks(world.broker)
    with Agent(device.config) as agent:

        def waits() -> str:
            return agent.status().models["pump"].waits

        world.until(lambda: len(on_disk(device)) >= 2, "the middle")
        fill(disk / "ballast", what)
        world.until(lambda: "No space left" in waits() or "are free" in waits(), "the reason")
        world.until(lambda: (found := newest()) and found.models["pump"].waits, "the report")
        held, asked = on_disk(device), sent.count
        end = time.monotonic() + 3.0
        world.until(lambda: time.monotonic() > end, "many tries")
        assert sent.count == asked, "nothing is asked for while there is no room"
        assert on_disk(device) == held
        assert len(world.client.events("fetch-failed")) <= 1
        for path in (disk / "ballast").iterdir():
            path.unlink()
        device.wait_at("1.0")


def test_a_disk_that_takes_small_files_only_costs_no_byte_until_it_takes_chunks(
    world: Any, big_bundle: Callable[..., bytes]
) -> None:
    """As under a user's quota, which no free space shows; here a limit of the process."""
    device = world.new_device(
        download={"rate_max": "250 kB/s"}, update={"backoff_min_s": 0.05, "backoff_max_s": 0.1}
    )
    world.publisher.publish(big_bundle("1.0"))
    sent = SentChunks(world.broker)
    device.start()
    world.until(lambda: len(on_disk(device)) >= 2, "the middle")
    before = resource.prlimit(device.process.pid, resource.RLIMIT_FSIZE, (65536, -1))
    state = device.folder.state("pump")
    world.until(lambda: json.loads(state.read_bytes()).get("attempts", 0) >= 2, "two failures")
    asked, held = sent.count, on_disk(device)
    world.until(lambda: json.loads(state.read_bytes())["attempts"] >= 12, "ten more")
    assert sent.count == asked
    assert on_disk(device) == held
    assert "File too large" in json.loads(state.read_bytes())["reason"]
    assert len(world.client.events("fetch-failed")) == 1
    resource.prlimit(device.process.pid, resource.RLIMIT_FSIZE, before)
    device.wait_at("1.0")


def fill(folder: Path, what: str) -> None:
    folder.mkdir()
    with pytest.raises(OSError, match="No space left"):
        for number in range(10_000):
            (folder / str(number)).write_bytes(b"x" * (65536 if what == "bytes" else 1))

"""``edge-agent status`` of an agent that cannot write how it is, and of errors that are over."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edge_agent import local, show, voice
from edge_agent.folder import holder, running
from edge_contract.messages import Release

HOLD = """
import sys
from pathlib import Path
from edge_agent.folder import Folder, Lock
lock = Lock(Folder(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held(world: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the device's folder and writes nothing: as on a full disk."""
    folder: Path = world.device.folder.path
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate("")


def test_the_status_of_an_earlier_process_is_not_taken_for_that_of_this_one(
    world: Any, held: subprocess.Popen[str]
) -> None:
    folder, config = world.device.folder, world.device.config
    assert running(folder)
    assert holder(folder) == held.pid
    fresh = local.read(config)
    assert (fresh.running, fresh.pid) == (True, held.pid)
    assert "since it started" in fresh.doubt
    earlier = replace(fresh, pid=held.pid + 1, connected=True, freshness="verified", doubt="")
    for said in (earlier, replace(earlier, running=False, pid=0)):
        voice.write_status(folder.status, said)
        found = local.read(config)
        assert (found.running, found.pid, found.connected) == (True, held.pid, False)
        assert "a full disk, or it is stuck" in "\n".join(show.lines(found))
        assert f"running, pid {held.pid}" in "\n".join(show.lines(found))
    own = replace(earlier, pid=held.pid)
    voice.write_status(folder.status, own)
    assert local.read(config) == own


def test_what_an_agent_said_long_ago_is_doubted(world: Any, held: subprocess.Popen[str]) -> None:
    folder, config = world.device.folder, world.device.config
    own = replace(local.read(config), doubt="", connected=True)
    voice.write_status(folder.status, own)
    assert local.read(config) == own
    then = time.time() - 3600
    os.utime(folder.status, (then, then))
    found = local.read(config)
    assert (found.connected, found.pid) == (False, held.pid)
    assert time.strftime("since %Y-%m-%d %H:%M:%S UTC", time.gmtime(int(then))) in found.doubt


def test_nobody_holds_the_folder_of_an_agent_that_ended(world: Any) -> None:
    folder = world.device.folder
    assert (running(folder), holder(folder)) == (False, 0)
    with world.device.agent():
        assert holder(folder) == os.getpid()
    assert (running(folder), holder(folder)) == (False, 0)
    assert local.read(world.device.config).doubt == ""


def test_a_look_that_works_again_ends_the_last_error(
    world: Any, tiny_bundle: Callable[..., Release]
) -> None:
    world.publisher.publish(tiny_bundle("1.0"))
    with world.device.agent() as agent:
        world.device.wait_at("1.0")
        world.broker.publish("edge/1/home/tuf/m/timestamp.json", b"{", retain=True)
        world.until(lambda: agent.status().last_error, "the complaint")
        assert agent.status().last_error_over_ms == 0
        assert "over since" not in "\n".join(show.lines(agent.status()))
        world.publisher.publish(tiny_bundle("2.0", seed=2))
        world.until(lambda: agent.status().last_error_over_ms, "the end of it")
        assert "over since" in "\n".join(show.lines(agent.status()))
        assert agent.status().last_error

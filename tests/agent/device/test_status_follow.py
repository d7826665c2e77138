"""``edge-agent status --follow``: live, whether an agent runs or not, until Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edge_agent import show
from edge_agent.report import AgentStatus
from edge_contract.messages import ModelReport

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
FETCHING = ModelReport(
    phase="fetching", active="1.0", digest="a" * 64, candidate="1.1", progress=0.25,
    done_bytes=3_000_000, total_bytes=12_000_000, bytes_per_s=512_000,
)  # fmt: skip
STATUS = AgentStatus(
    device="pi1", fleet="home", channel="stable", running=True, models={"pump": FETCHING},
    pid=os.getpid(),
)  # fmt: skip


class Follower:
    """A real ``edge-agent status --follow``, on a pipe or a terminal of 100 columns."""

    def __init__(self, config: Path, *words: str, terminal: bool = False) -> None:
        command = [sys.executable, "-m", "edge_agent.cli", "status", "--follow", *words]
        command += ["--config", str(config)]
        self.text = ""
        if terminal:
            mine, theirs = pty.openpty()
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
            out: Any = theirs
        else:
            out = subprocess.PIPE
        environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        self.process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment
        )
        if terminal:
            os.close(theirs)
            self._out = mine
        else:
            assert self.process.stdout
            self._out = self.process.stdout.fileno()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # a terminal whose other end was closed
            while data := os.read(self._out, 65536):
                self.text += data.decode()

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C; the exit code and stderr."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said.decode()


@pytest.fixture
def follow() -> Iterator[Callable[..., Follower]]:
    made: list[Follower] = []

    def start(*words: Any, **how: Any) -> Follower:
        made.append(Follower(*words, **how))
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def test_a_device_without_an_agent_is_followed_until_one_runs_and_ends(
    world: Any, follow: Callable[..., Follower], tiny_bundle: Callable[..., bytes]
) -> None:
    device = world.new_device()
    plain = follow(device.path)
    lines = follow(device.path, "--json")
    world.until(lambda: "pi1: no agent runs\n" in plain.text, "the first look")
    world.publisher.publish(tiny_bundle("1.0"))
    device.start()
    device.wait_at("1.0")
    world.until(lambda: "pump 1.0 committed\n" in plain.text, "the commit")
    assert device.stop() == 0
    world.until(lambda: plain.text.count("no agent runs") == 2, "the end")
    assert plain.interrupt() == (130, "interrupted\n")
    world.until(lambda: lines.text.count("\n") >= 3, "lines of JSON")
    assert lines.interrupt() == (130, "interrupted\n")
    found = [json.loads(line) for line in lines.text.splitlines()]
    assert [found[0].get("running", False), found[-1].get("running", False)] == [False, False]
    assert any(each["running"] for each in found)
    assert found[-1]["models"]["pump"]["active"] == "1.0"


def test_a_terminal_shows_a_bar_in_place_and_ends_with_a_whole_line(
    world: Any, follow: Callable[..., Follower], tmp_path: Path
) -> None:
    from edge_agent import voice
    from edge_agent.folder import Folder, Lock

    device = world.new_device()
    lock = Lock(Folder(device.config.folder))  # an agent that says only what this test says
    voice.write_status(device.folder.status, STATUS)
    screen = follow(device.path, terminal=True)
    bar = "pump 1.1 fetching [######..................] 25% fetched: 3 MB of 12 MB, 512 kB/s\r\n"
    world.until(lambda: bar in screen.text, "the bar")
    waiting = replace(FETCHING, waits="waiting for the slot 01:00-05:00", bytes_per_s=0)
    voice.write_status(device.folder.status, replace(STATUS, models={"pump": waiting}))
    world.until(lambda: "waiting for" in screen.text, "the wait")
    last = screen.text.rpartition("\x1b[1F\x1b[J")[2]
    assert last.startswith("pump 1.1 fetching [######")
    assert len(last.rstrip("\r\n")) < 100, "a line is cut where it would wrap"
    assert screen.interrupt() == (130, "interrupted\n")
    assert screen.text.endswith("\n")
    lock.release()


def test_follow_and_check_do_not_go_together(world: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", "status", "--follow", "--check", "--config",
         str(world.device.path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "--check" in done.stderr


def test_a_trial_says_what_would_end_it(
    world: Any, follow: Callable[..., Follower], failing_bundle: Callable[..., bytes]
) -> None:
    trial = {"requests": 40, "seconds": 3000.0, "max_error_rate": 0.1, "deadline_s": 5000.0}
    device = world.new_device(trial=trial)
    world.publisher.publish(failing_bundle("1.0"))
    device.start()
    plain = follow(device.path)
    said = re.compile(r"pump 1\.0 trial: (\d+) of 40 requests, or (\d+) s more without a failure\n")
    world.until(lambda: said.search(plain.text), "what is waited for")
    assert 2900 < int(said.findall(plain.text)[0][1]) <= 3000
    for _ in range(5):
        world.client.ask("pi1")
    world.until(lambda: "5" in {n for n, _ in said.findall(plain.text)}, "five requests")
    world.client.ask("pi1", {**ROW, "temp": -1.0})
    failed = re.compile(r"6 of 40 requests, 1 failed; goes back in (\d+) s otherwise\n")
    world.until(lambda: failed.search(plain.text), "the failure")
    shown = show.lines(device.status)
    assert any(line.startswith("  waits     6 of 40 requests, 1 failed") for line in shown)
    for _ in range(34):
        world.client.ask("pi1")
    device.wait_at("1.0")
    world.until(lambda: "pump 1.0 committed\n" in plain.text, "the commit")


class Enough(Exception):
    """Ends a follow in this process."""


def followed(*statuses: AgentStatus, as_json: bool = False) -> str:
    """What is written while the state is each of these in turn."""
    out, left = io.StringIO(), list(statuses)

    def wait(_: float) -> None:
        left.pop(0)
        if not left:
            raise Enough

    with pytest.raises(Enough):
        show.follow(lambda: left[0], out, as_json=as_json, wait=wait)
    return out.getvalue()


def test_what_did_not_change_is_not_written_again() -> None:
    later = replace(STATUS, at_ms=5000)
    moved = replace(STATUS, models={"pump": replace(FETCHING, progress=0.5)})
    assert followed(STATUS, later, STATUS).count("\n") == 1
    assert followed(STATUS, moved, STATUS).count("\n") == 3
    assert followed(STATUS, later, moved, as_json=True).count("\n") == 2


def test_what_a_peer_wrote_moves_no_cursor() -> None:
    evil = replace(FETCHING, reason="\x1b[2J\x1b]0;owned\x07\nroot#")
    text = followed(replace(STATUS, models={"pump": evil}))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert text.count("\n") == 1


def test_status_shows_bytes_rate_wait_and_when_it_ends() -> None:
    waiting = replace(
        FETCHING, waits="daily cap of 50 MB reached, goes on at 00:00", until_ms=1_795_305_600_000
    )
    shown = "\n".join(show.lines(replace(STATUS, models={"pump": waiting})))
    assert "candidate 1.1, 25% fetched: 3 MB of 12 MB, 512 kB/s" in shown
    assert (
        "waits     daily cap of 50 MB reached, goes on at 00:00 (2026-11-22 00:00 +0000)" in shown
    )

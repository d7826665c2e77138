"""The stories that power is cut in, each played once by a real ``edge-agent`` under strace.

One device lives through them in this order, with one publisher; each story begins on the disk that
the one before left.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from cut_trace import STRACE
from cut_world import (
    BAD_ROW,
    DEVICE,
    FAILING,
    GOOD_ROW,
    MODEL,
    TOPICS,
    V1,
    V2,
    V3,
    V6,
    WAIT_S,
    WRONG,
    Ear,
    Goal,
    Scene,
    World,
    beside,
    tree_on,
    wait_for,
    write_settings,
)  # fmt: skip

from edge_agent import state
from edge_fleet.broker import BrokerThread, LoseAck

AGENT = (sys.executable, "-m", "edge_agent")
RECORDS_HELD = 4
ASK_S = 0.1


class Stage:
    """A device that is a real process, and who talks to it."""

    def __init__(self, top: Path, broker: BrokerThread, goal: Goal) -> None:
        self.top = top
        self.broker = broker
        self.goal = goal
        self.client = beside("agent/device/conftest.py").Client(broker.url)
        self._asked_s = 0.0

    def model(self) -> state.State | None:
        path = self.top / "state" / "models" / MODEL / "state.json"
        return state.decode(path.read_bytes()) if path.exists() else None

    def there(self) -> bool:
        return reached(self.model(), self.goal)

    def ask(self) -> None:
        """A few requests a second."""
        now_s = time.monotonic()
        if now_s < self._asked_s + ASK_S:
            return
        self._asked_s = now_s
        self.client.send(DEVICE, GOOD_ROW)
        if self.goal.bad_rows:
            self.client.send(DEVICE, BAD_ROW)

    def close(self) -> None:
        self.broker.clear_taps()
        self.client.link.stop()


def reached(now: state.State | None, goal: Goal) -> bool:
    """Whether the device rests where it belongs."""
    return (
        now is not None
        and now.active is not None
        and (now.active.version, now.phase.value) == (goal.version, goal.phase)
        and set(goal.quarantined) <= {each.version for each in now.quarantine}
    )


Play = Callable[[Stage], Iterator[None]]
"""Yields until the story is over; the device may end at any yield."""


def to_the_goal(stage: Stage) -> Iterator[None]:
    """Ask until the device is where it belongs."""
    while not stage.there():
        stage.ask()
        yield


def _answered(stage: Stage) -> Iterator[None]:
    """Ask until an answer comes: an agent that is only starting does not hear the first."""
    while not stage.client.answers:
        stage.ask()
        yield


def _spools(stage: Stage) -> Iterator[None]:
    """Records wait while the broker acknowledges none, then go home."""
    stage.broker.add_tap(LoseAck(filter=f"{TOPICS.root}/t/#"))
    spool = stage.top / "state" / "spool"
    while len(list(spool.glob("*.rec"))) < RECORDS_HELD:
        stage.ask()
        yield
    stage.broker.clear_taps()
    stage.broker.drop(DEVICE)
    while list(spool.glob("*.rec")):
        yield


@dataclass(frozen=True)
class Story:
    """What the publisher does, then the device, and where that leads.

    ``news``: makes the world as it is at the end, before the device is started. ``play``: asks
    the running device something; the default sees that it gets to the goal.
    """

    name: str
    goal: Goal
    news: Callable[[World, Any], None]
    play: Play = to_the_goal
    enrolls: bool = False


def _update(version: Any) -> Callable[[World, Any], None]:
    return lambda world, client: world.publish(version)


def _candidate(version: Any, revision: int) -> Callable[[World, Any], None]:
    def news(world: World, client: Any) -> None:
        world.publish(version, candidate=True)
        client.want(DEVICE, revision, **{MODEL: "candidate"})

    return news


def _rotated(world: World, client: Any) -> None:
    client.want(DEVICE, 9)
    world.rotate(3)
    world.publish(V6)


def _goal(version: str, *answers: str, **more: Any) -> Goal:
    phase = "idle" if more.get("quarantined") else "committed"
    return Goal(version, phase, frozenset(answers), **more)


STORIES = (
    Story("install", _goal("1.0", "1.0"), _update(V1), enrolls=True),
    Story("update", _goal("2.0", "1.0", "2.0"), _update(V2)),
    Story("update-and-prune", _goal("3.0", "2.0", "3.0"), _update(V3)),
    Story(
        "roll-back",
        _goal("3.0", "3.0", "4.0", bad_rows=True, quarantined=("4.0",)),
        _candidate(FAILING, 1),
    ),
    Story("self-test-fails", _goal("3.0", "3.0", quarantined=("5.0",)), _candidate(WRONG, 1)),
    Story("rotate", _goal("6.0", "3.0", "6.0"), _rotated),
    Story("spool", _goal("6.0", "6.0"), lambda world, client: None, play=_spools),
)


def within(play: Iterator[None], what: str, *, pause_s: float = 0.005) -> Iterator[None]:
    """The steps of a play, ``pause_s`` apart; AssertionError when it does not end."""
    end = time.monotonic() + WAIT_S
    for _ in play:
        assert time.monotonic() < end, f"{what}: not over within {WAIT_S:g} s"
        yield
        time.sleep(pause_s)


def record(folder: Path, wanted: tuple[str, ...] = ()) -> list[Scene]:
    """Play every story up to the last one wanted, with strace looking on."""
    world = World(folder)
    scenes = []
    top = folder / "device" / "top"
    write_settings(top, world.url)
    names = [story.name for story in STORIES]
    last = max((names.index(name) for name in wanted), default=len(names) - 1)
    try:
        for story in STORIES[: last + 1]:
            scene = _record(story, world, top, folder)
            if not wanted or story.name in wanted:
                scenes.append(scene)
    finally:
        world.stop()
    return scenes


def _record(story: Story, world: World, top: Path, folder: Path) -> Scene:
    scene = Scene(story.name, story.goal, world.url, before=tree_on(top), root=world.root)
    stage = Stage(top, world.broker, story.goal)
    ear = Ear(world.url)
    life: Life | None = None
    try:
        story.news(world, stage.client)
        if story.enrolls:
            (folder / "root.json").write_bytes(world.root)
            enroll = ("enroll", "--root", str(folder / "root.json"))
            scene.logs.append(folder / f"{scene.name}-enroll.strace")
            assert Life(scene.logs[-1], top, *enroll).process.wait() == 0
        scene.logs.append(folder / f"{scene.name}-run.strace")
        life = Life(scene.logs[-1], top, "run")
        for _ in within(story.play(stage), story.name):
            life.check()
        life.stop()
        wait_for(lambda: any(key.startswith("record") for key in ear.heard), "a record")
    finally:
        if life:
            life.end()
        stage.close()
        ear.stop()
    assert not ear.clashes, ear.clashes
    scene.retained = world.retained()
    scene.heard = dict(ear.heard)
    scene.after = tree_on(top)
    return scene


class Life:
    """One process of the agent under strace, which writes to ``log``."""

    def __init__(self, log: Path, top: Path, *command: str) -> None:
        self.said = log.with_suffix(".log")
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [*STRACE, str(log), *AGENT, command[0], "--config", str(top / "agent.toml"),
                 *command[1:]],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=top.parent,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip

    def check(self) -> None:
        """Raise AssertionError when it ended by itself."""
        assert self.process.poll() is None, f"the agent ended: {self.said.read_text()[-2000:]}"

    def stop(self) -> None:
        """SIGTERM, and a clean end."""
        os.kill(self._agent(), signal.SIGTERM)
        assert self.process.wait(120) == 0, self.said.read_text()[-2000:]

    def end(self) -> None:
        """Leave nothing running, whatever happened."""
        while self.process.poll() is None:
            with contextlib.suppress(IndexError, OSError):  # not there yet, or not any more
                os.kill(self._agent(), signal.SIGKILL)
            time.sleep(0.01)

    def _agent(self) -> int:
        """The traced process: a signal to strace would leave it running."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def lived(log: Path, top: Path, broker: BrokerThread, goal: Goal) -> None:
    """A life from where ``top`` stands to the goal, and a clean end."""
    stage = Stage(top, broker, goal)
    life = Life(log, top, "run")
    try:
        # It may have been at the goal before this life: it has to answer as well.
        for _ in within(chain(to_the_goal(stage), _answered(stage)), goal.version):
            life.check()
        life.stop()
    finally:
        life.end()
        stage.close()


def point_at(top: Path, url: str) -> None:
    """Name another broker in the settings."""
    path = top / "agent.toml"
    path.write_text(re.sub(r'^url = ".*"', f'url = "{url}"', path.read_text(), flags=re.M))

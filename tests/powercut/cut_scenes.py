"""The stories that power is cut in, each played once by a real ``edge-agent`` under strace.

One device lives through them in this order, with one publisher; each story begins on the disk that
the one before left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
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
    WRONG,
    Ear,
    Goal,
    Scene,
    World,
    beside,
    put_on,
    tree_on,
    wait_for,
    write_settings,
)  # fmt: skip

from edge_agent import state
from edge_fleet.broker import LoseAck

AGENT = (sys.executable, "-m", "edge_agent")
RECORDS_HELD = 4


@dataclass(frozen=True)
class Story:
    """What the publisher does, then the device, and where that leads.

    ``news``: makes the world as it is at the end, before the device is started. ``play``: asks
    the running device something; the default sees that it gets to the goal.
    """

    name: str
    goal: Goal
    news: Callable[[World, Any], None]
    play: Callable[[Stage], None] | None = None
    enrolls: bool = False


class Stage:
    """A device that is a real process, and who talks to it."""

    def __init__(self, top: Path, world: World, goal: Goal) -> None:
        self.top = top
        self.world = world
        self.goal = goal
        self.client = beside("agent/device/conftest.py").Client(world.url)
        self.alive: Callable[[], None] = lambda: None

    def model(self) -> state.State | None:
        path = self.top / "state" / "models" / MODEL / "state.json"
        return state.decode(path.read_bytes()) if path.exists() else None

    def there(self) -> bool:
        return reached(self.model(), self.goal)

    def ask(self) -> None:
        self.alive()
        self.client.send(DEVICE, GOOD_ROW)
        if self.goal.bad_rows:
            self.client.send(DEVICE, BAD_ROW)

    def to_the_goal(self) -> None:
        """Ask until the device is where it belongs, and until its counts are home."""

        def done() -> bool:
            self.ask()
            return self.there()

        wait_for(done, f"{self.goal.version} {self.goal.phase}, it is {self.model()}")


def reached(now: state.State | None, goal: Goal) -> bool:
    """Whether the device rests where it belongs."""
    return (
        now is not None
        and now.active is not None
        and (now.active.version, now.phase.value) == (goal.version, goal.phase)
        and set(goal.quarantined) <= {each.version for each in now.quarantine}
    )


def _spools(stage: Stage) -> None:
    """Records wait while the broker acknowledges none, then go home."""
    deaf = LoseAck(filter=f"{TOPICS.root}/t/#")
    stage.world.broker.add_tap(deaf)
    spool = stage.top / "state" / "spool"

    def held() -> bool:
        stage.ask()
        return len(list(spool.glob("*.rec"))) >= RECORDS_HELD

    wait_for(held, "records held")
    stage.world.broker.clear_taps()
    stage.world.broker.drop(DEVICE)
    wait_for(lambda: not list(spool.glob("*.rec")), "records home")


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
    stage = Stage(top, world, story.goal)
    ear = Ear(world.url)
    try:
        story.news(world, stage.client)
        if story.enrolls:
            (folder / "root.json").write_bytes(world.root)
            enroll = ("enroll", "--root", str(folder / "root.json"))
            assert Life(scene, folder, top, *enroll).process.wait() == 0
        life = Life(scene, folder, top, "run")
        stage.alive = life.check
        (story.play or Stage.to_the_goal)(stage)
        life.stop()
        wait_for(lambda: any(key.startswith("record") for key in ear.heard), "a record")
    finally:
        stage.client.link.stop()
        ear.stop()
    assert not ear.clashes, ear.clashes
    scene.retained = world.retained()
    scene.heard = dict(ear.heard)
    scene.after = tree_on(top)
    return scene


class Life:
    """One process of the agent under strace, from ``scene``'s next log on."""

    def __init__(self, scene: Scene, folder: Path, top: Path, *command: str) -> None:
        log = folder / f"{scene.name}-{len(scene.logs)}.strace"
        scene.logs.append(log)
        self.said = folder / f"{scene.name}-{len(scene.logs)}.log"
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [*STRACE, str(log), *AGENT, command[0], "--config", str(top / "agent.toml"),
                 *command[1:]],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip

    def check(self) -> None:
        """Raise AssertionError when it ended by itself."""
        assert self.process.poll() is None, f"the agent ended: {self.said.read_text()[-2000:]}"

    def stop(self) -> None:
        """SIGTERM, and a clean end."""
        pid = self.process.pid
        agent = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        os.kill(agent, signal.SIGTERM)
        assert self.process.wait(60) == 0, self.said.read_text()[-2000:]


def restore(scene: Scene, top: Path, url: str) -> None:
    """The folder as it was when the story began, with another broker in its settings."""
    put_on(scene.before, top)
    point_at(top, scene.url, url)


def point_at(top: Path, old: str, new: str) -> None:
    """Name another broker in the settings."""
    path = top / "agent.toml"
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))

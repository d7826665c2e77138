"""A sample of the sweep over the real agent. All of it: ``python tests/powercut/sweep.py``."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from cut_real import Held
from cut_scenes import STORIES, Scene, record
from cut_verdict import owed
from cut_world import World, put_on, tree_on, write_settings
from sweep import Plan, Pool, real, simulated

NAMES = [story.name for story in STORIES]
DISKS, GOALS, KILLS, LIVES = 24, 6, 4, 1
SEED = int(os.environ.get("POWERCUT_SEED", "0")) or random.SystemRandom().randrange(2**31)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("powercut")


@pytest.fixture(scope="module")
def scenes(folder: Path, strace: str) -> dict[str, Scene]:
    """Every story as the real agent lived it."""
    return {scene.name: scene for scene in record(folder)}


@pytest.fixture(scope="module", params=NAMES)
def tried(
    request: pytest.FixtureRequest, scenes: dict[str, Scene], folder: Path
) -> Iterator[tuple[Scene, Path, Pool, Plan]]:
    scene = scenes[request.param]
    pool = Pool(scene, folder)
    print(f"POWERCUT_SEED={SEED}")
    yield scene, folder, pool, Plan(DISKS, GOALS, KILLS, LIVES, random.Random(SEED), partial(print))
    pool.close()


@pytest.mark.slow
@pytest.mark.xdist_group("powercut")
def test_the_device_pulls_through_whatever_the_disk_forgot(
    tried: tuple[Scene, Path, Pool, Plan],
) -> None:
    scene, folder, pool, plan = tried
    tally = simulated(scene, folder, pool, plan)
    print(tally)
    assert not tally.failures
    assert tally.disk > 50 and tally.net > 50 and tally.states > 300
    assert (tally.alone, tally.converged) == (2 * DISKS, GOALS)


@pytest.mark.slow
@pytest.mark.xdist_group("powercut")
def test_the_device_pulls_through_whichever_call_it_is_killed_at(
    tried: tuple[Scene, Path, Pool, Plan], holding: None
) -> None:
    scene, _, pool, plan = tried
    tally = real(scene, pool, plan)
    print(tally)
    assert not tally.failures
    assert (
        0 < tally.killed <= KILLS
    )  # a busy machine makes fewer calls than the run that was counted


# -- the killer ----------------------------------------------------------------------------------


@pytest.fixture
def enrolling(tmp_path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A device's folder, and the command that enrolls it."""
    world = World(tmp_path)
    (tmp_path / "root.json").write_bytes(world.root)
    config = write_settings(tmp_path / "top", world.url)
    yield (
        tmp_path / "top",
        ("enroll", "--config", str(config), "--root", str(tmp_path / "root.json")),
    )
    world.stop()


def test_a_process_is_killed_at_exactly_the_call_that_was_named(
    enrolling: tuple[Path, tuple[str, ...]], tmp_path: Path, holding: None
) -> None:
    """One more call made for each k, the next one never; and at the end all of them."""
    top, command = enrolling
    before = tree_on(top)
    steps = []
    for k in range(1, 100):
        put_on(before, top)
        held = Held(tmp_path, tmp_path / "log", k, *command)
        while held.let(1000):
            pass
        code = held.process.wait()
        held.close()
        steps.append(tree_on(top))
        if held.count < k:
            break
        assert code == -9
    assert code == 0 and held.count == k - 1 == held.disk
    assert 5 < k < 40
    assert steps[0] == before and owed(steps[-1]).enrolled
    assert not any(owed(tree).enrolled and tree != steps[-1] for tree in steps)

"""Cut the power at every disk and network call of every story; see that the device pulls through.

    python tests/powercut/sweep.py                          every cut, every disk, every kill
    python tests/powercut/sweep.py --sample 60 --kills 10   so many a story, drawn with --seed
    python tests/powercut/sweep.py --story rotate           one story

Each story is played once by the real agent under strace. What it did to its folder is done again
on a disk that forgets (``cut_disk``), the power is cut after every operation, and every different
disk that may then be found is put into a folder: the real agent has to pull through from there
(``cut_verdict``), first without a broker, then with one. Disks from which the start without a
broker makes the same are led on to the goal once.

Then each story is played again and again by a real process that is killed before its k-th disk or
network call, for every k (``cut_real``). Exit code 1 when the agent did not pull through.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from cut_disk import Disk, digest
from cut_real import Life, cut
from cut_scenes import STORIES, lived, point_at, record
from cut_trace import Replay, read
from cut_verdict import Court, Job, Promise, Verdict, owed, promised
from cut_world import Scene, put_on, tree_on

KINDS = ("disk", "kill")
PROCESSES = 2
COURTS = 8
"""A process. A judge waits most of the time."""
FRESH = 20
"""One state in so many goes straight to the broker, without a start alone before."""


@dataclass
class Tally:
    """What was tried. ``disk``, ``net``: system calls, each with a cut before and after it."""

    disk: int = 0
    net: int = 0
    crashes: int = 0
    states: int = 0
    alone: int = 0
    converged: int = 0
    killed: int = 0
    failures: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            *(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__)
        )

    def __str__(self) -> str:
        return (
            f"{self.disk} disk and {self.net} network calls, a cut at each; {self.crashes} ways to"
            f" lose data there, {self.states} different disks, {self.alone} of them started without"
            f" a broker, {self.converged} led on to the goal; {self.killed} processes killed;"
            f" {len(self.failures)} failures"
        )


def states(scene: Scene, top: Path, tally: Tally) -> Iterator[Job]:
    """Every different disk that a cut may leave, with what is owed then."""
    disk = Disk.of(scene.before)
    for moment in moments(scene.logs, disk, owed(scene.before), top, tally):
        yield from moment.jobs("")
    assert disk.tree() == scene.after, "the replay did not end where the agent did"


@dataclass
class Moment:
    """After a disk call. ``seen``: the disks, with what was owed, that were met before."""

    call: str
    disk: Disk
    promise: Promise
    tally: Tally
    seen: set[tuple[str, Promise]]

    def jobs(self, before: str) -> Iterator[Job]:
        """Each disk that may be found now and was not met before."""
        for how, tree in self.disk.crashes():
            self.tally.crashes += 1
            key = (digest(tree), self.promise)
            if key not in self.seen:
                self.seen.add(key)
                self.tally.states += 1
                where = f"{before}cut {self.tally.disk} after {self.call}, {how}"
                yield Job(where, tree, self.promise)


def moments(
    logs: Sequence[Path], disk: Disk, promise: Promise, top: Path, tally: Tally
) -> Iterator[Moment]:
    """What strace saw, done again on ``disk``, call by call."""
    replay = Replay(disk, top)
    seen: set[tuple[str, Promise]] = set()
    for log in logs:
        for call in read(log):
            kind = replay.do(call)
            tally.net += kind == "net"
            if kind == "disk":
                tally.disk += 1
                promise = promised(promise, disk, replay.flushed)
                yield Moment(call.name, disk, promise, tally, seen)


def second_lives(scene: Scene, folder: Path, tally: Tally, plan: Plan) -> Iterator[Job]:
    """The process is killed first, where names are not flushed yet; the power is cut in the life
    after that, which saw them there."""
    first = Tally()
    killed = [
        (first.disk, moment.call, moment.disk.copy(), moment.promise)
        for moment in moments(
            scene.logs, Disk.of(scene.before), owed(scene.before), folder / "device" / "top", first
        )
        if moment.call in ("rename", "mkdir", "unlink", "unlinkat", "rmdir", "symlink")
        and owed(moment.disk.tree()).enrolled  # else a person enrols it anew: a first life
    ]
    for number, call, disk, promise in plan.some(killed, plan.lives):
        court = Court(scene, Path(tempfile.mkdtemp(dir=folder)))
        try:
            put_on(disk.tree(), court.top)
            point_at(court.top, court.url)
            disk.settle("agent.toml", (court.top / "agent.toml").read_bytes())
            log = court.folder / "run.strace"
            lived(log, court.top, court.broker, scene.goal)
            where = f"killed {number} after {call}, in the life after that "
            for moment in moments([log], disk, promise, court.top, tally):
                yield from moment.jobs(where)
            assert disk.tree() == tree_on(court.top)
        finally:
            court.close()


# -- workers --------------------------------------------------------------------------------------

_COURTS: SimpleQueue[Court] = SimpleQueue()
_SCENE: list[Scene] = []
_Done = TypeVar("_Done")
_Work = TypeVar("_Work")


def _open(scene: Scene, folder: Path) -> None:
    logging.getLogger().addHandler(logging.NullHandler())
    _SCENE.append(scene)
    for _ in range(COURTS):
        _COURTS.put(Court(scene, Path(tempfile.mkdtemp(dir=folder))))


def _each(work: Callable[[Court, _Work], _Done], items: list[_Work]) -> list[_Done]:
    """In as many threads as there are courts."""

    def one(item: _Work) -> _Done:
        court = _COURTS.get()
        try:
            return work(court, item)
        finally:
            _COURTS.put(court)

    with ThreadPoolExecutor(COURTS) as threads:
        return list(threads.map(one, items))


def _judge(jobs: list[Job]) -> list[Verdict]:
    return _each(Court.judge, jobs)


def _cut(numbers: list[int]) -> list[Life]:
    return _each(lambda court, k: cut(court, _SCENE[0], k), numbers)


@dataclass
class Plan:
    """How much of it, a story; 0: all. ``sample``: disks, ``goals``: of them that are led on to the
    goal, ``kills``: processes killed, ``lives``: processes killed before the power goes."""

    sample: int
    goals: int
    kills: int
    lives: int
    rng: random.Random
    say: Callable[[str], None]

    def some(self, items: Sequence[_Work], most: int) -> list[_Work]:
        if not most or most >= len(items):
            return list(items)
        return [items[i] for i in sorted(self.rng.sample(range(len(items)), most))]


def simulated(scene: Scene, folder: Path, pool: Pool, plan: Plan) -> Tally:
    """The power cut on a disk that forgets, at each call that was recorded."""
    tally = Tally()
    jobs = plan.some(list(states(scene, folder / "device" / "top", tally)), plan.sample)
    jobs += plan.some(list(second_lives(scene, folder, tally, plan)), plan.sample)
    leads: dict[tuple[str, Promise], Job] = {}
    fresh: list[Job] = []
    alone = [replace(job, online=False) for job in jobs]
    for i, (job, verdict) in enumerate(zip(jobs, pool.map(_judge, alone), strict=True)):
        tally.alone += not verdict.faults
        tally.failures += verdict.faults
        leads.setdefault((verdict.left, job.promise), job)
        if i % FRESH == 0:
            fresh.append(replace(job, offline=False))
    for verdict in pool.map(_judge, plan.some([*leads.values(), *fresh], plan.goals)):
        tally.converged += not verdict.faults
        tally.failures += verdict.faults
    return tally


def real(scene: Scene, pool: Pool, plan: Plan) -> Tally:
    """The process killed, at each call that it makes."""
    tally = Tally()
    (whole,) = pool.map(_cut, [0])
    numbers = plan.some(range(1, whole.count + 1), plan.kills)
    for life in [whole, *pool.map(_cut, numbers)]:
        tally.killed += not life.over
        tally.failures += life.faults
    return tally


class Pool:
    """Processes with courts for one scene."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self._pool = ProcessPoolExecutor(
            PROCESSES,
            mp_context=get_context("spawn"),
            initializer=_open,
            initargs=(scene, folder),
        )

    def map(
        self, work: Callable[[list[_Work]], list[_Done]], items: Sequence[_Work]
    ) -> Iterator[_Done]:
        """In order; bundled, for each bundle is as slow as its slowest."""
        size = 6 * COURTS
        bundles = [list(items[i : i + size]) for i in range(0, len(items), size)]
        for done in self._pool.map(work, bundles):
            yield from done

    def close(self) -> None:
        self._pool.shutdown()


def sweep(scene: Scene, folder: Path, plan: Plan, kinds: Collection[str]) -> Tally:
    """All that is asked for of one scene."""
    tally, begun = Tally(), time.monotonic()
    pool = Pool(scene, folder)
    try:
        if "disk" in kinds:
            tally += simulated(scene, folder, pool, plan)
        if "kill" in kinds:
            tally += real(scene, pool, plan)
    finally:
        pool.close()
    for fault in tally.failures:
        plan.say(f"FAILED {fault}")
    plan.say(f"{scene.name}: {tally} ({time.monotonic() - begun:.0f} s)")
    return tally


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--story", action="append", choices=[s.name for s in STORIES], default=[])
    parser.add_argument("--only", choices=KINDS, help="one of the two kinds of cut")
    parser.add_argument("--sample", type=int, default=0, help="disks a story; 0: all")
    parser.add_argument("--goals", type=int, default=0, help="led on to the goal; 0: all")
    parser.add_argument("--kills", type=int, default=0, help="kills a story; 0: at each call")
    parser.add_argument("--lives", type=int, default=0, help="killed first, then cut; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="a new one, to keep the logs in")
    given = parser.parse_args(arguments)
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = given.folder or Path(tempfile.mkdtemp(prefix="powercut-", dir=place))
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        given.sample, given.goals, given.kills, given.lives, random.Random(given.seed),
        partial(print, flush=True),
    )  # fmt: skip
    total = Tally()
    try:
        for scene in record(folder, tuple(given.story)):
            total += sweep(scene, folder, plan, (given.only,) if given.only else KINDS)
    finally:
        if not given.folder:
            shutil.rmtree(folder, ignore_errors=True)
    plan.say(f"in all: {total}; seed {given.seed}")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())

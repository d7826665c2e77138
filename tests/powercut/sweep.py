"""Cut the power at every disk operation of every story, and see that the device pulls through.

    python tests/powercut/sweep.py                 every cut, every state of the disk
    python tests/powercut/sweep.py --sample 60     so many states a story, drawn with --seed
    python tests/powercut/sweep.py --story rotate  one story

Each story is played once by the real agent under strace; what it did to its folder is done again
on a disk that forgets (``cut_disk``), and the power is cut after every operation. Every different
state that the disk may then be in is put into a folder, and the real agent has to pull through
from there (``cut_verdict``). Exit code 1 when it did not.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from cut_disk import Disk, Tree, digest
from cut_scenes import STORIES, record
from cut_trace import Replay, read
from cut_verdict import Court, Job, Promise, promised
from cut_world import Scene

WORKERS = 3
BATCH = 8
STATUS = "state/status.json"


@dataclass
class Tally:
    """What was tried. ``cuts``: moments; ``disk`` and ``net``: system calls before them."""

    disk: int = 0
    net: int = 0
    crashes: int = 0
    states: int = 0
    recovered: int = 0
    converged: int = 0
    failures: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            *(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__)
        )

    def __str__(self) -> str:
        return (
            f"{self.disk + self.net} cuts ({self.disk} disk, {self.net} network), "
            f"{self.crashes} ways to lose data, {self.states} different states; "
            f"{self.recovered} recovered without a broker, {self.converged} with one; "
            f"{len(self.failures)} failures"
        )


def states(scene: Scene, top: Path, tally: Tally) -> Iterator[Job]:
    """Every different state that a cut may leave, with what is owed then.

    ``status.json`` is worth nothing after a cut and is left out where states are compared before
    the long way with a broker.
    """
    disk, promise = Disk.of(scene.before), Promise(answers=False)
    promise = promised_at_start(promise, disk, scene)
    replay = Replay(disk, top)
    seen: set[tuple[str, Promise]] = set()
    tried: set[tuple[str, Promise]] = set()
    number = 0
    for log in scene.logs:
        for call in read(log):
            kind = replay.do(call)
            tally.net += kind == "net"
            if kind != "disk":
                continue
            number += 1
            tally.disk += 1
            promise = promised(promise, disk, replay.flushed)
            for how, tree in disk.crashes():
                tally.crashes += 1
                key = (digest(tree), promise)
                if key in seen:
                    continue
                seen.add(key)
                tally.states += 1
                short = (digest(_weighty(tree)), promise)
                online = short not in tried
                tried.add(short)
                yield Job(f"cut {number} after {call.name}, {how}", tree, promise, online)


def promised_at_start(promise: Promise, disk: Disk, scene: Scene) -> Promise:
    """What earlier stories left on disk is owed from the beginning."""
    folders = {path.rpartition("/")[0] for path in scene.before}
    for folder in sorted(folders):
        promise = promised(promise, disk, folder)
    return promise


def _weighty(tree: Tree) -> Tree:
    return {path: content for path, content in tree.items() if "status.json" not in path}


# -- workers --------------------------------------------------------------------------------------

_COURT: list[Court] = []


def _open(scene: Scene, folder: Path) -> None:
    _COURT.append(Court(scene, Path(tempfile.mkdtemp(dir=folder))))


def _judge(jobs: list[Job]) -> list[tuple[bool, list[str]]]:
    return [(job.online, _COURT[0].judge(job)) for job in jobs]


def sweep(
    scene: Scene,
    folder: Path,
    *,
    sample: int,
    rng: random.Random,
    workers: int,
    say: Callable[[str], None],
) -> Tally:
    """Judge the states of one scene: all, or ``sample`` of them."""
    tally = Tally()
    jobs = list(states(scene, folder / "device" / "top", tally))
    if sample and sample < len(jobs):
        jobs = [jobs[i] for i in sorted(rng.sample(range(len(jobs)), sample))]
    batches = [jobs[i : i + BATCH] for i in range(0, len(jobs), BATCH)]
    begun = time.monotonic()
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_open, initargs=(scene, folder)
    ) as pool:
        for done in pool.map(_judge, batches):
            for online, faults in done:
                tally.recovered += not faults
                tally.converged += online and not faults
                tally.failures += faults
                for fault in faults:
                    say(f"FAILED {fault}")
    say(f"{scene.name}: {tally} ({time.monotonic() - begun:.0f} s)")
    return tally


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--story", action="append", choices=[s.name for s in STORIES], default=[])
    parser.add_argument("--sample", type=int, default=0, help="states a story; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--folder", type=Path, help="to keep the logs in")
    given = parser.parse_args(arguments)
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = given.folder or Path(tempfile.mkdtemp(prefix="powercut-", dir=place))
    folder.mkdir(parents=True, exist_ok=True)
    say = lambda line: print(line, flush=True)  # noqa: E731
    total = Tally()
    try:
        for scene in record(folder, tuple(given.story)):
            total += sweep(
                scene, folder, sample=given.sample, rng=random.Random(given.seed),
                workers=given.workers, say=say,
            )  # fmt: skip
    finally:
        if not given.folder:
            shutil.rmtree(folder, ignore_errors=True)
    say(f"in all: {total}; seed {given.seed}")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())

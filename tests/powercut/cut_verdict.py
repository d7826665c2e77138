"""What a device owes after a power cut, and whether it pays: the real agent on a folder's remains.

1. It starts. No person is asked.
2. What was committed answers at once, without a broker; nothing that was never signed answers.
3. A boot number is never used again, though the clock stands still.
4. A record or event that was on disk and not home yet is there, byte for byte.
5. Metadata and ``desired`` do not go back behind what was on disk.
6. With a broker, it gets to where the publisher wants it.
7. What waited arrives; one identity never stands for two messages.
8. Then nothing is left over: no temporary file, no slot or chunk that nobody wants.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cut_disk import Disk, Tree, digest
from cut_scenes import point_at, reached
from cut_world import (
    BAD_ROW,
    GOOD_ROW,
    MODEL,
    VERSIONS,
    Ear,
    Goal,
    Scene,
    put_on,
    tree_on,
    wait_for,
)

from edge_agent import Agent, slot, state
from edge_agent import config as configs
from edge_agent.config import Config
from edge_agent.folder import Folder, last_boot
from edge_agent.parts import Clocks
from edge_agent.pull import delivery_of, enroll
from edge_contract.errors import EdgeError
from edge_fleet.broker import BrokerThread

NO_BROKER = "mqtt://127.0.0.1:9"
WOKE_UP_S = 1_000_000_000.0
"""A device without a battery wakes up in the past: 2001."""
STATE = f"state/models/{MODEL}/state.json"
METADATA = "state/tuf/metadata/"
BOOKS = frozenset({"agent.toml", "state/boot.json", "state/status.json", "state/lock"})
PENDING = ("state/spool/", "state/outbox/")


@dataclass(frozen=True)
class Promise:
    """What the device may be held to if the power goes now.

    Attributes:
        enrolled: a publisher is trusted. answers: something was committed.
        boot: the last number used. kept: files that must be there, byte for byte: records and
            events that are not home. timestamp, root: versions of metadata. revision: of
            ``desired``.
    """

    enrolled: bool = False
    answers: bool = False
    boot: int = 0
    kept: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = 0
    root: int = 0
    revision: int = 0


def promised(before: Promise, disk: Disk, flushed: str | None) -> Promise:
    """The promise after a call, which flushed the folder ``flushed``: its names are a promise.

    A file that was removed or replaced since is owed no longer.
    """
    tree = disk.tree()
    kept = dict(item for item in before.kept if tree.get(item[0]) == item[1])
    after = before
    if flushed is not None:
        files = dict(_files_in(tree, flushed))
        kept |= {
            path: content for path, content in files.items()
            if path.startswith(PENDING) and not _temporary(path)
        }  # fmt: skip
        after = replace(
            before,
            enrolled=before.enrolled or "state/tuf/pinned.root.json" in files,
            answers=before.answers or bool(_read(files.get(STATE)).get("active")),
            boot=max(before.boot, _read(files.get("state/boot.json")).get("boot", 0)),
            revision=max(
                before.revision, _read(files.get("state/desired.json")).get("revision", 0)
            ),
            timestamp=max(
                before.timestamp, _signed_version(files.get(f"{METADATA}timestamp.json"))
            ),
            root=max([before.root, *_roots(files)]),
        )
    return replace(after, kept=tuple(sorted(kept.items())))


def _files_in(tree: Tree, folder: str) -> Iterator[tuple[str, bytes]]:
    for path, content in tree.items():
        if isinstance(content, bytes) and path.rpartition("/")[0] == folder:
            yield path, content


def _temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".")


def _read(data: bytes | str | None) -> dict[str, Any]:
    """A JSON object, or nothing when it is none."""
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _signed_version(data: bytes | str | None) -> int:
    return int(_read(data).get("signed", {}).get("version", 0))


def _roots(files: Mapping[str, bytes | str | None]) -> list[int]:
    """Versions of the roots that were followed and are whole."""
    names = [path for path in files if path.startswith(f"{METADATA}root_history/")]
    return [_signed_version(files[path]) for path in names if path.endswith(".root.json")]


def owed(tree: Tree) -> Promise:
    """What a device may be held to whose disk lost nothing, such as when its process is killed."""
    disk, promise = Disk.of(tree), Promise()
    for folder in sorted({path.rpartition("/")[0] for path in tree}):
        promise = promised(promise, disk, folder)
    return promise


# -- paying ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One state of the disk to judge.

    Attributes:
        where: how it came about, for a person.
        offline, online: start without a broker, then with one; what the first start left is what
            the second one finds.
    """

    where: str
    tree: Tree
    promise: Promise
    offline: bool = True
    online: bool = True


@dataclass
class Verdict:
    """What is owed and was not paid. ``left``: names the disk that the start without a broker
    left, less what differs from start to start."""

    faults: list[str]
    left: str = ""


class Court:
    """Judges the states of one scene, one at a time, with a folder and a broker of its own."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self._scene = scene
        self.folder = folder
        self.top = folder / "top"
        self.broker = BrokerThread()
        self.broker.start()
        for topic, payload in scene.retained.items():
            self.broker.publish(topic, payload, retain=True)

    @property
    def url(self) -> str:
        return str(self.broker.url)

    def close(self) -> None:
        self.broker.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def judge(self, job: Job) -> Verdict:
        """Put the disk's state in place, start the agent, and look."""
        verdict = Verdict([])
        try:
            put_on(job.tree, self.top)
            if job.offline:
                self._offline(job)
                verdict.left = self._left()
            if job.online:
                self._online(job)
        except (AssertionError, EdgeError, OSError) as error:
            verdict.faults.append(
                f"{self._scene.name}: {job.where}: {type(error).__name__}: {error}"
            )
        return verdict

    def _left(self) -> str:
        """Boot numbers, status and what this start itself had to say differ each time."""
        boot = f"{last_boot(Folder(self.top / 'state')):010d}"
        return digest(
            {
                path: content for path, content in tree_on(self.top).items()
                if path not in BOOKS and boot not in path
            }
        )  # fmt: skip

    # -- 1 to 5: without a broker --------------------------------------------------------------

    def _offline(self, job: Job) -> None:
        point_at(self.top, NO_BROKER)
        promise, config = job.promise, self._config()
        if not self._enrolled(config, promise):
            return
        with self._agent(config) as agent:  # 1.
            self._answers(agent, must=promise.answers)  # 2.
            boot = agent.status().boot
            assert boot > promise.boot, f"boot {boot} again, {promise.boot} was used"  # 3.
        for path, content in promise.kept:  # 4.
            found = self.top / path
            assert found.is_file(), f"{path} is lost"
            assert found.read_bytes() == content, f"{path} is damaged"
        self._not_behind(promise)  # 5.

    def _enrolled(self, config: Config, promise: Promise) -> bool:
        """Whether the device trusts a publisher; one that was told so must, another is told."""
        if delivery_of(config).enrolled:
            return True
        assert not promise.enrolled, "the device forgot whom it trusts"
        enroll(config, self._scene.root, "")
        return True

    def _answers(self, agent: Agent, *, must: bool) -> None:
        """What answers was signed and is right; something does, where it ``must``."""
        allowed = {VERSIONS[name].answer: name for name in self._scene.goal.answers}

        def answer() -> float | None:
            try:
                prediction = agent.predict(MODEL, GOOD_ROW)
            except EdgeError:
                return None
            assert not isinstance(prediction, list)
            return prediction.value

        value = wait_for(answer, "an answer from disk", 20) if must else answer()
        if value is not None:
            near = [name for right, name in allowed.items() if abs(right - value) < 1e-3]
            assert near, f"answered {value}, which none of {sorted(allowed.values())} says"

    def _not_behind(self, promise: Promise) -> None:
        metadata = self.top / METADATA
        paths = [*metadata.glob("root_history/*.root.json")]
        roots = _roots({str(p.relative_to(self.top)): p.read_bytes() for p in paths})
        assert max([0, *roots]) >= promise.root, f"root {roots}, {promise.root} was on disk"
        timestamp = metadata / "timestamp.json"
        version = _signed_version(timestamp.read_bytes()) if timestamp.exists() else 0
        assert version >= promise.timestamp, f"timestamp {version}, was {promise.timestamp}"
        desired = state.load_desired(Folder(self.top / "state"))
        revision = desired.revision if desired else 0
        assert revision >= promise.revision, f"desired {revision}, was {promise.revision}"

    # -- 6 to 8: with one ----------------------------------------------------------------------

    def _online(self, job: Job) -> None:
        point_at(self.top, self.url)
        config, goal = self._config(), self._scene.goal
        self._enrolled(config, job.promise)
        folder = Folder(self.top / "state")
        ear = Ear(self.url)
        try:
            with self._agent(config) as agent:
                self._to_the_goal(agent, folder, goal)  # 6.
                self._answers(agent, must=True)
                self._arrived(job, ear)  # 7.
        finally:
            ear.stop()
        self._tidy(folder)  # 8.

    def _to_the_goal(self, agent: Agent, folder: Folder, goal: Goal) -> None:
        def there() -> bool:
            with contextlib.suppress(EdgeError):
                agent.predict(MODEL, GOOD_ROW)
                if goal.bad_rows:
                    agent.predict(MODEL, BAD_ROW)
            return reached(self._state(folder), goal)

        try:
            wait_for(there, f"{goal.version} {goal.phase}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self._state(folder)}") from error

    def _arrived(self, job: Job, ear: Ear) -> None:
        ids = {_identity(path): content for path, content in job.promise.kept}
        wait_for(lambda: ids.keys() <= ear.heard.keys(), f"{sorted(ids)} to arrive")
        assert not ear.clashes, f"two messages called {ear.clashes}"
        for key in ear.heard.keys() & self._scene.heard.keys():
            assert ear.heard[key] == self._scene.heard[key], f"{key} stood for another message"

    def _tidy(self, folder: Folder) -> None:
        now = self._state(folder)
        assert now is not None
        slots = {path.name for path in folder.slots.iterdir()}
        assert slots == now.kept, f"slots {slots}, kept are {now.kept}"
        for sha256 in now.kept:
            slot.verify(folder.slot(sha256), sha256)
        left = [p for p in folder.path.rglob("*") if p.name.startswith(".") or _is_chunk(p)]
        assert not left, f"left over: {[str(p.relative_to(folder.path)) for p in left]}"

    # -- small steps ---------------------------------------------------------------------------

    def _config(self) -> Config:
        return configs.load(self.top / "agent.toml", {})

    def _agent(self, config: Config) -> Agent:
        """The real one, on a machine whose clock lost the time."""
        began_s = time.monotonic()
        clocks = Clocks(
            wall=lambda: WOKE_UP_S + time.monotonic() - began_s, synchronised=lambda: False
        )
        return Agent(config, clocks=clocks)

    def _state(self, folder: Folder) -> state.State | None:
        path = folder.state(MODEL)
        return state.decode(path.read_bytes()) if path.exists() else None


def _is_chunk(path: Path) -> bool:
    return path.parent.name == "chunks"


def _identity(path: str) -> str:
    boot, seq = path.rpartition("/")[2].split(".")[0].split("-")
    kind = "record" if path.startswith("state/spool/") else "event"
    return f"{kind} {int(boot)}-{int(seq)}"

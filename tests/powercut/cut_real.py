"""Reality: the agent's process killed before its k-th disk or network call, for every k.

Guards: the calls of all threads and children are counted together, in the order in which they
happen; the one that is cut off is not made.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cut_launch import BOARD, NETWORK, READY, TAKEN, names
from cut_scenes import STORIES, Stage, point_at, within
from cut_verdict import Court, Job, owed
from cut_world import Scene, put_on, tree_on

_LAUNCH = Path(__file__).with_name("cut_launch.py")
_RECV, _SEND = 0xC0502100, 0xC0182101
_NOTICE, _ANSWER = struct.Struct("<QIIiIQ6Q"), struct.Struct("<QqiI")
_CONTINUE = 1
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
_libc = ctypes.CDLL(None, use_errno=True)


class Held:
    """A process of the agent whose calls are counted, and which is killed before the ``k``-th.

    ``k`` 0: never.
    """

    def __init__(self, folder: Path, log: Path, k: int, *command: str) -> None:
        self.count = self.disk = 0
        self._k = k
        self._names = names()
        board_path = folder / "board"
        board_path.write_bytes(bytes(BOARD.size))
        with log.open("a") as said:
            self.process = subprocess.Popen(
                [sys.executable, str(_LAUNCH), *command],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder,
                env={**os.environ, "CUT_BOARD": str(board_path), "OMP_NUM_THREADS": "1",
                     "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip
        with board_path.open("r+b") as file, mmap.mmap(file.fileno(), BOARD.size) as board:
            while BOARD.unpack_from(board)[1] != READY:
                assert self.process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.005)
            theirs = BOARD.unpack_from(board)[0]
            pidfd = _called(_PIDFD_OPEN, self.process.pid, 0)
            self._listener = _called(_PIDFD_GETFD, pidfd, theirs, 0)
            os.close(pidfd)
            BOARD.pack_into(board, 0, theirs, TAKEN)
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)

    def let(self, wait_ms: int) -> bool:
        """Let calls go on for so long; whether the process is still there."""
        end = time.monotonic() + wait_ms / 1000
        while self.process.poll() is None:
            left_ms = max(int(1000 * (end - time.monotonic())), 0)
            ready = self._poll.poll(left_ms)
            if not ready:
                return True
            if ready[0][1] & select.POLLIN:
                self._one()
            elif ready[0][1] & select.POLLHUP:
                self.process.wait()
            if time.monotonic() > end:
                return self.process.poll() is None
        return False

    def _one(self) -> None:
        """Decide about one call: made, or never."""
        notice = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(self._listener, _RECV, notice)
        except OSError:  # its thread was killed meanwhile
            return
        call, _, _, number, *_ = _NOTICE.unpack(notice)
        self.count += 1
        self.disk += self._names.get(number) not in NETWORK
        if self.count == self._k:
            self.kill()
            return
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(call, 0, 0, _CONTINUE))

    def kill(self) -> None:
        """As a power cut does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        os.close(self._listener)


def _called(number: int, *args: int) -> int:
    done = int(_libc.syscall(number, *args))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


@dataclass
class Life:
    """How a killed life went. ``count``: calls made; ``over``: it ended before the ``k``-th."""

    count: int = 0
    disk: int = 0
    over: bool = False
    faults: list[str] = field(default_factory=list)


def cut(court: Court, scene: Scene, k: int) -> Life:
    """Play the story, kill the agent before its ``k``-th call, and see that it pulls through."""
    story = next(each for each in STORIES if each.name == scene.name)
    put_on(scene.before, court.top)
    point_at(court.top, court.url)
    life = Life()
    log = court.folder / "agent.log"
    log.write_bytes(b"")
    commands = [("run", "--config", str(court.top / "agent.toml"))]
    if story.enrolls:
        root = court.folder / "root.json"
        root.write_bytes(scene.root)
        enroll = ("enroll", "--config", str(court.top / "agent.toml"), "--root", str(root))
        commands.insert(0, enroll)
    stage = Stage(court.top, court.broker, scene.goal)
    try:
        for command in commands:
            held = Held(court.folder, log, max(k - life.count, 0) if k else 0, *command)
            try:
                _live(held, stage, story.play(stage) if command[0] == "run" else iter(()))
            finally:
                held.close()
            life.count += held.count
            life.disk += held.disk
            if k and life.count >= k:
                break
        else:
            life.over = True
    except AssertionError as error:
        said = log.read_text()[-1500:]
        life.faults.append(f"{scene.name}: before call {k}: {error}\n{said}")
        return life
    finally:
        stage.close()
    tree = tree_on(court.top)
    life.faults += court.judge(Job(f"killed before call {k}", tree, owed(tree))).faults
    return life


def _live(held: Held, stage: Stage, play: Iterator[None]) -> None:
    """Let it play to its end, then ask it to stop; it may be killed anywhere."""
    for _ in within(play, stage.goal.version, pause_s=0.0):
        if not held.let(10):
            return
    if held.process.args[2] == "run":
        held.process.terminate()
    while held.let(100):
        pass

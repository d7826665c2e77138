"""What a real process did to its folder, read from strace and done again on the model disk.

Guards: a system call that changes the folder in a way that is not modelled ends the replay with an
error; nothing is passed over in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cut_disk import Disk

DISK_CALLS = (
    "open", "openat", "creat", "write", "writev", "pwrite64", "pwritev", "pwritev2", "rename",
    "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "fsync",
    "fdatasync", "sync_file_range", "syncfs", "sync", "ftruncate", "truncate", "fallocate",
    "copy_file_range", "sendfile", "link", "linkat", "symlink", "symlinkat", "lseek",
)  # fmt: skip
NET_CALLS = (
    "connect", "sendto", "sendmsg", "recvfrom", "recvmsg", "accept4", "shutdown",
)  # fmt: skip
STRACE = (
    "strace", "-f", "-qq", "-y", "-xx", "-s", "4000000", "--seccomp-bpf",
    "-e", "signal=none", "-e", f"trace={','.join(DISK_CALLS + NET_CALLS)}", "-o",
)  # fmt: skip

_LINE = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)")
_UNFINISHED = re.compile(r"(?P<call>\w+\(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(?P<rest>.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<args>.*)\) += (?P<result>-?\d+|\?)")
_FD = re.compile(r"(?P<fd>-?\d+|AT_FDCWD)<(?P<path>[^>]*)>(?P<deleted>\(deleted\))?")


@dataclass(frozen=True)
class Call:
    """A system call that succeeded, in the order of their ends."""

    name: str
    args: tuple[str, ...]
    result: int


def read(path: Path) -> Iterator[Call]:
    """The calls in a log written with ``STRACE``."""
    begun: dict[str, str] = {}
    with path.open() as log:
        for line in log:
            found = _LINE.match(line.rstrip("\n"))
            if not found:
                continue
            pid, rest = found["pid"], found["rest"]
            if cut := _UNFINISHED.match(rest):
                begun[pid] = cut["call"]
                continue
            if resumed := _RESUMED.match(rest):
                rest = begun.pop(pid, "") + resumed["rest"]
            call = _CALL.match(rest)
            if call and call["result"] != "?" and int(call["result"]) >= 0:
                yield Call(call["name"], tuple(call["args"].split(", ")), int(call["result"]))


class Replay:
    """Does the calls again on ``disk``, which stands for the folder ``top``."""

    def __init__(self, disk: Disk, top: Path) -> None:
        self.disk = disk
        self._top = f"{top}/"
        self._at: dict[int, int] = {}
        self.flushed: str | None = None
        """The folder that the last call flushed, if it did."""

    def do(self, call: Call) -> str:
        """What the call was: "disk", "net", or "" for one that has nothing to do with ``top``."""
        self.flushed = None
        if call.name in NET_CALLS:
            return "net"
        handler = getattr(self, f"_{call.name}", None)
        if handler is None:
            if any(self._inside(_path(arg)) for arg in call.args):
                raise NotImplementedError(f"{call} changes the folder in a way not modelled")
            return ""
        return "disk" if handler(call) else ""

    # -- each returns whether it changed or flushed anything in the folder -------------------

    def _openat(self, call: Call) -> bool:
        path = self._named(call.args[0], call.args[1])
        flags = call.args[2].split("|")
        changed = False
        if path is None:
            self._at.pop(call.result, None)
            return False
        if not self.disk.exists(path):
            if "O_CREAT" not in flags:
                return False
            self.disk.make(path, b"")
            changed = True
        node = self.disk.find(path)
        content = self.disk.now[node]
        if "O_TRUNC" in flags and content:
            self.disk.resize(node, 0)
            changed = True
        self._at[call.result] = len(content) if "O_APPEND" in flags and not changed else 0
        return changed

    def _write(self, call: Call) -> bool:
        fd, node = self._open_file(call.args[0])
        if node is None:
            return False
        data = _bytes(call.args[1])[: call.result]
        assert len(data) == call.result, "strace cut a write short"
        self.disk.write(node, self._at[fd], data)
        self._at[fd] += len(data)
        return True

    def _pwrite64(self, call: Call) -> bool:
        _, node = self._open_file(call.args[0])
        if node is None:
            return False
        self.disk.write(node, int(call.args[3]), _bytes(call.args[1])[: call.result])
        return True

    def _sendfile(self, call: Call) -> bool:
        to, node = self._open_file(call.args[0])
        source, origin = self._open_file(call.args[1])
        if node is None:
            return False
        assert origin is not None, "a copy from outside the folder"
        content = self.disk.now[origin]
        assert isinstance(content, bytes)
        offset = re.match(r"\[(\d+)\]", call.args[2])
        at = int(offset[1]) if offset else self._at[source]
        self.disk.write(node, self._at[to], content[at : at + call.result])
        self._at[to] += call.result
        return True

    def _lseek(self, call: Call) -> bool:
        fd, node = self._open_file(call.args[0])
        if node is not None:
            self._at[fd] = call.result
        return False

    def _ftruncate(self, call: Call) -> bool:
        _, node = self._open_file(call.args[0])
        if node is not None:
            self.disk.resize(node, int(call.args[1]))
        return node is not None

    def _fsync(self, call: Call) -> bool:
        _, node = self._open_file(call.args[0])
        if node is None:
            return False
        self.disk.flush(node)
        if isinstance(self.disk.now[node], dict):
            self.flushed = _path(call.args[0]).removeprefix(self._top[:-1]).strip("/")
        return True

    _fdatasync = _fsync

    def _rename(self, call: Call) -> bool:
        return self._renamed(self._named(None, call.args[0]), self._named(None, call.args[1]))

    def _renameat(self, call: Call) -> bool:
        return self._renamed(self._named(*call.args[0:2]), self._named(*call.args[2:4]))

    _renameat2 = _renameat

    def _renamed(self, old: str | None, new: str | None) -> bool:
        if old is None and new is None:
            return False
        assert old is not None and new is not None, "a rename across the folder's border"
        self.disk.rename(old, new)
        return True

    def _unlink(self, call: Call) -> bool:
        return self._removed(self._named(None, call.args[0]))

    _rmdir = _unlink

    def _unlinkat(self, call: Call) -> bool:
        return self._removed(self._named(*call.args[0:2]))

    def _removed(self, path: str | None) -> bool:
        if path is not None:
            self.disk.remove(path)
        return path is not None

    def _mkdir(self, call: Call) -> bool:
        return self._made_folder(self._named(None, call.args[0]))

    def _mkdirat(self, call: Call) -> bool:
        return self._made_folder(self._named(*call.args[0:2]))

    def _made_folder(self, path: str | None) -> bool:
        if path is not None:
            self.disk.make(path, {})
        return path is not None

    def _symlink(self, call: Call) -> bool:
        path = self._named(None, call.args[1])
        if path is not None:
            self.disk.make(path, _bytes(call.args[0]).decode())
        return path is not None

    # -- arguments ---------------------------------------------------------------------------

    def _inside(self, path: str) -> bool:
        return path.startswith(self._top)

    def _named(self, folder: str | None, name: str) -> str | None:
        """A path argument as the model's, or None when it lies outside."""
        path = _bytes(name).decode()
        if not path.startswith("/"):
            assert folder is not None, f"a relative path {path} with no folder"
            path = f"{_path(folder)}/{path}"
        return path.removeprefix(self._top) if self._inside(path) else None

    def _open_file(self, arg: str) -> tuple[int, int | None]:
        """A descriptor's number, and its node when it lies inside and has a name."""
        found = _FD.match(arg)
        if not found or found["deleted"]:
            return -1, None
        path = _unhex(found["path"])
        if path == self._top[:-1]:
            return int(found["fd"]), self.disk.find("")
        if not self._inside(path):
            return int(found["fd"]), None
        return int(found["fd"]), self.disk.find(path.removeprefix(self._top))


def _path(arg: str) -> str:
    """The path in an argument, of either kind; "" without one."""
    if found := _FD.match(arg):
        return _unhex(found["path"])
    return _bytes(arg).decode(errors="replace") if arg.startswith('"') else ""


def _unhex(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode() if text.startswith("\\x") else text


def _bytes(arg: str) -> bytes:
    assert arg.startswith('"') and arg.endswith('"'), arg[:80]
    return bytes.fromhex(arg[1:-1].replace("\\x", ""))

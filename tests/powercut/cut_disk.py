"""A disk that forgets: what may be found on it after the power went. Pure.

Guards: whatever POSIX leaves open is tried, not only what one file system happens to do. The model
is that of ALICE (Pillai et al., OSDI '14) and CrashMonkey (Mohan et al., OSDI '18):

 - a write to a file is lost, whole, in part or as zeroes, until that file was flushed (fsync);
 - a name in a folder (made, removed, changed) is lost until that *folder* was flushed, each name
   for itself and in any order; flushing a file does not keep its name;
 - a rename is one name made and one removed: the old one may stay, the new one never comes late;
 - what was flushed stays.

Operations on one file's bytes, or on the names in one folder, are kept in order where they are
kept; everything else is free.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

File = bytes
Folder = dict[str, int]
Link = str
Node = File | Folder | Link
Image = dict[int, Node]
"""Nodes by number; node 0 is the folder at the top."""
Tree = dict[str, bytes | str | None]
"""What a person would find: path -> bytes of a file, target of a link, None for a folder."""

ROOT = 0
SUBSETS_MAX = 6
"""Up to so many operations not on disk yet, every subset of them is tried."""
RECENT = 12
"""Beyond that, single operations are tried among so many of the newest."""
SECTOR = 512


@dataclass(frozen=True)
class Op:
    """One change that is not on disk yet.

    ``node``: the file written to or the folder whose names change. A write has ``data`` at ``at``
    (``data`` None: cut to ``at`` bytes); a name is set to node ``to`` or removed (``to`` None).
    ``needs``: the serial number of the operation without which this one cannot be there.
    """

    serial: int
    node: int
    name: str | None = None
    to: int | None = None
    at: int = 0
    data: bytes | None = None
    needs: int | None = None

    @property
    def of_file(self) -> bool:
        return self.name is None


def apply(image: Image, op: Op) -> None:
    """Do ``op`` in ``image``; nodes in it are replaced, never changed."""
    node = image.get(op.node)
    if op.name is None:
        assert isinstance(node, bytes)
        if op.data is None:
            image[op.node] = node[: op.at].ljust(op.at, b"\0")
        else:
            head = node[: op.at].ljust(op.at, b"\0")
            image[op.node] = head + op.data + node[op.at + len(op.data) :]
        return
    assert isinstance(node, dict)
    names = dict(node)
    if op.to is None:
        names.pop(op.name, None)
    else:
        names[op.name] = op.to
    image[op.node] = names


@dataclass
class Disk:
    """What was written, and what of it is on disk.

    ``now``: as the running program sees it. ``durable``: what a power cut leaves for sure.
    """

    durable: Image = field(default_factory=lambda: {ROOT: {}})
    now: Image = field(default_factory=lambda: {ROOT: {}})
    pending: list[Op] = field(default_factory=list)
    _serial: int = 0
    _node: int = 0

    @classmethod
    def of(cls, tree: Tree) -> Disk:
        """A disk on which all of ``tree`` is flushed."""
        disk = cls()
        for path in sorted(tree):
            content = tree[path]
            disk.make(path, {} if content is None else content)
            if isinstance(content, bytes):
                disk.now[disk.find(path)] = content
        disk.durable, disk.pending = dict(disk.now), []
        return disk

    def copy(self) -> Disk:
        """This moment, to go on from in another way."""
        return replace(
            self, durable=dict(self.durable), now=dict(self.now), pending=list(self.pending)
        )

    def settle(self, path: str, content: bytes) -> None:
        """Have the file hold ``content``, flushed: done by somebody else."""
        node = self.find(path)
        self.now[node] = self.durable[node] = content
        self.pending = [op for op in self.pending if op.node != node]

    # -- looking ---------------------------------------------------------------------------

    def find(self, path: str) -> int:
        """The node at ``path``. Raises KeyError."""
        node = ROOT
        for part in filter(None, path.split("/")):
            names = self.now[node]
            assert isinstance(names, dict), path
            node = names[part]
        return node

    def exists(self, path: str) -> bool:
        try:
            self.find(path)
        except KeyError:
            return False
        return True

    def tree(self) -> Tree:
        """As the running program sees it."""
        return tree_of(self.now)

    # -- changing --------------------------------------------------------------------------

    def make(self, path: str, node: Node) -> int:
        """A new file (empty), folder or link. A link's target is written with its name."""
        folder, name = self._place(path)
        self._node += 1
        number = self._node
        new: Node = b"" if isinstance(node, bytes) else node
        self.now[number] = self.durable[number] = new
        self._do(folder, name=name, to=number)
        return number

    def write(self, node: int, at: int, data: bytes) -> None:
        self._do(node, at=at, data=data)

    def resize(self, node: int, size: int) -> None:
        self._do(node, at=size)

    def remove(self, path: str) -> None:
        self.find(path)
        folder, name = self._place(path)
        self._do(folder, name=name)

    def rename(self, old: str, new: str) -> None:
        node = self.find(old)
        folder, name = self._place(new)
        made = self._do(folder, name=name, to=node)
        folder, name = self._place(old)
        self._do(folder, name=name, needs=made)

    def flush(self, node: int) -> None:
        """fsync of a file or folder."""
        rest = []
        done: set[int] = set()
        for op in self.pending:
            if op.node == node or op.needs in done:
                apply(self.durable, op)
                done.add(op.serial)
            else:
                rest.append(op)
        self.pending = rest

    def _place(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        return self.find(folder), name

    def _do(
        self,
        node: int,
        *,
        name: str | None = None,
        to: int | None = None,
        at: int = 0,
        data: bytes | None = None,
        needs: int | None = None,
    ) -> int:
        self._serial += 1
        op = Op(self._serial, node, name, to, at, data, needs)
        apply(self.now, op)
        self.pending.append(op)
        return op.serial

    # -- the power goes --------------------------------------------------------------------

    def crashes(self) -> Iterator[tuple[str, Tree]]:
        """What may be found if the power goes now: how it came about, and the tree; unordered,
        each as often as it may come about."""
        pending = self.pending
        yield "all kept", self._after(pending)
        yield "nothing kept", self._after([])
        yield from self._torn(pending)
        if len(pending) <= SUBSETS_MAX:
            for n in range(1, len(pending)):
                for kept in itertools.combinations(pending, n):
                    yield f"kept {_said(kept)}", self._after(kept)
            return
        for i in range(max(len(pending) - RECENT, 1), len(pending)):
            one = pending[i]
            yield f"lost only {_said([one])}", self._after([op for op in pending if op is not one])
            yield f"kept only {_said([one])}", self._after([one])
            yield f"kept the first {i}", self._after(pending[:i])
            yield f"lost the first {i}", self._after(pending[i:])
        for file in {op.node for op in pending if op.of_file}:
            others = [op for op in pending if op.node != file]
            yield f"lost the bytes of file {file}", self._after(others)

    def _torn(self, pending: list[Op]) -> Iterator[tuple[str, Tree]]:
        """Names kept, bytes not: gone, zeroes, or only the first part of the last write."""
        files = list(dict.fromkeys(op.node for op in pending if op.of_file))
        names = [op for op in pending if not op.of_file]
        if not files:
            return
        yield "all names, no bytes", self._after(names)
        zeroed = [op if op.data is None else _blank(op) for op in pending]
        yield "all names, zeroes", self._after(zeroed)
        for file in files[-3:]:
            writes = [op for op in pending if op.node == file and op.data]
            if writes:
                last = writes[-1]
                yield (
                    f"the last write to file {file} torn",
                    self._after([_part(op) if op is last else op for op in pending]),
                )

    def _after(self, kept: list[Op] | tuple[Op, ...]) -> Tree:
        image = dict(self.durable)
        done: set[int] = set()
        for op in kept:
            if op.needs is None or op.needs in done:
                apply(image, op)
                done.add(op.serial)
        return tree_of(image)


def _blank(op: Op) -> Op:
    assert op.data is not None
    return Op(op.serial, op.node, at=op.at, data=bytes(len(op.data)))


def _part(op: Op) -> Op:
    """The first sectors of a write, about half of it; of a short one the first half."""
    assert op.data is not None
    half = len(op.data) // 2
    keep = half - half % SECTOR if half >= SECTOR else half
    return Op(op.serial, op.node, at=op.at, data=op.data[:keep])


def _said(ops: list[Op] | tuple[Op, ...]) -> str:
    return ", ".join(f"#{op.serial} {op.name or 'bytes'}" for op in ops)


def tree_of(image: Image) -> Tree:
    """What is reachable from the top."""
    tree: Tree = {}
    todo = [("", ROOT)]
    while todo:
        path, number = todo.pop()
        node = image[number]
        if isinstance(node, dict):
            if path:
                tree[path] = None
            todo.extend((f"{path}/{name}" if path else name, to) for name, to in node.items())
        else:
            tree[path] = node
    return tree


def digest(tree: Tree) -> str:
    """The same for the same tree."""
    hasher = hashlib.sha256()
    for path in sorted(tree):
        content = tree[path]
        kind = "d" if content is None else "l" if isinstance(content, str) else "f"
        raw = content.encode() if isinstance(content, str) else content or b""
        hasher.update(f"{kind} {len(raw)} {path}\n".encode())
        hasher.update(raw)
    return hasher.hexdigest()

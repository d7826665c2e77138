"""The disk that forgets forgets as disks do, and tells sound writers from careless ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cut_disk import Disk, Tree, digest
from cut_trace import STRACE, Call, Replay, read
from cut_world import put_on, tree_on

BEFORE: Tree = {"file": b"old"}
Trees = list[Tree]
Trace = Callable[[Tree, str], tuple[Disk, list[Trees]]]


def found(disk: Disk) -> Trees:
    return list({digest(tree): tree for _, tree in disk.crashes()}.values())


# -- the model -----------------------------------------------------------------------------------


def test_what_was_not_flushed_may_be_there_in_part_as_zeroes_or_not_at_all() -> None:
    disk = Disk.of({"file": b""})
    disk.write(disk.find("file"), 0, b"12345678")
    contents = {tree["file"] for tree in found(disk)}
    assert contents == {b"", b"12345678", bytes(8), b"1234"}
    disk.flush(disk.find("file"))
    assert found(disk) == [{"file": b"12345678"}]


def test_a_name_is_lost_until_its_folder_is_flushed_though_the_file_was() -> None:
    disk = Disk.of({"folder": None})
    file = disk.make("folder/file", b"")
    disk.write(file, 0, b"x")
    disk.flush(file)
    assert {"folder": None} in found(disk)
    disk.flush(disk.find("folder"))
    assert found(disk) == [{"folder": None, "folder/file": b"x"}]


def test_a_folder_that_was_not_flushed_takes_what_was_flushed_in_it_away() -> None:
    disk = Disk()
    folder = disk.make("folder", {})
    file = disk.make("folder/file", b"")
    disk.flush(file)
    disk.flush(folder)
    assert {} in found(disk)
    disk.flush(disk.find(""))
    assert found(disk) == [{"folder": None, "folder/file": b""}]


def test_a_rename_puts_one_of_the_two_files_there_and_may_leave_the_old_name() -> None:
    disk = Disk.of({"file": b"old", "new": b"new"})
    disk.rename("new", "file")
    assert sorted(map(sorted, (tree.items() for tree in found(disk)))) == [
        [("file", b"new")],
        [("file", b"new"), ("new", b"new")],
        [("file", b"old"), ("new", b"new")],
    ]


def test_a_removal_may_come_back_and_removals_in_any_order() -> None:
    disk = Disk.of({"a": b"", "b": b""})
    disk.remove("a")
    disk.remove("b")
    assert sorted(map(sorted, found(disk))) == [[], ["a"], ["a", "b"], ["b"]]


def test_every_crash_lies_between_what_is_durable_and_what_the_program_sees() -> None:
    """Many operations: the program's view and the durable one are among what is found."""
    disk = Disk.of({"folder": None, **{f"folder/{i}": b"%d" % i for i in range(10)}})
    for i in range(10):
        node = disk.make(f"folder/.{i}", b"")
        disk.write(node, 0, b"new %d" % i)
        if i % 2:
            disk.flush(node)
        disk.rename(f"folder/.{i}", f"folder/{i}")
    trees = found(disk)
    assert disk.tree() in trees
    assert {"folder": None, **{f"folder/{i}": b"%d" % i for i in range(10)}} in trees
    for tree in trees:
        for i in range(1, 10, 2):  # flushed before the rename: whole, old or new
            assert tree[f"folder/{i}"] in (b"%d" % i, b"new %d" % i)
    assert any(tree["folder/0"] == b"" for tree in trees)  # not flushed


# -- real writers --------------------------------------------------------------------------------

SOUND = "from edge_contract.ports.disk import write_atomic as w; w(top / '{0}', b'the new')"
CARELESS = {
    "in place": "(top / 'file').write_bytes(b'the new')",
    "without flushing the file": (
        "(top / '.f').write_bytes(b'the new'); (top / '.f').replace(top / 'file')"
    ),
    "removed first": (
        "f = open(top / '.f', 'wb'); f.write(b'the new'); f.flush(); os.fsync(f.fileno());"
        "os.unlink(top / 'file'); os.rename(top / '.f', top / 'file')"
    ),
}


@pytest.fixture
def trace(strace: str, tmp_path: Path) -> Trace:
    """Runs a program on a folder; the disk at its end, and what is found after each call."""

    def run(before: Tree, program: str) -> tuple[Disk, list[Trees]]:
        top, log = tmp_path / "top", tmp_path / "log"
        put_on(before, top)
        code = f"import os; from pathlib import Path; top = Path({str(top)!r}); {program}"
        subprocess.run([*STRACE, str(log), sys.executable, "-c", code], check=True, timeout=60)
        disk = Disk.of(before)
        replay = Replay(disk, top)
        crashes = [found(disk) for call in read(log) if replay.do(call) == "disk"]
        assert disk.tree() == tree_on(top)
        return disk, crashes

    return run


def test_write_atomic_leaves_the_old_or_the_new_at_every_cut(trace: Trace) -> None:
    disk, crashes = trace(BEFORE, SOUND.format("file"))
    assert len(crashes) >= 5
    for trees in crashes:
        assert {tree["file"] for tree in trees} <= {b"old", b"the new"}
    assert found(disk) == [{"file": b"the new"}]


def test_write_atomic_keeps_the_folders_that_it_made(trace: Trace) -> None:
    disk, _ = trace({}, SOUND.format("deep/er/file"))
    assert [tree["deep/er/file"] for tree in found(disk)] == [b"the new"]


@pytest.mark.parametrize("how", CARELESS)
def test_a_careless_writer_is_found_out(how: str, trace: Trace) -> None:
    _, crashes = trace(BEFORE, CARELESS[how])
    contents = {tree.get("file") for trees in crashes for tree in trees}
    assert contents - {b"old", b"the new"}


def test_a_call_that_is_not_modelled_ends_the_replay(tmp_path: Path) -> None:
    path = '"' + "".join(f"\\x{byte:02x}" for byte in f"{tmp_path}/file".encode()) + '"'
    replay = Replay(Disk(), tmp_path)
    assert replay.do(Call("fallocate", ("3</elsewhere>", "0", "0", "10"), 0)) == ""
    with pytest.raises(NotImplementedError, match="truncate"):
        replay.do(Call("truncate", (path, "0"), 0))

"""A file is written wholly or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports import disk


def test_a_write_leaves_the_file_and_nothing_else(tmp_path: Path) -> None:
    disk.write_atomic(tmp_path / "deep" / "file", b"one")
    disk.write_atomic(tmp_path / "deep" / "file", b"two", mode=0o600)
    assert (tmp_path / "deep" / "file").read_bytes() == b"two"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file"]
    assert (tmp_path / "deep" / "file").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_made_is_a_fault_of_this_machine() -> None:
    with pytest.raises(MachineFault, match="cannot write"):
        disk.write_atomic(Path("/dev/full/file"), b"x")


def test_a_device_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    """A rename onto /dev/null, as root, would put the file in its place for everyone."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (lambda: disk.write_atomic(pipe, b"x"), lambda: disk.check_place(pipe)):
        with pytest.raises(MachineFault, match="no regular file"):
            write()
    assert pipe.is_fifo() and [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_a_place_is_checked_before_long_work(tmp_path: Path) -> None:
    disk.check_place(tmp_path / "to" / "be" / "made")
    assert not (tmp_path / "to").exists()
    (tmp_path / "file").touch()
    with pytest.raises(MachineFault, match="is not a folder"):
        disk.check_place(tmp_path / "file" / "x")
    if os.geteuid() != 0:  # root writes everywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(MachineFault, match="is not writable"):
            disk.check_place(tmp_path / "closed" / "x")


def test_a_limit_on_file_size_leaves_the_old_file(tmp_path: Path) -> None:
    """A real refusal by the kernel in mid-write, in a child so that the limit is its own."""
    path = tmp_path / "file"
    disk.write_atomic(path, b"old")
    pid = os.fork()
    if pid == 0:  # pragma: no cover - runs in the child
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            disk.write_atomic(path, bytes(5000))
        except MachineFault:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_bounded_read_refuses_what_is_too_large_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert disk.read_bounded(tmp_path / "file", 5) == b"12345"
    with pytest.raises(InputFault, match="over the limit"):
        disk.read_bounded(tmp_path / "file", 4)
    with pytest.raises(InputFault, match="No such file"):
        disk.read_bounded(tmp_path / "none", 4)


def test_what_a_writer_left_that_was_cut_off_goes_and_nothing_else(tmp_path: Path) -> None:
    disk.write_atomic(tmp_path / "deep" / "file", b"one")
    for name in (".file.abcd1234.tmp", "deep/.file.abcd1234.tmp"):
        (tmp_path / name).write_bytes(b"half")
    for name in (".file", "file.tmp", "deep/.other"):
        (tmp_path / name).write_bytes(b"somebody's")
    disk.settle(tmp_path, ".file.*.tmp", deep=False)
    assert not (tmp_path / ".file.abcd1234.tmp").exists()
    assert (tmp_path / "deep" / ".file.abcd1234.tmp").exists()
    disk.settle(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {".file", "file.tmp", "deep", "deep/file", "deep/.other"}
    disk.settle(tmp_path / "none")

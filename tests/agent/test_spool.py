"""The spool: bounded, in order, whole records only, whatever kills the writer or fills the disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.telemetry import Spool
from edge_agent.telemetry.spool import BLOCK_BYTES
from edge_contract import telemetry
from edge_contract.errors import InputFault, MachineFault
from edge_contract.telemetry import Record, pack_counts


def record(seq: int, *, boot: int = 1, cells: int = 40, dropped: int = 0) -> Record:
    return Record(
        schema=1, device="pi-1", boot=boot, seq=seq, model="pump", version="1.0",
        bundle=bytes(32), start_ms=0, end_ms=1000, synchronised=True, rows=1, refused=0, failed=0,
        coding=telemetry.CODING_LEB128, counts=pack_counts([1] * cells),
        latency=pack_counts([0] * telemetry.LATENCY_BUCKETS), dropped=dropped,
    )  # fmt: skip


def waiting(spool: Spool) -> list[tuple[int, int]]:
    return [key for key, _ in spool.pending()]


def test_records_come_back_in_order_and_whole_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for boot, seq in [(1, 0), (1, 1), (1, 10), (2, 0)]:
        spool.append(record(seq, boot=boot))
    for again in (spool, Spool(tmp_path)):
        assert waiting(again) == [(1, 0), (1, 1), (1, 10), (2, 0)]
        for (boot, seq), data in again.pending():
            found = telemetry.decode(data)
            assert (found.boot, found.seq) == (boot, seq)
        assert again.size_bytes == 4 * BLOCK_BYTES
    assert spool.dropped == 0


def test_what_is_done_is_gone_for_good(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for seq in range(3):
        spool.append(record(seq))
    spool.done((1, 1))
    spool.done((1, 1))
    spool.done((9, 9))
    assert waiting(spool) == waiting(Spool(tmp_path)) == [(1, 0), (1, 2)]
    assert spool.size_bytes == 2 * BLOCK_BYTES
    assert spool.dropped == 0


def test_when_full_the_oldest_goes_and_is_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=5 * BLOCK_BYTES)
    for seq in range(12):
        spool.append(record(seq))
        assert spool.size_bytes <= 5 * BLOCK_BYTES
    assert waiting(spool) == [(1, seq) for seq in range(7, 12)]
    assert spool.dropped == 7
    assert len(list(tmp_path.iterdir())) == 5
    spool.append(record(12, cells=3 * BLOCK_BYTES))
    assert waiting(spool) == [(1, 11), (1, 12)], "a large one takes the place of several"
    with pytest.raises(InputFault, match="over the spool's"):
        spool.append(record(13, cells=6 * BLOCK_BYTES))
    assert waiting(spool) == [(1, 11), (1, 12)]


def test_a_smaller_bound_after_a_restart_holds_at_the_next_record(tmp_path: Path) -> None:
    for seq in range(10):
        Spool(tmp_path).append(record(seq))
    spool = Spool(tmp_path, max_bytes=3 * BLOCK_BYTES)
    spool.append(record(10))
    assert waiting(spool) == [(1, 8), (1, 9), (1, 10)]


def test_torn_files_go_and_foreign_files_stay(tmp_path: Path) -> None:
    Spool(tmp_path).append(record(0))
    torn = tmp_path / f".{1:016d}-{1:016d}.rec.x7f3k2"
    torn.write_bytes(b"half a rec")
    foreign = [tmp_path / name for name in ("notes.txt", ".hidden", "1-1.rec")]
    for path in foreign:
        path.write_bytes(b"mine")
    spool = Spool(tmp_path)
    assert waiting(spool) == [(1, 0)]
    assert not torn.exists()
    assert all(path.exists() for path in foreign)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 50, b"\xc1", None])
def test_a_damaged_record_is_dropped_and_counted(tmp_path: Path, damage: bytes | None) -> None:
    spool = Spool(tmp_path)
    for seq in range(3):
        spool.append(record(seq))
    path = sorted(tmp_path.iterdir())[1]
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert waiting(spool) == [(1, 0), (1, 2)]
    assert spool.dropped == 1
    assert len(spool) == 2


def test_a_record_that_can_never_be_sent_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(InputFault, match="over the limit"):
        spool.append(record(0, cells=telemetry.RECORD_MAX_BYTES))
    assert waiting(spool) == []


def test_a_folder_that_cannot_be_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MachineFault, match="cannot open the spool"):
        Spool(tmp_path / "file" / "spool")


def test_a_random_life_agrees_with_a_list(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    spool, model, dropped, boot, seq = Spool(tmp_path, max_bytes=8 * BLOCK_BYTES), [], 0, 1, 0
    for _ in range(300):
        match rng.choice(["append", "append", "done", "restart"]):
            case "append":
                spool.append(record(seq, boot=boot))
                model.append((boot, seq))
                seq += 1
                if len(model) > 8:
                    model.pop(0)
                    dropped += 1
            case "done" if model:
                key = model.pop(rng.randrange(len(model)))
                spool.done(key)
            case "restart":
                assert spool.dropped == dropped
                spool, dropped = Spool(tmp_path, max_bytes=8 * BLOCK_BYTES), 0
                boot, seq = boot + 1, 0
        assert waiting(spool) == model


WRITER = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
from test_spool import record
from edge_agent.telemetry.spool import Spool
spool = Spool(pathlib.Path(sys.argv[1]), max_bytes=20 * 4096)
seq = 0
while True:
    spool.append(record(seq))
    if seq % 3 == 0:
        spool.done((1, seq))
    print(seq, flush=True)
    seq += 1
"""


def test_a_kill_at_any_moment_leaves_whole_records_and_the_last_written(tmp_path: Path) -> None:
    """SIGKILL while the writer is busy, at a moment that differs each time."""
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        seen = -1
        for line in writer.stdout:
            seen = int(line)
            if seen >= 25 + 13 * attempt:
                break
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split("\n")
        writer.wait()
        seen = max([seen, *(int(text) for text in rest[:-1])])
        spool = Spool(folder, max_bytes=20 * BLOCK_BYTES)
        keys = waiting(spool)
        assert spool.dropped == 0, "nothing was torn"
        assert keys == sorted(keys)
        newest = max(s for _, s in keys)
        assert newest >= (seen if seen % 3 else seen - 1), "what was reported written is there"
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system of 256 kB, where this machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_the_oldest_records_and_no_more(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool")
    for seq in range(20):
        spool.append(record(seq))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(BLOCK_BYTES))
    for seq in range(20, 30):
        spool.append(record(seq))
    assert waiting(spool)[-10:] == [(1, seq) for seq in range(20, 30)]
    assert spool.dropped >= 10
    assert len(spool) + spool.dropped == 30
    ballast.unlink()
    spool.append(record(30))
    assert waiting(spool)[-1] == (1, 30)


def test_a_disk_full_of_others_is_reported_and_heals(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool")
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(BLOCK_BYTES))
    with pytest.raises(MachineFault, match="No space left"):
        spool.append(record(0))
    assert len(spool) == 0
    ballast.unlink()
    spool.append(record(1))
    assert waiting(spool) == [(1, 1)]


def test_a_read_only_disk_costs_no_record_that_is_there(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool")
    spool.append(record(0))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(MachineFault, match="Read-only"):
        spool.append(record(1))
    assert spool.dropped == 0
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert waiting(Spool(small_disk / "spool")) == [(1, 0)]

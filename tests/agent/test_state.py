"""What the agent remembers survives, holds together, or is not used at all."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import state
from edge_agent.folder import Folder, Lock, last_boot, next_boot, running
from edge_agent.outbox import Outbox
from edge_agent.steps import Phase, Quarantined, State
from edge_contract import messages
from edge_contract.errors import InputFault, MachineFault
from edge_contract.messages import Desired

V1, V2 = (messages.release("pump", v, v * 64) for v in ("1", "2"))
FULL = State(
    phase=Phase.TRIAL, wanted=V2, revision=7, active=V1, candidate=V2, attempts=2, reason="x",
    quarantine=(Quarantined(sha256="3" * 64, version="3", reason="differs", revision=5),),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "agent")


def test_a_state_comes_back_as_it_was_saved(folder: Folder) -> None:
    assert state.load(folder, "pump") == State()
    state.save(folder, "pump", FULL)
    assert state.load(folder, "pump") == FULL
    assert folder.known_models() == ("pump",)


def test_a_state_cut_off_at_any_length_is_set_aside_and_nothing_else_escapes(
    folder: Folder,
) -> None:
    data = state.encode(FULL)
    path = folder.state("pump")
    path.parent.mkdir(parents=True)
    for length in range(len(data)):
        with pytest.raises(InputFault):
            state.decode(data[:length])
    path.write_bytes(data[:-5])
    assert state.load(folder, "pump") == State()
    assert [p.name for p in path.parent.iterdir()] == ["state.json.unreadable"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"phase":"trial"', b'"phase":"idle"'),
        (b'"phase":"trial"', b'"phase":"resting"'),
        (b'"schema":1,', b'"schema":2,'),
        (b'"candidate":{"version":"2"', b'"other":{"version":"2"'),
        (b"1" * 64, b"2" * 64),
    ],
)
def test_a_state_that_does_not_hold_together_is_refused(old: bytes, new: bytes) -> None:
    data = state.encode(FULL).replace(b"{", b'{"schema":1,', 1)
    assert old in data
    with pytest.raises(InputFault):
        state.decode(data.replace(old, new))


def test_desired_is_remembered(folder: Folder) -> None:
    assert state.load_desired(folder) is None
    state.save_desired(folder, Desired(revision=3, models={"pump": "2"}))
    assert state.load_desired(folder) == Desired(revision=3, models={"pump": "2"})
    folder.desired.write_bytes(b"{")
    assert state.load_desired(folder) is None


def test_a_boot_number_only_rises_and_is_not_repeated_by_a_wiped_device(folder: Folder) -> None:
    assert last_boot(folder) == 0
    assert next_boot(folder, 1_700_000_000.9) == 1_700_000_000
    # Within the same second, and on a clock that went back.
    assert [next_boot(folder, now) for now in (1_700_000_000.9, 5.0)] == [
        1_700_000_001, 1_700_000_002,
    ]  # fmt: skip
    assert next_boot(folder, 1_700_000_100.0) == 1_700_000_100
    folder.boot.write_bytes(b"")
    assert next_boot(folder, 1_800_000_000.0) == 1_800_000_000
    folder.boot.unlink()
    assert next_boot(folder, 0.0) == 1


def test_one_agent_a_folder(folder: Folder) -> None:
    assert not running(folder)
    lock = Lock(folder)
    assert running(folder)
    with pytest.raises(MachineFault, match="another agent is running"):
        Lock(folder)
    lock.release()
    assert not running(folder)
    Lock(folder).release()


def test_a_folder_that_cannot_be_made_is_a_clear_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineFault, match="cannot use folder"):
        Lock(Folder(tmp_path / "file" / "agent"))


def test_a_name_that_leaves_the_folder_is_refused(folder: Folder) -> None:
    for name in ("../x", "a/b", "..", ""):
        with pytest.raises(InputFault):
            folder.state(name)
        with pytest.raises(InputFault):
            folder.slot(name)


def test_events_wait_in_order_and_the_oldest_go_first(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox", events_max=3)
    assert outbox.waiting() == []
    for seq in (2, 10, 1):
        outbox.add(7, seq, str(seq).encode())
    assert [outbox.read(p) for p in outbox.waiting()] == [b"1", b"2", b"10"]
    outbox.add(8, 0, b"next boot")
    assert [outbox.read(p) for p in outbox.waiting()] == [b"2", b"10", b"next boot"]
    outbox.done(outbox.waiting()[0])
    assert [outbox.read(p) for p in outbox.waiting()] == [b"10", b"next boot"]
    assert outbox.read(tmp_path / "gone.json") is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(where)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def test_a_full_disk_is_a_fault_and_the_old_state_stays(small_disk: Path) -> None:
    folder = Folder(small_disk)
    state.save(folder, "pump", FULL)
    filler = folder.path / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(128 * 1024))
    with pytest.raises(MachineFault, match="No space left"):
        state.save(folder, "pump", State())
    assert state.load(folder, "pump") == FULL
    assert [p.name for p in folder.state("pump").parent.iterdir()] == ["state.json"]
    filler.unlink()
    state.save(folder, "pump", State())
    assert state.load(folder, "pump") == State()

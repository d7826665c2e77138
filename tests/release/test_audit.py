"""The audit log tells who did what, and any change to it."""

from __future__ import annotations

import datetime
import json
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_release import audit, keyring
from edge_release.pointers import Place
from edge_release.repository import Repository
from edge_release.shelf import Shelf

New = Callable[..., Bundle]
DAY = datetime.timedelta(days=1)
PLACE = Place("home", "stable", "pump")


def check(keys_dir: Path, data: bytes | None = None) -> audit.Checked:
    shelf = Shelf(keys_dir)
    head = shelf.head(shelf.read().timestamp)
    return audit.check(shelf.log() if data is None else data, head)


@pytest.fixture
def busy(keys_dir: Path, now: datetime.datetime, new_bundle: New) -> Path:
    """A repository in which one of each was done."""
    repository = Repository(keys_dir, who="anna@desk")
    for number in (1, 2):
        repository.publish(
            new_bundle(f"{number}.0", seed=number, size_bytes=500),
            fleet="home", channel="stable", now=now,
        )  # fmt: skip
    repository.promote("1.0", PLACE, now=now)
    repository.promote("2.0", PLACE, now=now)
    keyring.rotate(repository, "models", now=now + DAY)
    added = repository.ring.generate("spare").key
    keyring.change(repository, "root", "add", {"added": added.keyid}, add=[added], now=now)
    keyring.change(
        repository, "root", "remove", {"removed": added.keyid}, drop=[added.keyid], now=now
    )
    repository.set_floor("2.0", PLACE, now=now)
    repository.trim(1, ["home"], now=now)
    return keys_dir


def test_each_change_has_an_entry_with_who_when_what_and_which_keys(
    busy: Path, now: datetime.datetime
) -> None:
    found = check(busy)
    assert (found.faults, found.notes, found.undone) == ((), (), frozenset())
    assert [entry.what for entry in found.entries] == [
        "publish", "publish", "promote", "promote", "rotate", "add", "remove", "floor", "gc",
    ]  # fmt: skip
    first, rotated = found.entries[0], found.entries[4]
    assert (first.who, first.at) == ("anna@desk", "2026-05-04T12:00:00Z")
    assert first.about["model"] == "pump"
    assert (first.about["version"], len(first.about["sha256"])) == ("1.0", 64)
    assert [key.split(" ")[0] for key in first.keys] == [
        "models", "rollout", "snapshot", "timestamp",
    ]  # fmt: skip
    assert [key.split(" ")[0] for key in rotated.keys] == [
        "models-2", "snapshot", "targets", "timestamp",
    ]  # fmt: skip
    assert len(rotated.about["added"]) == 64
    assert [entry.timestamp for entry in found.entries] == list(range(2, 11))


def test_every_edit_removal_move_and_cut_is_seen(busy: Path) -> None:
    data = Shelf(busy).log()
    lines = data.splitlines(keepends=True)
    seen = 0
    for at in range(len(lines)):
        for altered in (
            lines[:at] + lines[at + 1 :],
            [*lines[:at], lines[at], *lines[at:]],
            [*lines[: at - 1], lines[at], lines[at - 1], *lines[at + 1 :]] if at else [],
            lines[:at],
            [*lines[:at], lines[at].replace(b"anna", b"bert"), *lines[at + 1 :]],
            [*lines[:at], b"{}\n", *lines[at + 1 :]],
        ):
            assert check(busy, b"".join(altered)).faults, altered
            seen += 1
    assert seen == 6 * len(lines)


def test_no_byte_of_it_can_change(busy: Path) -> None:
    data = Shelf(busy).log()
    seed = 7
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(150):
        altered = bytearray(data)
        altered[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        assert check(busy, bytes(altered)).faults


def test_a_rewritten_chain_is_not_what_the_timestamp_was_signed_over(busy: Path) -> None:
    """Who has the folder can compute the whole chain anew, but not sign over its head."""
    import hashlib

    from edge_contract import wire

    lines, previous = [], ""
    for line in Shelf(busy).log().splitlines():
        entry = json.loads(line)
        entry["who"], entry["previous"] = "mallory@desk", previous
        data = wire.encode_json(wire.decode_json(json.dumps(entry).encode(), audit.Entry,
                                                 size_max=10**6))  # fmt: skip
        previous = hashlib.sha256(data).hexdigest()
        lines.append(data + b"\n")
    assert check(busy, b"".join(lines)).faults == (
        "entry 9 is not the one that the timestamp was signed over",
    )


def test_a_log_cut_at_any_byte_is_seen_and_a_torn_line_behind_its_end_is_none(busy: Path) -> None:
    data = Shelf(busy).log()
    for length in range(len(data) - 1, -1, -7):
        assert check(busy, data[:length]).faults
    torn = check(busy, data + b'{"n":10,"at"')
    assert torn.faults == ()
    assert torn.notes == ("an incomplete line of 12 bytes at the end: no entry",)


def test_after_a_power_cut_the_next_change_goes_on_behind_the_torn_line(
    busy: Path, now: datetime.datetime
) -> None:
    file = Shelf(busy).path / "audit.jsonl"
    before = file.read_bytes()
    file.write_bytes(before + b'{"n":10,"at"')
    Repository(busy).renew(now=now + 60 * DAY)
    assert file.read_bytes().startswith(before + b'{"n":10,"at":"2026-07-03T12:00:00Z"')
    assert check(busy).faults == ()
    assert check(busy).entries[-1].what == "renew"


def test_an_entry_whose_change_was_cut_off_is_told_apart(
    busy: Path, now: datetime.datetime
) -> None:
    shelf = Shelf(busy)
    timestamp = (shelf.path / "metadata" / "timestamp.json").read_bytes()
    Repository(busy).renew(now=now + 60 * DAY)
    (shelf.path / "metadata" / "timestamp.json").write_bytes(timestamp)  # as before the rename
    cut = check(busy)
    assert cut.faults == ()
    assert cut.undone == {10}
    assert "did not happen" in cut.notes[0]
    Repository(busy).renew(now=now + 61 * DAY)
    healed = check(busy)
    assert (healed.faults, healed.notes, healed.undone) == ((), (), frozenset({10}))
    assert [entry.timestamp for entry in healed.entries[-2:]] == [11, 11]


def test_an_altered_log_stops_changes_until_it_is_brought_back_or_begun_anew(
    busy: Path, now: datetime.datetime, files: Callable[[Path], dict[str, bytes]]
) -> None:
    file = Shelf(busy).path / "audit.jsonl"
    good = file.read_bytes()
    file.write_bytes(good.replace(b"anna", b"bert", 1))
    before = files(busy)["repository/metadata/timestamp.json"]
    with pytest.raises(InputFault, match="was altered: entry 2 does not follow"):
        Repository(busy).renew(now=now + 60 * DAY)
    assert files(busy)["repository/metadata/timestamp.json"] == before
    file.unlink()
    assert check(busy).faults == ("the signed timestamp counts 9 entries, the log ends at 0",)
    for days in (60, 120):
        Repository(busy).renew(now=now + days * DAY)
    assert [entry.n for entry in check(busy).entries] == [10, 11]
    assert check(busy).faults == ("line 1 is entry 10, expected entry 1",)
    file.write_bytes(good)
    assert check(busy).faults != ()


FULL = """
import datetime, resource, signal, sys
from pathlib import Path
from edge_contract import bundle
from edge_release.repository import Repository
now = datetime.datetime.fromisoformat(sys.argv[3])
opened = bundle.read(Path(sys.argv[2]).read_bytes())
repository = Repository(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
repository.publish(opened, fleet="home", channel="stable", now=now)
"""


@pytest.mark.parametrize("limit", [300, 1000, 1800])
def test_a_disk_that_is_full_changes_nothing_and_publishing_again_works(
    busy: Path, tmp_path: Path, now: datetime.datetime, new_bundle: New, limit: int
) -> None:
    """No file may grow over ``limit`` bytes: that stops it at a member, at metadata, at the log."""
    from edge_contract import bundle as bundles

    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    bundle = new_bundle("3.0", seed=3, size_bytes=500)
    (tmp_path / "b.edgepack").write_bytes(bundles.write(bundle.manifest_bytes, bundle.stored))
    before = Shelf(busy).read()
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL, busy, tmp_path / "b.edgepack", now.isoformat(),
         str(limit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "MachineFault: cannot write" in done.stderr
    assert Shelf(busy).read().timestamp.version == before.timestamp.version
    assert check(busy).faults == ()
    repository = Repository(busy)
    repository.publish(bundle, fleet="home", channel="stable", now=now)
    assert check(busy).faults == ()
    pointer = repository.pointer("home", "stable")
    assert pointer is not None
    assert pointer.models["pump"].stable.version == "3.0"

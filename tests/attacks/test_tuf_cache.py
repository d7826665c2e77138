"""What is on disk: damaged, cut short, or left by a refresh that was interrupted anywhere.

And what the updater leans on inside python-tuf: another version of it must fail here, loudly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tuf
from attack_kit import DAY, NOW, TOP, Client, Repo
from tuf.api.exceptions import DownloadError, DownloadHTTPError, ExpiredMetadataError
from tuf.api.metadata import Metadata, Root, Signed
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.delivery import roots
from edge_agent.delivery.roots import DurableUpdater
from edge_contract.errors import MachineFault

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "zeroed": lambda data: bytes(len(data)),
    "cut": lambda data: data[: len(data) // 2],
    "a bit flipped": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "rubbish": lambda data: b"\xff" * 4000,
    "grown": lambda data: data + b"x" * 3_000_000,
}
FILES = ("root.json", "root_history/1.root.json", "root_history/2.root.json", "timestamp.json",
         "snapshot.json", "targets.json", "models.json")  # fmt: skip


@pytest.fixture
def settled(client: Client, repo: Repo) -> Client:
    """A device that has all metadata, with a second root and a delegated role."""
    repo.delegate("models")
    repo.add_target("file", b"content", "models")
    repo.publish("models", *TOP)
    assert client.download("file") == 0
    return client


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json")}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_noticed_and_fetched_again(
    settled: Client, file: str, damage: str
) -> None:
    whole = _tree(settled.metadata)
    path = settled.metadata / file
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert settled._ours(*_download(settled)) == 0
    assert _tree(settled.metadata) == whole


@pytest.mark.parametrize("file", FILES)
def test_a_lost_file_is_fetched_again(settled: Client, file: str) -> None:
    whole = _tree(settled.metadata)
    (settled.metadata / file).unlink()
    assert settled._ours(*_download(settled)) == 0
    assert _tree(settled.metadata) == whole


def test_everything_lost_but_the_anchor_is_fetched_again(settled: Client) -> None:
    whole = _tree(settled.metadata)
    for path in settled.metadata.rglob("*.json"):
        if path.parent.name != "pinned":
            path.unlink()
    assert settled._ours(*_download(settled)) == 0
    assert _tree(settled.metadata) == whole


def test_a_damaged_anchor_stops_all_and_asks_for_nothing(settled: Client, repo: Repo) -> None:
    anchor = settled.metadata / "pinned" / "root.json"
    anchor.write_bytes(anchor.read_bytes()[:-2])
    repo.asked.clear()
    assert settled._ours("refresh") == 1
    assert repo.asked == []


def test_a_file_that_another_key_signed_is_not_believed_because_it_is_local(
    settled: Client, repo: Repo
) -> None:
    stranger = Repo()
    for file in ("timestamp", "snapshot", "targets"):
        (settled.metadata / f"{file}.json").write_bytes(stranger.served(file))
    assert settled._ours("refresh") == 0
    assert settled.trusted()["timestamp"] == repo.served("timestamp")


def _download(client: Client) -> list[str]:
    return [
        "--target-name", "file", "--target-base-url", f"{client.url}/t",
        "--target-dir", str(client.folder / "targets"), "download",
    ]  # fmt: skip


# -- interrupted ------------------------------------------------------------------------------


class Cut(Exception):
    """The power went."""


class Cutting(FetcherInterface):
    """Serves ``files`` and fails at the ``when``-th file, before or after python-tuf has it."""

    def __init__(self, files: dict[str, bytes], when: int, error: Exception) -> None:
        self.files = files
        self.left = when
        self.error = error

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise NotImplementedError

    def download_bytes(self, url: str, max_length: int) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise self.error
        if url not in self.files:
            raise DownloadHTTPError(url, 404)
        return self.files[url]


def _verified(folder: Path, pinned: bytes) -> dict[str, int]:
    """Versions on disk, each file checked by python-tuf's plain metadata, from the root on.

    Roots lead one to the next; every other file was signed for one of them.
    """
    chain = [Metadata[Root].from_bytes(pinned).signed]
    while (path := folder / "root_history" / f"{len(chain) + 1}.root.json").is_file():
        wrapped = Metadata[Root].from_bytes(path.read_bytes())
        chain[-1].verify_delegate("root", wrapped.signed_bytes, wrapped.signatures)
        wrapped.verify_delegate("root", wrapped)
        chain.append(wrapped.signed)
    versions = {"root": chain[-1].version}
    for role in ("timestamp", "snapshot", "targets"):
        path = folder / f"{role}.json"
        if path.is_file():
            known = Metadata[Signed].from_bytes(path.read_bytes())
            assert any(
                root.get_verification_result(role, known.signed_bytes, known.signatures)
                for root in chain
            )
            versions[role] = known.signed.version
    return versions


@pytest.mark.parametrize("error", [Cut("off"), DownloadError("gone"), OSError("reset")])
def test_a_refresh_cut_off_at_any_file_leaves_verified_files_and_the_next_completes(
    tmp_path: Path, error: Exception
) -> None:
    """A rotation of every key and new content, cut at the k-th file, for every k."""
    repo = Repo()
    first = dict(repo.files)
    for role in TOP:
        former = repo.signers[role]
        repo.rotate(role)
        if role == "root":
            repo.signers[role] = [*repo.signers[role], *former]
    repo.publish(*TOP)
    cuts = 0
    for when in range(20):
        folder = tmp_path / str(when)
        DurableUpdater(folder, repo.first_root, Cutting(first, 99, error), NOW).refresh()
        cutting = Cutting(repo.files, when, error)
        try:
            DurableUpdater(folder, repo.first_root, cutting, NOW).refresh()
        except (Cut, DownloadError, OSError):
            cuts += 1
            _verified(folder, repo.first_root)
            assert not list(folder.rglob(".*")), "no half file is left"
            DurableUpdater(folder, repo.first_root, Cutting(repo.files, 99, error), NOW).refresh()
        assert _verified(folder, repo.first_root) == dict.fromkeys(TOP, 2)
    assert cuts == 5  # two roots, timestamp, snapshot, targets


@pytest.mark.parametrize("when", range(1, 8))
def test_a_disk_that_refuses_a_file_leaves_the_files_before_it(tmp_path: Path, when: int) -> None:
    """The folder becomes unwritable at the k-th file: what is there verifies, the rest follows."""
    repo = Repo()
    written: list[str] = []

    class Full(DurableUpdater):
        def _persist_file(self, filename: str, data: bytes) -> None:
            if len(written) >= when:
                raise MachineFault("disk full")
            written.append(Path(filename).name)
            super()._persist_file(filename, data)

    serving = Cutting(repo.files, 99, Cut())
    try:
        Full(tmp_path / "m", repo.first_root, serving, NOW).refresh()
    except MachineFault:
        assert when <= 5
    _verified(tmp_path / "m", repo.first_root)
    DurableUpdater(tmp_path / "m", repo.first_root, serving, NOW).refresh()
    assert _verified(tmp_path / "m", repo.first_root) == dict.fromkeys(TOP, 1)


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    """Flash wears by writes, and a device looks often."""
    repo = Repo()
    repo.publish("root")
    serving = Cutting(repo.files, 99, Cut())
    for _ in range(2):
        DurableUpdater(tmp_path, repo.first_root, serving, NOW).refresh()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    inodes = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    DurableUpdater(tmp_path, repo.first_root, serving, NOW).refresh()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == inodes
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()], "FAT has no links"


def test_a_link_that_an_older_release_left_becomes_a_file(tmp_path: Path) -> None:
    repo = Repo()
    serving = Cutting(repo.files, 99, Cut())
    DurableUpdater(tmp_path, repo.first_root, serving, NOW).refresh()
    (tmp_path / "root.json").unlink()
    (tmp_path / "root.json").symlink_to("root_history/1.root.json")
    repo.publish("root")
    DurableUpdater(tmp_path, repo.first_root, serving, NOW).refresh()
    assert not (tmp_path / "root.json").is_symlink()
    assert (tmp_path / "root.json").read_bytes() == repo.files["m/2.root.json"]
    assert (tmp_path / "root_history" / "1.root.json").read_bytes() == repo.first_root


# -- what is leaned on ------------------------------------------------------------------------


def test_python_tuf_still_has_what_the_updater_overrides() -> None:
    """When this fails, read the new release's updater before ``pyproject.toml`` allows it."""
    assert tuf.__version__.split(".")[0] == "7", "a new major version: look at all of roots.py"
    signatures = {name: inspect.signature(getattr(Updater, name)) for name in roots.LEANED_ON[:2]}
    assert list(signatures["_persist_file"].parameters) == ["self", "filename", "data"]
    assert list(signatures["_update_root_symlink"].parameters) == ["self"]


def test_every_file_that_python_tuf_writes_goes_through_the_durable_one(tmp_path: Path) -> None:
    repo = Repo()
    repo.delegate("models")
    repo.publish("models", *TOP)
    written: set[str] = set()

    class Watched(DurableUpdater):
        def _persist_file(self, filename: str, data: bytes) -> None:
            written.add(str(Path(filename).relative_to(tmp_path)))
            super()._persist_file(filename, data)

    updater = Watched(tmp_path, repo.first_root, Cutting(repo.files, 99, Cut()), NOW)
    updater.refresh()
    assert updater.get_targetinfo("nothing") is None
    on_disk = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == on_disk


def test_expiry_is_judged_at_the_time_that_is_given_and_at_no_clock(tmp_path: Path) -> None:
    """Signed for decades around; only the given time says whether it has expired."""
    repo = Repo()
    serving = Cutting(repo.files, 99, Cut())
    for role in TOP:
        repo.signed[role].expires = NOW - 3650 * DAY
    repo.publish(*TOP)
    DurableUpdater(tmp_path / "past", repo.first_root, serving, NOW - 3651 * DAY).refresh()
    with pytest.raises(ExpiredMetadataError):
        DurableUpdater(tmp_path / "now", repo.first_root, serving, NOW).refresh()


def test_a_python_tuf_without_a_time_to_judge_at_is_refused() -> None:
    """It would judge by the raw clock, and say nothing."""

    class Other:
        clock = NOW

    with pytest.raises(MachineFault, match="reference_time"):
        roots.judge_at(Other(), NOW)


@pytest.mark.parametrize("name", roots.LEANED_ON[:2])
def test_a_python_tuf_without_a_method_that_is_overridden_is_refused(name: str) -> None:
    """It would write by another one, and lose files in a power cut."""
    others = {other: getattr(Updater, other) for other in roots.LEANED_ON[:2] if other != name}
    with pytest.raises(MachineFault, match=name):
        roots.check_library(type("Other", (), others))

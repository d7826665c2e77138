"""Whatever is done to a repository, a stock TUF client follows it from any root it ever had."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from edge_contract import messages
from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_contract.messages import Pointer
from edge_contract.topics import Topics
from edge_release import audit, create, garbage, keyring, roles
from edge_release.pointers import Place
from edge_release.repository import Repository

New = Callable[..., Bundle]
DAY = datetime.timedelta(days=1)
STABLE = Place("home", "stable", "pump")


class DiskFetcher(FetcherInterface):
    """The repository's folder as a web server would give it out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "repository"

    def _fetch(self, url: str) -> Iterator[bytes]:
        file = self._folder / url
        if not file.is_file():
            raise DownloadHTTPError("not found", 404)
        yield file.read_bytes()


class Client:
    """python-tuf's own client, at a given time."""

    def __init__(self, repository: Repository, folder: Path, root: bytes) -> None:
        folder.mkdir(parents=True)
        self._repository = repository
        self._folder = folder
        self._root = root

    def updater(self, now: datetime.datetime) -> Updater:
        updater = Updater(
            metadata_dir=str(self._folder),
            metadata_base_url="metadata/",
            target_dir=str(self._folder),
            target_base_url="targets/",
            fetcher=DiskFetcher(self._repository.folder),
            config=UpdaterConfig(max_root_rotations=400),
            bootstrap=self._root,
        )
        updater._trusted_set.reference_time = now  # the one thing that a stock client has not
        return updater

    def pointer(self, now: datetime.datetime, channel: str = "stable") -> Pointer:
        """The channel's pointer, after having seen the manifest of everything it names."""
        updater = self.updater(now)
        updater.refresh()
        pointer = messages.decode(self._download(updater, f"fleet/home/{channel}.json"), Pointer)
        for track in pointer.models.values():
            for release in track.releases():
                info = updater.get_targetinfo(release.path)
                assert info is not None, f"{release} is named and not signed for"
                assert info.hashes["sha256"] == release.sha256
                self._download(updater, release.path)
        return pointer

    def _download(self, updater: Updater, path: str) -> bytes:
        info = updater.get_targetinfo(path)
        assert info is not None
        file = self._folder / "target"
        return Path(updater.download_target(info, str(file))).read_bytes()


class Life:
    """Random things that an owner does, each at its time."""

    def __init__(self, folder: Path, rng: random.Random, new: New, now: datetime.datetime) -> None:
        self.repository = Repository(folder)
        self.rng = rng
        self.new = new
        self.now = now
        self.number = 0
        self.done: list[str] = []

    def step(self) -> None:
        """One thing; one that is refused leaves everything as it was."""
        self.now += self.rng.randrange(0, 40) * DAY
        what = self.rng.choice(
            [self.publish, self.candidate, self.promote, self.floor, self.rotate, self.rotate,
             self.add, self.remove, self.threshold, self.gc]
        )  # fmt: skip
        before = self.repository.shelf.read().timestamp.version
        try:
            what()
            self.done.append(what.__name__)
        except InputFault:
            assert self.repository.shelf.read().timestamp.version == before
        self.renew()

    def publish(self, *, candidate: bool = False) -> None:
        self.number += 1
        bundle = self.new(f"{self.number}.0", seed=self.number % 7, size_bytes=500)
        self.repository.publish(
            bundle, fleet="home", channel="stable", candidate=candidate, now=self.now
        )

    def candidate(self) -> None:
        self.publish(candidate=True)

    def promote(self) -> None:
        version = f"{self.rng.randrange(1, self.number + 1)}.0"
        self.repository.promote(version, STABLE, now=self.now)

    def floor(self) -> None:
        pointer = self.repository.pointer("home", "stable")
        assert pointer is not None
        track = pointer.models["pump"]
        self.repository.set_floor(self.rng.choice(track.releases()).version, STABLE, now=self.now)

    def rotate(self) -> None:
        assert keyring.rotate(self.repository, self.rng.choice(roles.ROLES), now=self.now).done

    def add(self) -> None:
        role = self.rng.choice(roles.ROLES)
        ring = self.repository.ring
        key = ring.generate(ring.fresh_name(role)).key
        threshold = self.rng.choice([None, 1, 2])
        done = keyring.change(
            self.repository, role, "add", {}, add=[key], threshold=threshold, now=self.now
        )
        assert done.done

    def remove(self) -> None:
        row = self.rng.choice(keyring.status(self.repository, now=self.now).roles)
        drop = [self.rng.choice(row.keys).keyid]
        threshold = self.rng.choice([None, 1])
        done = keyring.change(
            self.repository, row.role, "remove", {}, drop=drop, threshold=threshold, now=self.now
        )
        assert done.done

    def threshold(self) -> None:
        row = self.rng.choice(keyring.status(self.repository, now=self.now).roles)
        number = self.rng.randrange(1, 4)
        keyring.change(self.repository, row.role, "threshold", {}, threshold=number, now=self.now)

    def gc(self) -> None:
        self.repository.trim(self.rng.randrange(0, 3), ["home"], now=self.now)
        garbage.remove(garbage.find(self.repository, Topics("home")))

    def renew(self) -> None:
        rows = keyring.status(self.repository, now=self.now).roles
        due = [row.role for row in rows if row.renew and row.role in (roles.ROOT, roles.TARGETS)]
        if due:
            assert keyring.renew(self.repository, due, now=self.now).done
        assert self.repository.renew(now=self.now).due == ()


@pytest.mark.parametrize("seed", range(6))
def test_a_stock_client_follows_any_life_of_a_repository_from_any_root(
    seed: int, tmp_path: Path, now: datetime.datetime, new_bundle: New
) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    create(tmp_path / "keys", rng.choice(["home", "managed"]), now=now)
    life = Life(tmp_path / "keys", rng, new_bundle, now)
    life.publish()
    first = life.repository.shelf.first_root()
    faithful = Client(life.repository, tmp_path / "faithful", first)
    for number in range(24):
        life.step()
        expected = life.repository.pointer("home", "stable")
        if rng.random() < 0.5:
            assert faithful.pointer(life.now) == expected
        if number % 6 == 5:
            newest = life.repository.shelf.read().root.version
            start = rng.randrange(1, newest + 1)
            root = (tmp_path / f"keys/repository/metadata/{start}.root.json").read_bytes()
            late = Client(life.repository, tmp_path / f"late-{number}", root)
            assert late.pointer(life.now) == expected
    shelf = life.repository.shelf
    checked = audit.check(shelf.log(), shelf.head(shelf.read().timestamp))
    assert checked.faults == ()
    assert checked.undone == frozenset()
    assert len(checked.entries) == shelf.read().timestamp.version - 1
    assert len(set(life.done)) > 4


@pytest.mark.slow
def test_a_client_that_is_three_hundred_root_rotations_behind_catches_up(
    tmp_path: Path, now: datetime.datetime, new_bundle: New
) -> None:
    create(tmp_path / "keys", "home", now=now)
    repository = Repository(tmp_path / "keys")
    repository.publish(new_bundle(size_bytes=500), fleet="home", channel="stable", now=now)
    client = Client(repository, tmp_path / "client", repository.shelf.first_root())
    first = client.pointer(now)
    for number in range(300):
        assert keyring.rotate(repository, roles.ROOT, now=now).done
        for name in keyring.unused(repository):
            (tmp_path / "keys" / f"{name}.pem").unlink()
            (tmp_path / "keys" / f"{name}.pub").unlink()
        if number % 60 == 0:
            assert keyring.rotate(repository, roles.TIMESTAMP, now=now).done
    repository.shelf.check_roots(repository.shelf.read())
    assert repository.shelf.read().root.version == 306
    assert client.pointer(now) == first

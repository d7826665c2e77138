"""What no version needs goes from broker and disk; what a device may be told to run never does."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault, PeerFault
from edge_contract.topics import Topics
from edge_release import garbage
from edge_release.garbage import Garbage
from edge_release.pointers import Place
from edge_release.publication import connect, sync
from edge_release.repository import Repository

New = Callable[..., Bundle]
PLACE = Place("home", "stable", "pump")


def collect(world: Any, keep: int = 1, *, now: datetime.datetime) -> Garbage:
    """As ``edge-pack gc`` does."""
    repository = world.repository
    with connect(world.link_config("publisher"), world.topics) as broker:
        repository.trim(keep, ["home"], now=now)
        sync(repository, world.topics, broker)
        found = garbage.find(repository, world.topics)
        garbage.clear(broker, found)
    garbage.remove(found)
    return found


def publish_many(world: Any, new_bundle: New, count: int) -> list[Bundle]:
    made = [new_bundle(f"{n}.0", seed=n, size_bytes=200_000) for n in range(1, count + 1)]
    for bundle in made:
        world.publish(bundle)
    return made


def test_only_current_and_former_version_stay_and_every_device_goes_on(
    hostile: Any, new_bundle: New, now: datetime.datetime
) -> None:
    world, broker = hostile
    made = publish_many(world, new_bundle, 5)
    old_device = world.delivery("old")
    world.refresh(old_device)
    before = sum(map(len, broker.retained("#").values()))
    dry = garbage.find(world.repository, world.topics, keep=1)
    names = garbage.forgettable(world.repository, "home", 1)
    assert names == [f"pump@{n}.0 in stable" for n in (1, 2, 3)]
    found = collect(world, now=now)
    assert set(dry.files) <= set(found.files)
    after = broker.retained("#")
    assert sum(map(len, after.values())) < before * 0.5
    kept = {digest for bundle in made[3:] for digest in world.chunk_digests(bundle)}
    gone = {digest for bundle in made[:3] for digest in world.chunk_digests(bundle)} - kept
    there = {topic.rpartition("/")[2] for topic in after}
    assert kept <= there
    assert not gone & there
    members = {path.name for path in (world.keys_dir / "repository" / "members").iterdir()}
    assert members == {file.sha256 for bundle in made[3:] for file in bundle.manifest.files}
    # A device that knew the former state, one that is new, and the version to go back to.
    for device in (old_device, world.delivery("new")):
        track = world.refresh(device).pointer.models["pump"]
        assert [release.version for release in track.releases()] == ["5.0", "4.0"]
        for release, bundle in zip(track.releases(), (made[4], made[3]), strict=True):
            slot = world.fetch(device, release)
            assert (slot / "model.onnx").read_bytes() == bundle.file("model.onnx")
    assert collect(world, now=now).topics == ()
    assert world.sync().put_messages == 1  # the sentinel


def test_a_floor_and_a_candidate_and_another_fleet_keep_what_they_name(
    hostile: Any, new_bundle: New, now: datetime.datetime
) -> None:
    world, broker = hostile
    made = publish_many(world, new_bundle, 3)
    world.publish(new_bundle("4.0", seed=4, size_bytes=200_000), candidate=True)
    first = made[0]
    world.repository.publish(first, fleet="plant", channel="stable", now=now)
    with connect(world.link_config("publisher"), Topics("plant")) as link:
        sync(world.repository, Topics("plant"), link)
    collect(world, keep=0, now=now)
    track = world.refresh(world.delivery()).pointer.models["pump"]
    assert [release.version for release in track.releases()] == ["3.0", "4.0"]
    for digest in world.chunk_digests(first):
        assert not broker.retained(world.topics.chunk(digest))
        assert broker.retained(Topics("plant").chunk(digest))
    with connect(world.link_config("publisher"), Topics("plant")) as link:
        synced = sync(world.repository, Topics("plant"), link)
    assert synced.put_bytes < 10_000  # papers of the new state, no chunk


def test_a_chunk_that_two_versions_share_stays_with_the_one_that_is_left(
    hostile: Any, new_bundle: New, now: datetime.datetime
) -> None:
    world, _broker = hostile
    shared = {"golden.json": b'{"same":"in all"}' * 20_000}
    for number in (1, 2, 3):
        bundle = new_bundle(f"{number}.0", seed=number, size_bytes=500, extra=shared)
        world.publish(bundle)
    found = collect(world, now=now)
    assert found.topics
    assert world.sync().put_messages == 1  # the sentinel
    device = world.delivery()
    slot = world.fetch(device, world.refresh(device).pointer.models["pump"].stable)
    assert (slot / "golden.json").read_bytes() == shared["golden.json"]


def test_what_was_removed_cannot_come_back_as_other_bytes(
    hostile: Any, new_bundle: New, now: datetime.datetime
) -> None:
    world, _broker = hostile
    made = publish_many(world, new_bundle, 3)
    collect(world, now=now)
    with pytest.raises(InputFault, match=r"1\.0 was removed by gc"):
        world.repository.promote("1.0", PLACE, now=now)
    with pytest.raises(InputFault, match="published before with other bytes"):
        world.publish(new_bundle("1.0", seed=9))
    world.publish(made[0])
    track = world.refresh(world.delivery()).pointer.models["pump"]
    assert track.stable.version == "1.0"


def test_a_collection_cut_off_anywhere_is_finished_by_the_next(
    hostile: Any, new_bundle: New, now: datetime.datetime
) -> None:
    world, broker = hostile
    publish_many(world, new_bundle, 4)
    for cut in (1, 4, 9):
        repository = world.repository
        with connect(world.link_config("publisher"), world.topics) as link:
            repository.trim(1, ["home"], now=now)
            sync(repository, world.topics, link)
            found = garbage.find(repository, world.topics)
            assert len(found.topics) > 9
            garbage.clear(link, Garbage(found.topics[:cut], (), 0))
        garbage.remove(Garbage((), found.files[: cut // 4], 0))
    collect(world, now=now)
    held = {topic for topic in broker.retained("#") if "/c/" in topic}
    needed = 2 * 4  # manifest, index and two chunks of each version
    assert len(held) == needed
    assert len(list(world.repository.shelf.path.glob("targets/models/*/*"))) == 2


def test_without_the_models_key_the_disk_keeps_what_it_signs_for(
    hostile: Any, new_bundle: New, now: datetime.datetime
) -> None:
    world, _broker = hostile
    publish_many(world, new_bundle, 3)
    (world.keys_dir / "models.pem").unlink()
    collect(world, now=now)
    members = list((world.keys_dir / "repository" / "members").iterdir())
    assert len(members) == 3
    world.repository.promote("1.0", PLACE, now=now)
    world.sync()
    device = world.delivery()
    stable = world.refresh(device).pointer.models["pump"].stable
    assert world.fetch(device, stable).is_dir()


def test_a_damaged_manifest_stops_it_before_anything_is_removed(
    hostile: Any, new_bundle: New, now: datetime.datetime, files: Callable[[Path], Any]
) -> None:
    world, _broker = hostile
    publish_many(world, new_bundle, 3)
    path = sorted(world.repository.shelf.path.glob("targets/models/*/*"))[0]
    path.write_bytes(b"{}")
    before = files(world.keys_dir)
    with pytest.raises(InputFault, match="in the repository is damaged"):
        garbage.find(world.repository, world.topics, keep=0)
    assert files(world.keys_dir) == before


# -- what brokers do -------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["/c/", "/tuf/t/fleet/", "2.snapshot.json", "timestamp.json"])
def test_a_broker_that_acknowledges_and_does_not_keep_is_found_out(
    hostile: Any, new_bundle: New, part: str
) -> None:
    world, broker = hostile
    swallow = lambda passing: (  # noqa: E731
        [] if passing.direction.value == "inbound" and part in passing.message.topic else None
    )
    broker.add_tap(swallow)
    with pytest.raises(PeerFault, match=r"acknowledged .* and does not keep"):
        world.publish(new_bundle("1.0"))
    broker.clear_taps()
    world.sync()
    assert world.refresh(world.delivery()).pointer.models["pump"].stable.version == "1.0"


def test_a_broker_that_goes_in_the_middle_of_a_sync_is_mended_by_the_next(
    start_broker: Any, tmp_path: Path, new_bundle: New, now: datetime.datetime, make_world: Any
) -> None:
    broker = start_broker()
    world = make_world(broker.url, tmp_path)
    bundle = new_bundle("1.0", size_bytes=2_000_000)
    world.repository.publish(bundle, fleet="home", channel="stable", now=now)

    def gone(done: int, total: int) -> None:
        if done > total // 2:
            broker.kill()

    with (
        pytest.raises(PeerFault),
        connect(world.link_config("publisher"), world.topics, silence_s=0.2) as link,
    ):
        sync(world.repository, world.topics, link, progress=gone)
    broker.start()
    world = make_world(broker.url, tmp_path)
    world.sync()
    device = world.delivery()
    slot = world.fetch(device, world.refresh(device).pointer.models["pump"].stable)
    assert (slot / "model.onnx").read_bytes() == bundle.file("model.onnx")


@pytest.fixture
def copies(hostile: Any, new_bundle: New) -> Iterator[tuple[Any, Repository]]:
    """A world that was synced, and a copy of its key folder."""
    import shutil

    world, _broker = hostile
    world.publish(new_bundle("1.0", size_bytes=500))
    shutil.copytree(world.keys_dir, world.folder / "copy")
    yield world, Repository(world.folder / "copy")


def test_two_copies_of_a_folder_do_not_overwrite_each_other(
    copies: Any, new_bundle: New, now: datetime.datetime
) -> None:
    from edge_release import keyring

    world, copy = copies
    world.publish(new_bundle("2.0", seed=2, size_bytes=500))
    with pytest.raises(PeerFault, match="holds metadata version 3"):
        world.sync_from(copy)
    copy.publish(new_bundle("3.0", seed=3, size_bytes=500), fleet="home", channel="stable", now=now)
    with pytest.raises(PeerFault, match="another metadata version 3"):
        world.sync_from(copy)
    assert keyring.rotate(world.repository, "timestamp", now=now).done
    world.sync()
    with pytest.raises(PeerFault, match="holds root version 2"):
        world.sync_from(copy)
    track = world.refresh(world.delivery()).pointer.models["pump"]
    assert track.stable.version == "2.0"


def test_a_backup_overtakes_what_the_lost_copy_published_and_devices_follow(
    copies: Any, new_bundle: New, now: datetime.datetime
) -> None:
    from edge_release.overtake import overtake

    world, backup = copies

    def take_over() -> int:
        with connect(world.link_config("publisher"), world.topics) as link:
            return overtake(backup, world.topics, link, now=now)

    for number in (2, 3, 4):
        world.publish(new_bundle(f"{number}.0", seed=number, size_bytes=500))
    device = world.delivery()
    assert world.refresh(device).pointer.models["pump"].stable.version == "4.0"
    with pytest.raises(PeerFault, match="sync --overtake"):
        world.sync_from(backup)
    assert take_over() == 6
    world.sync_from(backup)
    # 1.0 is what the backup knows; then the next publication from it.
    assert world.refresh(device).pointer.models["pump"].stable.version == "1.0"
    backup.publish(new_bundle("5.0", seed=5, size_bytes=500), fleet="home", channel="stable",
                   now=now)  # fmt: skip
    world.sync_from(backup)
    assert world.refresh(device).pointer.models["pump"].stable.version == "5.0"


@pytest.mark.parametrize(("role", "said"), [("timestamp", "its root"), ("models", "its targets")])
def test_a_lost_copy_that_changed_keys_cannot_be_overtaken(
    copies: Any, now: datetime.datetime, role: str, said: str
) -> None:
    from edge_release import keyring
    from edge_release.overtake import overtake

    world, backup = copies
    assert keyring.rotate(world.repository, role, now=now).done
    world.sync()
    before = backup.shelf.read().timestamp.version
    with (
        connect(world.link_config("publisher"), world.topics) as link,
        pytest.raises(InputFault, match=f"the lost copy changed {said}"),
    ):
        overtake(backup, world.topics, link, now=now)
    assert backup.shelf.read().timestamp.version == before


def test_compare_tells_what_a_broker_lost_and_puts_nothing(hostile: Any, new_bundle: New) -> None:
    from edge_release.publication import compare

    world, broker = hostile
    bundle = new_bundle("1.0")
    world.publish(bundle)

    def look() -> Any:
        with connect(world.link_config("publisher"), world.topics) as link:
            return compare(world.repository, world.topics, link)

    assert (look().put_messages, look().put_bytes) == (0, 0)
    lost = world.topics.chunk(world.chunk_digests(bundle)[1])
    world.put(lost, b"")
    world.put(world.topics.metadata("1.targets.json"), b"junk")
    found = look()
    assert found.put_messages == 2
    assert not broker.retained(lost)
    assert world.sync().put_messages == 3  # and the sentinel
    assert look().put_messages == 0
    assert json.loads(broker.retained(world.topics.metadata("2.root.json")).popitem()[1])

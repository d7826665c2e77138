"""Both ends over each broker: what is published arrives, and nothing else is believed."""

from __future__ import annotations

import datetime
import inspect
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.delivery import Stopped
from edge_contract.bundle import Bundle
from edge_contract.errors import EdgeError, InputFault, PeerFault
from edge_contract.ports.mqtt import Link, Message
from edge_release import create
from edge_release.publication import connect, sync
from edge_release.repository import Repository
from edge_release.shelf import prefixed

New = Callable[..., Bundle]
Files = Callable[[Path], dict[str, bytes]]


# -- what should happen ------------------------------------------------------------------------


def test_a_published_bundle_arrives_byte_for_byte_and_the_next_version_follows(
    world: Any, new_bundle: New
) -> None:
    first = new_bundle("1.0", extra={"golden.json": b"{}"})
    world.publish(first)
    device = world.delivery()
    refreshed = world.refresh(device)
    assert refreshed.freshness == "verified"
    assert refreshed.changed
    release = refreshed.pointer.models["pump"].stable
    assert (release.version, release.sha256) == ("1.0", first.digest)
    slot = world.fetch(device, release)
    assert {path.name for path in slot.iterdir()} == {"manifest.json", "model.onnx", "golden.json"}
    assert (slot / "model.onnx").read_bytes() == first.file("model.onnx")
    assert (slot / "manifest.json").read_bytes() == first.manifest_bytes
    assert not world.refresh(device).changed

    second = new_bundle("2.0", seed=2, extra={"golden.json": b"{}"})
    world.publish(second)
    refreshed = world.refresh(device)
    assert refreshed.changed
    track = refreshed.pointer.models["pump"]
    assert [release.version for release in track.releases()] == ["2.0", "1.0"]
    slot = world.fetch(device, track.stable)
    assert (slot / "model.onnx").read_bytes() == second.file("model.onnx")
    assert list((device.config.folder / "chunks").iterdir()) == []
    assert device.cached_pointer() == refreshed.pointer


def test_members_that_another_slot_holds_do_not_travel_again(world: Any, new_bundle: New) -> None:
    device = world.delivery()
    totals = []
    for version in ("1.0", "1.1"):
        bundle = new_bundle(version, extra={"golden.json": version.encode()})
        world.publish(bundle)
        release = world.refresh(device).pointer.models["pump"].stable
        seen: list[int] = []
        world.fetch(device, release, progress=lambda done, total, seen=seen: seen.append(total))
        totals.append(seen[-1])
    model, golden = (bundle.manifest.file(name).size for name in ("model.onnx", "golden.json"))
    assert totals == [model + golden, golden]


def test_a_candidate_is_named_beside_the_stable_version(world: Any, new_bundle: New) -> None:
    world.publish(new_bundle("1.0"))
    world.publish(new_bundle("2.0", seed=2), candidate=True)
    device = world.delivery()
    track = world.refresh(device).pointer.models["pump"]
    assert (track.stable.version, track.candidate.version) == ("1.0", "2.0")
    world.fetch(device, track.candidate)


def test_a_device_enrols_by_fingerprint_over_the_broker(world: Any, new_bundle: New) -> None:
    world.publish(new_bundle())
    device = world.delivery(enroll=False)
    assert not device.enrolled
    with pytest.raises(InputFault, match="not enrolled"):
        world.refresh(device)
    assert device.enroll(fingerprint=world.fingerprint) == world.fingerprint
    assert device.enrolled
    assert world.refresh(device).pointer.models["pump"].stable.version == "1.0"


def test_a_wrong_fingerprint_pins_nothing(world: Any, new_bundle: New, files: Files) -> None:
    world.publish(new_bundle())
    device = world.delivery(enroll=False)
    with pytest.raises(PeerFault, match="has fingerprint"):
        device.enroll(fingerprint="sha256:" + "0" * 64)
    with pytest.raises(InputFault, match="not a SHA-256"):
        device.enroll(fingerprint="sha256:123")
    assert not device.enrolled
    assert files(device.config.folder) == {}


def test_another_root_cannot_replace_the_pinned_one(
    world: Any, tmp_path: Path, now: datetime.datetime, files: Files
) -> None:
    create(tmp_path / "other", "home", now=now)
    device = world.delivery()
    before = files(device.config.folder)
    with pytest.raises(InputFault, match="trusts another root"):
        device.enroll(root=Repository(tmp_path / "other").shelf.first_root())
    assert device.enroll(root=world.repository.shelf.first_root()) == world.fingerprint
    assert files(device.config.folder) == before


@pytest.mark.parametrize("junk", [b"", b"{}", b"[", b"\xff\x00", b"[" * 100_000])
def test_junk_for_a_root_is_refused(hostile: Any, junk: bytes) -> None:
    device = hostile[0].delivery(enroll=False)
    with pytest.raises(InputFault):
        device.enroll(root=junk)
    assert not device.enrolled


def test_nothing_published_is_said_so_and_not_waited_for_in_vain(world: Any) -> None:
    device = world.delivery()
    with pytest.raises(PeerFault, match="did not answer"):
        world.refresh(device)


# -- what must not happen: metadata ------------------------------------------------------------


def test_metadata_signed_by_another_key_is_refused_and_nothing_changes(
    world: Any, tmp_path: Path, now: datetime.datetime, new_bundle: New, files: Files
) -> None:
    world.publish(new_bundle("1.0"))
    device = world.delivery()
    pointer = world.refresh(device).pointer
    before = files(device.config.folder)
    create(tmp_path / "mallory", "home", now=now)
    other = Repository(tmp_path / "mallory")
    for version in ("6.0", "6.1"):
        bundle = new_bundle(version, seed=6)
        other.publish(bundle, fleet="home", channel="stable", now=now)
    world.sync_from(other)
    with pytest.raises(PeerFault, match="refused"):
        world.refresh(device)
    assert files(device.config.folder) == before
    assert device.cached_pointer() == pointer


def test_an_older_state_replayed_is_refused_and_nothing_changes(
    world: Any, new_bundle: New, files: Files
) -> None:
    world.publish(new_bundle("1.0"))
    old = {**world.repository.shelf.read().files}
    world.publish(new_bundle("2.0", seed=2))
    device = world.delivery()
    assert world.refresh(device).pointer.models["pump"].stable.version == "2.0"
    before = files(device.config.folder)
    for name, data in old.items():
        world.put(world.topics.metadata(name), data)
    with pytest.raises(PeerFault, match="version"):
        world.refresh(device)
    assert files(device.config.folder) == before
    world.sync()
    assert world.refresh(device).pointer.models["pump"].stable.version == "2.0"


def test_mix_and_match_of_two_states_is_refused(world: Any, new_bundle: New, files: Files) -> None:
    world.publish(new_bundle("1.0"))
    device = world.delivery()
    pointer = world.refresh(device).pointer
    old = world.repository.shelf.read()
    before = files(device.config.folder)
    world.publish(new_bundle("2.0", seed=2))
    new = world.repository.shelf.read()
    # The new timestamp, with the old snapshot's bytes in the new one's place.
    world.put(
        world.topics.metadata(f"{new.snapshot.version}.snapshot.json"),
        old.files[f"{old.snapshot.version}.snapshot.json"],
    )
    with pytest.raises(PeerFault, match="refused"):
        world.refresh(device)
    world.sync()
    # The new snapshot, with the old pointer role in the new one's place.
    rollout = [state.targets["rollout"].version for state in (old, new)]
    world.put(
        world.topics.metadata(f"{rollout[1]}.rollout.json"),
        old.files[f"{rollout[0]}.rollout.json"],
    )
    with pytest.raises(PeerFault, match="refused"):
        world.refresh(device)
    assert device.cached_pointer() == pointer
    after = files(device.config.folder)
    # What was verified may be kept; what was not is not there.
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {"tuf/metadata/timestamp.json", "tuf/metadata/snapshot.json"}
    world.sync()
    assert world.refresh(device).pointer.models["pump"].stable.version == "2.0"


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_stolen_rollout_key_can_only_choose_among_genuine_models(
    world: Any, now: datetime.datetime, new_bundle: New, version: str
) -> None:
    """Neither a version that the models key never signed, nor other bytes for one it did."""
    from tuf.api.metadata import TargetFile

    from edge_contract import messages
    from edge_contract.messages import Pointer, Track

    world.publish(new_bundle("1.0"))
    device = world.delivery()
    pointer = world.refresh(device).pointer
    evil = new_bundle(version, seed=66)
    # The thief signs all that online keys sign, but no manifest: models stays as it was.
    shelf = world.repository.shelf
    state = shelf.read()
    track = Track(stable=messages.release("pump", version, evil.digest))
    data = messages.encode(Pointer(fleet="home", channel="stable", models={"pump": track}))
    path = messages.pointer_path("home", "stable")
    shelf.write_target(path, data)
    shelf.write_target(track.stable.path, evil.manifest_bytes)
    for file in evil.manifest.files:
        shelf.write_member(file.sha256, evil.stored[file.name])
    rollout = state.targets["rollout"]
    rollout.targets[path] = TargetFile.from_data(path, data, ["sha256"])
    _sign_state(shelf, world.keys_dir, state, now)
    world.sync()
    with pytest.raises(PeerFault, match="models key did not sign"):
        world.refresh(device)
    assert device.cached_pointer() == pointer


def _sign_state(shelf: Any, keys_dir: Path, state: Any, now: Any) -> None:
    """What rollout, snapshot and timestamp keys can sign together."""
    from edge_release import keys, metadata

    later = now + datetime.timedelta(days=30)
    rollout = state.targets["rollout"]
    rollout.version += 1
    name = f"{rollout.version}.rollout.json"
    state.files[name] = metadata.seal(rollout, [keys.load(keys_dir, "rollout")])
    version = state.snapshot.version + 1
    listed = {
        role: (targets.version, state.files[f"{targets.version}.{role}.json"])
        for role, targets in state.targets.items()
    }
    snapshot = metadata.seal(
        metadata.snapshot(version, listed, later), [keys.load(keys_dir, "snapshot")]
    )
    timestamp = metadata.seal(
        metadata.timestamp(state.timestamp.version + 1, version, snapshot, expires=later, now=now),
        [keys.load(keys_dir, "timestamp")],
    )
    shelf.write_metadata(
        {
            name: state.files[name],
            f"{version}.snapshot.json": snapshot,
            "timestamp.json": timestamp,
        }
    )


def test_a_pointer_about_another_fleet_is_refused(
    hostile: Any, now: datetime.datetime, new_bundle: New
) -> None:
    from tuf.api.metadata import TargetFile

    from edge_contract import messages
    from edge_contract.messages import Pointer

    world, _broker = hostile
    world.publish(new_bundle("1.0"))
    device = world.delivery()
    pointer = world.refresh(device).pointer
    shelf = world.repository.shelf
    state = shelf.read()
    path = messages.pointer_path("home", "stable")
    data = messages.encode(Pointer(fleet="other", channel="stable", models=pointer.models))
    shelf.write_target(path, data)
    state.targets["rollout"].targets[path] = TargetFile.from_data(path, data, ["sha256"])
    _sign_state(shelf, world.keys_dir, state, now)
    world.sync()
    with pytest.raises(PeerFault, match="about fleet other"):
        world.refresh(device)
    assert device.cached_pointer() == pointer


def test_a_rotated_root_is_followed_and_the_old_timestamp_key_is_worth_nothing(
    world: Any, now: datetime.datetime, new_bundle: New
) -> None:
    from edge_release import keyring

    world.publish(new_bundle("1.0"))
    device = world.delivery()
    world.refresh(device)
    for number in (2, 3, 4):
        done = keyring.rotate(world.repository, "timestamp", now=now)
        assert done.done
        published = world.publish(new_bundle(f"{number}.0", seed=number))
        stable = world.refresh(device).pointer.models["pump"].stable
        assert stable == published.release
    assert world.repository.shelf.read().root.version == 4
    fresh_device = world.delivery("new", enroll=False)
    fresh_device.enroll(fingerprint=world.fingerprint)
    assert world.refresh(fresh_device).pointer.models["pump"].stable == published.release


def test_python_tuf_still_writes_and_judges_through_what_we_override() -> None:
    """Our updater replaces two private parts of python-tuf: their names must not change."""
    from tuf.ngclient import Updater
    from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

    assert "_persist_file" in vars(Updater)
    assert "self.reference_time" in inspect.getsource(TrustedMetadataSet.__init__)


def test_no_published_file_can_be_altered_in_any_byte(
    hostile: Any, new_bundle: New, files: Files
) -> None:
    world, broker = hostile
    bundle = new_bundle(size_bytes=1000)
    world.publish(bundle)
    retained = broker.retained(f"{world.topics.root}/tuf/#")
    refused = 0
    for number, (topic, data) in enumerate(sorted(retained.items())):
        if topic.endswith(("sentinel.json", "2.root.json", "1.root.json")):
            continue
        altered = bytearray(data)
        altered[len(data) // 2] ^= 1
        world.put(topic, bytes(altered))
        device = world.delivery(f"dev{number}")
        with pytest.raises(PeerFault):
            release = world.refresh(device).pointer.models["pump"].stable
            world.fetch(device, release)
        assert not (device.config.folder / "slots").exists()
        world.put(topic, data)
        refused += 1
    assert refused >= 7
    device = world.delivery("last")
    world.fetch(device, world.refresh(device).pointer.models["pump"].stable)


def test_endless_data_fills_neither_memory_nor_time(world: Any, new_bundle: New) -> None:
    import resource

    world.publish(new_bundle())
    device = world.delivery()
    pointer = world.refresh(device).pointer
    topic = world.topics.metadata("timestamp.json")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for size in (17_000, 900_000, 3_000_000):
        world.put(topic, b"x" * size)
        with pytest.raises(PeerFault):
            world.refresh(device)
    flood = Link(world.link_config("flood"))
    flood.start(60)
    over = threading.Event()

    def pour() -> None:
        while not over.is_set():
            flood.publish(topic, b"y" * 900_000, qos=1).wait(60)

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        with pytest.raises(PeerFault):
            world.refresh(device)
    finally:
        over.set()
        thread.join()
        flood.stop()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * 1024, f"{grown} KiB"
    world.sync()
    assert world.refresh(device).pointer == pointer


def test_a_version_below_the_floor_is_not_fetched(
    world: Any, now: datetime.datetime, new_bundle: New
) -> None:
    from edge_release.pointers import Place

    world.publish(new_bundle("1.0"))
    world.publish(new_bundle("2.0", seed=2))
    device = world.delivery()
    old = world.refresh(device).pointer.models["pump"].others[0]
    world.repository.set_floor("2.0", Place("home", "stable", "pump"), now=now)
    world.sync()
    assert world.refresh(device).pointer.models["pump"].floor == "2.0"
    with pytest.raises(InputFault, match="not named"):
        world.fetch(device, old)
    assert not (device.config.folder / "slots").exists()


# -- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        ("home", True, 89, ("verified", "2.0")),
        ("home", True, 91, ("expired", "2.0")),
        ("managed", True, 91, ("expired", "1.0")),
        ("home", False, 91, ("unverified", "2.0")),
        ("managed", False, -9000, ("unverified", "2.0")),
    ],
)
def test_expired_metadata_and_an_unknown_clock(
    hostile: Any,
    now: datetime.datetime,
    new_bundle: New,
    case: tuple[str, bool, int, tuple[str, str]],
) -> None:
    profile, synchronised, days, expected = case
    world, _ = hostile
    world.publish(new_bundle("1.0"))
    device = world.delivery(profile=profile)
    world.refresh(device)
    world.publish(new_bundle("2.0", seed=2))
    later = now + datetime.timedelta(days=days)
    refreshed = device.refresh(now=later, synchronised=synchronised)
    assert (refreshed.freshness, refreshed.pointer.models["pump"].stable.version) == expected
    # Whatever the clock says, what is verified can be had, and is not asked for again.
    world.fetch(device, refreshed.pointer.models["pump"].stable)


def test_a_device_that_was_off_for_three_years_recovers_by_itself(
    hostile: Any, now: datetime.datetime, new_bundle: New
) -> None:
    world, _ = hostile
    world.publish(new_bundle("1.0"))
    device = world.delivery(profile="managed")
    world.refresh(device)
    later = now + datetime.timedelta(days=3 * 365)
    world.publish(new_bundle("2.0", seed=2), now=later)
    for synchronised in (False, True):
        refreshed = device.refresh(now=later, synchronised=synchronised)
        assert refreshed.pointer.models["pump"].stable.version == "2.0"
    assert refreshed.freshness == "verified"


# -- what must not happen: chunks --------------------------------------------------------------


@pytest.mark.parametrize("how", ["missing", "wrong", "oversized", "short", "huge", "index"])
def test_a_bad_chunk_is_named_and_nothing_is_activated(
    world: Any, new_bundle: New, files: Files, how: str
) -> None:
    world.publish(new_bundle("1.0", seed=5))
    device = world.delivery()
    world.fetch(device, world.refresh(device).pointer.models["pump"].stable)
    bundle = new_bundle("2.0", size_bytes=1_000_000)
    world.publish(bundle)
    release = world.refresh(device).pointer.models["pump"].stable
    before = files(device.config.folder / "slots")
    victim = world.chunk_digests(bundle)[3]
    if how == "index":
        victim = bundle.manifest.files[0].index
    payload = {
        "missing": b"",
        "wrong": b"z" * 120 * 1024,
        "oversized": b"z" * (120 * 1024 + 1),
        "short": b"z",
        "huge": b"z" * 2_000_000,
        "index": b"z" * 9 * 32,
    }[how]
    world.put(world.topics.chunk(victim), payload)
    with pytest.raises(PeerFault, match=victim) as caught:
        world.fetch(device, release)
    said = {"wrong": "has other bytes", "oversized": "expected 122880", "short": "is 1 bytes"}
    assert said.get(how, victim) in str(caught.value)
    assert files(device.config.folder / "slots") == before
    kept = {path.name for path in (device.config.folder / "chunks").glob("?" * 64)}
    assert victim not in kept
    # The publisher mends it, and the download goes on with what is missing.
    assert world.sync().put_bytes < 250_000
    progress: list[int] = []
    slot = world.fetch(device, release, progress=lambda done, total: progress.append(done))
    assert (slot / "model.onnx").read_bytes() == bundle.file("model.onnx")


def test_a_refused_manifest_costs_no_chunk(hostile: Any, new_bundle: New) -> None:
    world, broker = hostile
    world.publish(new_bundle())
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable
    asked: list[str] = []

    def watch(passing: Any) -> None:
        if "/c/" in passing.message.topic and passing.client_id == "dev-dl":
            asked.append(passing.message.topic)

    broker.add_tap(watch)

    def refuse(manifest: Any) -> None:
        raise InputFault("this device has too little memory")

    with pytest.raises(InputFault, match="too little memory"):
        world.fetch(device, release, accept=refuse)
    assert asked == []
    assert not (device.config.folder / "slots").exists()
    world.fetch(device, release)
    assert asked


def test_a_download_that_is_called_off_goes_on_later(world: Any, new_bundle: New) -> None:
    bundle = new_bundle(size_bytes=3_000_000)
    world.publish(bundle)
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable
    stop = threading.Event()

    def halfway(done: int, total: int) -> None:
        if done > total // 2:
            stop.set()

    with pytest.raises(Stopped):
        world.fetch(device, release, progress=halfway, stop=stop)
    kept = len(list((device.config.folder / "chunks").glob("?" * 64)))
    assert kept >= 10
    slot = world.fetch(device, release)
    assert (slot / "model.onnx").read_bytes() == bundle.file("model.onnx")


def test_a_slot_whose_bytes_went_bad_is_built_again(world: Any, new_bundle: New) -> None:
    bundle = new_bundle()
    world.publish(bundle)
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable
    slot = world.fetch(device, release)
    data = bytearray((slot / "model.onnx").read_bytes())
    data[1000] ^= 4
    (slot / "model.onnx").write_bytes(bytes(data))
    world.fetch(device, release)
    assert (slot / "model.onnx").read_bytes() == bundle.file("model.onnx")


def test_a_complete_slot_needs_no_broker(world: Any, any_broker: Any, new_bundle: New) -> None:
    world.publish(new_bundle())
    device = world.delivery()
    release = world.refresh(device).pointer.models["pump"].stable
    world.fetch(device, release)
    any_broker.stop()
    world.fetch(world.delivery(), release)
    with pytest.raises(PeerFault, match="no connection"):
        world.refresh(device)
    assert device.cached_pointer() is not None


# -- the publisher's side ----------------------------------------------------------------------


def test_the_same_publication_again_puts_nothing_and_mends_what_was_lost(
    world: Any, new_bundle: New
) -> None:
    bundle = new_bundle(size_bytes=500_000)
    first = world.publish(bundle)
    assert first.changed
    again = world.publish(bundle)
    assert not again.changed
    assert again.timestamp_version == first.timestamp_version
    assert world.sync().put_messages == 1  # the sentinel, always
    lost = world.topics.chunk(world.chunk_digests(bundle)[1])
    world.put(lost, b"")
    world.put(world.topics.metadata("timestamp.json"), b"junk")
    assert world.sync().put_messages == 3
    device = world.delivery()
    world.fetch(device, world.refresh(device).pointer.models["pump"].stable)


def test_an_older_copy_of_the_keys_cannot_put_its_state_over_a_newer_one(
    world: Any, tmp_path: Path, now: datetime.datetime, new_bundle: New
) -> None:
    import shutil

    world.publish(new_bundle("1.0"))
    shutil.copytree(world.keys_dir, tmp_path / "copy")
    world.publish(new_bundle("2.0", seed=2))
    copy = Repository(tmp_path / "copy")
    with pytest.raises(PeerFault, match="signed by these keys"):
        world.sync_from(copy)
    assert world.sync().put_messages == 1


def test_everything_is_there_before_what_names_it(hostile: Any, new_bundle: New) -> None:
    world, broker = hostile
    order: list[str] = []
    broker.add_tap(
        lambda passing: (
            order.append(passing.message.topic)
            if passing.direction.value == "inbound" and passing.message.retain
            else None
        )
    )
    bundle = new_bundle(size_bytes=300_000)
    published = world.publish(bundle)
    root = world.topics.root
    places = {topic.removeprefix(f"{root}/"): at for at, topic in enumerate(order)}
    chunk = max(at for topic, at in places.items() if topic.startswith("c/"))
    target = max(at for topic, at in places.items() if topic.startswith("tuf/t/"))
    role = max(at for topic, at in places.items() if "rollout" in topic or "models.json" in topic)
    snapshot = places["tuf/m/2.snapshot.json"]
    assert max(chunk, target) < places["tuf/m/1.root.json"] < role < snapshot
    assert snapshot < places["tuf/m/timestamp.json"] == len(order) - 1
    assert f"c/{published.release.sha256}" in places
    assert f"tuf/t/{prefixed(published.release.path, published.release.sha256)}" in places
    assert json.loads(broker.retained(f"{root}/tuf/m/2.root.json").popitem()[1]) == {"absent": True}


def test_a_publisher_without_the_right_is_told_so(
    start_broker: Any, tmp_path: Path, now: datetime.datetime, new_bundle: New
) -> None:
    from edge_contract import broker_url
    from edge_contract.ports.mqtt import LinkConfig
    from edge_contract.topics import Topics
    from edge_fleet.broker import Right, User

    reader = User("secret", (Right("edge/1/home/#", read=True, write=False),))
    broker = start_broker(users={"reader": reader})
    create(tmp_path / "keys", "home", now=now)
    repository = Repository(tmp_path / "keys")
    repository.publish(new_bundle(), fleet="home", channel="stable", now=now)
    url = broker_url.parse(broker.url.replace("mqtt://", "mqtt://reader:secret@"))
    with (
        connect(LinkConfig(broker=url, client_id="p"), Topics("home")) as connected,
        pytest.raises(PeerFault, match="refused"),
    ):
        sync(repository, Topics("home"), connected)


def test_a_live_device_sees_the_doorbell(world: Any, new_bundle: New) -> None:
    world.publish(new_bundle("1.0"))
    rung = threading.Event()

    def heard(message: Message) -> None:
        if not message.retain:
            rung.set()

    link = Link(world.link_config("listener"), on_message=heard)
    link.start(60)
    link.subscribe([world.topics.metadata("timestamp.json")]).wait(60)
    world.publish(new_bundle("2.0", seed=2))
    assert rung.wait(60)
    link.stop()


def test_only_declared_errors_escape(hostile: Any, new_bundle: New) -> None:
    world, _broker = hostile
    world.publish(new_bundle())
    device = world.delivery()
    topic = world.topics.metadata("timestamp.json")
    for junk in (b"{}", b"null", b"[" * 5000, b'{"signed":{},"signatures":[]}', b"\xff" * 50):
        world.put(topic, junk)
        with pytest.raises(EdgeError):
            world.refresh(device)

"""What each stolen key can do to a device, and what it cannot: every set of keys, every goal.

The thief also holds the broker: any file may be replaced. Two goals are tried with each of the
thirty-two sets of keys below root, in both ways of forging; then root itself, one key and two of
three.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from fleet_world import (
    CHANNEL,
    DAY,
    FLEET,
    MODEL,
    START,
    Device,
    Publisher,
    Served,
    Thief,
    make_bundle,
)
from securesystemslib.signer import Signer
from tuf.api.metadata import DelegatedRole, Delegations, MetaFile, TargetFile

from edge_contract import messages
from edge_contract.bundle import Bundle
from edge_contract.errors import PeerFault
from edge_contract.messages import Pointer, Release, Track
from edge_release import keyring, metadata, roles

BELOW_ROOT = (roles.TARGETS, roles.MODELS, roles.ROLLOUT, roles.SNAPSHOT, roles.TIMESTAMP)
ONLINE = {roles.SNAPSHOT, roles.TIMESTAMP}
SETS = [
    frozenset(chosen)
    for size in range(len(BELOW_ROOT) + 1)
    for chosen in itertools.combinations(BELOW_ROOT, size)
]


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Two genuine versions; the channel names the newer one."""
    made = Publisher(tmp_path_factory.mktemp("keys") / "keys", "home")
    made.publish("1.0", seed=1)
    made.publish("2.0", seed=2)
    return made


@pytest.fixture
def device(tmp_path: Path, publisher: Publisher) -> Device:
    """A device that has seen version 2.0."""
    made = Device(tmp_path / "tuf", publisher)
    assert made.refresh().pointer.models[MODEL].stable.version == "2.0"
    return made


def _release(bundle: Bundle) -> Release:
    return messages.release(MODEL, bundle.manifest.version, bundle.digest)


EVIL = make_bundle("9.9", seed=666)
OLD = make_bundle("1.0", seed=1)


def _names(chosen: frozenset[str]) -> str:
    return "+".join(sorted(chosen)) or "none"


@pytest.mark.parametrize("bluff", [False, True])
@pytest.mark.parametrize("stolen", SETS, ids=_names)
def test_a_model_that_was_not_signed_for_the_device_needs_models_or_targets_and_all_online_keys(
    device: Device, publisher: Publisher, stolen: frozenset[str], bluff: bool
) -> None:
    """Arbitrary software. A rollout key, with all online keys, gets none on a device."""
    forged = Thief(publisher, stolen).forge(_release(EVIL), EVIL.manifest_bytes, bluff=bluff)
    by_delegates = stolen >= {roles.MODELS, roles.ROLLOUT} and not bluff
    enough = stolen >= ONLINE and (by_delegates or roles.TARGETS in stolen)
    kept = device.trust.cached()
    try:
        pointer = device.refresh(START + DAY, files=forged).pointer
    except PeerFault:
        pointer = device.trust.cached()  # type: ignore[assignment]
    if enough:
        assert pointer.models[MODEL].stable == _release(EVIL)
        assert device.manifest(_release(EVIL), forged).version == "9.9"
    else:
        assert pointer == kept
        assert device.trust.cached() == kept
        assert device.manifest(pointer.models[MODEL].stable).version == "2.0"


@pytest.mark.parametrize("bluff", [False, True])
@pytest.mark.parametrize("stolen", SETS, ids=_names)
def test_choosing_another_genuine_model_needs_rollout_or_targets_and_all_online_keys(
    device: Device, publisher: Publisher, stolen: frozenset[str], bluff: bool
) -> None:
    forged = Thief(publisher, stolen).forge(
        _release(OLD), OLD.manifest_bytes if roles.TARGETS in stolen else b"", bluff=bluff
    )
    enough = stolen >= ONLINE and bool(stolen & {roles.ROLLOUT, roles.TARGETS})
    # With targets re-delegated the thief signs both roles anew; with rollout alone models stays.
    bluffed_models = bluff and not stolen & {roles.MODELS, roles.TARGETS}
    bluffed_targets = bluff and roles.TARGETS not in stolen
    enough = enough and not bluffed_models and not bluffed_targets
    try:
        pointer = device.refresh(START + DAY, files=forged).pointer
    except PeerFault:
        pointer = device.trust.cached()  # type: ignore[assignment]
    assert pointer.models[MODEL].stable.version == ("1.0" if enough else "2.0")


@pytest.mark.parametrize("stolen", [{roles.ROLLOUT} | ONLINE])
def test_who_holds_all_online_keys_chooses_among_genuine_models_only(
    device: Device, publisher: Publisher, stolen: set[str]
) -> None:
    """The operator's machine, taken whole: rollout, snapshot and timestamp."""
    old = Thief(publisher, stolen).forge(_release(OLD), bluff=False)
    assert device.refresh(START + DAY, files=old).pointer.models[MODEL].stable == _release(OLD)
    assert device.manifest(_release(OLD), old).version == "1.0"
    wrong = [
        _release(EVIL),
        messages.release(MODEL, "1.0", EVIL.digest),
        messages.release(MODEL, "2.0", OLD.digest),
        Release(version="1.0", sha256=OLD.digest, path="models/pump/2.0"),
        Release(version="1.0", sha256=OLD.digest, path=messages.pointer_path(FLEET, CHANNEL)),
    ]
    for number, release in enumerate(wrong, start=1):
        thief = Thief(publisher, stolen, ahead=number)
        with pytest.raises(PeerFault):
            device.refresh(START + DAY, files=thief.forge(release, bluff=False))
    assert device.trust.cached().models[MODEL].stable == _release(OLD)  # type: ignore[union-attr]


def test_a_models_key_alone_signs_what_nobody_is_pointed_at(
    device: Device, publisher: Publisher
) -> None:
    """With the online keys too: the manifest is genuine then, and no channel names it."""
    thief = Thief(publisher, {roles.MODELS} | ONLINE)
    state = thief.state
    thief.add(state.targets[roles.MODELS], _release(EVIL).path, EVIL.manifest_bytes)
    forged = thief.forge(_release(make_bundle("2.0", seed=2)), bluff=False)
    pointer = device.refresh(START + DAY, files=forged).pointer
    assert pointer.models[MODEL].stable.version == "2.0"


@pytest.mark.parametrize("role", roles.PATHS)
def test_a_delegated_key_signs_for_its_own_paths_only(
    device: Device, publisher: Publisher, role: str
) -> None:
    """A models key names a pointer, a rollout key a manifest: nobody looks there."""
    thief = Thief(publisher, {role} | ONLINE)
    other = roles.ROLLOUT if role == roles.MODELS else roles.MODELS
    track = Track(stable=_release(EVIL))
    pointer = messages.encode(Pointer(fleet=FLEET, channel=CHANNEL, models={MODEL: track}))
    signed = thief.state.targets[role]
    thief.add(signed, messages.pointer_path(FLEET, CHANNEL), pointer)
    thief.add(signed, _release(EVIL).path, EVIL.manifest_bytes)
    signed.delegations = Delegations(
        {thief.own.public_key.keyid: thief.own.public_key},
        {other: DelegatedRole(other, [thief.own.public_key.keyid], 1, True, paths=["*/*/*"])},
    )
    thief.seal(role, signed, bluff=False)
    version, data = thief.newest(role)
    thief.state.snapshot.meta[f"{role}.json"] = MetaFile.from_data(version, data, ["sha256"])
    thief.seal(roles.SNAPSHOT, thief.state.snapshot, bluff=False)
    version, data = thief.newest(roles.SNAPSHOT)
    thief.state.timestamp.snapshot_meta = MetaFile.from_data(version, data, ["sha256"])
    thief.seal(roles.TIMESTAMP, thief.state.timestamp, bluff=False)
    try:
        found = device.refresh(START + DAY, files=thief.files).pointer
    except PeerFault:
        assert role == roles.ROLLOUT, "its pointer names what models did not sign"
    else:
        assert found.models[MODEL].stable.version == "2.0"
    assert device.trust.cached().models[MODEL].stable.version == "2.0"  # type: ignore[union-attr]


@pytest.mark.parametrize("role", BELOW_ROOT)
def test_a_key_that_was_rotated_away_is_worth_nothing(tmp_path: Path, role: str) -> None:
    """Everything below root is stolen; the publisher rotates one key, the thief forges with it."""
    publisher = Publisher(tmp_path / "keys", "home")
    publisher.publish("1.0", seed=1)
    publisher.publish("2.0", seed=2)
    device = Device(tmp_path / "tuf", publisher)
    device.refresh()
    stolen = {each: publisher.signers(each) for each in BELOW_ROOT}
    assert keyring.rotate(publisher.repository, role, now=START + DAY).done
    assert device.refresh(START + DAY).freshness == "verified"
    thief = Thief(publisher, {each for each in BELOW_ROOT if each != role})
    thief.publisher = _WithKeys(publisher, stolen)  # type: ignore[assignment]
    if role in roles.PATHS:
        thief.stolen.discard(roles.TARGETS)
    forged = thief.forge(_release(EVIL), EVIL.manifest_bytes, bluff=True)
    with pytest.raises(PeerFault):
        device.refresh(START + DAY, files=forged)
    assert device.trust.cached().models[MODEL].stable.version == "2.0"  # type: ignore[union-attr]
    # What the thief of an online key signed is ahead of what is published: TUF's fast-forward.
    for online in ONLINE:
        keyring.rotate(publisher.repository, online, now=START + DAY)
    publisher.publish("3.0", START + 2 * DAY, seed=3)
    assert device.refresh(START + 2 * DAY).pointer.models[MODEL].stable.version == "3.0"


class _WithKeys:
    """A publisher whose keys are the ones that were stolen before a rotation."""

    def __init__(self, publisher: Publisher, keys: dict[str, list[Signer]]) -> None:
        self.repository = publisher.repository
        self._keys = keys

    def signers(self, role: str) -> list[Signer]:
        return self._keys[role]


# -- root -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
def test_one_of_three_root_keys_is_nothing_and_two_are_everything(
    tmp_path: Path, number: int
) -> None:
    """Profile managed. Two thieves of root keys own the fleet: no design below root helps."""
    publisher = Publisher(tmp_path / "keys", "managed")
    publisher.publish("2.0", seed=2)
    device = Device(tmp_path / "tuf", publisher, "managed")
    device.refresh()
    thief = Thief(publisher, set())
    root = publisher.repository.shelf.read().root
    root.version += 1
    for role in ("targets", "snapshot", "timestamp"):
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(thief.own.public_key, role)
    thief.files["m/2.root.json"] = metadata.seal(root, publisher.signers(roles.ROOT)[:number])
    thief.stolen = {roles.TARGETS}
    publisher_keys = {roles.TARGETS: [thief.own]}
    thief.publisher = _WithKeys(publisher, publisher_keys)  # type: ignore[assignment]
    forged = thief.forge(_release(EVIL), EVIL.manifest_bytes, bluff=True)
    if number == 2:
        assert device.refresh(START + DAY, files=forged).pointer.models[MODEL].stable == _release(
            EVIL
        )
    else:
        with pytest.raises(PeerFault):
            device.refresh(START + DAY, files=forged)
        assert device.refresh(START + DAY).pointer.models[MODEL].stable.version == "2.0"


def test_one_root_key_cannot_lower_the_threshold(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "keys", "managed")
    publisher.publish("2.0", seed=2)
    device = Device(tmp_path / "tuf", publisher, "managed")
    device.refresh()
    root = publisher.repository.shelf.read().root
    root.version += 1
    root.roles["root"].threshold = 1
    kept = device.believed()
    for chosen in publisher.signers(roles.ROOT):
        files = publisher.files() | {"m/2.root.json": metadata.seal(root, [chosen])}
        with pytest.raises(PeerFault):
            device.refresh(START + DAY, files=files)
    assert device.believed() == kept


# -- freezing and lying about the time with online keys ------------------------------------------


def test_a_timestamp_key_freezes_no_longer_than_snapshot_lives(tmp_path: Path) -> None:
    """It signs the same snapshot again and again: the snapshot's own end ends it."""
    publisher = Publisher(tmp_path / "keys", "managed")
    publisher.publish("2.0", seed=2)
    device = Device(tmp_path / "tuf", publisher, "managed")
    device.refresh()
    thief = Thief(publisher, {roles.TIMESTAMP})
    for days in (1, 8, 15, 22, 29, 31):
        thief.now = START + days * DAY
        thief.seal(roles.TIMESTAMP, thief.state.timestamp, bluff=False)
        found = device.refresh(thief.now, files=thief.files)
        assert found.freshness == ("verified" if days < 30 else "expired"), days
        assert found.pointer.models[MODEL].stable.version == "2.0"


def test_a_replayed_state_is_refused_also_after_the_device_forgot_its_pointer(
    device: Device, publisher: Publisher
) -> None:
    """Mix and match of time: the files of the day before, whole and validly signed."""
    older = publisher.files()
    newer = dict(older)
    del newer["m/timestamp.json"]
    thief = Thief(publisher, {roles.TIMESTAMP})
    thief.seal(roles.TIMESTAMP, thief.state.timestamp, bluff=False)
    device.refresh(START + DAY, files=thief.files)
    (device.folder / "trusted.json").unlink()
    with pytest.raises(PeerFault, match="version"):
        device.refresh(START + DAY, files=older)


# -- who holds the broker and no key ---------------------------------------------------------------


@pytest.mark.parametrize("other", [EVIL.manifest_bytes, OLD.manifest_bytes, b"", b"{}"])
def test_a_manifest_with_other_bytes_is_refused(
    device: Device, publisher: Publisher, other: bytes
) -> None:
    release = device.trust.cached().models[MODEL].stable  # type: ignore[union-attr]
    files = publisher.files()
    (path,) = [name for name in files if name.endswith(f"/{release.sha256}.2.0.json")]
    with pytest.raises(PeerFault, match="other bytes"):
        device.manifest(release, files | {path: other})
    with pytest.raises(PeerFault):
        device.manifest(release, {})


def test_bytes_that_an_earlier_attempt_kept_are_checked_too(
    device: Device, publisher: Publisher
) -> None:
    release = device.trust.cached().models[MODEL].stable  # type: ignore[union-attr]
    served = Served(publisher.files())
    found, data = device.trust.manifest(served, release, name=MODEL, kept=EVIL.manifest_bytes)
    assert found.version == "2.0"
    assert len(served.asked) == 1
    again, _ = device.trust.manifest(served, release, name=MODEL, kept=data)
    assert again == found
    assert len(served.asked) == 1, "what is on disk is not fetched again"


def test_a_verified_version_is_not_held_up_by_a_state_that_is_half_there(
    device: Device, publisher: Publisher
) -> None:
    """A broker that lost its snapshot, or a publisher that broke off: the version goes on."""
    release = device.trust.cached().models[MODEL].stable  # type: ignore[union-attr]
    thief = Thief(publisher, {roles.TIMESTAMP})
    thief.state.timestamp.snapshot_meta = MetaFile(77)
    thief.seal(roles.TIMESTAMP, thief.state.timestamp, bluff=False)
    with pytest.raises(PeerFault):
        device.refresh(START + DAY, files=thief.files)
    assert device.manifest(release, thief.files).version == "2.0"


def test_a_pointer_signed_without_a_sha_256_is_refused_in_order(
    device: Device, publisher: Publisher
) -> None:
    """The rollout key signs what it likes about its own target: no digest, or none that is one."""
    for number, hashes in enumerate(
        ({"sha512": "0" * 128}, {"sha256": "../../x"}, {"sha256": "+/#"}, {"sha256": "é" * 64})
    ):
        thief = Thief(publisher, {roles.ROLLOUT} | ONLINE, ahead=number)
        path = messages.pointer_path(FLEET, CHANNEL)
        thief.state.targets[roles.ROLLOUT].targets[path] = TargetFile(100, hashes, path)
        thief.add = lambda *_: None  # type: ignore[method-assign] - the entry above stays
        forged = thief.forge(_release(OLD), bluff=False)
        with pytest.raises(PeerFault):
            device.refresh(START + DAY, files=forged)
        assert device.trust.cached().models[MODEL].stable.version == "2.0"  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(10))
def test_random_lies_on_the_broker_are_never_more_than_a_peer_fault(
    device: Device, publisher: Publisher, seed: int
) -> None:
    """Files swapped, cut, flipped, removed: the device keeps what it has or takes what is true."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    newest = device.trust.cached()
    for _ in range(15):
        files = publisher.files()
        for _ in range(rng.randint(1, 4)):
            name = rng.choice(sorted(files))
            data = bytearray(files[name])
            match rng.randrange(4):
                case 0:
                    files[name] = files[rng.choice(sorted(files))]
                case 1:
                    files[name] = bytes(data[: rng.randrange(len(data))])
                case 2:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                    files[name] = bytes(data)
                case 3 if len(files) > 1:
                    del files[name]
        try:
            found = device.refresh(START + DAY, files=files)
        except PeerFault:
            pass
        else:
            assert found.pointer == newest
        assert device.trust.cached() == newest
    assert device.refresh(START + DAY).pointer == newest

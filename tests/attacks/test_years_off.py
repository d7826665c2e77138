"""Devices that were off for years, clocks that jump, and lies about the time.

Real keys and repositories of both profiles at simulated dates; the device is the agent's own
``Trust``. It comes back without a visit when the publisher renewed its metadata.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from fleet_world import DAY, MODEL, START, YEAR, Device, Publisher, Thief
from tuf.api.metadata import Metadata, Root, Signed

from edge_agent.delivery.freshness import BUILT_AT, Profile
from edge_contract.errors import PeerFault
from edge_release import keyring, roles

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
PROFILES: tuple[Profile, ...] = ("home", "managed")


@dataclass
class Life:
    """A publisher's repository years later, and what was published on its first day."""

    publisher: Publisher
    first: dict[str, bytes]
    today: datetime.datetime
    newest: str


@functools.cache
def _life(folder: Path, profile: Profile, years: int) -> Life:
    """Each year, or each other one: root and another role get new keys, all is signed anew, a
    version comes out.
    """
    step = 1 if years < 5 else 2
    publisher = Publisher(folder / f"{profile}-{years}", profile)
    publisher.publish("1.0")
    first = publisher.files()
    rotating = itertools.cycle((*roles.PATHS, roles.SNAPSHOT, roles.TIMESTAMP, roles.TARGETS))
    for year in range(step, years + 1, step):
        now = START + year * YEAR
        for role in (roles.ROOT, next(rotating)):
            assert keyring.rotate(publisher.repository, role, now=now).done
        assert keyring.renew(publisher.repository, ["root", "targets"], now=now).done
        publisher.publish(f"2.{year}", now, seed=year)
        publisher.repository.renew(now=now)
    return Life(publisher, first, now, f"2.{years}")


@pytest.fixture(scope="module")
def years_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the lives of this module's publishers are lived once."""
    return tmp_path_factory.mktemp("years")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("years", [3, 10])
@pytest.mark.parametrize("clock", ["kept", "at 1970", "where it stopped", "in 2100"])
def test_a_device_that_was_off_for_years_finds_its_way_back_alone(
    tmp_path: Path, years_folder: Path, profile: Profile, years: int, clock: str
) -> None:
    life = _life(years_folder, profile, years)
    device = Device(tmp_path / "tuf", life.publisher, profile)
    assert device.refresh(files=life.first).pointer.models[MODEL].stable.version == "1.0"
    if (profile, years) != ("home", 3):
        for path in (device.folder / "metadata").glob("*.json"):
            end = Metadata[Signed].from_bytes(path.read_bytes()).signed.expires
            assert end <= life.today, "all that the device has has expired"
    shown = {
        "kept": life.today, "at 1970": EPOCH, "where it stopped": START,
        "in 2100": START + 74 * YEAR,
    }[clock]  # fmt: skip
    found = device.refresh(shown, synchronised=clock == "kept")
    assert found.freshness == ("verified" if clock == "kept" else "unverified")
    release = found.pointer.models[MODEL].stable
    assert release.version == life.newest
    assert device.manifest(release).version == life.newest
    roots = list((device.folder / "metadata" / "root_history").iterdir())
    assert len(roots) >= years


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("synchronised", [True, False])
def test_what_was_never_renewed_is_told_and_stops_nothing_that_runs(
    tmp_path: Path, profile: Profile, synchronised: bool
) -> None:
    """Nobody signed anything for three years. The version on the device stays what it is."""
    publisher = Publisher(tmp_path / "keys", profile)
    publisher.publish("1.0")
    device = Device(tmp_path / "tuf", publisher, profile)
    device.refresh()
    found = device.refresh(START + 3 * YEAR, synchronised=synchronised)
    assert found.freshness == ("expired" if synchronised else "unverified")
    release = found.pointer.models[MODEL].stable
    assert release.version == "1.0"
    assert device.manifest(release).version == "1.0", "going back to it needs no fresh signature"
    assert device.trust.cached() == found.pointer


def test_a_new_device_takes_nothing_that_has_expired_unless_it_is_at_home(tmp_path: Path) -> None:
    for profile in PROFILES:
        publisher = Publisher(tmp_path / profile, profile)
        publisher.publish("1.0")
        device = Device(tmp_path / f"{profile}-device", publisher, profile)
        if profile == "managed":
            with pytest.raises(PeerFault, match="expired"):
                device.refresh(START + 3 * YEAR)
        else:
            assert device.refresh(START + 3 * YEAR).freshness == "expired"


def test_expired_metadata_installs_nothing_new_when_people_are_on_call(tmp_path: Path) -> None:
    """Managed: a version signed, then frozen by whoever holds the broker back until it expired."""
    publisher = Publisher(tmp_path / "keys", "managed")
    publisher.publish("1.0")
    device = Device(tmp_path / "tuf", publisher, "managed")
    device.refresh()
    publisher.publish("2.0", START + DAY, seed=2)
    late = device.refresh(START + 9 * DAY)
    assert (late.freshness, late.pointer.models[MODEL].stable.version) == ("expired", "1.0")
    at_home = Device(tmp_path / "home", publisher, "home")
    taken = at_home.refresh(START + 9 * DAY)
    assert (taken.freshness, taken.pointer.models[MODEL].stable.version) == ("expired", "2.0")


# -- clocks that jump -----------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(5))
def test_no_jump_of_the_clock_leaves_a_trace(tmp_path: Path, profile: Profile, seed: int) -> None:
    """Any clock, kept or not, between looks: afterwards a kept clock finds all as it should be."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    publisher = Publisher(tmp_path / "keys", profile)
    publisher.publish("1.0")
    device = Device(tmp_path / "tuf", publisher, profile)
    device.refresh()
    now = START
    for number in range(8):
        now += rng.randint(1, 6) * DAY
        publisher.repository.renew(now=now)
        if rng.random() < 0.5:
            publisher.publish(f"1.{number + 1}", now, seed=number)
        shown = EPOCH + rng.randint(0, 130) * YEAR
        found = device.refresh(shown, synchronised=rng.random() < 0.5)
        assert found.pointer.models[MODEL].stable.version.startswith("1.")
    found = device.refresh(now)
    assert found.freshness == "verified"
    newest = publisher.repository.pointer("home", "stable")
    assert found.pointer == newest


def test_a_time_service_that_says_1970_is_not_believed(tmp_path: Path) -> None:
    """Else a false time service and a broker that holds back would freeze a device for good."""
    publisher = Publisher(tmp_path / "keys", "managed")
    publisher.publish("1.0")
    device = Device(tmp_path / "tuf", publisher, "managed")
    device.refresh()
    frozen = publisher.files()
    assert device.refresh(EPOCH, files=frozen).freshness == "unverified"
    assert device.refresh(BUILT_AT - DAY, files=frozen).freshness == "unverified"


# -- lies about the time --------------------------------------------------------------------------


def _lie(publisher: Publisher, said: str, now: datetime.datetime = START) -> dict[str, bytes]:
    """A stolen timestamp key says that it is ``said`` and that it holds until 9999."""
    thief = Thief(publisher, {roles.TIMESTAMP}, now)
    timestamp = thief.state.timestamp
    timestamp.unrecognized_fields["signed_at"] = said
    thief.seal(roles.TIMESTAMP, timestamp, bluff=False)
    timestamp.expires = datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC)
    thief.seal(roles.TIMESTAMP, timestamp, bluff=False)
    return thief.files


@pytest.mark.parametrize("profile", PROFILES)
def test_a_signed_at_in_the_far_future_is_healed_by_new_timestamp_keys(
    tmp_path: Path, profile: Profile
) -> None:
    """On a device without a clock, which has nothing but signed times to go by."""
    publisher = Publisher(tmp_path / "keys", profile)
    publisher.publish("1.0")
    device = Device(tmp_path / "tuf", publisher, profile)
    device.refresh(synchronised=False)
    lie = _lie(publisher, "9998-01-01T00:00:00Z")
    found = device.refresh(files=lie, synchronised=False)
    assert found.pointer.models[MODEL].stable.version == "1.0"
    # The lie holds for as long as the key does: nothing new is taken, nothing old is lost.
    tomorrow = START + DAY
    for number in range(4):  # past the versions that the thief has signed
        publisher.publish(f"2.{number}", tomorrow, seed=number + 2)
    stuck = device.refresh(tomorrow, synchronised=False)
    assert (stuck.freshness, stuck.pointer.models[MODEL].stable.version) == ("expired", "1.0")
    assert device.manifest(stuck.pointer.models[MODEL].stable).version == "1.0"
    # The publisher heals it from where it is.
    assert keyring.rotate(publisher.repository, roles.TIMESTAMP, now=tomorrow).done
    healed = device.refresh(tomorrow, synchronised=False)
    assert (healed.freshness, healed.pointer.models[MODEL].stable.version) == ("unverified", "2.3")
    assert device.refresh(tomorrow + DAY, synchronised=False).freshness == "unverified"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_signed_at_in_the_far_future_ends_by_itself_when_the_snapshot_would_have(
    tmp_path: Path, profile: Profile
) -> None:
    """Nobody rotates: the lie can push the floor to the end of the snapshot and no further."""
    publisher = Publisher(tmp_path / "keys", profile)
    publisher.publish("1.0")
    device = Device(tmp_path / "tuf", publisher, profile)
    device.refresh(files=_lie(publisher, "9998-01-01T00:00:00Z"), synchronised=False)
    end = START + roles.LIFETIMES[profile][roles.SNAPSHOT]
    now = START
    while now < end + DAY:
        now += 5 * DAY
        publisher.repository.renew(now=now)
    publisher.publish("2.0", now, seed=2)
    for number in range(3):
        publisher.publish(f"2.0.{number}", now, seed=number + 3)
    found = device.refresh(now, synchronised=False)
    assert found.freshness == "unverified"
    assert found.pointer.models[MODEL].stable.version == "2.0.2"


def test_a_small_lie_is_forgotten_with_the_key_that_told_it(tmp_path: Path) -> None:
    """Nothing expires by it, and still the floor starts again under the new keys."""
    publisher = Publisher(tmp_path / "keys", "home")
    publisher.publish("1.0")
    device = Device(tmp_path / "tuf", publisher)
    soon = (START + 60 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
    device.refresh(files=_lie(publisher, soon), synchronised=False)
    assert _floor(device) == START + 60 * DAY
    assert keyring.rotate(publisher.repository, roles.TIMESTAMP, now=START + DAY).done
    assert device.refresh(synchronised=False).freshness == "unverified"
    assert _floor(device) == START + DAY


def _floor(device: Device) -> datetime.datetime:
    state = json.loads((device.folder / "trusted.json").read_bytes())
    return EPOCH + datetime.timedelta(seconds=state["floor_s"])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_kept_clock_does_not_care_what_a_timestamp_says(tmp_path: Path, profile: Profile) -> None:
    publisher = Publisher(tmp_path / "keys", profile)
    publisher.publish("1.0")
    device = Device(tmp_path / "tuf", publisher, profile)
    assert device.refresh(files=_lie(publisher, "9998-01-01T00:00:00Z")).freshness == "verified"
    tomorrow = START + DAY
    for number in range(4):
        publisher.publish(f"2.{number}", tomorrow, seed=number + 2)
    found = device.refresh(tomorrow)
    assert (found.freshness, found.pointer.models[MODEL].stable.version) == ("verified", "2.3")


@pytest.mark.parametrize(
    "said", ["", "soon", "1970-01-01T00:00:00Z", "9" * 10_000, "2026-05-04 12:00"]
)
def test_a_signed_at_that_is_none_changes_nothing(tmp_path: Path, said: str) -> None:
    publisher = Publisher(tmp_path / "keys", "home")
    publisher.publish("1.0")
    device = Device(tmp_path / "tuf", publisher)
    device.refresh(synchronised=False)
    found = device.refresh(files=_lie(publisher, said), synchronised=False)
    assert found.freshness == "unverified"
    assert found.pointer.models[MODEL].stable.version == "1.0"


def test_an_older_agents_state_is_read_and_its_floor_is_kept(tmp_path: Path) -> None:
    """Before floors named the keys that vouched for them, they had none to name."""
    publisher = Publisher(tmp_path / "keys", "home")
    publisher.publish("1.0")
    device = Device(tmp_path / "tuf", publisher)
    device.refresh(synchronised=False)
    file = device.folder / "trusted.json"
    state = json.loads(file.read_bytes())
    floor = state["floor_s"]
    del state["floor_keys"]
    file.write_text(json.dumps({**state, "judged_s": floor}))
    keyring.rotate(publisher.repository, roles.TIMESTAMP, now=START - DAY)
    assert device.refresh(synchronised=False).freshness == "unverified"
    assert json.loads(file.read_bytes())["floor_s"] == floor


@pytest.mark.parametrize("profile", PROFILES)
def test_a_root_that_expired_on_the_way_is_only_a_step(tmp_path: Path, profile: Profile) -> None:
    publisher = Publisher(tmp_path / "keys", profile)
    publisher.publish("1.0")
    device = Device(tmp_path / "tuf", publisher, profile)
    device.refresh()
    ends = []
    now = START
    for years in (11, 22, 33):
        now = START + years * YEAR
        keyring.rotate(publisher.repository, roles.ROOT, now=now)
        keyring.renew(publisher.repository, ["root", "targets"], now=now)
        ends.append(publisher.repository.shelf.read().root.expires)
    publisher.repository.renew(now=now)
    publisher.publish("2.0", now, seed=2)
    assert ends[0] < now > ends[1], "the roots between have expired"
    found = device.refresh(now)
    assert (found.freshness, found.pointer.models[MODEL].stable.version) == ("verified", "2.0")
    newest = Metadata[Root].from_bytes((device.folder / "metadata" / "root.json").read_bytes())
    assert newest.signed.version == 7

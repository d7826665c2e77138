"""Rollback, fast-forward, mix-and-match and freeze: what was true once is not true now.

The cases of the public conformance suite's ``test_rollback``, ``test_expiration`` and
``test_delegated_expiration`` by their meaning, and those that it leaves out.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attack_kit import DAY, NOW, TOP, Client, Repo
from tuf.api.metadata import MetaFile

# -- rollback of each role ----------------------------------------------------------------------


def test_an_older_timestamp_is_refused(client: Client, repo: Repo) -> None:
    old = repo.files["m/timestamp.json"]
    repo.publish("timestamp")
    assert client.refresh() == 0
    repo.files["m/timestamp.json"] = old
    repo.asked.clear()
    assert client.refresh() == 1
    assert client.versions()["timestamp"] == 2
    assert repo.asked[-1] == "m/timestamp.json"


@pytest.mark.parametrize("hashes", [False, True])
def test_a_newer_timestamp_over_an_older_snapshot_is_refused(
    new_client: Callable[..., Client], hashes: bool
) -> None:
    repo = Repo(hashes=hashes)
    repo.publish("snapshot", "timestamp")
    client = new_client(repo)
    client.init()
    assert client.refresh() == 0
    repo.snapshot.version = 1
    repo.publish("snapshot", bump=False)
    repo.publish("timestamp")
    repo.asked.clear()
    assert client.refresh() == 1
    assert (client.versions()["timestamp"], client.versions()["snapshot"]) == (2, 2)
    assert repo.asked[-1] == "m/timestamp.json"


@pytest.mark.parametrize("hashes", [False, True])
def test_a_newer_snapshot_over_older_targets_is_refused(
    new_client: Callable[..., Client], hashes: bool
) -> None:
    repo = Repo(hashes=hashes)
    repo.publish("targets", "snapshot", "timestamp")
    client = new_client(repo)
    client.init()
    assert client.refresh() == 0
    repo.targets.version = 1
    repo.publish("targets", bump=False)
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    assert (client.versions()["snapshot"], client.versions()["targets"]) == (2, 2)


@pytest.mark.parametrize("hashes", [False, True])
def test_a_newer_snapshot_over_an_older_delegated_role_is_refused(
    new_client: Callable[..., Client], hashes: bool
) -> None:
    repo = Repo(hashes=hashes)
    repo.delegate("models")
    repo.add_target("old", b"a", "models")
    repo.publish("models", "targets", "snapshot", "timestamp")
    repo.add_target("new", b"b", "models")
    repo.publish("models", "snapshot", "timestamp")
    client = new_client(repo)
    client.init()
    assert client.download("new") == 0
    repo.signed["models"].version = 1
    repo.publish("models", bump=False)
    repo.publish("snapshot", "timestamp")
    assert client.download("old") == 1
    assert client.versions()["models"] == 2


def test_a_snapshot_that_forgets_a_role_is_refused(client: Client, repo: Repo) -> None:
    repo.delegate("models")
    repo.publish("models", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    del repo.snapshot.meta["models.json"]
    repo.publish("snapshot", names=False)
    repo.publish("timestamp")
    assert client.refresh() == 1
    assert client.versions()["snapshot"] == 2


def test_an_older_root_in_a_newer_place_is_refused(client: Client, repo: Repo) -> None:
    repo.publish("root")
    repo.files["m/3.root.json"] = repo.first_root
    assert client.refresh() == 1
    assert client.versions() == {"root": 2}


def test_a_root_that_skips_a_version_is_refused(client: Client, repo: Repo) -> None:
    repo.root.version = 2
    repo.publish("root")  # version 3
    repo.files["m/2.root.json"] = repo.files.pop("m/3.root.json")
    assert client.refresh() == 1
    assert client.versions() == {"root": 1}


def test_a_snapshot_that_the_timestamp_does_not_name_yet_is_not_looked_at(
    client: Client, repo: Repo
) -> None:
    assert client.refresh() == 0
    repo.publish("targets", "snapshot")
    repo.asked.clear()
    assert client.refresh() == 0
    assert repo.asked[-1] == "m/timestamp.json"
    assert client.versions() == dict.fromkeys(TOP, 1)


# -- fast-forward, and recovery by rotated keys -------------------------------------------------


def test_a_fast_forwarded_timestamp_is_healed_by_a_new_timestamp_key(
    client: Client, repo: Repo
) -> None:
    repo.timestamp.version = 2**31
    repo.publish("timestamp")
    assert client.refresh() == 0
    repo.timestamp.version = 1
    repo.publish("timestamp", bump=False)
    assert client.refresh() == 1
    repo.rotate("timestamp")
    repo.publish("root")
    repo.publish("timestamp", bump=False)
    assert client.refresh() == 0
    assert client.versions()["timestamp"] == 1


def test_a_fast_forwarded_snapshot_is_healed_by_new_snapshot_and_timestamp_keys(
    client: Client, repo: Repo
) -> None:
    repo.snapshot.version = 2**31
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 0
    repo.snapshot.version = 1
    repo.publish("snapshot", bump=False)
    repo.publish("timestamp")
    assert client.refresh() == 1
    repo.rotate("snapshot")
    repo.rotate("timestamp")
    repo.publish("root")
    repo.publish("snapshot", "timestamp", bump=False)
    assert client.refresh() == 0
    assert client.versions()["snapshot"] == 1


@pytest.mark.parametrize("role", ["targets", "models"])
def test_fast_forwarded_targets_are_healed_by_a_new_snapshot_key(
    client: Client, repo: Repo, role: str
) -> None:
    repo.delegate("models")
    repo.add_target("file", b"a", "models")
    repo.signed[role].version = 2**31
    repo.publish("models", "targets", "snapshot", "timestamp")
    assert client.download("file") == 0
    repo.signed[role].version = 5
    repo.publish(role, bump=False)
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 1
    repo.rotate("snapshot")
    repo.publish("root", "snapshot", "timestamp")
    assert client.download("file") == 0
    assert client.versions()[role] == 5


# -- mix and match ------------------------------------------------------------------------------


def test_files_of_different_states_do_not_mix(
    new_client: Callable[..., Client],
) -> None:
    """Every way of serving some files of an old state and others of a new one."""
    repo = Repo(hashes=True)
    repo.delegate("models")
    repo.add_target("file", b"old", "models")
    repo.publish("models", "targets", "snapshot", "timestamp")
    old = {role: repo.served(role) for role in ("timestamp", "snapshot", "targets", "models")}
    repo.targets.unrecognized_fields["changed"] = True
    repo.add_target("file", b"new", "models")
    repo.publish("models", "targets", "snapshot", "timestamp")
    new = {role: repo.served(role) for role in old}
    for mix in range(16):
        mixed = {role: (old, new)[mix >> bit & 1] for bit, role in enumerate(old)}
        for role, source in mixed.items():
            name = "timestamp.json" if role == "timestamp" else f"{{}}.{role}.json"
            for version in (1, 2, 3) if role != "timestamp" else (0,):
                repo.files[f"m/{name.format(version)}"] = source[role]
        client = new_client(repo, f"device-{mix}")
        client.init()
        whole = len({id(source) for source in mixed.values()}) == 1
        assert client.download("file") == (0 if whole else 1), mix
        trusted = client.trusted()
        for role in ("timestamp", "snapshot", "targets", "models"):
            if role in trusted:
                assert trusted[role] == mixed["timestamp"][role], "never more than one state"
        assert client.downloaded() in ({}, {"file": b"old" if mix == 0 else b"new"})


def test_a_snapshot_that_names_a_version_twice_cannot_swap_a_delegated_role(
    client: Client, repo: Repo
) -> None:
    """Two delegated roles with a key each: one's file served in the other's place."""
    repo.delegate("a", paths=["a/*"])
    repo.delegate("b", paths=["b/*"])
    repo.add_target("b/file", b"mine", "b")
    repo.publish("a", "b", "targets", "snapshot", "timestamp")
    repo.files["m/1.a.json"] = repo.files["m/1.b.json"]
    assert client.download("a/file") == 1
    assert "a" not in client.versions()


# -- freeze: expired metadata -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "kept"),
    [
        ("root", {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1}),
        ("timestamp", {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1}),
        ("snapshot", {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1}),
        ("targets", {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 1}),
    ],
)
def test_a_newer_version_that_has_expired_is_not_taken(
    client: Client, repo: Repo, role: str, kept: dict[str, int]
) -> None:
    assert client.refresh() == 0
    repo.signed[role].expires = NOW - DAY
    repo.publish(*TOP)
    assert client.refresh() == 1
    assert client.versions() == kept


@pytest.mark.parametrize("role", TOP)
def test_what_is_trusted_is_not_used_beyond_its_end(client: Client, repo: Repo, role: str) -> None:
    repo.signed[role].expires = NOW + 7 * DAY
    repo.publish(*TOP)
    assert client.refresh() == 0
    second = NOW.replace(microsecond=0) + 7 * DAY
    assert client.refresh(second - DAY / 86400) == 0
    assert client.refresh(second) == 1
    assert client.refresh(second + DAY) == 1


def test_a_root_on_the_way_may_have_expired_and_the_last_may_not(
    client: Client, repo: Repo
) -> None:
    for days in (-300, -200, -100):
        repo.root.expires = NOW + days * DAY
        repo.publish("root")
    assert client.refresh() == 1
    assert client.versions() == {"root": 4}
    repo.root.expires = NOW + DAY
    repo.publish("root")
    assert client.refresh() == 0


def test_expired_local_metadata_still_guards_against_rollback(client: Client, repo: Repo) -> None:
    first = {role: repo.served(role) for role in TOP}
    repo.timestamp.expires = repo.snapshot.expires = NOW + 7 * DAY
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    newer = repo.files["m/timestamp.json"]
    repo.files["m/timestamp.json"] = first["timestamp"]
    assert client.refresh(NOW + 18 * DAY) == 1, "version 1, which itself has not expired"
    assert client.trusted()["timestamp"] == newer
    repo.timestamp.expires = repo.snapshot.expires = NOW + 21 * DAY
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh(NOW + 18 * DAY) == 0
    assert client.versions() == {"root": 1, "timestamp": 3, "snapshot": 3, "targets": 3}


def test_a_delegated_role_that_has_expired_is_not_taken(client: Client, repo: Repo) -> None:
    repo.delegate("models", expires=NOW - DAY)
    repo.add_target("file", b"a", "models")
    repo.publish("models", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.download("file") == 1
    assert client.downloaded() == {}
    assert "models" not in client.versions()


def test_a_trusted_delegated_role_is_renewed_or_not_used_beyond_its_end(
    client: Client, repo: Repo
) -> None:
    role = repo.delegate("models", expires=NOW + 7 * DAY)
    repo.add_target("first", b"a", "models")
    repo.add_target("second", b"b", "models")
    repo.publish("models", "targets", "snapshot", "timestamp")
    assert client.download("first") == 0
    assert client.download("second", NOW + 18 * DAY) == 1
    assert client.downloaded() == {"first": b"a"}
    role.expires = NOW + 21 * DAY
    repo.publish("models", "snapshot", "timestamp")
    assert client.download("second", NOW + 18 * DAY) == 0
    assert client.downloaded() == {"first": b"a", "second": b"b"}


def test_when_all_has_expired_nothing_is_taken_and_all_is_kept(client: Client, repo: Repo) -> None:
    assert client.refresh() == 0
    kept = client.trusted()
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh(NOW + 4000 * DAY) == 1
    assert client.trusted() == kept


def test_a_version_that_no_file_name_can_hold_only_ends_the_refresh(
    client: Client, repo: Repo
) -> None:
    repo.timestamp.snapshot_meta = MetaFile(10**3000)
    repo.publish("timestamp", names=False)
    assert client.refresh() == 1
    assert client.versions()["timestamp"] == 2

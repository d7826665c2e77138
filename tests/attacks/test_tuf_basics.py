"""What a TUF client does with an honest repository, and with one that serves other bytes.

The cases of the public conformance suite's ``test_basic``, ``test_quoting_issues`` and
``test_file_download`` by their meaning; each also against python-tuf's own client as oracle.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from attack_kit import DAY, NOW, TOP, Client, Repo, signer
from tuf.api.metadata import Metadata, MetaFile, TargetFile

WAYS = ["http", "embedded", pytest.param("mosquitto", marks=pytest.mark.slow)]
pytestmark = pytest.mark.parametrize("way", WAYS, indirect=True)
ALL_ONE = dict.fromkeys(TOP, 1)


def test_a_refresh_asks_for_one_file_a_role_and_keeps_their_bytes(
    client: Client, repo: Repo
) -> None:
    assert client.refresh() == 0
    assert repo.asked == [
        "m/2.root.json",
        "m/timestamp.json",
        "m/1.snapshot.json",
        "m/1.targets.json",
    ]
    assert client.trusted() == {role: repo.served(role) for role in TOP}


def test_a_second_refresh_asks_only_for_what_may_have_changed(client: Client, repo: Repo) -> None:
    assert client.refresh() == 0
    repo.asked.clear()
    assert client.refresh() == 0
    assert repo.asked == ["m/2.root.json", "m/timestamp.json"]


def test_a_download_refreshes_first(client: Client) -> None:
    assert client.download("nothing here") == 1
    assert client.versions() == ALL_ONE
    assert client.downloaded() == {}


def test_before_a_refresh_only_the_root_is_trusted(client: Client, repo: Repo) -> None:
    assert client.versions() == {"root": 1}
    assert repo.asked == []


def _without_version(root: dict[str, Any]) -> None:
    del root["signed"]["version"]


def _other_signature(root: dict[str, Any]) -> None:
    root["signatures"][0]["sig"] = "00" * 64


def _no_signature(root: dict[str, Any]) -> None:
    root["signatures"] = []


@pytest.mark.parametrize("spoil", [_without_version, _other_signature, _no_signature])
def test_a_root_that_is_none_or_not_signed_by_itself_is_never_used(
    new_client: Callable[..., Client], repo: Repo, spoil: Callable[[dict[str, Any]], None]
) -> None:
    root = json.loads(repo.first_root)
    spoil(root)
    made = new_client(repo)
    assert made.init(json.dumps(root).encode()) == 1
    assert made._ours("refresh") == 1
    assert repo.asked == []


def test_another_root_does_not_replace_the_one_that_is_trusted(client: Client) -> None:
    assert client.init(Repo().first_root) == 1
    assert client.init() == 0
    assert client.refresh() == 0


@pytest.mark.parametrize(
    ("role", "kept"),
    [
        ("root", {"root": 1}),
        ("timestamp", {"root": 2}),
        ("snapshot", {"root": 2, "timestamp": 2}),
        ("targets", {"root": 2, "timestamp": 2, "snapshot": 2}),
    ],
)
def test_metadata_without_its_signature_ends_the_refresh_there(
    client: Client, repo: Repo, role: str, kept: dict[str, int]
) -> None:
    repo.signers[role] = []
    repo.publish(*TOP)
    assert client.refresh() == 1
    assert client.versions() == kept


@pytest.mark.parametrize(
    ("role", "kept"),
    [
        ("root", {"root": 1}),
        ("snapshot", {"root": 2, "timestamp": 2}),
        ("targets", {"root": 2, "timestamp": 2, "snapshot": 2}),
    ],
)
def test_metadata_with_another_version_than_its_name_is_refused(
    client: Client, repo: Repo, role: str, kept: dict[str, int]
) -> None:
    for each in ("targets", "snapshot", "timestamp", "root"):
        repo.publish(each)
        if each == role:
            repo.signed[role].version += 1
            repo.serve(role, repo.seal(role), version=2)
    assert client.refresh() == 1
    assert client.versions() == kept


def test_a_timestamp_with_the_same_version_and_other_content_is_not_taken(
    client: Client, repo: Repo
) -> None:
    assert client.refresh() == 0
    kept = client.trusted()["timestamp"]
    repo.timestamp.snapshot_meta = MetaFile(100)
    repo.publish("timestamp", bump=False, names=False)
    repo.asked.clear()
    assert client.refresh() == 0
    assert repo.asked[-1] == "m/timestamp.json"
    assert client.trusted()["timestamp"] == kept


def test_hashes_in_snapshot_and_timestamp_are_checked(
    new_client: Callable[..., Client],
) -> None:
    repo = Repo(hashes=True)
    repo.publish("targets", "snapshot", "timestamp")
    client = new_client(repo)
    client.init()
    assert client.refresh() == 0
    repo.publish("targets")
    repo.snapshot.meta["targets.json"] = MetaFile(3, hashes={"sha256": "46" * 32})
    repo.publish("snapshot", names=False)
    repo.publish("timestamp")
    assert client.refresh() == 1
    assert client.versions() == {"root": 1, "timestamp": 3, "snapshot": 3, "targets": 2}


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_a_length_in_the_metadata_is_a_limit(new_client: Callable[..., Client], role: str) -> None:
    repo = Repo(hashes=True)
    client = new_client(repo)
    client.init()
    assert client.refresh() == 0
    repo.publish("targets", "snapshot", "timestamp")
    repo.files[f"m/2.{role}.json"] += b" "
    assert client.refresh() == 1
    assert client.versions()[role] == 1


def test_bytes_are_kept_as_they_came(client: Client, repo: Repo) -> None:
    repo.files["m/timestamp.json"] += b" \n"
    assert client.refresh() == 0
    assert client.trusted()["timestamp"] == repo.files["m/timestamp.json"]


def test_fields_that_nobody_knows_are_signed_and_change_nothing(client: Client, repo: Repo) -> None:
    key = signer()
    key.public_key.unrecognized_fields["extra"] = {"a": 1, "b": [2, None, True]}
    repo.add_key("root", key)
    repo.root.unrecognized_fields["custom"] = "value"
    repo.root.roles["root"].unrecognized_fields["another"] = "value"
    for role in ("timestamp", "snapshot", "targets"):
        repo.signed[role].unrecognized_fields["signed_at"] = ["not", "a", "time"]
    repo.publish(*TOP)
    assert client.refresh() == 0
    assert client.versions()["root"] == 2
    changed = json.loads(repo.served("root"))
    changed["signed"]["version"] = 3
    changed["signed"]["custom"] = "other"
    repo.files["m/3.root.json"] = json.dumps(changed).encode()
    assert client.refresh() == 1


def test_the_old_field_keyid_hash_algorithms_is_nothing(client: Client, repo: Repo) -> None:
    key = signer()
    key.public_key.unrecognized_fields = {"keyid_hash_algorithms": "md5"}
    repo.root.revoke_key(repo.root.roles["snapshot"].keyids[0], "snapshot")
    repo.signers["snapshot"] = []
    repo.add_key("snapshot", key)
    repo.publish("root", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.versions() == {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 1}


@pytest.mark.parametrize(
    ("role", "kept"),
    [
        ("timestamp", {"timestamp": 1, "snapshot": 1, "targets": 1}),
        ("snapshot", {"timestamp": 2, "snapshot": 1, "targets": 1}),
        ("targets", {"timestamp": 2, "snapshot": 2, "targets": 1}),
    ],
)
def test_what_is_named_and_not_there_ends_the_refresh_there(
    client: Client, repo: Repo, role: str, kept: dict[str, int]
) -> None:
    assert client.refresh() == 0
    repo.publish("targets", "snapshot", "timestamp")
    del repo.files["m/timestamp.json" if role == "timestamp" else f"m/2.{role}.json"]
    repo.asked.clear()
    assert client.refresh() == 1
    assert repo.asked[-1].endswith(f"{role}.json")
    assert client.versions() == {"root": 1, **kept}


@pytest.mark.parametrize(("role", "other"), list(itertools.permutations(TOP, 2)))
def test_one_roles_metadata_is_not_anothers(
    client: Client, repo: Repo, role: str, other: str
) -> None:
    """Signed by the right key, of another type: only the type says that it is wrong."""
    repo.signers[other] += [each for each in repo.signers[role] if each not in repo.signers[other]]
    repo.publish("root", "targets", "snapshot", "timestamp")
    swapped = Metadata(repo.signed[other])
    for each in repo.signers[role]:
        swapped.sign(each, append=True)
    repo.serve(role, bytes(swapped.to_bytes()), version=2)
    assert client.refresh() == 1
    assert client.versions().get(role, 1) == 1


def test_the_time_is_the_one_that_is_given(client: Client, repo: Repo) -> None:
    """What the suite does with faketime."""
    repo.root.expires = NOW + 7 * DAY
    repo.publish("root")
    assert client.refresh(NOW + 8 * DAY) == 1
    assert client.versions() == {"root": 2}
    assert client.refresh(NOW + 6 * DAY) == 0


@pytest.mark.parametrize("role", ["?", "#", "+", "/delegated", "../delegated", "a b", "%2e", "é"])
def test_a_role_may_be_called_anything_and_stays_in_its_folder(
    client: Client, repo: Repo, role: str
) -> None:
    repo.delegate(role)
    repo.publish(role, "targets", "snapshot", "timestamp")
    before = set(client.folder.parent.rglob("*"))
    assert client.download("nothing here") == 1
    assert client.versions() == {**dict.fromkeys(TOP, 2), "root": 1, role: 1}
    added = set(client.folder.parent.rglob("*")) - before
    assert {path.parent.name for path in added if path.is_file()} <= {
        "metadata", "oracle", "root_history",
    }  # fmt: skip


# -- targets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["file.txt", "a/b/file.txt", "with space.txt"])
def test_a_target_comes_as_it_was_signed(client: Client, repo: Repo, path: str) -> None:
    repo.add_target(path, b"content")
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.downloaded() == {}
    assert client.download(path) == 0
    assert client.downloaded() == {path: b"content"}


def test_a_target_that_is_here_already_is_not_fetched_again(client: Client, repo: Repo) -> None:
    repo.add_target("file", b"content")
    repo.publish("targets", "snapshot", "timestamp")
    assert client.download("file") == 0
    repo.asked.clear()
    assert client.download("file") == 0
    assert not [file for file in repo.asked if file.startswith("t/")]


@pytest.mark.parametrize("other", [b"CONTENT", b"content and more", b"", b"c"])
def test_a_target_with_other_bytes_is_never_stored(
    client: Client, repo: Repo, other: bytes
) -> None:
    first, second = repo.add_target("first", b"content"), repo.add_target("second", b"content")
    repo.publish("targets", "snapshot", "timestamp")
    assert client.download("first") == 0
    for info in (first, second):
        repo.files[f"t/{repo.target_file(info)}"] = other
    assert client._ours(
        "--target-name", "first", "--target-base-url", f"{client.url}/t",
        "--target-dir", str(client.folder / "targets"), "download",
    ) == 0  # fmt: skip
    assert client.download("second") == 1
    assert client.downloaded() == {"first": b"content"}


def test_a_target_that_changes_many_times_is_always_the_signed_one(
    client: Client, repo: Repo
) -> None:
    for number in range(6):
        data = f"content {number}".encode()
        info = repo.add_target("file", data)
        repo.publish("targets", "snapshot", "timestamp")
        if number % 2 == 0:
            assert client.download("file") == 0
            assert client.downloaded() == {"file": data}
            repo.files[f"t/{repo.target_file(info)}"] = b"malicious"
            client._ours(
                "--target-name", "file", "--target-base-url", f"{client.url}/t",
                "--target-dir", str(client.folder / "targets"), "download",
            )  # fmt: skip
            assert client.downloaded() == {"file": data}


def test_every_hash_that_is_signed_must_hold(client: Client, repo: Repo) -> None:
    info = repo.add_target("file", b"content")
    good = TargetFile.from_data("file", b"content", ["sha256", "sha512"])
    info.hashes["sha512"] = "0" * 128
    repo.publish("targets", "snapshot", "timestamp")
    assert client.download("file") == 1
    info.hashes["sha512"] = good.hashes["sha512"]
    repo.publish("targets", "snapshot", "timestamp")
    assert client.download("file") == 0


@pytest.mark.parametrize("hashes", [True, False])
def test_a_repository_without_consistent_snapshots_is_read_too(
    new_client: Callable[..., Client], hashes: bool
) -> None:
    repo = Repo(consistent=False, hashes=hashes)
    repo.add_target("a/file", b"content")
    repo.publish("targets", "snapshot", "timestamp")
    client = new_client(repo)
    client.init()
    assert client.download("a/file") == 0
    assert repo.asked == [
        "m/2.root.json", "m/timestamp.json", "m/snapshot.json", "m/targets.json", "t/a/file",
    ]  # fmt: skip
    # Half of a newer state: the targets that snapshot names are not there yet.
    older = repo.files["m/targets.json"]
    repo.publish("targets", "snapshot", "timestamp")
    newer, repo.files["m/targets.json"] = repo.files["m/targets.json"], older
    assert client.refresh() == 1
    assert client.versions()["targets"] == 2
    repo.files["m/targets.json"] = newer
    assert client.refresh() == 0
    assert client.versions()["targets"] == 3

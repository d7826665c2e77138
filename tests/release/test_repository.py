"""The signing repository: immutable versions, rising floors, one publisher, nothing half-done."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault, MachineFault
from edge_release import create, keyring
from edge_release.pointers import Place
from edge_release.repository import Repository
from edge_release.shelf import Shelf

New = Callable[..., Bundle]
Files = Callable[[Path], dict[str, bytes]]
PLACE = Place("home", "stable", "pump")
DAY = datetime.timedelta(days=1)


def publish(keys_dir: Path, bundle: Bundle, now: datetime.datetime, **options: Any) -> Any:
    return Repository(keys_dir).publish(bundle, fleet="home", channel="stable", now=now, **options)


def track(keys_dir: Path) -> Any:
    pointer = Repository(keys_dir).pointer("home", "stable")
    assert pointer is not None
    return pointer.models["pump"]


def test_a_version_never_changes_its_bytes(
    keys_dir: Path, now: datetime.datetime, new_bundle: New, files: Files
) -> None:
    publish(keys_dir, new_bundle("1.0"), now)
    before = files(keys_dir)
    with pytest.raises(InputFault, match="with other bytes"):
        publish(keys_dir, new_bundle("1.0", seed=2), now)
    assert files(keys_dir) == before


def test_the_same_publication_again_signs_nothing(
    keys_dir: Path, now: datetime.datetime, new_bundle: New, files: Files
) -> None:
    first = publish(keys_dir, new_bundle(), now)
    before = files(keys_dir)
    again = publish(keys_dir, new_bundle(), now + DAY)
    assert (first.changed, again.changed) == (True, False)
    assert again.timestamp_version == first.timestamp_version
    assert files(keys_dir) == before


def test_the_same_publication_after_half_a_life_renews_what_is_due(
    keys_dir: Path, now: datetime.datetime, new_bundle: New
) -> None:
    first = publish(keys_dir, new_bundle(), now)
    again = publish(keys_dir, new_bundle(), now + 50 * DAY)
    assert again.changed
    assert again.timestamp_version == first.timestamp_version + 1
    assert again.pointer_version == first.pointer_version
    state = Shelf(keys_dir).read()
    assert state.snapshot.version == 2
    assert state.timestamp.expires == now + 140 * DAY
    assert state.timestamp.unrecognized_fields["signed_at"] == "2026-06-23T12:00:00Z"


def test_the_former_stable_stays_nameable_and_a_promotion_ends_the_candidate(
    keys_dir: Path, now: datetime.datetime, new_bundle: New
) -> None:
    publish(keys_dir, new_bundle("1.0"), now)
    publish(keys_dir, new_bundle("2.0", seed=2), now, candidate=True)
    assert track(keys_dir).stable.version == "1.0"
    assert track(keys_dir).candidate.version == "2.0"
    Repository(keys_dir).promote("2.0", PLACE, now=now)
    assert track(keys_dir).stable.version == "2.0"
    assert track(keys_dir).candidate is None
    assert [release.version for release in track(keys_dir).others] == ["1.0"]
    Repository(keys_dir).promote("1.0", PLACE, now=now)
    assert [release.version for release in track(keys_dir).releases()] == ["1.0", "2.0"]


def test_a_candidate_needs_a_stable_version(
    keys_dir: Path, now: datetime.datetime, new_bundle: New, files: Files
) -> None:
    before = files(keys_dir)
    with pytest.raises(InputFault, match="needs a stable version"):
        publish(keys_dir, new_bundle(), now, candidate=True)
    assert files(keys_dir) == before


def test_only_what_was_signed_can_be_promoted(keys_dir: Path, now: datetime.datetime) -> None:
    with pytest.raises(InputFault, match="never published"):
        Repository(keys_dir).promote("3.0", PLACE, now=now)


def test_nothing_below_the_floor_is_published_and_the_floor_only_rises(
    keys_dir: Path, now: datetime.datetime, new_bundle: New, files: Files
) -> None:
    publish(keys_dir, new_bundle("1.0"), now)
    publish(keys_dir, new_bundle("2.0", seed=2), now)
    repository = Repository(keys_dir)
    with pytest.raises(InputFault, match="below the floor"):
        repository.set_floor("2.1", PLACE, now=now)
    repository.set_floor("1.5", PLACE, now=now)
    assert track(keys_dir).others == ()
    before = files(keys_dir)
    for change in (
        lambda: repository.set_floor("1.4", PLACE, now=now),
        lambda: publish(keys_dir, new_bundle("1.4", seed=4), now),
        lambda: publish(keys_dir, new_bundle("1.4", seed=4), now, candidate=True),
        lambda: repository.promote("1.0", PLACE, now=now),
    ):
        with pytest.raises(InputFault, match="floor"):
            change()
    assert files(keys_dir) == before


def test_a_missing_key_is_named_and_nothing_changes(
    keys_dir: Path, now: datetime.datetime, new_bundle: New, files: Files
) -> None:
    (keys_dir / "timestamp.pem").unlink()
    before = files(keys_dir)
    with pytest.raises(InputFault, match=r"no key .*timestamp\.pem"):
        publish(keys_dir, new_bundle(), now)
    after = files(keys_dir)
    assert {name for name in after if name not in before} <= {
        name for name in after if "/members/" in name
    }
    assert Shelf(keys_dir).read().timestamp.version == 1


def test_offline_keys_are_not_needed_to_publish(
    keys_dir: Path, now: datetime.datetime, new_bundle: New
) -> None:
    for name in ("root", "targets"):
        (keys_dir / f"{name}.pem").unlink()
    publish(keys_dir, new_bundle(), now)
    rows = {row.role: row for row in keyring.status(Repository(keys_dir), now=now).roles}
    assert not rows["root"].present
    assert rows["models"].present
    assert rows["timestamp"].expires == now + 90 * DAY
    assert not rows["timestamp"].renew
    later = {
        row.role: row for row in keyring.status(Repository(keys_dir), now=now + 50 * DAY).roles
    }
    assert later["timestamp"].renew
    assert not later["root"].renew


def test_a_folder_without_a_repository_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="no signing repository"):
        Repository(tmp_path)


@pytest.mark.parametrize(
    "junk", [b"", b"{}", b"[" * 9999, b'{"signed":{"_type":"root"},"signatures":[]}']
)
def test_damaged_metadata_is_the_declared_error(
    keys_dir: Path, now: datetime.datetime, new_bundle: New, junk: bytes
) -> None:
    (keys_dir / "repository" / "metadata" / "timestamp.json").write_bytes(junk)
    with pytest.raises(InputFault):
        publish(keys_dir, new_bundle(), now)


def test_publishing_again_mends_a_damaged_member(
    keys_dir: Path, now: datetime.datetime, new_bundle: New
) -> None:
    bundle = new_bundle()
    publish(keys_dir, bundle, now)
    shelf = Repository(keys_dir).shelf
    digest = bundle.manifest.files[0].sha256
    member = shelf.path / "members" / digest
    member.write_bytes(bytes(member.stat().st_size))
    with pytest.raises(InputFault, match="damaged") as caught:
        shelf.member(digest)
    assert caught.value.advice == "Publish its bundle again."
    publish(keys_dir, bundle, now)
    assert shelf.member(digest) == bundle.stored[bundle.manifest.files[0].name]


def test_one_publisher_at_a_time(keys_dir: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with Repository(keys_dir).locked():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(60)
    with (
        pytest.raises(MachineFault, match="another publisher"),
        Repository(keys_dir).locked(wait_s=0.2),
    ):
        pass
    leave.set()
    thread.join()
    with Repository(keys_dir).locked(wait_s=0.2):
        pass


PUBLISH = """
import datetime, sys
from pathlib import Path
from edge_contract import bundle
from edge_release.repository import Repository
now = datetime.datetime.fromisoformat(sys.argv[3])
opened = bundle.read(Path(sys.argv[2]).read_bytes())
print("ready", flush=True)
Repository(Path(sys.argv[1])).publish(opened, fleet="home", channel="stable", now=now)
"""


@pytest.mark.slow
def test_a_publisher_killed_at_any_write_leaves_the_former_state_or_the_next(
    tmp_path: Path, now: datetime.datetime, new_bundle: New
) -> None:
    """SIGKILL at the k-th rename, for every k, by strace; afterwards the same command heals it."""
    import shutil

    strace = shutil.which("strace")
    if strace is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no strace")
        pytest.skip("strace is not installed")
    from edge_contract import bundle as bundles

    bundle = new_bundle("2.0", size_bytes=1000)
    (tmp_path / "b.edgepack").write_bytes(bundles.write(bundle.manifest_bytes, bundle.stored))
    create(tmp_path / "pristine", "home", now=now)
    publish(tmp_path / "pristine", new_bundle("1.0", size_bytes=1000), now)
    seen = set()
    for k in range(1, 30):
        keys_dir = tmp_path / f"keys{k}"
        shutil.copytree(tmp_path / "pristine", keys_dir)
        done = subprocess.run(
            [
                strace, "-f", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2",
                "-e", f"inject=rename,renameat,renameat2:signal=SIGKILL:when={k}",
                sys.executable, "-c", PUBLISH, keys_dir, tmp_path / "b.edgepack", now.isoformat(),
            ],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        stable = track(keys_dir).stable.version
        seen.add(stable)
        assert stable in ("1.0", "2.0")
        assert publish(keys_dir, bundle, now).timestamp_version == 3
        assert track(keys_dir).stable.version == "2.0"
        assert track(keys_dir).others[0].version == "1.0"
        if done.returncode == 0:
            break
    assert seen == {"1.0", "2.0"}
    assert 6 < k < 29


def test_two_publishers_at_once_lose_no_update(
    keys_dir: Path, now: datetime.datetime, new_bundle: New, tmp_path: Path
) -> None:
    bundles_by_version = {f"{n}.0": new_bundle(f"{n}.0", seed=n, size_bytes=500) for n in range(8)}

    def work(versions: list[str]) -> None:
        for version in versions:
            repository = Repository(keys_dir)
            with repository.locked():
                repository.publish(
                    bundles_by_version[version], fleet="home", channel="stable", now=now
                )

    versions = list(bundles_by_version)
    threads = [threading.Thread(target=work, args=(versions[at::2],)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {release.version for release in track(keys_dir).releases()} == set(versions)
    assert Shelf(keys_dir).read().timestamp.version == 9

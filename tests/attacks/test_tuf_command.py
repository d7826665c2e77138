"""The command as the conformance suite starts it: a process, its exit code, its folders.

Which case of the suite has its counterpart where, by what the case is about:

- test_basic: requests and trusted bytes of a refresh, implicit refresh, invalid and unsigned
  initial root, unsigned metadata, version in name and metadata, changed timestamp of one version,
  metadata hashes, bytes as served, custom fields, keyid_hash_algorithms, missing timestamp,
  snapshot and targets, metadata of another type, faketime: ``test_tuf_basics``
- test_quoting_issues, test_file_download (plain, in folders, substituted, changed many times):
  ``test_tuf_basics``
- test_rollback (timestamp, snapshot with and without hashes, targets, unnamed snapshot) and its
  three fast-forward recoveries; test_expiration, test_delegated_expiration: ``test_tuf_rollback``
- test_keys (thresholds, too few keys, doubled keys and signatures, key types, a bad signature
  beside a good one), test_updater_key_rotations of root and of the others: ``test_tuf_keys``
- test_updater_delegation_graphs, searches for targets, succinct roles: ``test_tuf_delegations``
- test_static_repositories: a repository of our own publisher, below; the suite's are made by
  others, with keys of every kind that ``test_tuf_keys`` covers
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attack_kit import Client, Repo
from fleet_world import START, Publisher

BRIDGE = Path(__file__).parent / "over_mqtt.py"
HERE = [sys.executable, "-m", "edge_agent.tuf_client"]
NO_CRYPTOGRAPHY = """
import sys
sys.modules["cryptography"] = None
from edge_agent.tuf_client import main
sys.exit(main())
"""


def _run(
    command: list[str], *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, **(env or {})}, timeout=120,
    )  # fmt: skip


def _lasting() -> Repo:
    """A repository whose signatures outlive the wall clock that a process reads."""
    repo = Repo()
    for signed in repo.signed.values():
        signed.expires = signed.expires.replace(year=2126)
    repo.publish("root", "targets", "snapshot", "timestamp")
    repo.add_target("a/file", b"content")
    repo.publish("targets", "snapshot", "timestamp")
    return repo


def test_the_three_commands_as_processes_over_each_way(
    new_client: Callable[..., Client], way: str, tmp_path: Path
) -> None:
    repo = _lasting()
    client = new_client(repo)
    command, env = HERE, {}
    if client.broker is not None:
        command = [sys.executable, str(BRIDGE)]
        env = {"EDGE_BROKER": f"mqtt://127.0.0.1:{client.broker.port}"}
    root = tmp_path / "root.json"
    root.write_bytes(repo.first_root)
    folder = ["--metadata-dir", str(tmp_path / "m")]
    where = [*folder, "--metadata-url", f"{client.url}/m"]
    target = ["--target-base-url", f"{client.url}/t", "--target-dir", str(tmp_path / "t")]
    refused = _run(command, *where, "refresh", env=env)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 2)
    assert "trusts no root yet" in refused.stderr
    assert _run(command, *folder, "init", str(root), env=env).returncode == 0
    assert _run(command, *where, "refresh", env=env).returncode == 0
    assert {path.name for path in (tmp_path / "m").glob("*.json")} == {
        "root.json", "timestamp.json", "snapshot.json", "targets.json",
    }  # fmt: skip
    got = _run(command, *where, *target, "--target-name", "a/file", "download", env=env)
    assert (got.returncode, got.stderr) == (0, "")
    assert [path.read_bytes() for path in (tmp_path / "t").iterdir()] == [b"content"]
    missing = _run(command, *where, *target, "--target-name", "none", "download", env=env)
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr


@pytest.mark.parametrize("way", ["http"], indirect=True)
def test_without_cryptography_it_refuses_and_accepts_the_same(
    new_client: Callable[..., Client], tmp_path: Path
) -> None:
    """32-bit devices have none: Ed25519 is checked in pure Python there."""
    repo = _lasting()
    client = new_client(repo)
    root = tmp_path / "root.json"
    root.write_bytes(repo.first_root)
    plain = [sys.executable, "-c", NO_CRYPTOGRAPHY]
    where = ["--metadata-dir", str(tmp_path / "m"), "--metadata-url", f"{client.url}/m"]
    assert _run(plain, *where, "init", str(root)).returncode == 0
    assert _run(plain, *where, "refresh").returncode == 0
    repo.publish("timestamp")
    data = repo.served("timestamp")
    repo.files["m/timestamp.json"] = data.replace(b'"version":4', b'"version":5')
    assert repo.files["m/timestamp.json"] != data
    refused = _run(plain, *where, "refresh")
    assert refused.returncode == 1
    assert "signed by 0/1 keys" in refused.stderr


def test_a_command_line_that_is_wrong_says_how_it_goes() -> None:
    for arguments in ([], ["refresh"], ["--metadata-dir", "x", "refresh"],
                      ["--metadata-dir", "x", "--metadata-url", "u", "download"]):  # fmt: skip
        done = _run(HERE, *arguments)
        assert done.returncode == 2
        assert "usage: python -m edge_agent.tuf_client" in done.stderr
    assert "init" in _run(HERE, "--help").stdout


def test_a_repository_of_our_publisher_is_read_like_any_other(
    new_client: Callable[..., Client], tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path / "keys", "home")
    release = publisher.publish("1.0")
    repo = Repo()
    repo.files = publisher.files()
    client = new_client(repo)
    assert client.init() == 0
    assert client.refresh(START) == 0
    assert client.download(release.path, START) == 0
    assert client.download("fleet/home/stable.json", START) == 0
    assert set(client.downloaded()) == {release.path, "fleet/home/stable.json"}
    assert client.download("models/pump/none.json", START) == 1

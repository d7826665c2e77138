"""``edge-pack`` as the owner of keys types it: a release's life, passphrases, mistakes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edge_contract import bundle as bundles
from edge_contract.bundle import Bundle
from edge_contract.errors import EdgeError
from edge_fleet.broker import BrokerThread
from edge_pack.cli import app
from edge_release import create
from edge_release.repository import Repository

New = Callable[..., Bundle]


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def run(folder: Path, line: str, **env: str) -> Done:
    """The command in this process: a new one costs a second. ``test_commands`` has the real one."""
    clean = {key: None for key in os.environ if key.startswith("EDGE_PACK")}
    before = Path.cwd()
    os.chdir(folder)
    try:
        found = CliRunner().invoke(app, line.split(), env=clean | {"COLUMNS": "200"} | env)
    finally:
        os.chdir(before)
    if isinstance(found.exception, EdgeError):
        fault = found.exception
        return Done(fault.exit_code, found.stdout, f"{found.stderr}error: {fault}\n")
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return Done(found.exit_code, found.stdout, found.stderr)


def good(folder: Path, line: str, **env: str) -> str:
    done = run(folder, line, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(folder: Path, bundle: Bundle) -> str:
    name = f"{bundle.manifest.version}.edgepack"
    (folder / name).write_bytes(bundles.write(bundle.manifest_bytes, bundle.stored))
    return name


def test_the_life_of_a_release_by_commands(embedded: Any, tmp_path: Path, new_bundle: New) -> None:
    to = f"--fleet home --broker {embedded.url}"
    good(tmp_path, "keys init keys")
    for number in (1, 2, 3):
        name = write(tmp_path, new_bundle(f"{number}.0", seed=number, size_bytes=200_000))
        good(tmp_path, f"publish {name} --keys keys {to}")
    name = write(tmp_path, new_bundle("4.0", seed=4, size_bytes=200_000))
    assert "4.0 is candidate" in good(tmp_path, f"publish {name} --keys keys --candidate {to}")
    promoted = json.loads(good(tmp_path, f"promote pump@4.0 {to} --json"))
    assert (promoted["version"], promoted["signed"]) == ("4.0", True)
    assert promoted["bytes"] < 20_000
    later = good(tmp_path, "floor set pump@2.0 --fleet home")
    assert "the floor of pump is 2.0 in channel stable of fleet home" in later
    assert "bring it to devices with `edge-pack sync`" in later

    behind = run(tmp_path, f"status {to} --json")
    assert behind.returncode == 1
    told = json.loads(behind.stdout)
    assert not told["broker"]["in_sync"]
    assert told["broker"]["missing_messages"] == 4  # pointer, rollout, snapshot, timestamp
    (model,) = told["models"]
    assert (model["stable"]["version"], model["floor"]) == ("4.0", "2.0")
    assert [other["version"] for other in model["others"]] == ["3.0", "2.0"]
    assert model["stable"]["size_bytes"] > 200_000
    synced = json.loads(good(tmp_path, f"sync {to} --json"))
    assert (synced["messages"], synced["renewed"]) == (5, [])
    assert "the broker holds all of it" in good(tmp_path, f"status {to}")

    dry = json.loads(good(tmp_path, "gc --fleet home --dry-run --json"))
    assert dry["versions"] == ["pump@2.0 in stable"]
    done = json.loads(good(tmp_path, f"gc {to} --json"))
    assert (done["dry_run"], done["versions"]) == (False, dry["versions"])
    assert done["topics"] >= dry["topics"] > 0
    assert "the broker holds all of it" in good(tmp_path, f"status {to}")

    log = json.loads(good(tmp_path, "audit --verify --json"))
    assert log["valid"]
    assert [entry["what"] for entry in log["entries"]] == [
        "publish", "publish", "publish", "publish", "promote", "floor", "gc",
    ]  # fmt: skip
    text = good(tmp_path, "audit --verify --last 2")
    assert "gc" in text
    assert "the log holds: 7 entries" in text
    file = tmp_path / "keys/repository/audit.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    cut = run(tmp_path, "audit --verify")
    assert cut.returncode == 1
    assert "ALTERED: the signed timestamp counts 7 entries, the log ends at 6" in cut.stdout


def test_passphrases_come_from_a_file_or_the_environment_and_never_from_the_command_line(
    tmp_path: Path, new_bundle: New
) -> None:
    words = "correct horse battery"
    (tmp_path / "secret").write_text(words + "\n")
    short = run(tmp_path, "keys init short", EDGE_PACK_PASSPHRASE="1234")
    assert short.returncode == 2
    assert "expected at least 8" in short.stderr
    assert not (tmp_path / "short").exists()
    made = good(tmp_path, "keys init keys --passphrase-file secret")
    assert "The keys are encrypted" in made
    nobody = run(tmp_path, "keys init more --passphrase")
    assert nobody.returncode == 2
    assert "no terminal to ask on" in nobody.stderr
    asked = run(tmp_path, "keys rotate models")
    assert asked.returncode == 2
    assert "passphrase" in asked.stderr
    assert "EDGE_PACK_PASSPHRASE" in asked.stderr
    wrong = run(tmp_path, "keys rotate models", EDGE_PACK_PASSPHRASE="wrong horse")
    assert wrong.returncode == 2
    assert "targets.pem does not open" in wrong.stderr
    assert words not in wrong.stderr
    good(tmp_path, "keys rotate models --passphrase-file secret")
    out = json.loads(good(tmp_path, "keys rotate root --json", EDGE_PACK_PASSPHRASE=words))
    assert (out["done"], out["signed_by"]) == (True, ["root", "root-2"])
    for name in ("models-2", "root-2"):
        assert b"ENCRYPTED" in (tmp_path / f"keys/{name}.pem").read_bytes()
    assert "--passphrase TEXT" not in good(tmp_path, "keys init --help")


def test_signatures_are_gathered_by_commands(tmp_path: Path) -> None:
    good(tmp_path, "keys init keys --profile managed")
    for number in (2, 3):
        (tmp_path / f"keys/root-{number}.pem").rename(tmp_path / f"root-{number}.pem")
    out = json.loads(good(tmp_path, "keys rotate timestamp --json"))
    assert (out["done"], out["signed_by"]) == (False, ["root-1"])
    waiting = run(tmp_path, "keys status")
    assert waiting.returncode == 1
    assert "a change of keys waits for signatures" in waiting.stdout
    assert "still needs 1 of 2 signatures of the former root keys" in waiting.stdout
    assert run(tmp_path, "keys rotate models").returncode == 2
    (tmp_path / "root-3.pem").rename(tmp_path / "keys/root-3.pem")
    signed = good(tmp_path, "keys sign")
    assert "signed by root-3" in signed
    assert "done; bring it to devices with `edge-pack sync`" in signed
    nothing = run(tmp_path, "keys sign")
    assert (nothing.returncode, "nothing waits" in nothing.stderr) == (2, True)
    added = json.loads(good(tmp_path, "keys add rollout --new operator --threshold 2 --json"))
    assert added["done"]
    left = run(tmp_path, "keys remove rollout operator")
    assert left.returncode == 2
    assert "would need 2 of 1 keys" in left.stderr
    good(tmp_path, "keys remove rollout operator --threshold 1")
    status = json.loads(good(tmp_path, "keys status --json"))
    assert status["unused_keys"] == ["operator", "timestamp"]
    assert status["missing_signatures"] == []


def test_renewal_for_cron_says_by_its_exit_code_what_is_left_to_do(
    embedded: Any, tmp_path: Path
) -> None:
    import datetime

    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=20)
    create(tmp_path / "keys", "managed", now=past)
    expired = run(tmp_path, "keys status")
    assert expired.returncode == 1
    assert "EXPIRED" in expired.stdout
    to = f"--fleet plant --broker {embedded.url}"
    first = json.loads(good(tmp_path, f"keys renew {to} --json"))
    assert first["renewed"] == ["snapshot", "timestamp"]
    assert embedded.retained("edge/1/plant/tuf/m/timestamp.json")
    assert "nothing else is due" in good(tmp_path, "keys renew")
    good(tmp_path, "keys status")
    (tmp_path / "old").mkdir()
    past -= datetime.timedelta(days=500)
    create(tmp_path / "old/keys", "managed", now=past)
    left = run(tmp_path, "keys renew --keys old/keys --json")
    assert left.returncode == 1
    assert json.loads(left.stdout)["due"] == ["root", "targets"]
    good(tmp_path, "keys renew --keys old/keys --offline")
    assert Repository(tmp_path / "old/keys").shelf.read().root.version == 2


@pytest.mark.parametrize(
    "case",
    [
        ("promote pump --fleet home", "is not NAME@VERSION"),
        ("promote pump@9 --fleet home", "was never published from here"),
        ("promote pump@9 --fleet a/b", "fleet"),
        ("floor set pump@1 --fleet home", "channel stable has no model pump"),
        ("gc --fleet home", "name it with --broker, or pass --dry-run"),
        ("status --broker mqtt://localhost", "--broker needs --fleet"),
        ("audit --keys none", "no signing repository"),
        ("keys rotate mirrors", "there is no role 'mirrors'"),
        ("keys rotate root --key nobody", "does not sign for root"),
        ("keys add root none.pub", "cannot read"),
        ("keys add root keys/root.pem", "not a valid"),
        ("keys add root keys/root.pub", "signs for root already"),
        ("keys add root --new x --threshold 3", "from 1 to 2"),
        ("keys remove root root", "no key left"),
        ("keys remove root models", "does not sign for root"),
        ("keys renew --broker mqtt://localhost", "go together"),
        ("keys sign --take none", "cannot read"),
        ("keys sign --take keys/root.pub", "Name the pending.json"),
    ],
)
def test_a_mistake_of_the_owner_is_one_message_and_changes_no_metadata(
    keys_dir: Path, files: Any, case: tuple[str, str]
) -> None:
    line, said = case
    before = files(keys_dir / "repository")
    done = run(keys_dir.parent, line)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stdout == ""
    after = files(keys_dir / "repository")
    after.pop("lock", None)
    before.pop("lock", None)
    assert after == before


def test_a_broker_that_is_away_costs_no_version(keys_dir: Path, files: Any) -> None:
    before = files(keys_dir)
    for line in (
        "sync --fleet home --broker mqtt://localhost:1",
        "gc --fleet home --broker mqtt://localhost:1",
    ):
        done = run(keys_dir.parent, line)
        assert done.returncode == 5, done.stderr
        after = files(keys_dir)
    after.pop("repository/lock", None)
    assert after == before


def test_every_command_has_a_help_with_an_example(tmp_path: Path) -> None:
    for words in (
        "publish", "promote", "floor set", "sync", "gc", "status", "audit", "keys init",
        "keys status", "keys rotate", "keys add", "keys remove", "keys sign", "keys renew",
        "mirror export", "mirror set", "broker-acl",
    ):  # fmt: skip
        assert f"edge-pack {words} " in good(tmp_path, f"{words} --help").partition("Example")[2]
    for group in ("keys", "floor", "mirror"):
        assert f"edge-pack {group} " in good(tmp_path, f"{group} --help").partition("Example")[2]


def test_a_fleet_with_a_mistyped_name_is_not_a_new_fleet(
    embedded: Any, tmp_path: Path, new_bundle: New, files: Any
) -> None:
    good(tmp_path, "keys init keys")
    name = write(tmp_path, new_bundle(size_bytes=1000))
    good(tmp_path, f"publish {name} --fleet home --broker {embedded.url}")
    before = files(tmp_path / "keys")
    typed = f"--fleet hmoe --broker {embedded.url}"
    for line in (
        f"publish {name} {typed}", f"promote pump@1.0 {typed}", f"sync {typed}", f"gc {typed}",
        f"status {typed}", "mirror export www --fleet hmoe", f"keys renew {typed}",
    ):  # fmt: skip
        done = run(tmp_path, line)
        assert done.returncode == 2, line
        assert "nothing was published for fleet hmoe yet; there is home" in done.stderr
        assert "--new-fleet" in done.stderr
        assert files(tmp_path / "keys") == before, line
    assert not embedded.retained("edge/1/hmoe/tuf/m/timestamp.json")
    good(tmp_path, "promote pump@1.0 --fleet plant --new-fleet")
    good(tmp_path, f"publish {name} --fleet lab --new-fleet --broker {embedded.url}")
    fleets = {line["fleet"] for line in json.loads(good(tmp_path, "status --json"))["models"]}
    assert fleets == {"home", "lab", "plant"}
    good(tmp_path, f"sync --fleet plant --broker {embedded.url}")


def test_the_same_publication_again_mends_a_manifest_that_was_damaged(
    embedded: Any, tmp_path: Path, new_bundle: New
) -> None:
    good(tmp_path, "keys init keys")
    to = f"--fleet home --broker {embedded.url}"
    name = write(tmp_path, new_bundle(size_bytes=1000))
    good(tmp_path, f"publish {name} {to}")
    (paper,) = (tmp_path / "keys/repository/targets").rglob("*.1.0.json")
    whole = paper.read_bytes()
    for damage in (b"", whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
        paper.write_bytes(damage)
        broken = run(tmp_path, f"sync {to}")
        assert (broken.returncode, "is damaged" in broken.stderr) == (2, True), broken
        again = json.loads(good(tmp_path, f"publish {name} {to} --json"))
        assert not again["signed"]
        assert paper.read_bytes() == whole
        good(tmp_path, f"sync {to}")


def test_a_wrong_file_to_take_signatures_from_is_no_reason_to_drop_the_change(
    tmp_path: Path,
) -> None:
    good(tmp_path, "keys init keys --profile managed")
    for number in (2, 3):
        (tmp_path / f"keys/root-{number}.pem").rename(tmp_path / f"root-{number}.pem")
    shutil.copytree(tmp_path / "keys", tmp_path / "copy")
    good(tmp_path, "keys rotate timestamp")
    good(tmp_path, "keys rotate snapshot --keys copy")
    pending = tmp_path / "keys/repository/pending.json"
    before = pending.read_bytes()
    for wrong in ("keys/settings.json", "keys/root-1.pub", "copy/repository/pending.json"):
        (tmp_path / "keys/settings.json").write_text("{}")
        done = run(tmp_path, f"keys sign --take {wrong}")
        assert done.returncode == 2
        assert "Name the pending.json of the same change" in done.stderr
        assert "--discard" not in done.stderr
        assert pending.read_bytes() == before


def test_a_wrong_folder_of_keys_touches_no_fleet(
    tmp_path: Path, embedded: Any, new_bundle: New, files: Any
) -> None:
    to = f"--fleet home --broker {embedded.url}"
    for keys in ("ours", "theirs"):
        good(tmp_path, f"keys init {keys}")
    bundle = write(tmp_path, new_bundle("1.0", seed=1, size_bytes=500))
    good(tmp_path, f"publish {bundle} --keys ours --channel stable {to}")
    before = files(tmp_path / "theirs")
    before["repository/lock"] = b""
    for line in (
        f"publish {bundle} --keys theirs --channel stable {to}",
        f"publish {bundle} --keys theirs --channel stable --new-fleet {to}",
    ):
        done = run(tmp_path, line)
        assert done.returncode == 2, done.stdout
        assert "of another publisher" in done.stderr
        assert "--replace" in done.stderr
    assert files(tmp_path / "theirs") == before, "nothing was signed"
    assert "the broker holds all of it" in good(tmp_path, f"status --keys ours {to}")

    # Who has such a fleet elsewhere is told so; who took over is not stopped.
    with BrokerThread() as other:
        elsewhere = f"--fleet home --broker {other.url}"
        good(tmp_path, f"publish {bundle} --keys theirs --channel stable {elsewhere}")
    assert run(tmp_path, f"sync --keys theirs {to}").returncode == 2
    done = run(tmp_path, f"status --keys theirs {to}")
    assert done.returncode == 1
    assert "of another publisher" in done.stdout
    good(tmp_path, f"sync --keys theirs --replace {to}")
    assert "the broker holds all of it" in good(tmp_path, f"status --keys theirs {to}")
    assert run(tmp_path, f"sync --keys ours {to}").returncode == 2


def test_junk_in_the_place_of_a_root_stops_nobody(
    tmp_path: Path, hostile: Any, new_bundle: New
) -> None:
    world, broker = hostile
    bundle = write(tmp_path, new_bundle("1.0", seed=1, size_bytes=500))
    to = f"--fleet home --broker {broker.url}"
    other = tmp_path / "other"
    create(other, "home", now=datetime.now(UTC))
    signed = json.loads(Repository(other).shelf.first_root())
    signed["signed"]["version"] = 2  # and so not what its own keys signed
    for junk in (b"junk", json.dumps(signed).encode()):
        world.put(world.topics.metadata("1.root.json"), junk)
        good(tmp_path, f"publish {bundle} --channel stable {to}")
        assert "the broker holds all of it" in good(tmp_path, f"status {to}")


def test_status_of_keys_takes_the_folder_from_the_environment(tmp_path: Path) -> None:
    good(tmp_path, "keys init plant")
    assert "timestamp" in good(tmp_path, "keys status", EDGE_PACK_KEYS="plant")

"""Keys are rotated, added, removed and signed for together, and nobody is locked out."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_release import create, keyring, keys, metadata, pending, roles
from edge_release.repository import Repository
from edge_release.shelf import Shelf

New = Callable[..., Bundle]
Files = Callable[[Path], dict[str, bytes]]
DAY = datetime.timedelta(days=1)
WORDS = "correct horse battery"


def keyids(repository: Repository, role: str) -> list[str]:
    state = repository.shelf.read()
    return [key.keyid for key in metadata.keys_of(state.delegator(role), role)[0]]


@pytest.mark.parametrize("profile", ["home", "managed"])
@pytest.mark.parametrize("role", roles.ROLES)
def test_a_rotated_role_is_signed_by_new_keys_and_the_old_ones_may_go(
    tmp_path: Path, now: datetime.datetime, new_bundle: New, role: str, profile: str
) -> None:
    create(tmp_path / "keys", profile, now=now)  # type: ignore[arg-type]
    repository = Repository(tmp_path / "keys")
    repository.publish(new_bundle("1.0"), fleet="home", channel="stable", now=now)
    before = keyids(repository, role)
    outcome = keyring.rotate(repository, role, now=now)
    after = keyids(repository, role)
    assert outcome.done
    assert len(after) == len(before)
    assert not set(after) & set(before)
    assert [line.split(" ")[1] for line in outcome.lines[: 2 * len(after)]] == [
        *"+" * len(after), *"-" * len(after)
    ]  # fmt: skip
    for name in outcome.unused:
        keys.path(tmp_path / "keys", name).unlink()
    repository = Repository(tmp_path / "keys")
    repository.publish(new_bundle("2.0"), fleet="home", channel="stable", now=now + DAY)
    assert keyring.rotate(repository, role, now=now + DAY).done
    assert not repository.shelf.pending.exists()


def test_a_role_whose_key_is_lost_gets_a_new_one(keys_dir: Path, now: datetime.datetime) -> None:
    for role in (roles.TARGETS, roles.MODELS, roles.TIMESTAMP, roles.SNAPSHOT, roles.ROLLOUT):
        keys.path(keys_dir, Repository(keys_dir).ring.name(keyids(Repository(keys_dir), role)[0])
                  ).unlink()  # fmt: skip
        assert keyring.rotate(Repository(keys_dir), role, now=now).done
    assert all(row.present for row in keyring.status(Repository(keys_dir), now=now).roles)


def test_two_of_three_sign_one_after_the_other_on_their_own_machines(
    tmp_path: Path, now: datetime.datetime
) -> None:
    create(tmp_path / "made", "managed", now=now)
    machines = {}
    for name in ("server", "anna", "bert", "cleo"):
        machines[name] = tmp_path / name
        shutil.copytree(tmp_path / "made", machines[name])
        for number, owner in enumerate(("anna", "bert", "cleo"), 1):
            if owner != name:
                (machines[name] / f"root-{number}.pem").unlink()
            else:
                for role in ("targets", "models", "rollout", "snapshot", "timestamp"):
                    (machines[name] / f"{role}.pem").unlink()

    server = Repository(machines["server"])
    before = server.shelf.read().timestamp.version
    # The server asks for a new timestamp key; nobody with a root key has signed yet.
    outcome = keyring.rotate(server, roles.TIMESTAMP, now=now)
    assert (outcome.done, outcome.signed) == (False, ())
    assert [(lack.as_role, lack.missing, len(lack.by)) for lack in outcome.lacks] == [
        ("former root", 2, 3), ("root", 2, 3),
    ]  # fmt: skip
    assert server.shelf.read().timestamp.version == before
    with pytest.raises(InputFault, match="waits for signatures already"):
        keyring.rotate(server, roles.SNAPSHOT, now=now)

    paper = server.shelf.pending
    shutil.copy(paper, Shelf(machines["anna"]).pending)
    shutil.copy(paper, Shelf(machines["cleo"]).pending)
    signed = keyring.sign(Repository(machines["anna"]), now=now)
    assert (signed.done, signed.signed) == (False, ("root-1",))
    assert [lack.missing for lack in signed.lacks] == [1, 1]
    assert [line for line in signed.lines if line.startswith("timestamp: +")]
    # Each signed a copy of their own; the server puts the signatures together.
    signed = keyring.sign(Repository(machines["cleo"]), now=now)
    assert signed.signed == ("root-3",)
    again = keyring.sign(server, take=Shelf(machines["anna"]).pending, now=now)
    assert not again.done
    waiting = keyring.status(server, now=now)
    assert [lack.missing for lack in waiting.lacks] == [1, 1]
    done = keyring.sign(server, take=Shelf(machines["cleo"]).pending, now=now)
    assert done.done
    assert server.shelf.read().root.version == 2
    assert server.shelf.read().timestamp.version == before + 1
    assert not paper.exists()
    assert keyring.status(server, now=now).lines == ()


def test_signatures_of_another_change_or_of_strangers_are_not_taken(
    tmp_path: Path, now: datetime.datetime
) -> None:
    create(tmp_path / "keys", "managed", now=now)
    for number in (1, 2, 3):
        keys.path(tmp_path / "keys", f"root-{number}").rename(tmp_path / f"root-{number}.pem")
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "keys", other)
    repository, copy = Repository(tmp_path / "keys"), Repository(other)
    keyring.rotate(repository, roles.TIMESTAMP, now=now)
    keyring.rotate(copy, roles.SNAPSHOT, now=now)
    with pytest.raises(InputFault, match="different changes"):
        keyring.sign(repository, take=copy.shelf.pending, now=now)
    # A stranger's copy, signed by nobody's key under a root key's id.
    mine = pending.decode(repository.shelf.pending.read_bytes(), "")
    keyid = keyids(repository, roles.ROOT)[0]
    forged = mine.files["root"].replace(
        '"signatures":[]', f'"signatures":[{{"keyid":"{keyid}","sig":"{"00" * 64}"}}]'
    )
    assert forged != mine.files["root"]
    paper = tmp_path / "forged.json"
    paper.write_bytes(pending.encode(pending.Pending(what="x", about={}, files={"root": forged})))
    outcome = keyring.sign(repository, take=paper, now=now)
    assert [lack.missing for lack in outcome.lacks] == [2, 2]
    # Nor does the forgery, put in the file's place, keep that key from signing.
    shutil.copy(paper, repository.shelf.pending)
    for number in (1, 2):
        (tmp_path / f"root-{number}.pem").rename(keys.path(tmp_path / "keys", f"root-{number}"))
    outcome = keyring.sign(Repository(tmp_path / "keys"), now=now)
    assert (outcome.done, outcome.signed) == (True, ("root-1", "root-2"))


def test_a_change_that_another_one_overtook_is_refused_and_can_be_dropped(
    tmp_path: Path, now: datetime.datetime
) -> None:
    create(tmp_path / "keys", "managed", now=now)
    shutil.copytree(tmp_path / "keys", tmp_path / "poor")
    for number in (1, 2, 3):
        (tmp_path / "poor" / f"root-{number}.pem").unlink()
    poor, rich = Repository(tmp_path / "poor"), Repository(tmp_path / "keys")
    keyring.rotate(poor, roles.TIMESTAMP, now=now)
    assert keyring.rotate(rich, roles.SNAPSHOT, now=now).done
    shutil.copy(poor.shelf.pending, rich.shelf.pending)
    for act in (
        lambda: keyring.sign(rich, now=now),
        lambda: keyring.status(rich, now=now),
        lambda: keyring.rotate(rich, roles.TIMESTAMP, now=now),
    ):
        with pytest.raises(InputFault, match="another change was made since"):
            act()
    assert keyring.discard(rich)
    assert not keyring.discard(rich)
    assert keyring.rotate(rich, roles.TIMESTAMP, now=now).done


@pytest.mark.parametrize("junk", [b"", b"[]", b'{"what":"x","about":{},"files":{}}', b"\xff" * 50])
def test_a_damaged_pending_file_is_said_so(
    keys_dir: Path, now: datetime.datetime, junk: bytes
) -> None:
    Shelf(keys_dir).pending.write_bytes(junk)
    with pytest.raises(InputFault, match=r"pending\.json"):
        keyring.sign(Repository(keys_dir), now=now)


def test_what_would_lock_the_owner_out_is_refused(
    keys_dir: Path, now: datetime.datetime, files: Files
) -> None:
    repository = Repository(keys_dir)
    root, models = keyids(repository, "root"), keyids(repository, "models")
    online = repository.ring.entry("timestamp").key
    before = files(keys_dir)
    for said, role, options in (
        ("no key left", "root", {"drop": root}),
        ("no key left", "models", {"drop": models}),
        ("from 1 to 1", "root", {"threshold": 2}),
        ("from 1 to 1", "timestamp", {"threshold": 0}),
        ("does not sign for snapshot", "snapshot", {"drop": root}),
        ("signs for timestamp already", "timestamp", {"add": [online]}),
        ("a root key signs for root", "root", {"add": [online]}),
        ("nothing to change", "root", {"threshold": 1}),
        ("no role 'mirrors'", "mirrors", {"threshold": 1}),
    ):
        with pytest.raises(InputFault, match=said):
            keyring.change(repository, role, "x", {}, now=now, **options)  # type: ignore[arg-type]
    assert files(keys_dir) == before


def test_a_colleague_without_a_signature_cannot_be_needed_for_root(
    keys_dir: Path, tmp_path: Path, now: datetime.datetime
) -> None:
    """A public key alone raises no threshold: its owner has to sign the new root as well."""
    repository = Repository(keys_dir)
    create(tmp_path / "theirs", "home", now=now)
    theirs = Repository(tmp_path / "theirs").ring.entry("root").key
    added = repository.ring.add("anna", theirs)
    outcome = keyring.change(repository, "root", "add", {}, add=[added.key], threshold=2, now=now)
    assert not outcome.done
    assert [(lack.as_role, lack.missing) for lack in outcome.lacks] == [("root", 1)]
    assert repository.shelf.read().root.version == 1


# -- passphrases and files -------------------------------------------------------------------


def test_encrypted_keys_sign_with_the_passphrase_and_not_without(
    tmp_path: Path, now: datetime.datetime, new_bundle: New, files: Files
) -> None:
    folder = tmp_path / "keys"
    create(folder, "home", now=now, passphrase=WORDS)
    for file in folder.glob("*.pem"):
        assert file.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert file.stat().st_mode & 0o777 == 0o600
    bundle = new_bundle(size_bytes=500)
    asked: list[str] = []

    def answer(what: str) -> str:
        asked.append(what)
        return WORDS

    before = Shelf(folder).read().timestamp.version
    for secrets, said in (
        (keys.no_secrets, "passphrase of .*models.pem is needed"),
        (lambda what: "wrong horse", "models.pem does not open: another passphrase"),
    ):
        with pytest.raises(InputFault, match=said):
            Repository(folder, secrets=secrets).publish(
                bundle, fleet="home", channel="stable", now=now
            )
        with pytest.raises(InputFault):
            keyring.rotate(Repository(folder, secrets=secrets), roles.MODELS, now=now)
    assert Shelf(folder).read().timestamp.version == before
    assert len(list(folder.glob("*.pem"))) == 6  # no new key was left behind
    repository = Repository(folder, secrets=answer)
    repository.publish(bundle, fleet="home", channel="stable", now=now)
    assert sorted(what.split("/")[-1] for what in asked) == [
        "models.pem", "rollout.pem", "snapshot.pem", "timestamp.pem",
    ]  # fmt: skip
    assert repository.ring.encrypts
    assert keyring.rotate(repository, roles.MODELS, passphrase=WORDS, now=now).done
    assert keys.encrypted(folder, "models-2")


def test_a_passphrase_that_is_none_is_refused(tmp_path: Path, now: datetime.datetime) -> None:
    with pytest.raises(InputFault, match="has 7 characters, expected at least 8"):
        create(tmp_path / "keys", "home", now=now, passphrase="1234567")
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(("name", "mode"), [(".", 0o750), ("models.pem", 0o640)])
def test_keys_that_others_may_read_are_not_used(
    keys_dir: Path, now: datetime.datetime, new_bundle: New, name: str, mode: int
) -> None:
    (keys_dir / name).chmod(mode)
    with pytest.raises(InputFault, match=f"mode {mode:04o}, expected .*\n.*chmod"):
        Repository(keys_dir).publish(new_bundle(), fleet="home", channel="stable", now=now)
    assert Shelf(keys_dir).read().timestamp.version == 1


def test_a_private_key_under_another_public_key_is_found_out(
    keys_dir: Path, now: datetime.datetime, new_bundle: New
) -> None:
    shutil.copy(keys_dir / "rollout.pem", keys_dir / "models.pem")
    with pytest.raises(InputFault, match=r"models\.pem is not the key that models\.pub says"):
        Repository(keys_dir).publish(new_bundle(), fleet="home", channel="stable", now=now)


def test_a_folder_made_before_public_halves_were_kept_still_signs(
    keys_dir: Path, now: datetime.datetime, new_bundle: New
) -> None:
    for file in keys_dir.glob("*.pub"):
        file.unlink()
    Repository(keys_dir).publish(new_bundle(), fleet="home", channel="stable", now=now)
    assert keyring.rotate(Repository(keys_dir), roles.TIMESTAMP, now=now).done


# -- renewal ---------------------------------------------------------------------------------


def test_renewal_signs_what_is_due_and_says_what_has_no_key_here(
    tmp_path: Path, now: datetime.datetime
) -> None:
    create(tmp_path / "keys", "managed", now=now)
    repository = Repository(tmp_path / "keys")
    assert repository.renew(now=now + 3 * DAY) == repository.renew(now=now)
    first = repository.renew(now=now + 4 * DAY)
    assert (first.renewed, first.due) == (("timestamp",), ())
    keys.path(tmp_path / "keys", "models").unlink()
    later = repository.renew(now=now + 200 * DAY)
    assert (later.renewed, later.due) == (("rollout", "snapshot", "timestamp"), ("models",))
    state = repository.shelf.read()
    assert state.timestamp.expires == now + 207 * DAY
    assert state.targets["rollout"].expires == now + 565 * DAY
    assert keyring.renew(repository, ["root", "targets"], now=now + 400 * DAY).done
    assert repository.shelf.read().root.expires == now + 1130 * DAY
    keys.path(tmp_path / "keys", "timestamp").unlink()
    before = repository.shelf.read().timestamp.version
    none = repository.renew(now=now + 500 * DAY)
    assert none.renewed == ()
    assert "timestamp" in none.due
    assert repository.shelf.read().timestamp.version == before


# -- power cuts ------------------------------------------------------------------------------

ROTATE = """
import datetime, sys
from pathlib import Path
from edge_release import keyring
from edge_release.repository import Repository
now = datetime.datetime.fromisoformat(sys.argv[3])
print("ready", flush=True)
assert keyring.rotate(Repository(Path(sys.argv[1])), sys.argv[2], now=now).done
"""


@pytest.mark.slow
@pytest.mark.parametrize("role", ["targets"])
def test_a_rotation_killed_at_any_write_leaves_the_former_keys_or_the_new_ones(
    tmp_path: Path, now: datetime.datetime, new_bundle: New, role: str
) -> None:
    """SIGKILL at the k-th write or rename, for every k; afterwards the next command heals it."""
    strace = shutil.which("strace")
    if strace is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no strace")
        pytest.skip("strace is not installed")
    create(tmp_path / "pristine", "home", now=now)
    old = keyids(Repository(tmp_path / "pristine"), role)
    outcomes, cuts = set(), 0
    for calls in ("rename,renameat,renameat2", "fsync", "pwrite64,unlink"):
        for k in range(1, 60):
            folder = tmp_path / f"keys-{calls[:3]}-{k}"
            shutil.copytree(tmp_path / "pristine", folder)
            done = subprocess.run(
                [
                    strace, "-f", "-o", "/dev/null", "-e", f"trace={calls}",
                    "-e", f"inject={calls}:signal=SIGKILL:when={k}",
                    sys.executable, "-B", "-c", ROTATE, folder, role, now.isoformat(),
                ],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            repository = Repository(folder)
            state = repository.shelf.read()  # verified, whichever it is
            rotated = keyids(repository, role) != old
            outcomes.add(rotated)
            if keyring.waiting_change(repository) is not None:
                assert not rotated
                assert keyring.sign(repository, now=now).done
            elif not rotated:
                assert keyring.rotate(repository, role, now=now).done
            assert keyids(repository, role) != old
            assert repository.shelf.read().timestamp.version == 2
            repository.publish(new_bundle(size_bytes=500), fleet="home", channel="stable", now=now)
            assert state.timestamp.version <= 2
            if done.returncode == 0:
                break
            cuts += 1
    print(f"{role}: {cuts} cuts")
    assert outcomes == {True, False}
    assert cuts > 20

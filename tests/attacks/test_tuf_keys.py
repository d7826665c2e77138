"""Keys: thresholds, doubled keys, algorithms, rotations of every role, hundreds of roots.

The cases of the public conformance suite's ``test_keys`` and ``test_updater_key_rotations`` by
their meaning, and those that it leaves out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from attack_kit import TOP, Client, Repo, doubled, signer
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Signed

# -- thresholds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_one_signature_less_than_the_threshold_is_none(
    client: Client, repo: Repo, role: str
) -> None:
    repo.add_key(role)
    repo.add_key(role)
    repo.root.roles[role].threshold = 3
    repo.publish(*TOP)
    assert client.refresh() == 0
    repo.signers[role].pop()
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.versions()[role] == 2


def test_a_threshold_above_the_number_of_keys_is_never_met(client: Client, repo: Repo) -> None:
    repo.root.roles["snapshot"].threshold = 2
    repo.publish("root", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.versions() == {"root": 2, "timestamp": 2}


def test_signatures_by_keys_of_other_roles_do_not_count(client: Client, repo: Repo) -> None:
    repo.add_key("snapshot")
    repo.root.roles["snapshot"].threshold = 2
    repo.signers["snapshot"] = [*repo.signers["timestamp"], *repo.signers["targets"],
                                repo.signers["snapshot"][0]]  # fmt: skip
    repo.publish("root", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.versions() == {"root": 2, "timestamp": 2}


def test_one_signature_repeated_does_not_count_as_several(client: Client, repo: Repo) -> None:
    repo.add_key("snapshot")
    repo.root.roles["snapshot"].threshold = 2
    repo.signers["snapshot"].pop()
    repo.publish("root", "snapshot", "timestamp")
    metadata = json.loads(repo.served("snapshot"))
    metadata["signatures"] *= 2
    repo.serve("snapshot", json.dumps(metadata).encode())
    assert client.refresh() == 1
    assert client.versions() == {"root": 2, "timestamp": 2}


def test_a_key_id_twice_in_a_role_makes_it_no_role(client: Client, repo: Repo) -> None:
    root = json.loads(repo.first_root)
    root["signed"]["version"] = 2
    role = root["signed"]["roles"]["snapshot"]
    role["keyids"] *= 2
    role["threshold"] = 2
    _sign_again(repo, root)
    repo.files["m/2.root.json"] = json.dumps(root).encode()
    assert client.refresh() == 1
    assert client.versions() == {"root": 1}


@pytest.mark.parametrize("role", TOP)
def test_one_key_under_two_ids_does_not_make_two_signatures(
    client: Client, repo: Repo, role: str
) -> None:
    """python-tuf counts it twice: who lists it so has a threshold that one thief meets."""
    key = repo.signers[role][0]
    assert isinstance(key, CryptoSigner)
    repo.add_key(role, doubled(key, "ab" * 32))
    repo.root.roles[role].threshold = 2
    repo.publish(*TOP)
    assert client.refresh(stricter=True) == 1


def test_a_root_with_a_doubled_key_is_not_enrolled(
    new_client: Callable[..., Client], repo: Repo
) -> None:
    key = repo.signers["root"][0]
    assert isinstance(key, CryptoSigner)
    repo.add_key("root", doubled(key, "ab" * 32))
    assert new_client(repo).init(repo.seal("root")) == 1


def test_a_key_under_a_false_id_is_used_by_that_id_only(client: Client, repo: Repo) -> None:
    """TAP 12: an id is a name. Whoever signs under the old one is not heard."""
    key = signer()
    true_id = key.public_key.keyid
    repo.rotate("snapshot")
    repo.root.revoke_key(repo.root.roles["snapshot"].keyids[0], "snapshot")
    repo.signers["snapshot"] = []
    renamed = doubled(key, "00" * 32)
    repo.add_key("snapshot", renamed)
    repo.publish("root", "snapshot", "timestamp")
    assert client.refresh() == 0
    metadata = json.loads(repo.seal("snapshot"))
    metadata["signatures"][0]["keyid"] = true_id
    repo.snapshot.version += 1
    repo.serve("snapshot", json.dumps(metadata).encode())
    repo.publish("timestamp")
    assert client.refresh() == 1


def test_a_bad_signature_beside_enough_good_ones_does_no_harm(client: Client, repo: Repo) -> None:
    repo.add_key("timestamp")
    repo.publish("root", "timestamp")
    good = json.loads(repo.served("timestamp"))
    for number, bad in enumerate(("", "zz", "00" * 64, good["signatures"][1]["sig"], "é")):
        repo.publish("timestamp")
        metadata = json.loads(repo.served("timestamp"))
        metadata["signatures"][0]["sig"] = bad
        repo.serve("timestamp", json.dumps(metadata).encode())
        assert client.refresh() == 0, bad
        assert client.versions()["timestamp"] == 3 + number


# -- algorithms ---------------------------------------------------------------------------------

KINDS: dict[str, Callable[[], CryptoSigner]] = {
    "ed25519": CryptoSigner.generate_ed25519,
    "ecdsa-sha2-nistp256": CryptoSigner.generate_ecdsa,
    "rsassa-pss-sha256": lambda: CryptoSigner.generate_rsa(scheme="rsassa-pss-sha256"),
    "rsa-pkcs1v15-sha256": lambda: CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_algorithm_of_the_specification_verifies_and_refuses(
    client: Client, repo: Repo, kind: str
) -> None:
    repo.add_key("root", KINDS[kind]())
    repo.root.roles["root"].threshold = 2
    repo.publish("root")
    assert client.refresh() == 0
    repo.publish("root")
    metadata = json.loads(repo.served("root"))
    other = Metadata[Signed].from_bytes(repo.files["m/2.root.json"])
    for entry in metadata["signatures"]:
        entry["sig"] = other.signatures[entry["keyid"]].signature
    repo.serve("root", json.dumps(metadata).encode())
    assert client.refresh() == 1
    assert client.versions()["root"] == 2


@pytest.mark.parametrize(
    ("keytype", "scheme"),
    [("ed25519", "unheard-of"), ("unheard-of", "ed25519"), ("rsa", "ed25519"), ("", "")],
)
def test_a_key_of_an_unknown_kind_never_counts(
    client: Client, repo: Repo, keytype: str, scheme: str
) -> None:
    repo.publish("root")
    metadata = json.loads(repo.served("root"))
    keyid = metadata["signed"]["roles"]["timestamp"]["keyids"][0]
    metadata["signed"]["keys"][keyid] |= {"keytype": keytype, "scheme": scheme}
    _sign_again(repo, metadata)
    repo.serve("root", json.dumps(metadata).encode())
    assert client.refresh() == 1
    assert "timestamp" not in client.versions()


def _sign_again(repo: Repo, metadata: dict[str, object]) -> None:
    """Sign a root that was changed as JSON."""
    payload = encode_canonical(metadata["signed"])
    assert payload is not None
    signatures = [each.sign(payload.encode()) for each in repo.signers["root"]]
    metadata["signatures"] = [{"keyid": s.keyid, "sig": s.signature} for s in signatures]


# -- rotations ----------------------------------------------------------------------------------

# keys of each version, how many must sign, who signs; the last is good or not
Version = tuple[list[int], int, list[int]]
ROOTS: dict[str, tuple[list[Version], bool]] = {
    "one for one": ([([1], 1, [1]), ([2], 1, [2, 1]), ([2], 1, [2])], True),
    "strangers sign too": (
        [([1], 1, [3, 1, 4]), ([2], 1, [3, 2, 1, 4]), ([2], 1, [3, 2, 4])], True
    ),
    "any three of five": (
        [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 2, 3, 4], 3, [0, 4, 1]),
         ([0, 1, 2, 3, 4], 3, [0, 1, 3]), ([0, 1, 2, 3, 4], 3, [0, 1, 3])],
        True,
    ),
    "one of five replaced": (
        [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 1])], True
    ),
    "one of five replaced in steps": (
        [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4, 5]),
         ([0, 1, 3, 4, 5], 3, [0, 4, 5])],
        True,
    ),
    "all of five replaced": (
        [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([5, 6, 7, 8, 9], 3, [0, 2, 4, 5, 6, 7]),
         ([5, 6, 7, 8, 9], 3, [5, 6, 7])],
        True,
    ),
    "threshold raised": ([([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [1, 2])], True),
    "threshold lowered": (
        [([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1, 2]), ([1, 2, 3], 1, [1])], True
    ),
    "key and threshold added": ([([1], 1, [1]), ([1, 2], 2, [1, 2])], True),
    "the old key did not sign": ([([1], 1, [1]), ([2], 1, [2, 3, 4])], False),
    "the new key did not sign": ([([1], 1, [1]), ([2], 1, [1, 3, 4])], False),
    "too few of the new": (
        [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4])], False
    ),
    "too few of the old": (
        [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 5])], False
    ),
    "the raised threshold is not met": ([([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [2])], False),
    "the lowered threshold is met, the old one not": (
        [([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1])], False
    ),
    "a removed key comes back by itself": (
        [([1], 1, [1]), ([2], 1, [1, 2]), ([1], 1, [1])], False
    ),
}  # fmt: skip
OTHERS: dict[str, tuple[Version, bool]] = {
    "new key": (([2], 1, [2]), True),
    "strangers sign too": (([1], 1, [3, 1, 4]), True),
    "not by the new key": (([2], 1, [1, 3, 4]), False),
    "one wrong of three": (([0, 1, 3, 4, 5], 3, [0, 2, 4]), False),
    "one missing of three": (([0, 1, 3, 4, 5], 3, [0, 4]), False),
    **{
        f"three of five: {chosen}": (([0, 1, 2, 3, 4], 3, chosen), True)
        for chosen in ([0, 2, 4], [0, 4, 1], [0, 1, 3], [1, 2, 3], [2, 3, 4])
    },
}
_KEYS = [signer() for _ in range(10)]


def _set_keys(repo: Repo, role: str, version: Version) -> None:
    keys, threshold, signing = version
    for keyid in list(repo.root.roles[role].keyids):
        repo.root.revoke_key(keyid, role)
    for number in keys:
        repo.root.add_key(_KEYS[number].public_key, role)
    repo.root.roles[role].threshold = threshold
    repo.signers[role] = [_KEYS[number] for number in signing]


@pytest.mark.parametrize("case", ROOTS)
def test_a_root_must_be_signed_by_those_before_and_by_its_own(
    new_client: Callable[..., Client], repo: Repo, case: str
) -> None:
    versions, good = ROOTS[case]
    for number, version in enumerate(versions, start=1):
        _set_keys(repo, "root", version)
        repo.root.version = number
        repo.publish("root", bump=False)
    client = new_client(repo)
    assert client.init() == 0
    assert client.refresh() == (0 if good else 1)
    last = len(versions) if good else len(versions) - 1
    assert client.trusted()["root"] == repo.files[f"m/{last}.root.json"]


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("case", OTHERS)
def test_the_other_roles_must_be_signed_by_the_keys_that_root_names_now(
    client: Client, repo: Repo, case: str, role: str
) -> None:
    assert client.refresh() == 0
    version, good = OTHERS[case]
    _set_keys(repo, role, version)
    repo.publish(*TOP)
    assert client.refresh() == (0 if good else 1)
    if good:
        assert client.trusted()[role] == repo.served(role)
    else:
        assert client.versions()[role] == 1


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_what_a_removed_key_signed_is_not_trusted_any_more(
    client: Client, repo: Repo, role: str
) -> None:
    assert client.refresh() == 0
    repo.rotate(role)
    repo.publish("root")
    assert client.refresh() == 1, "what is served was signed by the old key"


def test_three_hundred_roots_behind_is_one_refresh(client: Client, repo: Repo) -> None:
    """Root, timestamp, snapshot and targets keys change all the way; python-tuf stops at 256."""
    for number in range(300):
        former = repo.signers["root"]
        repo.rotate(("root", "timestamp", "snapshot", "targets")[number % 4])
        signing = repo.signers["root"]
        if number % 4 == 0:
            repo.signers["root"] = [*former, *signing]
        repo.publish("root")
        repo.signers["root"] = signing
    repo.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.versions() == {"root": 301, "timestamp": 2, "snapshot": 2, "targets": 2}
    repo.asked.clear()
    assert client.refresh() == 0
    assert repo.asked == ["m/302.root.json", "m/timestamp.json"]


@pytest.mark.parametrize("seed", range(8))
def test_random_histories_of_keys_end_as_python_tufs_own_client_ends(
    client: Client, repo: Repo, seed: int
) -> None:
    """Rotations, thresholds, forgotten signatures, old files; the oracle is compared inside."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(12):
        role = rng.choice(TOP)
        match rng.randrange(6):
            case 0 | 1:
                former = list(repo.signers[role])
                repo.rotate(role)
                if role == "root" and rng.random() < 0.8:
                    repo.signers[role] += former
            case 2:
                repo.add_key(role)
                repo.root.roles[role].threshold = rng.randint(1, 2)
            case 3:
                if len(repo.signers[role]) > 1:
                    repo.signers[role].pop(rng.randrange(len(repo.signers[role])))
            case 4:
                file = rng.choice([each for each in repo.files if each.endswith(f"{role}.json")])
                repo.files["m/timestamp.json" if role == "timestamp" else file] = repo.files[file]
            case 5:
                repo.signed[role].version += rng.choice((0, 0, 1))
        repo.publish(*rng.sample(TOP, rng.randint(1, 4)))
        client.refresh()

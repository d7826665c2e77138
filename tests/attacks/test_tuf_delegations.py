"""Delegations: who is asked for a target, in which order, and who is not.

The cases of the public conformance suite's ``test_updater_delegation_graphs`` and of its succinct
roles by their meaning, and delegations made to confuse.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from attack_kit import DAY, NOW, Client, Repo, doubled, signer
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import Delegations, MetaFile, SuccinctRoles, Targets


@dataclass(frozen=True)
class Edge:
    by: str
    role: str
    paths: tuple[str, ...] = ("*",)
    terminating: bool = False


GRAPHS: dict[str, tuple[list[Edge], list[str]]] = {
    "one": ([Edge("targets", "A")], ["A"]),
    "two": ([Edge("targets", "A"), Edge("targets", "B")], ["A", "B"]),
    "two levels": ([Edge("targets", "A"), Edge("targets", "B"), Edge("B", "C")], ["A", "B", "C"]),
    "depth first": (
        [Edge("targets", "A"), Edge("targets", "B"), Edge("A", "C"), Edge("A", "D")],
        ["A", "C", "D", "B"],
    ),
    "depth first, three levels": (
        [Edge("targets", "A"), Edge("targets", "B"), Edge("A", "C"), Edge("C", "D")],
        ["A", "C", "D", "B"],
    ),
    "terminating ends all but its descendants": (
        [Edge("targets", "A"), Edge("targets", "B"), Edge("A", "C", terminating=True),
         Edge("A", "D")],
        ["A", "C"],
    ),
    "terminating goes on to its descendants": (
        [Edge("targets", "A"), Edge("targets", "B"), Edge("A", "C", terminating=True),
         Edge("C", "D")],
        ["A", "C", "D"],
    ),
    "a branch whose paths do not match": (
        [Edge("targets", "A", ("*.py",)), Edge("targets", "B"), Edge("A", "C")], ["B"]
    ),
    "a deeper branch whose paths do not match": (
        [Edge("targets", "A"), Edge("targets", "B"), Edge("A", "C", ("*.py",)), Edge("C", "D")],
        ["A", "B"],
    ),
    "a terminating role whose paths do not match ends nothing": (
        [Edge("targets", "A", ("*.py",), terminating=True), Edge("targets", "B")], ["B"]
    ),
    "a cycle": (
        [Edge("targets", "A"), Edge("targets", "B"), Edge("B", "C"), Edge("C", "D"),
         Edge("D", "B")],
        ["A", "B", "C", "D"],
    ),
    "a role that delegates to itself": ([Edge("targets", "A"), Edge("A", "A")], ["A"]),
    "two delegate to a third": (
        [Edge("targets", "A"), Edge("targets", "B"), Edge("B", "C"), Edge("A", "C")],
        ["A", "C", "B"],
    ),
    "two delegate to a third by other paths": (
        [Edge("targets", "A"), Edge("targets", "B"), Edge("B", "C"), Edge("A", "C", ("*.py",))],
        ["A", "B", "C"],
    ),
    "no path at all": ([Edge("targets", "A", ()), Edge("targets", "B")], ["B"]),
}  # fmt: skip


def _delegate(repo: Repo, edges: list[Edge]) -> None:
    for edge in edges:
        repo.delegate(edge.role, by=edge.by, paths=list(edge.paths), terminating=edge.terminating)
    repo.publish("targets", *{edge.role for edge in edges}, "snapshot", "timestamp")


@pytest.mark.parametrize("graph", GRAPHS)
def test_roles_are_asked_in_order_and_no_others(client: Client, repo: Repo, graph: str) -> None:
    edges, visited = GRAPHS[graph]
    _delegate(repo, edges)
    assert client.download("nothing here") == 1
    assert repo.asked[4:] == [f"m/1.{role}.json" for role in visited]


TREE = [
    Edge("targets", "A", ("*.doc", "*.md")),
    Edge("targets", "B", ("releases/*/*",)),
    Edge("B", "C", ("releases/x/*",)),
    Edge("B", "D", ("releases/y/*.zip",)),
]
NAMED = [
    ("targets", "file"), ("A", "README.md"), ("C", "releases/x/x_v1"), ("D", "releases/y/y.zip"),
    ("D", "releases/z/z.zip"), ("A", "file.py"), ("A", "docs/README.md"), ("C", "releases/x/a/b"),
]  # fmt: skip
FOUND: dict[str, tuple[bool, list[str]]] = {
    "file": (True, []),
    "README.md": (True, ["A"]),
    "releases/x/x_v1": (True, ["B", "C"]),
    "releases/y/y.zip": (True, ["B", "D"]),
    "releases/z/z.zip": (False, ["B"]),  # D names it, and may not
    "file.py": (False, []),  # A names it, and may not
    "docs/README.md": (False, []),  # a star does not reach over a slash
    "releases/x/a/b": (False, []),
    "releases/../x": (False, ["B"]),
}


@pytest.mark.parametrize("path", FOUND)
def test_a_role_is_believed_only_about_paths_that_lead_to_it(
    client: Client, repo: Repo, path: str
) -> None:
    _delegate(repo, TREE)
    for role, name in NAMED:
        repo.add_target(name, f"{name} by {role}".encode(), role)
    repo.publish("targets", "A", "B", "C", "D", "snapshot", "timestamp")
    found, visited = FOUND[path]
    if path.startswith("releases/.."):
        # Nothing leads there; over MQTT and HTTP alike it is only a name.
        repo.signed["D"].targets[path] = repo.add_target("other", b"x", "D")  # type: ignore[attr-defined]
    assert client.download(path) == (0 if found else 1)
    assert [file.split(".")[1] for file in repo.asked[4:] if file.startswith("m/")] == visited
    assert list(client.downloaded()) == ([path] if found else [])


@pytest.mark.parametrize(
    ("bits", "path", "bin_name"),
    [
        (1, "boo", "bin-0"), (1, "too", "bin-1"), (2, "foo", "bin-0"), (2, "doo", "bin-1"),
        (2, "too", "bin-2"), (2, "bar", "bin-3"), (8, "bar", "bin-fc"),
    ],
)  # fmt: skip
def test_hashed_bins_ask_one_role(
    client: Client, repo: Repo, bits: int, path: str, bin_name: str
) -> None:
    """TAP 15. Our publisher does not use it; a client must not go wrong by it."""
    key = signer()
    succinct = SuccinctRoles([], 1, bits, "bin")
    repo.targets.delegations = Delegations({}, None, succinct)
    repo.targets.add_key(key.public_key)
    for name in succinct.get_roles():
        repo.signed[name] = Targets(expires=NOW + 30 * DAY)
        repo.signers[name] = [key]
    repo.publish("targets", *succinct.get_roles(), "snapshot", "timestamp")
    assert client.download(path) == 1
    assert repo.asked[4:] == [f"m/1.{bin_name}.json"]


# -- confusion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["root", "timestamp", "snapshot", "targets", ""])
def test_nobody_can_delegate_to_a_top_level_role_or_to_no_name(
    client: Client, repo: Repo, name: str
) -> None:
    """Else a targets key could have ``snapshot.json`` overwritten by a role of that name."""
    assert client.refresh() == 0
    kept = client.trusted()
    repo.delegate("models")
    repo.publish("models", "targets", "snapshot", "timestamp")
    metadata = json.loads(repo.served("targets"))
    metadata["signed"]["delegations"]["roles"][0]["name"] = name
    _serve_changed(repo, metadata)
    assert client.download("nothing here") == 1
    trusted = client.trusted()
    assert trusted["targets"] == kept["targets"]
    assert set(trusted) == {"root", "timestamp", "snapshot", "targets"}


@pytest.mark.parametrize(
    "name",
    ["root.json", "1.root", "root_history/1.root", "../pinned/root", "pinned.root", "ROOT", "Root"],
)
def test_a_role_with_a_name_like_a_file_of_ours_overwrites_none(
    client: Client, repo: Repo, name: str
) -> None:
    repo.delegate(name)
    repo.publish(name, "targets", "snapshot", "timestamp")
    pinned = (client.metadata / "pinned" / "root.json").read_bytes()
    history = (client.metadata / "root_history" / "1.root.json").read_bytes()
    assert client.download("nothing here") == 1
    assert (client.metadata / "pinned" / "root.json").read_bytes() == pinned
    assert (client.metadata / "root_history" / "1.root.json").read_bytes() == history
    assert client.trusted()["root"] == repo.first_root
    assert client.refresh() == 0


@pytest.mark.parametrize("name", ["a" * 300, "\ud800", "a\nb", "x" * 5000])
def test_a_role_with_a_name_that_no_file_can_have_ends_the_look_in_order(
    client: Client, repo: Repo, name: str
) -> None:
    repo.delegate("models")
    repo.publish("models", "targets", "snapshot", "timestamp")
    metadata = json.loads(repo.served("targets"))
    metadata["signed"]["delegations"]["roles"][0]["name"] = name
    _serve_changed(repo, metadata)
    repo.snapshot.meta[f"{name}.json"] = MetaFile(1)
    code = client._ours(
        "--target-name", "nothing here", "--target-base-url", f"{client.url}/t",
        "--target-dir", str(client.folder / "targets"), "download",
    )  # fmt: skip
    assert code == 1
    assert set(client.versions()) <= {"root", "timestamp", "snapshot", "targets"}


def test_a_role_that_is_delegated_and_not_in_the_snapshot_is_not_asked_for(
    client: Client, repo: Repo
) -> None:
    repo.delegate("models")
    repo.publish("models")
    repo.publish("targets", "snapshot")
    del repo.snapshot.meta["models.json"]
    repo.publish("snapshot", names=False)
    repo.publish("timestamp")
    assert client.download("nothing here") == 1
    assert not [file for file in repo.asked if "models" in file]


def test_a_stranger_beside_the_delegated_key_is_not_believed(client: Client, repo: Repo) -> None:
    repo.delegate("models")
    repo.add_target("file", b"a", "models")
    repo.publish("models", "targets", "snapshot", "timestamp")
    assert client.download("file") == 0
    repo.signers["models"] = [signer()]
    repo.add_target("file", b"evil", "models")
    repo.publish("models", "snapshot", "timestamp")
    assert client.download("file") == 1
    assert client.downloaded() == {"file": b"a"}
    assert client.versions()["models"] == 1


def test_a_role_that_was_verified_for_one_delegator_is_verified_again_for_another(
    client: Client, repo: Repo
) -> None:
    """Both delegate to C by other keys; what A's key signed is not C's for B."""
    for role in ("A", "B"):
        repo.delegate(role, paths=[f"{role.lower()}/*"])
    repo.delegate("C", by="A")
    first = repo.signers.pop("C")
    repo.delegate("C", by="B")
    repo.signers["C"] = first  # B names another key, and C is signed by A's
    repo.add_target("a/file", b"a", "C")
    repo.add_target("b/file", b"b", "C")
    repo.publish("targets", "A", "B", "C", "snapshot", "timestamp")
    delegations = repo.delegator("A").delegations  # type: ignore[union-attr]
    assert delegations is not None and delegations.roles is not None
    delegations.roles["C"].paths = ["a/*"]
    repo.publish("A", "snapshot", "timestamp")
    assert client.download("a/file") == 0
    assert client.download("b/file") == 1
    assert client.downloaded() == {"a/file": b"a"}


def test_endless_delegations_are_followed_for_a_while_only(client: Client, repo: Repo) -> None:
    by = "targets"
    names = [f"r{number}" for number in range(60)]
    for name in names:
        repo.delegate(name, by=by)
        by = name
    repo.publish("targets", *names, "snapshot", "timestamp")
    assert client.download("nothing here") == 1
    assert 30 <= len([file for file in repo.asked if file.startswith("m/1.r")]) <= 33


@pytest.mark.parametrize("pattern", ["*" * 5000, "*a" * 40, "[" * 300, "[!" * 200 + "]", "?" * 99])
def test_a_pattern_made_to_cost_time_costs_none(client: Client, repo: Repo, pattern: str) -> None:
    repo.delegate("models", paths=[pattern] * 50)
    repo.publish("models", "targets", "snapshot", "timestamp")
    assert client.download("a" * 200) == 1


def test_one_key_under_two_ids_in_a_delegation_does_not_count_twice(
    new_client: Callable[..., Client], repo: Repo
) -> None:

    repo.delegate("models")
    key = repo.signers["models"][0]
    repo.add_key("models", doubled(key, "ab" * 32), by="targets")  # type: ignore[arg-type]
    assert repo.targets.delegations is not None and repo.targets.delegations.roles is not None
    repo.targets.delegations.roles["models"].threshold = 2
    repo.add_target("file", b"a", "models")
    repo.publish("models", "targets", "snapshot", "timestamp")
    client = new_client(repo)
    client.init()
    assert client.download("file", stricter=True) == 1


def _serve_changed(repo: Repo, metadata: dict[str, object]) -> None:
    """Targets changed as JSON, signed by the targets key, as version 2; snapshot names it."""

    try:
        payload = encode_canonical(metadata["signed"]).encode()
    except UnicodeEncodeError:
        payload = b""  # nothing can be signed over it: it must be refused anyway
    signatures = [each.sign(payload) for each in repo.signers["targets"]]
    metadata["signatures"] = [{"keyid": s.keyid, "sig": s.signature} for s in signatures]
    repo.serve("targets", json.dumps(metadata).encode(), version=2)

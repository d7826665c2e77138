"""Bytes that are no metadata, or are made to break a parser: refused, nothing kept, no traceback.

``tuf_client.main`` lets nothing but declared errors become an exit code: anything else that a
parser or a check raises fails these tests by itself.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from attack_kit import TOP, Client, Repo
from securesystemslib.formats import encode_canonical

RAW: dict[str, bytes] = {
    "nothing": b"",
    "space": b" \n",
    "not json": b"<html>404</html>",
    "a number": b"1",
    "null": b"null",
    "a list": b"[]",
    "an object": b"{}",
    "no signatures": b'{"signed":{}}',
    "signatures that are none": b'{"signatures":7,"signed":{"_type":"root"}}',
    "not utf-8": b'{"signed":"\xff\xfe","signatures":[]}',
    "utf-16": '{"signed":{},"signatures":[]}'.encode("utf-16"),
    "deeply nested lists": b"[" * 15_000,
    "deeply nested objects": b'{"a":' * 3000 + b"1" + b"}" * 3000,
    "a huge number": b'{"signed":{"version":' + b"9" * 10_000 + b'},"signatures":[]}',
    "a huge exponent": b'{"signed":{"version":1e999999},"signatures":[]}',
    "not a number": b'{"signed":{"version":NaN},"signatures":[]}',
    "a null byte": b"\0" * 100,
    "the tombstone": b'{"absent":true}',
    "the sentinel": b'{"retained":true}',
}


@pytest.mark.parametrize("role", TOP)
@pytest.mark.parametrize("case", RAW)
def test_bytes_that_are_no_metadata_are_refused(
    client: Client, repo: Repo, role: str, case: str
) -> None:
    assert client.refresh() == 0
    kept = client.trusted()
    repo.publish("targets", "snapshot", "timestamp")
    if role == "root":
        repo.files["m/2.root.json"] = RAW[case]
    else:
        repo.serve(role, RAW[case])
    # Over MQTT an empty message and the tombstone say that there is no such file.
    absent = client.broker is not None and case in ("nothing", "the tombstone")
    if absent:
        assert client._ours("refresh") == (0 if role == "root" else 1)
    else:
        assert client.refresh() == 1
    assert client.trusted()[role] == kept[role]


def _top(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(signed: dict[str, Any]) -> None:
        signed[key] = value

    return change


def _drop(key: str) -> Callable[[dict[str, Any]], None]:
    def change(signed: dict[str, Any]) -> None:
        del signed[key]

    return change


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    **{f"without {key}": _drop(key) for key in ("_type", "version", "expires", "spec_version")},
    **{
        f"version {value!r}": _top("version", value)
        for value in (0, -1, "2", None, [2], {})
    },
    **{
        f"expires {value!r}": _top("expires", value)
        for value in (
            "", "tomorrow", "9999-99-99T00:00:00Z", "2026-05-04", 7, None, "0000-00-00T00:00:00Z",
            "2030-01-01T00:00:00+00:00",
        )
    },
    **{
        f"spec {value!r}": _top("spec_version", value)
        for value in ("2.0.0", "", "x.y.z", 1, "0.9", "1." * 900)
    },
    "type of another": _top("_type", "mirrors"),
    "type that is none": _top("_type", ["root"]),
}  # fmt: skip


@pytest.mark.parametrize("role", TOP)
@pytest.mark.parametrize("change", CHANGES)
def test_a_field_that_is_wrong_or_missing_is_refused_although_it_is_signed(
    client: Client, repo: Repo, role: str, change: str
) -> None:
    assert client.refresh() == 0
    kept = client.trusted()[role]
    repo.publish("targets", "snapshot", "timestamp")
    if role == "root":
        repo.publish("root")
    metadata = json.loads(repo.served(role))
    CHANGES[change](metadata["signed"])
    _sign(repo, role, metadata)
    repo.serve(role, json.dumps(metadata).encode())
    assert client.refresh() == 1
    assert client.trusted()[role] == kept


ROOT_CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a role less": lambda signed: signed["roles"].pop("snapshot"),
    "a role more": lambda signed: signed["roles"].update(extra=signed["roles"]["root"]),
    "a threshold of none": lambda signed: signed["roles"]["snapshot"].update(threshold=0),
    "a threshold below": lambda signed: signed["roles"]["snapshot"].update(threshold=-1),
    "a threshold in words": lambda signed: signed["roles"]["snapshot"].update(threshold="1"),
    "keys as a list": lambda signed: signed.update(keys=[]),
    "no keys": lambda signed: signed.update(keys={}),
    "a key that is none": lambda signed: signed["keys"].update(
        {key: {"keytype": "ed25519"} for key in signed["keys"]}
    ),
    "a public key that is none": lambda signed: [
        key["keyval"].update(public="zz") for key in signed["keys"].values()
    ],
}


@pytest.mark.parametrize("change", ROOT_CHANGES)
def test_a_root_that_makes_no_sense_is_refused_or_leads_nowhere(
    client: Client, repo: Repo, change: str
) -> None:
    repo.publish("root")
    metadata = json.loads(repo.served("root"))
    ROOT_CHANGES[change](metadata["signed"])
    _sign(repo, "root", metadata)
    repo.serve("root", json.dumps(metadata).encode())
    assert client.refresh() == 1
    assert set(client.versions()) == {"root"}


@pytest.mark.parametrize("twist", ["first", "last"])
def test_a_field_twice_is_read_once_and_the_same_by_signature_and_use(
    client: Client, repo: Repo, twist: str
) -> None:
    """JSON leaves it open which of two equal keys counts; both readings must be one."""
    assert client.refresh() == 0
    repo.publish("targets", "snapshot", "timestamp")
    good = repo.files["m/timestamp.json"].decode()
    end = '"version":2}}'
    assert good.endswith(end)
    pair = '"version":99,"version":2}}' if twist == "first" else '"version":2,"version":99}}'
    repo.files["m/timestamp.json"] = (good.removesuffix(end) + pair).encode()
    assert client.refresh() == (0 if twist == "first" else 1)
    assert client.versions()["timestamp"] == (2 if twist == "first" else 1)


@pytest.mark.parametrize("role", TOP)
def test_metadata_cut_short_is_refused_at_every_length(
    new_client: Callable[..., Client], repo: Repo, role: str, way: str
) -> None:
    """In process and over HTTP only every length; over MQTT the same bytes come the same way."""
    client = new_client(repo)
    client.init()
    assert client.refresh() == 0
    repo.publish("targets", "snapshot", "timestamp")
    if role == "root":
        repo.publish("root")
    kept = client.trusted()[role]
    whole = repo.served(role)
    step = 29 if way == "http" else 211
    for length in range(1, len(whole), step):
        repo.serve(role, whole[:length])
        assert client._ours("refresh") == 1
        assert client.trusted()[role] == kept
    repo.serve(role, whole)
    assert client._ours("refresh") == 0


@pytest.mark.parametrize("way", ["http"], indirect=True)
@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_are_refused_or_change_nothing(client: Client, repo: Repo, seed: int) -> None:
    """Any byte of any role: only what no signature covers, white space and the like, may pass."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    assert client.refresh() == 0
    good = {role: json.loads(repo.served(role))["signed"] for role in TOP}
    for _ in range(12):
        role = rng.choice(TOP[1:])
        repo.publish("targets", "snapshot", "timestamp")
        good = {each: json.loads(repo.served(each))["signed"] for each in TOP}
        data = bytearray(repo.served(role))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        repo.serve(role, bytes(data))
        code = client._ours("refresh")
        if code == 0:
            assert json.loads(client.trusted()[role])["signed"] == good[role]


def _sign(repo: Repo, role: str, metadata: dict[str, Any]) -> None:
    payload = encode_canonical(metadata["signed"])
    assert payload is not None
    signatures = [each.sign(payload.encode()) for each in repo.signers[role]]
    metadata["signatures"] = [{"keyid": s.keyid, "sig": s.signature} for s in signatures]

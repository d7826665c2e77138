"""Whom a device asks, in which order, for what; and which addresses it asks at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from stream_kit import World

from edge_agent.delivery.mirror import runs
from edge_agent.delivery.source import Piece
from edge_agent.sources import Choice, Kind, order
from edge_contract.errors import InputFault
from edge_contract.mirrors import check_mirror
from edge_fleet.broker import BrokerThread

OURS, THEIRS = ("http://nas/edge",), ("https://a/edge", "https://b/edge")


@pytest.mark.parametrize(
    ("kinds", "size", "asked"),
    [
        (("mqtt", "http"), 10, ("", *OURS, *THEIRS)),
        (("http", "mqtt"), 10, (*OURS, *THEIRS, "")),
        (("mqtt", "http"), 101, (*OURS, *THEIRS, "")),
        (("mqtt",), 101, ("",)),
        (("http",), 10, (*OURS, *THEIRS)),
    ],
)
def test_policy_and_size_say_the_order(
    kinds: tuple[Kind, ...], size: int, asked: tuple[str, ...]
) -> None:
    assert order(Choice(kinds, OURS, http_above_bytes=100), THEIRS, size) == asked


def test_a_mirror_that_both_name_is_asked_once() -> None:
    assert order(Choice(("http",), OURS), (*THEIRS, *OURS), 1) == (*OURS, *THEIRS)


def test_chunks_side_by_side_are_one_request() -> None:
    def piece(file: str, number: int, size: int = 10) -> Piece:
        return Piece(f"{file}{number}", size, file, 35, number * 10)

    a, b = [piece("a", number) for number in (0, 1, 3)], [piece("b", 0), piece("b", 1)]
    assert [list(run) for run in runs([*a, *b])] == [a[:2], a[2:], b]
    assert list(runs([])) == []


@pytest.mark.parametrize(
    "address",
    [
        "", "ftp://a/b", "a/b", "http://", "http:///a", "http://me:secret@a/b", "http://a/b?c=d",
        "http://a/b#c", "http://a b/c", "http://a/b\r\nHost: c", "http://[::1", "http://a:99999/",
        "http://a:0/", "file:///etc", "http://a/../b", "http://a/" + 400 * "x", "HTTP://a/b",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_never_asked(address: str) -> None:
    with pytest.raises(InputFault, match="no address of a mirror"):
        check_mirror(address)


@pytest.mark.parametrize("address", ["http://a", "https://a:8443/x/y_z~", "http://[::1]:80/b"])
def test_an_address_is_taken_without_its_last_slash(address: str) -> None:
    assert check_mirror(address) == address
    assert check_mirror(f"{address}/") == address


def test_the_commands_write_a_mirror_and_sign_its_address(tmp_path: Path) -> None:
    def edge_pack(*arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "edge_pack", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    with BrokerThread() as broker:
        world = World(broker.url, tmp_path, chunks=3)
        done = json.loads(edge_pack("mirror", "export", "www", "--fleet", "home", "--json"))
        assert (done["written"], done["kept"]) == (3, 0)
        assert len(list((tmp_path / "www").iterdir())) == 3
        assert "3 were there already" in edge_pack("mirror", "export", "www", "--fleet", "home")
        where = ("--fleet", "home", "--broker", broker.url)
        assert "https://a/edge" in edge_pack("mirror", "set", "https://a/edge/", *where)
        device = world.device()
        world.fetch(device)
        pointer = device.cached_pointer()
        assert pointer is not None
        assert pointer.mirrors == ("https://a/edge",)
        world.publish("2.0", seed=2)
        world.fetch(device)
        assert device.cached_pointer().mirrors == ("https://a/edge",)  # type: ignore[union-attr]
        again = json.loads(edge_pack("mirror", "set", *where, "--json"))
        assert (again["mirrors"], again["signed"]) == ([], True)
        assert "no address" in edge_pack("mirror", "set", "ftp://a", *where, code=2)
        assert "nothing was published for fleet other" in edge_pack(
            "mirror", "export", "www", "--fleet", "other", code=2
        )

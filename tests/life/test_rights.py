"""Every topic against every role, on a real mosquitto and on the embedded broker."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from life_kit import Talker, until

from edge_contract.access import passwords
from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import PeerFault
from edge_contract.topics import Topics
from edge_fleet.broker import files

HOME, PLANT = Topics("home"), Topics("plant")
ROLES = ("home.publisher", "home.server", "pi1", "app")

# Topic -> who writes it, who reads it. pi1 is the device; pi2 another of its fleet; gw1 of another.
TABLE: dict[str, tuple[str, str]] = {
    HOME.metadata("timestamp.json"): ("P", "PSD"),
    HOME.metadata("3.snapshot.json"): ("P", "PSD"),
    HOME.metadata("sentinel.json"): ("P", "PSD"),
    HOME.target("models/pump/1.0.json"): ("P", "PSD"),
    HOME.target("fleet/home/ab.stable.json"): ("P", "PSD"),
    HOME.chunk("0" * 64): ("P", "PSD"),
    HOME.status("pi1"): ("D", "SD"),
    HOME.reported("pi1"): ("D", "S"),
    HOME.events("pi1"): ("D", "S"),
    HOME.telemetry("pi1"): ("D", "S"),
    HOME.answers("pi1", "pump"): ("D", "A"),
    HOME.root + "/d/pi1/rsp": ("D", "S"),
    HOME.desired("pi1"): ("S", "D"),
    HOME.root + "/d/pi1/cmd": ("S", "D"),
    HOME.requests("pi1", "pump"): ("A", "D"),
    HOME.labels("pi1", "pump"): ("A", "D"),
    HOME.status("pi2"): ("", "S"),
    HOME.reported("pi2"): ("", "S"),
    HOME.events("pi2"): ("", "S"),
    HOME.telemetry("pi2"): ("", "S"),
    HOME.root + "/t/00/pi1": ("", "S"),
    HOME.answers("pi2", "pump"): ("", "A"),
    HOME.desired("pi2"): ("S", ""),
    HOME.requests("pi2", "pump"): ("A", ""),
    HOME.labels("pi2", "pump"): ("A", ""),
    HOME.enrol_request("t1"): ("", "S"),
    HOME.enrol_answer("t1"): ("S", ""),
    HOME.root: ("", ""),
    HOME.root + "/d/pi1": ("", ""),
    HOME.root + "/d/pi1/other": ("", ""),
    PLANT.metadata("timestamp.json"): ("", ""),
    PLANT.chunk("0" * 64): ("", ""),
    PLANT.status("pi1"): ("", ""),
    PLANT.desired("gw1"): ("", ""),
    PLANT.telemetry("gw1"): ("", ""),
    "answers/of/somebody": ("", ""),
}
LETTERS = dict(zip("PSDA", ROLES, strict=True))


def names(letters: str) -> set[str]:
    return {LETTERS[letter] for letter in letters}


@pytest.fixture(params=["embedded", "mosquitto"])
def place(
    request: pytest.FixtureRequest,
    make_accounts: Callable[..., Path],
    start_mosquitto: Any,
    start_embedded: Any,
) -> tuple[str, int, Path]:
    """A broker of each kind under generated accounts: its kind, port and folder of accounts."""
    accounts = make_accounts("--fleet", "plant", "--device", "gw1")
    make_accounts("--fleet", "home", "--device", "pi1", "--device", "pi2", "--client", "app")
    if request.param == "mosquitto":
        return request.param, start_mosquitto(accounts).ports[1883], accounts
    return request.param, start_embedded(accounts).port, accounts


def talker(place: tuple[str, int, Path], name: str, way: str = "", client_id: str = "") -> Talker:
    password = (place[2] / "secrets" / f"{name}.password").read_text().strip()
    url = BrokerUrl("127.0.0.1", place[1], user=name, password=password)
    return Talker(url, client_id or f"test-{name}-{way}")


def test_every_topic_is_open_to_exactly_the_roles_of_the_table(place: Any) -> None:
    listeners = {name: talker(place, name, "in") for name in (*ROLES, "gw1")}
    writers: dict[str, set[str]] = {topic: set() for topic in TABLE}
    try:
        for name, each in listeners.items():
            subscribe(place[0], name, each)
        for name in listeners:
            for topic in may_write(place, name):
                writers[topic].add(name)
        for topic in filter(writers.get, TABLE):
            for name in names(TABLE[topic][1]):
                until(lambda n=name, t=topic: listeners[n].has(t), f"{name} reads {topic}")
        readers = {t: {name for name in listeners if listeners[name].has(t)} for t in TABLE}
    finally:
        for each in listeners.values():
            each.stop()
    own = {topic for topic, found in writers.items() if "gw1" in found}
    assert own == {PLANT.telemetry("gw1")}  # a device of another fleet: its own, and nothing else
    for topic, (write, read) in TABLE.items():
        assert writers[topic] - {"gw1"} == names(write), f"who writes {topic}"
        assert readers[topic] == (names(read) if write else set()), f"who reads {topic}"


def subscribe(kind: str, name: str, each: Talker) -> None:
    """Ask for every topic. mosquitto grants all and holds back what may not be read; ours says."""
    refused = {topic for topic in TABLE if each.refused(topic)}
    readable = {topic for topic, (_, read) in TABLE.items() if name in names(read)}
    assert not refused & readable, f"{name} is refused {refused & readable}"
    if kind == "embedded" and name in ROLES:
        assert refused == set(TABLE) - readable, name


def may_write(place: tuple[str, int, Path], name: str) -> set[str]:
    """Topics that an account may write, by the broker's PUBACK.

    mosquitto 2.0.11 ends a connection after a refusal, so each goes over a connection of its own.
    """
    allowed = set()
    made: list[Talker] = []
    topic_was_refused = False
    for topic in TABLE:
        if not made or (place[0] == "mosquitto" and topic_was_refused):
            made.append(talker(place, name, f"out-{len(made)}"))
        topic_was_refused = not made[-1].may_write(topic)
        if not topic_was_refused:
            allowed.add(topic)
    with ThreadPoolExecutor(len(made)) as pool:  # each waits for its thread, up to a second
        list(pool.map(Talker.stop, made))
    return allowed


def test_a_client_id_that_is_an_account_is_that_accounts_alone(
    make_accounts: Any, start_embedded: Any
) -> None:
    accounts = make_accounts("--fleet", "home", "--device", "pi1", "--device", "pi2")
    place = ("embedded", start_embedded(accounts).port, accounts)
    owner = talker(place, "pi1", client_id="pi1")
    for stolen in ("pi1", "pi1-dl"):
        with pytest.raises(PeerFault, match="refused"):
            talker(place, "pi2", client_id=stolen)
    assert owner.link.up
    owner.stop()


def test_passwords_are_those_of_mosquitto_passwd(tmp_path: Path) -> None:
    """Ours reads its file, and the embedded broker's reader agrees."""
    program = shutil.which("mosquitto_passwd")
    if program is None:
        pytest.skip("no mosquitto_passwd: Debian's package mosquitto has it")
    path = tmp_path / "passwords"
    path.touch()
    subprocess.run([program, "-b", path, "pi1", "geheim \u00e4"], check=True)
    user, _, text = path.read_text().strip().partition(":")
    assert user == "pi1"
    assert passwords.is_hash(text)
    assert passwords.matches(text, "geheim \u00e4")
    assert not passwords.matches(text, "geheim a")
    assert files.matches(files.parse_passwords(path.read_text())["pi1"], "geheim \u00e4".encode())
    assert passwords.hashed("x", b"123456789012") == passwords.hashed("x", b"123456789012")
    assert not passwords.matches("$7$9999999$AAAA$" + "A" * 88, "x")  # rounds are bounded


@pytest.mark.parametrize(
    "line", ["topic read a", "user u\ntopic all a/b", "user u\npattern read a/%u", "nonsense"]
)
def test_an_acl_that_is_not_understood_lets_nobody_in(
    line: str, make_accounts: Any, start_embedded: Any
) -> None:
    accounts = make_accounts("--fleet", "home", "--device", "pi1")
    place = ("embedded", start_embedded(accounts).port, accounts)
    talker(place, "pi1").stop()
    good = (accounts / "acl").read_text()
    (accounts / "acl").write_text(line + "\n")
    with pytest.raises(PeerFault, match="refused"):
        talker(place, "pi1")
    (accounts / "acl").write_text(good + "\n")
    talker(place, "pi1").stop()


def test_secrets_are_their_owners_alone_and_the_broker_keeps_hashes(make_accounts: Any) -> None:
    accounts = make_accounts("--fleet", "home", "--device", "pi1", "--tls", "localhost",
                             "--certificates")  # fmt: skip
    secret = (accounts / "secrets" / "pi1.password").read_text().strip()
    for path in accounts.rglob("*"):
        if path.is_file():
            mode = path.stat().st_mode & 0o777
            private = path.suffix in (".key", ".password") or path.name in (
                "passwords", "accounts.json",
            )  # fmt: skip
            assert not private or mode == 0o600, path
            assert path.name == "pi1.password" or secret not in path.read_text(), path
    assert (accounts / "secrets").stat().st_mode & 0o777 == 0o700
    before = (accounts / "passwords").read_text()
    make_accounts("--fleet", "home", "--device", "pi1")  # again: nothing new
    assert (accounts / "passwords").read_text() == before
    make_accounts("--remove", "pi1")
    assert "pi1" not in (accounts / "passwords").read_text() + (accounts / "acl").read_text()

"""Enrolment by token, by certificate and by password, against brokers that ask for them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from life_kit import (
    Agent,
    Talker,
    bundles,
    command,
    devices,
    hearing_events,
    password,
    until,
)

from edge_contract import broker_url, wire
from edge_contract.access import enrolment
from edge_contract.access.enrolment import Request, TokenText
from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import InputFault
from edge_contract.ports.accounts import Accounts

ACCOUNTS = ("--fleet", "home", "--client", "app", "--plain", "127.0.0.1")
SETTINGS = """
[trial]
seconds = 0.2
[telemetry]
window_s = 0.5
[update]
self_test_runs = 3
backoff_min_s = 0.2
"""


class Fleet:
    """A publisher, a broker with accounts, and a real `edge-fleet serve` that answers tokens."""

    def __init__(self, folder: Path, accounts: Path, url: str, tls_url: str, reload: str) -> None:
        self.folder, self.accounts = folder, accounts
        self.url, self.tls_url, self.reload = url, tls_url, reload
        self.publisher = devices.Publisher(folder / "keys", self.account("home.publisher"))
        self.publisher.publish(bundles.build_tiny("1.0"))
        self.log = folder / "serve.log"
        self.process: subprocess.Popen[str] | None = None

    def account(self, name: str) -> str:
        return self.url.replace("://", f"://{name}:{password(self.accounts, name)}@")

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_fleet", "serve", "--fleet", "home", "--verbose",
                 "--broker", self.url.replace("://", "://home.server@"),
                 "--db", f"sqlite:///{self.folder}/fleet.db", "--accounts", str(self.accounts),
                 "--reload", self.reload],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, text=True,
                env={**os.environ, "EDGE_FLEET_PASSWORD": password(self.accounts, "home.server")},
            )  # fmt: skip
        until(lambda: "collecting" in self.log.read_text(), "the collector is there")

    def token(self, device: str = "pi7", *more: str) -> tuple[str, str]:
        """A new token's text and id."""
        done = command(
            "tokens", "create", device, "--accounts", self.accounts, "--broker", self.tls_url,
            "--root", self.publisher.fingerprint, "--reload", self.reload, "--json", *more,
            module="edge_fleet",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        return made["token"], made["id"]

    def faults(self) -> list[dict[str, Any]]:
        done = command(
            "status", "--db", f"sqlite:///{self.folder}/fleet.db", "--json", module="edge_fleet"
        )
        return json.loads(done.stdout)["recent_faults"] if done.returncode == 0 else []

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(120)


@pytest.fixture(params=["embedded", "mosquitto"])
def fleet(
    request: pytest.FixtureRequest, tmp_path: Path, make_accounts: Callable[..., Path],
    start_mosquitto: Any, start_embedded: Any,
) -> Iterator[Fleet]:  # fmt: skip
    if request.param == "mosquitto":
        accounts = make_accounts(*ACCOUNTS, "--tls", "localhost")
        broker = start_mosquitto(accounts)
        url = f"mqtt://127.0.0.1:{broker.ports[1883]}"
        tls = f"mqtts://localhost:{broker.ports[8883]}"
        made = Fleet(tmp_path, accounts, url, tls, f"kill -HUP {broker.process.pid}")
        made.mtls_port = broker.ports[8884]  # type: ignore[attr-defined]
    else:
        accounts = make_accounts(*ACCOUNTS)
        url = start_embedded(accounts).url
        made = Fleet(tmp_path, accounts, url, url, "")
    made.start()
    yield made
    made.stop()


def enroll(folder: Path, token: str, *more: str) -> Any:
    """`edge-agent enroll --token -`, the token pasted into it."""
    return subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", "enroll", "--token", "-",
         "--config", str(folder / "agent.toml"), *more],
        input=token, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def runs(folder: Path) -> None:
    """The device fetches, answers and sends telemetry with what it was given."""
    path = folder / "agent.toml"
    path.write_text(path.read_text() + SETTINGS)
    agent = Agent(path)
    agent.start()
    try:
        agent.wait_at("1.0")
        until(lambda: agent.status.connected and not agent.status.events_waiting, "events home")
    finally:
        agent.stop()
    assert "refuse" not in agent.log.read_text()


def test_a_token_admits_once_and_a_second_use_is_refused_and_reported(
    fleet: Fleet, tmp_path: Path
) -> None:
    token, number = fleet.token()
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    second.mkdir()
    done = enroll(first, token)
    assert done.returncode == 0, done.stderr
    runs(first)

    again = enroll(second, token)
    assert again.returncode == 5
    assert "was used before, by pi7" in again.stderr
    assert not (second / "agent.toml").exists()
    until(lambda: any(f["kind"] == "reused-token" for f in fleet.faults()), "the fleet knows")
    listed = command("tokens", "list", "--accounts", fleet.accounts, "--json", module="edge_fleet")
    assert [(t["id"], t["state"]) for t in json.loads(listed.stdout)] == [(number, "used")]

    secret = enrolment.read(token).secret
    made = (first / "agent.password").read_text().strip()
    assert (first / "agent.password").stat().st_mode & 0o777 == 0o600
    assert not (first / "agent.enrolling").exists()
    shown = done.stdout + done.stderr + again.stderr + listed.stdout + fleet.log.read_text()
    kept = "".join(
        p.read_text(errors="replace") for p in (*fleet.accounts.glob("*"), first / "agent.log",
                                                first / "agent.toml", tmp_path / "fleet.db")
        if p.is_file()
    )  # fmt: skip
    for word in (secret, made):
        assert word not in shown + kept


def test_a_device_that_lost_power_after_it_asked_asks_the_same_again(
    fleet: Fleet, tmp_path: Path
) -> None:
    token, _ = fleet.token("-")
    folder = tmp_path / "device"
    folder.mkdir()
    fleet.stop()  # nobody answers: as if the power went before the answer came
    silent = enroll(folder, token, "--device", "pi9", "--timeout", "1")
    assert silent.returncode == 5
    assert "did not answer" in silent.stderr
    pending = folder / "agent.enrolling"
    assert pending.stat().st_mode & 0o777 == 0o600
    asked = pending.read_bytes()
    fleet.start()
    done = enroll(folder, token, "--device", "pi9")
    assert done.returncode == 0, done.stderr
    (folder / "agent.toml").unlink()  # and the power goes once more, before the settings are there
    pending.write_bytes(asked)
    done = enroll(folder, token, "--device", "pi9")
    assert done.returncode == 0, done.stderr
    runs(folder)
    assert Accounts(fleet.accounts).read().accounts["pi9"].role == "device"


def test_a_revoked_or_expired_token_and_another_name_are_refused(
    fleet: Fleet, tmp_path: Path
) -> None:
    folder = tmp_path / "device"
    folder.mkdir()
    token, number = fleet.token()
    wrong = enroll(folder, token, "--device", "pi8")
    assert wrong.returncode == 2
    assert "is for device pi7" in wrong.stderr
    done = command(
        "tokens", "revoke", number, "--accounts", fleet.accounts, "--reload", fleet.reload,
        module="edge_fleet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused = until(
        lambda: (r := enroll(folder, token, "--timeout", "5")).returncode == 5 and r, "a refusal"
    )
    assert "refused the connection" in refused.stderr or "revoked" in refused.stderr
    assert list(folder.glob("*.toml")) == []
    with pytest.raises(KeyError):
        Accounts(fleet.accounts).read().accounts["pi7"]


def test_garbage_for_the_fleet_is_refused_and_the_token_stays_good(
    fleet: Fleet, tmp_path: Path
) -> None:
    text, number = fleet.token()
    token = enrolment.read(text)
    url = broker_url.parse(fleet.url)
    account = BrokerUrl(url.host, url.port, user=f"enroll.{number}", password=token.secret)
    talker = Talker(account, f"enroll.{number}")
    topic = token.topics.enrol_request(number)
    wrong = Request(secret="x" * 32, device="pi7", password="y")
    for payload in (b"", b"\xff" * 100, b"{}", b"[" * 100_000, wire.encode_json(wrong)):
        talker.link.publish(topic, payload)
    talker.stop()
    until(lambda: any(f["kind"] == "bad-token" for f in fleet.faults()), "the fleet shows it")
    folder = tmp_path / "device"
    folder.mkdir()
    done = enroll(folder, text)
    assert done.returncode == 0, done.stderr


def test_a_token_on_the_command_line_is_gone_from_it_at_once(fleet: Fleet, tmp_path: Path) -> None:
    text, _ = fleet.token()
    fleet.stop()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "enroll", f"--token={text}", "--timeout", "60",
         "--config", str(tmp_path / "agent.toml")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        # It asks by now, and shows nothing of the token to whoever lists processes.
        until((tmp_path / "agent.enrolling").exists, "it asks")
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        shown += Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"enroll" in shown
        assert text[20:60].encode() not in shown
    finally:
        process.kill()
        process.wait()


def test_a_certificate_is_issued_for_the_name_of_the_token_and_runs_under_mtls(
    fleet: Fleet, tmp_path: Path
) -> None:
    port = getattr(fleet, "mtls_port", 0)
    if not port:
        pytest.skip("the embedded broker has no TLS: loopback only")
    folder = tmp_path / "device"
    folder.mkdir()
    token, _ = fleet.token("pi7", "--mtls-port", str(port))
    done = enroll(folder, token, "--certificate")
    assert done.returncode == 0, done.stderr
    assert (folder / "agent.key").stat().st_mode & 0o777 == 0o600
    subject = subprocess.run(
        ["openssl", "x509", "-in", folder / "agent.crt", "-noout", "-subject"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert subject.stdout.strip().endswith("CN = pi7")
    assert "password" not in (folder / "agent.toml").read_text()
    assert "pi7:" not in (fleet.accounts / "passwords").read_text()
    runs(folder)


def test_without_tls_no_token_is_made_for_a_broker_elsewhere(make_accounts: Any) -> None:
    accounts = make_accounts("--fleet", "home")
    base = ["tokens", "create", "pi1", "--accounts", accounts, "--root", "0" * 64]
    done = command(*base, "--broker", "mqtt://broker.example", module="edge_fleet")
    assert done.returncode == 2
    assert "in the clear" in done.stderr
    done = command(*base, "--broker", "mqtt://broker.example", "--insecure", module="edge_fleet")
    assert done.returncode == 0, done.stderr
    assert enrolment.read(done.stdout).device == "pi1"


def test_a_token_is_read_whole_or_not_at_all_and_never_repeated() -> None:
    text = enrolment.write(
        TokenText(id="a1", secret="s" * 32, url="mqtt://localhost", fleet="home", root="0" * 64)
    )
    assert enrolment.read(f"  {text[:40]}\n {text[40:]} \n").secret == "s" * 32
    assert "s" * 32 not in repr(enrolment.read(text))
    for cut in range(len(text)):
        with pytest.raises(InputFault) as caught:
            enrolment.read(text[:cut])
        assert text[:cut][8:] not in str(caught.value) or cut <= 10
    for i in range(6, len(text)):
        other = "A" if text[i] != "A" else "B"
        with contextlib.suppress(InputFault):
            assert enrolment.read(text[:i] + other + text[i + 1 :]) == enrolment.read(text)


@pytest.mark.parametrize("how", ["password", "certificate"])
def test_accounts_made_by_hand_enrol_over_tls(
    how: str, tmp_path: Path, make_accounts: Any, start_mosquitto: Any
) -> None:
    accounts = make_accounts(*ACCOUNTS, "--device", "pi1", "--tls", "localhost", "--certificates")
    broker = start_mosquitto(accounts)
    url = f"mqtt://home.publisher:{password(accounts, 'home.publisher')}@127.0.0.1"
    publisher = devices.Publisher(tmp_path / "keys", f"{url}:{broker.ports[1883]}")
    publisher.publish(bundles.build_tiny("1.0"))
    secrets = accounts / "secrets"
    options = {
        "password": ["--broker", f"mqtts://pi1@localhost:{broker.ports[8883]}",
                     "--password-file", secrets / "pi1.password"],
        "certificate": ["--broker", f"mqtts://localhost:{broker.ports[8884]}",
                        "--cert", secrets / "pi1.pem", "--key", secrets / "pi1.key"],
    }[how]  # fmt: skip
    done = command(
        "enroll", "--root", publisher.fingerprint, "--fleet", "home", "--device", "pi1",
        "--ca", accounts / "tls" / "ca.pem", "--config", tmp_path / "agent.toml", *options,
        module="edge_agent.cli",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with hearing_events(f"mqtt://127.0.0.1:{broker.ports[1883]}", accounts):
        runs(tmp_path)


def test_a_broker_of_another_authority_is_not_trusted(
    tmp_path: Path, make_accounts: Any, start_mosquitto: Any
) -> None:
    accounts = make_accounts(*ACCOUNTS, "--device", "pi1", "--tls", "localhost")
    broker = start_mosquitto(accounts)
    other = tmp_path / "other"
    assert command("broker-acl", other, "--fleet", "home", "--tls", "localhost").returncode == 0
    done = command(
        "enroll", "--root", "0" * 64, "--fleet", "home", "--device", "pi1",
        "--ca", other / "tls" / "ca.pem", "--config", tmp_path / "agent.toml",
        "--broker", f"mqtts://pi1@localhost:{broker.ports[8883]}",
        "--password-file", accounts / "secrets" / "pi1.password",
        module="edge_agent.cli",
    )  # fmt: skip
    assert done.returncode == 5, done.stdout
    assert "Traceback" not in done.stderr
    assert password(accounts, "pi1") not in done.stderr

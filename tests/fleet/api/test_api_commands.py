"""The commands: tokens are shown once, and the service runs alone or beside the collector."""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from edge_contract.ports import certificates
from edge_fleet.cli import app
from edge_fleet.store.sql import SqlStore


def run(db: str, *words: str) -> Any:
    return CliRunner().invoke(app, ["api-tokens", *words, "--db", db])


def test_a_token_is_shown_once_listed_and_revoked(store: SqlStore, db: str, tmp_path: Path) -> None:
    made = run(db, "create", "grafana", "--role", "viewer", "--expires", "24h")
    assert made.exit_code == 0
    text = made.stdout.strip()
    assert re.fullmatch(r"edgefleet_[0-9a-f]{12}_[\w-]{43}", text)
    [listed] = json.loads(run(db, "list", "--json").stdout)
    assert (listed["name"], listed["role"], listed["state"]) == ("grafana", "viewer", "valid")
    assert "grafana" in run(db, "list").stdout
    secret = text.split("_", 2)[2]
    assert secret not in run(db, "list", "--json").stdout
    store.close()
    assert not [f for f in tmp_path.glob("fleet.db*") if secret.encode() in f.read_bytes()]
    wrong = run(db, "revoke", listed["id"], "000000000000")
    assert "no valid token '000000000000'" in str(wrong.exception)
    [kept] = json.loads(run(db, "list", "--json").stdout)
    assert kept["state"] == "valid", "all or none"
    assert run(db, "revoke", listed["id"]).exit_code == 0
    [gone] = json.loads(run(db, "list", "--json").stdout)
    assert gone["state"] == "revoked"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "x", "--role", "root"], "not a role"),
        (["create", "a b"], "not a valid name"),
        (["create", "x", "--expires", "soon"], "--expires"),
    ],
)
def test_what_is_wrong_is_said(store: SqlStore, db: str, words: list[str], said: str) -> None:
    assert said in str(run(db, *words).exception)
    assert json.loads(run(db, "list", "--json").stdout) == []


Start = Callable[..., tuple["subprocess.Popen[str]", str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command; the URL that it serves at."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> tuple["subprocess.Popen[str]", str]:
        command = [sys.executable, "-c", "from edge_fleet.cli import main; main()", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
        running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"serving .*?(https?://\S+)$", line):
                return process, found[1]
        raise AssertionError(f"it ended with {process.wait(60)}")

    yield begin
    for process in running:
        process.kill()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def stopped(process: "subprocess.Popen[str]") -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(120)


def test_beside_the_collector_it_serves_what_is_collected(start: Start, db: str) -> None:
    process, url = start(
        "serve", "--fleet", "f", "--db", db, "--port", "0", "--http", "127.0.0.1:0"
    )  # fmt: skip
    text = run(db, "create", "me").stdout.strip()
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {text}"}) as client:
        assert client.get("/health", timeout=60).status_code == 200
        assert client.get("/api/v1/status", timeout=60).json()["fleet"] == "f"
        with client.stream("GET", "/api/v1/events/stream", timeout=60) as stream:
            assert next(stream.iter_lines()).startswith(":")
            assert stopped(process) == 0, "an open stream does not hold it up"


def test_over_tls_with_a_certificate(
    start: Start, store: SqlStore, db: str, tmp_path: Path
) -> None:
    ca, ca_key, cert, key = (tmp_path / name for name in ("ca", "ca.key", "cert", "key"))
    certificates.make_authority(ca, ca_key, "test")
    request = certificates.make_request(key)
    cert.write_text(certificates.issue(ca, ca_key, request, "fleet", hosts=["127.0.0.1"]))
    listen = ["--http", "127.0.0.1:0", "--http-cert", str(cert), "--http-key", str(key)]
    process, url = start("api", "--db", db, *listen)
    assert url.startswith("https://")
    trusted = ssl.create_default_context(cafile=str(ca))
    answer = httpx.get(f"{url}/health", verify=trusted, timeout=60)
    assert answer.status_code == 200
    assert "max-age=" in answer.headers["strict-transport-security"]
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/health".replace("https", "http"), timeout=60)
    assert stopped(process) == 0


def test_faults_of_the_command_are_said(store: SqlStore, db: str, tmp_path: Path) -> None:
    torn = tmp_path / "torn.pem"
    torn.write_text("no certificate")
    for words, said in [
        (["--http", "0.0.0.0:0"], "travel in the clear"),
        (["--http", "here"], "HOST:PORT"),
        (["--http-rate", "0"], "--http-rate"),
        (["--http-cert", str(torn), "--http-key", str(torn)], "cannot be used"),
        (["--http", "192.0.2.1:1", "--http-insecure"], "cannot listen"),
    ]:
        result = CliRunner().invoke(app, ["api", "--db", db, *words])
        assert said in str(result.exception), words

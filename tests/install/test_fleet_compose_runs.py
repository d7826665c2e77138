"""What the fleet's Compose file starts, started here: every command, file and health check of it.

Containers are left out, nothing else: mosquitto has the very settings beside the Compose file,
PostgreSQL asks for its password, both collectors, the HTTP service and the tools run the words of
the file with its variables, and simulated devices get in over TLS, each by its own account.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "fleet"))  # `fleet_kit` is there

from fleet_kit import pack

from edge_contract import bundle, manifest
from edge_fleet.broker.mosquitto import find_mosquitto

COMPOSE = Path(__file__).parents[2] / "examples" / "fleet-compose"
DEVICES = 3
FLEET_COMMAND = (sys.executable, "-m", "edge_fleet")


def binaries() -> Path | None:
    """PostgreSQL's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_mosquitto() is None, reason="no mosquitto (Debian: apt-get install mosquitto)"
    ),
    pytest.mark.skipif(
        binaries() is None or os.getuid() != 0,
        reason="no PostgreSQL (Debian: apt-get install postgresql), or not root",
    ),
    pytest.mark.skipif(
        shutil.which("openssl") is None, reason="no openssl (Debian: apt-get install openssl)"
    ),
]


def until(condition: Callable[[], object], what: str, state: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, f"waited for: {what}\n{state()}"
        time.sleep(0.1)


@dataclass
class Composed:
    """The services of the file as processes; names of hosts and places of secrets are ours."""

    folder: Path
    ports: dict[str, int]
    services: dict[str, Any]
    secrets: dict[str, Path]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def words(self, words: list[str]) -> list[str]:
        """A command of the file, or its health check, here."""
        places = {f"/run/secrets/{name}": str(path) for name, path in self.secrets.items()}
        places |= {
            f"{host}:8443": f"127.0.0.1:{self.ports['api']}" for host in ("0.0.0.0", "127.0.0.1")
        }
        places["/backups/"] = f"{self.folder}/backups/"
        return [_with(places, word) for word in words]

    def environment(self, service: str) -> dict[str, str]:
        """Variables of a service, and no others but the path."""
        said = {
            name: value.replace("@db/", f"@127.0.0.1:{self.ports['db']}/").replace(
                "@broker:8883", f"@localhost:{self.ports['broker']}"
            )
            for name, value in self.services[service]["environment"].items()
        }
        for name, value in said.items():
            said[name] = self.words([value])[0]
        return {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **said}

    def start(self, service: str) -> None:
        """Start one, in the background."""
        with (self.folder / f"{service}.log").open("ab") as log:
            self.running[service] = subprocess.Popen(
                [*FLEET_COMMAND, *self.words(self.services[service]["command"])],
                stdout=log, stderr=log, env=self.environment(service),
            )  # fmt: skip

    def run(self, service: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a tool, or ``words`` in a service's place."""
        command = list(words) or self.words(self.services[service]["command"])
        return subprocess.run(
            [*FLEET_COMMAND, *command], env=self.environment(service), capture_output=True,
            text=True, check=False, timeout=300,
        )  # fmt: skip

    def healthy(self, service: str) -> bool:
        """What its health check says."""
        assert self.running[service].poll() is None, self.said(service)
        kind, *words = self.words(self.services[service]["healthcheck"]["test"])
        assert kind == "CMD"
        words = {"edge-fleet": [*FLEET_COMMAND], "python": [sys.executable]}[words[0]] + words[1:]
        done = subprocess.run(
            words, env=self.environment(service), capture_output=True, check=False, timeout=300
        )
        return done.returncode == 0

    def becomes_healthy(self, service: str) -> None:
        """Wait for it."""
        until(lambda: self.healthy(service), service, lambda: self.said(service))

    def said(self, service: str) -> str:
        """The end of its log."""
        return (self.folder / f"{service}.log").read_text()[-3000:]


def _with(places: dict[str, str], word: str) -> str:
    for there, here in places.items():
        if there in word:
            return word.replace(there, here)
    return word


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def postgres(stack: ExitStack, port: int, secret: Path) -> None:
    """As the image sets itself up: user edge, database fleet, a password."""
    import tempfile

    found, folder = binaries(), Path(tempfile.mkdtemp(prefix="edge-compose-pg-"))
    assert found is not None
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    shutil.copy(secret, folder / "secret")
    for path in (folder, folder / "secret"):
        shutil.chown(path, "postgres")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "user": "postgres", "cwd": "/"}
    subprocess.run(
        [found / "initdb", "-D", folder / "data", "-U", "edge", "-A", "scram-sha-256",
         "--pwfile", folder / "secret", "--no-sync"],
        check=True, **quiet,
    )  # fmt: skip
    server = subprocess.Popen(
        [found / "postgres", "-D", folder / "data", "-k", folder, "-h", "127.0.0.1",
         "-p", str(port)],
        stderr=subprocess.DEVNULL, **quiet,
    )  # fmt: skip
    stack.callback(server.wait, 60)
    stack.callback(server.kill)
    address = ["-h", "127.0.0.1", "-p", str(port), "-U", "edge"]
    until(
        lambda: subprocess.run([found / "pg_isready", *address, "-q"], check=False).returncode == 0,
        "PostgreSQL is up",
    )
    subprocess.run(
        [found / "createdb", *address, "fleet"], check=True,
        env={"PATH": os.environ["PATH"], "PGPASSWORD": secret.read_text().strip()},
    )  # fmt: skip


def mosquitto(stack: ExitStack, port: int, folder: Path) -> None:
    """With the settings beside the Compose file; only paths and the port are ours."""
    text = (COMPOSE / "mosquitto.conf").read_text()
    text = text.replace("/accounts", str(folder / "accounts"))
    text = text.replace("/mosquitto/data", str(folder))
    text = text.replace("listener 8883", f"listener {port} 127.0.0.1")
    (folder / "mosquitto.conf").write_text(f"{text}\nuser root\n")
    binary = find_mosquitto()
    assert binary is not None
    with (folder / "broker.log").open("ab") as log:
        broker = subprocess.Popen([binary, "-c", folder / "mosquitto.conf"], stderr=log)
    stack.callback(broker.wait, 60)
    stack.callback(broker.kill)


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    """Accounts and secrets as README.md makes them, broker and database up."""
    file = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    ports = {name: free_port() for name in ("broker", "db", "api")}
    (tmp_path / "secrets").mkdir()
    (tmp_path / "backups").mkdir()
    devices = [word for at in range(DEVICES) for word in ("--device", f"try-{at:06}")]
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "edge_pack", "broker-acl", tmp_path / "accounts", "--fleet",
         "plant", "--tls", "localhost", *devices],
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "365", "-subj", "/CN=fleet", "-keyout",
         tmp_path / "secrets" / "http-key.pem", "-out", tmp_path / "secrets" / "http-cert.pem"],
    ]  # fmt: skip
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "secrets" / "db").write_text("0123456789abcdef\n")
    secrets = {name: tmp_path / each["file"] for name, each in file["secrets"].items()}
    made = Composed(tmp_path, ports, file["services"], secrets)
    with ExitStack() as stack:
        mosquitto(stack, ports["broker"], tmp_path)
        postgres(stack, ports["db"], secrets["db"])
        yield made
        for process in made.running.values():
            process.kill()
            process.wait()


def bundle_file(folder: Path) -> Path:
    """A bundle of one file and a profile."""
    packed = pack(np.random.default_rng(20))
    found = manifest.decode(packed.manifest_bytes)
    _, model = bundle.encode_member("model.onnx", found.version.encode())
    path = folder / "boiler-1.0.edgepack"
    path.write_bytes(
        bundle.write(packed.manifest_bytes, {"model.onnx": model, "profile.json": packed.stored})
    )
    return path


def test_a_simulated_fleet_runs_through_all_of_it(composed: Composed, tmp_path: Path) -> None:
    for service in ("collector-0", "collector-1"):
        composed.start(service)
    for service in ("collector-0", "collector-1"):
        composed.becomes_healthy(service)
    composed.start("api")
    composed.becomes_healthy("api")
    made = bundle_file(tmp_path)
    assert composed.run("api", "fetch", str(made)).returncode == 0
    done = composed.run(
        "api", "simulate", "--fleet", "plant", "--bundle", str(made), "--names", "try-",
        "--devices", str(DEVICES), "--window-s", "1", "--duration-s", "20", "--seed", "7",
        "--ca-file", str(composed.secrets["ca"]),
        "--passwords", str(tmp_path / "accounts" / "secrets"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sent = json.loads(done.stdout)
    assert (sent["peak"], sent["losses"]) == (DEVICES, 0), sent
    assert sent["acknowledged"] > 0

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(composed.run("api", "status", "--json").stdout)
        return found

    until(lambda: status()["windows"] >= sent["acknowledged"], "all is kept")
    until(lambda: status()["pending_windows"] == 0, "all is counted")
    created = composed.run("api", "api-tokens", "create", "me", "--role", "admin", "--json")
    token = json.loads(created.stdout)["token"]
    context = ssl.create_default_context(cafile=str(composed.secrets["http_cert"]))
    context.check_hostname = False

    def get(path: str) -> bytes:
        asked = urllib.request.Request(
            f"https://127.0.0.1:{composed.ports['api']}{path}",
            headers={"Authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(asked, timeout=120, context=context) as answer:
            body: bytes = answer.read()
        return body

    assert b"<html" in get("/")
    names = [each["device"] for each in json.loads(get("/api/v1/devices"))["items"]]
    assert names == [f"try-{at:06}" for at in range(DEVICES)]
    backed_up = composed.run("backup")
    assert backed_up.returncode == 0, backed_up.stderr
    assert (tmp_path / "backups" / "fleet.backup").stat().st_size > 0
    told = composed.run("doctor")
    assert "may read and write what a fleet server needs" in told.stdout, told.stdout
    assert not [line for line in told.stdout.splitlines() if line.startswith("BROKEN")]
    for service, process in composed.running.items():
        process.terminate()
        assert process.wait(60) == 0, composed.said(service)
        for line in composed.said(service).splitlines()[-5:]:
            assert json.loads(line)["message"]

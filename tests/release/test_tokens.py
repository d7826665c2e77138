"""Keys in a hardware token (PKCS #11, SoftHSM) and behind the protocol of AWS KMS sign for real."""

from __future__ import annotations

import base64
import datetime
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_contract import bundle as bundles
from edge_contract.bundle import Bundle
from edge_release import create

EDGE_PACK = Path(sys.executable).parent / "edge-pack"
New = Callable[..., Bundle]
Run = Callable[..., subprocess.CompletedProcess[str]]
PIN = "4321"

MAKE_KEY = """
import pkcs11, os
from pkcs11.util.ec import encode_named_curve_parameters
token = pkcs11.lib(os.environ["PYKCS11LIB"]).get_token(token_label="edge pack")
with token.open(rw=True, user_pin="4321") as session:
    curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    session.create_domain_parameters(
        pkcs11.KeyType.EC, curve, local=True
    ).generate_keypair(store=True, id=bytes([2]), label="root")
"""

FOLLOW = """
import sys
if sys.argv[1] == "without":
    sys.modules["cryptography"] = None
from datetime import UTC, datetime
from pathlib import Path
from edge_agent.delivery import Delivery, DeliveryConfig
from edge_contract import broker_url
from edge_contract.errors import EdgeError
from edge_contract.topics import Topics
device = Delivery(DeliveryConfig(
    folder=Path(sys.argv[2]), broker=broker_url.parse(sys.argv[3]), topics=Topics("home"),
    device="dev",
))
try:
    device.enroll(root=Path(sys.argv[4]).read_bytes())
    refreshed = device.refresh(now=datetime.now(UTC), synchronised=True)
    print(refreshed.pointer.models["pump"].stable.version)
except EdgeError as error:
    print(type(error).__name__, error)
"""


def library() -> str:
    for folder in ("/usr/lib/softhsm", "/usr/lib64/softhsm", "/usr/local/lib/softhsm"):
        if Path(folder, "libsofthsm2.so").is_file():
            return f"{folder}/libsofthsm2.so"
    return ""


def runner(folder: Path, **env: str) -> Run:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("EDGE_PACK", "AWS_"))}

    def run(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [EDGE_PACK, *map(str, words)], cwd=folder, capture_output=True, text=True,
            check=False, env=clean | env | more, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


@pytest.fixture
def token(tmp_path: Path) -> Run:
    """Runs ``edge-pack`` beside a token "edge pack" that holds an ECDSA key with id 2."""
    softhsm = shutil.which("softhsm2-util")
    if softhsm is None or not library():
        if os.environ.get("CI") == "true":
            pytest.fail("no softhsm2: CI tests against a PKCS #11 token")
        pytest.skip("softhsm2 is not installed (Debian package softhsm2)")
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed: edge-pack[hsm]")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\n")
    env = {"SOFTHSM2_CONF": str(tmp_path / "softhsm.conf"), "PYKCS11LIB": library()}
    for command in (
        [softhsm, "--init-token", "--free", "--label", "edge pack", "--pin", PIN, "--so-pin", PIN],
        [sys.executable, "-c", MAKE_KEY],
    ):
        subprocess.run(command, env=os.environ | env, check=True, capture_output=True)
    return runner(tmp_path, **env)


def follow(how: str, folder: Path, url: str) -> str:
    device = folder / f"device-{how}"
    done = subprocess.run(
        [sys.executable, "-c", FOLLOW, how, device, url,
         folder / "keys/repository/metadata/1.root.json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr


@pytest.mark.slow
def test_a_key_in_a_token_signs_and_devices_that_cannot_check_it_are_thought_of(
    token: Run, tmp_path: Path, embedded: Any, new_bundle: New
) -> None:
    create(tmp_path / "keys", "home", now=datetime.datetime.now(datetime.UTC))
    bundle = new_bundle(size_bytes=500)
    (tmp_path / "b.edgepack").write_bytes(bundles.write(bundle.manifest_bytes, bundle.stored))
    add = ("keys", "add", "rollout", "--uri", "hsm:2?label=edge+pack", "--new", "token")
    refused = token(*add)
    assert refused.returncode == 2
    assert "only with the cryptography package" in refused.stderr.replace("\n", " ")
    assert "--devices-have-fast" in refused.stderr
    again = token(*add, "--devices-have-fast")
    assert again.returncode == 0, again.stderr
    status = json.loads(token("keys", "status", "--json").stdout)
    row = next(row for row in status["roles"] if row["role"] == "rollout")
    assert (row["keys"], row["threshold"], row["needs_fast"]) == (["rollout", "token"], 1, False)
    publish = ("publish", "b.edgepack", "--broker", embedded.url, "--keys", "keys", "--fleet",
               "home")  # fmt: skip
    without_pin = token(*publish)
    assert without_pin.returncode == 2
    assert "pin of hsm:2?label=edge+pack is needed" in without_pin.stderr
    wrong = token(*publish, EDGE_PACK_PIN="0000")
    assert wrong.returncode == 4, wrong.stderr
    assert "does not sign: PinIncorrect" in wrong.stderr
    done = token(*publish, EDGE_PACK_PIN=PIN)
    assert done.returncode == 0, done.stderr
    # One Ed25519 signature is enough for the role: every device follows.
    assert follow("without", tmp_path, embedded.url) == "1.0"
    assert follow("with", tmp_path, embedded.url) == "1.0"

    # By the token alone: a device without the package refuses, and the owner was told.
    gone = token("keys", "remove", "rollout", "rollout", EDGE_PACK_PIN=PIN)
    assert gone.returncode == 0, gone.stderr
    status = token("keys", "status")
    assert "rollout: only devices with edge-pack[fast] can check" in status.stdout
    newer = new_bundle("2.0", seed=2, size_bytes=500)
    (tmp_path / "b.edgepack").write_bytes(bundles.write(newer.manifest_bytes, newer.stored))
    done = token(*publish, EDGE_PACK_PIN=PIN)
    assert done.returncode == 0, done.stderr
    assert follow("with", tmp_path, embedded.url) == "2.0"
    assert follow("without", tmp_path, embedded.url).startswith("PeerFault")


@pytest.mark.parametrize(
    "case",
    [
        ("hsm:2?label=nobody", {}, "No PKCS#11 token found for label nobody"),
        ("hsm:9?label=edge+pack", {"EDGE_PACK_PIN": PIN}, "could not find ECDSA key"),
        ("hsm:2?label=edge+pack", {"PYKCS11LIB": ""}, "PYKCS11LIB"),
        ("hsm:2?label=edge+pack", {"PYKCS11LIB": "/none.so"}, "cannot use the key"),
        ("ftp:2", {}, "is no place of a key, expected one of hsm:, awskms:"),
        ("gcpkms:x", {}, "pip install 'edge-pack[kms]'"),
    ],
)
def test_a_token_that_cannot_be_used_is_one_message(
    token: Run, case: tuple[str, dict[str, str], str], files: Any, tmp_path: Path
) -> None:
    uri, env, said = case
    create(tmp_path / "keys", "home", now=datetime.datetime.now(datetime.UTC))
    before = files(tmp_path / "keys")
    done = token("keys", "add", "root", "--uri", uri, "--devices-have-fast", **env)
    assert done.returncode in (2, 4)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    after = files(tmp_path / "keys")
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {"repository/lock"}


class KeyService(BaseHTTPRequestHandler):
    """What AWS KMS answers to GetPublicKey and Sign, with a real ECDSA key; ``lie``: wrongly."""

    key: Any
    lie = False

    def do_POST(self) -> None:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"KeyId": asked["KeyId"], "SigningAlgorithms": ["ECDSA_SHA_256"]}
        if self.headers["X-Amz-Target"] == "TrentService.GetPublicKey":
            der = self.key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            answer["PublicKey"] = base64.b64encode(der).decode()
        else:
            assert self.headers["X-Amz-Target"] == "TrentService.Sign"
            assert (asked["MessageType"], asked["SigningAlgorithm"]) == ("DIGEST", "ECDSA_SHA_256")
            digest = base64.b64decode(asked["Message"])
            if self.lie:
                digest = digest[::-1]
            how = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
            answer["Signature"] = base64.b64encode(self.key.sign(digest, how)).decode()
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[Run, type[KeyService]]]:
    """Runs ``edge-pack`` with a key service on loopback."""
    pytest.importorskip("boto3", reason="boto3 is not installed: edge-pack[kms]")
    from cryptography.hazmat.primitives.asymmetric import ec

    handler = type("Handler", (KeyService,), {"key": ec.generate_private_key(ec.SECP256R1())})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
            "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }  # fmt: skip
        yield runner(tmp_path, **env), handler
        server.shutdown()


ADD = ("keys", "add", "root", "--uri", "awskms:alias/root", "--new", "aws", "--threshold", "2",
       "--devices-have-fast", "--json")  # fmt: skip


@pytest.mark.slow
def test_a_key_in_a_key_service_signs_root(
    service: tuple[Run, type[KeyService]], tmp_path: Path
) -> None:
    run, _handler = service
    create(tmp_path / "keys", "home", now=datetime.datetime.now(datetime.UTC))
    done = run(*ADD)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["done"]
    assert outcome["signed_by"] == ["root", "aws"]
    assert run("keys", "rotate", "timestamp").returncode == 0
    status = json.loads(run("keys", "status", "--json").stdout)
    assert [status["roles"][0][key] for key in ("version", "threshold", "needs_fast")] == [
        3, 2, True,
    ]  # fmt: skip
    away = run("keys", "rotate", "timestamp", AWS_ENDPOINT_URL="http://127.0.0.1:1",
               AWS_MAX_ATTEMPTS="1")  # fmt: skip
    assert away.returncode == 4
    assert "does not sign" in away.stderr
    assert "Could not connect" in away.stderr


def test_a_key_service_that_signs_something_else_is_found_out_before_anything_is_written(
    service: tuple[Run, type[KeyService]], tmp_path: Path
) -> None:
    run, handler = service
    create(tmp_path / "keys", "home", now=datetime.datetime.now(datetime.UTC))
    handler.lie = True
    done = run(*ADD)
    assert done.returncode == 4
    assert "does not hold: its token or service signs with another key" in done.stderr
    assert not (tmp_path / "keys/repository/pending.json").exists()
    assert not (tmp_path / "keys/repository/metadata/2.root.json").exists()

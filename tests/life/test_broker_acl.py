"""`edge-pack broker-acl`, typed wrongly and typed again."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

from typer.testing import CliRunner, Result

from edge_contract.errors import InputFault
from edge_contract.ports import certificates
from edge_pack.cli import app


def acl(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["broker-acl", str(folder), *arguments])


def test_accounts_do_not_go_among_other_things_such_as_keys(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text("key")
    done = acl(tmp_path, "--fleet", "home")
    assert isinstance(done.exception, InputFault)
    assert "root.pem" in done.exception.what
    assert [each.name for each in tmp_path.iterdir()] == ["root.pem"]


def test_an_address_that_is_none_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    done = acl(tmp_path / "accounts", "--fleet", "home", "--plain", "broker:1883")
    assert isinstance(done.exception, InputFault)
    assert not (tmp_path / "accounts").exists()


def test_a_new_device_leaves_the_broker_listening_where_it_did(tmp_path: Path) -> None:
    assert acl(tmp_path, "--fleet", "home", "--plain", "0.0.0.0").exit_code == 0
    assert acl(tmp_path, "--fleet", "home", "--device", "pi1").exit_code == 0
    assert "listener 1883 0.0.0.0\n" in (tmp_path / "edge.conf").read_text()


def test_with_tls_the_loopback_of_before_is_no_longer_needed(tmp_path: Path) -> None:
    assert acl(tmp_path, "--fleet", "home").exit_code == 0
    assert "listener 1883 127.0.0.1\n" in (tmp_path / "edge.conf").read_text()
    assert acl(tmp_path, "--fleet", "home", "--tls", "localhost").exit_code == 0
    assert "listener 1883" not in (tmp_path / "edge.conf").read_text()


def openssl(*words: object) -> str:
    found = subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_certificates_that_end_soon_are_said_and_renewed_under_the_same_keys(
    tmp_path: Path,
) -> None:
    folder, tls = tmp_path / "accounts", tmp_path / "accounts/tls"
    ca, server = tls / "ca.pem", tls / "server.pem"
    hosts = ("broker.example", "127.0.0.1")
    made = acl(folder, "--fleet", "home", "--device", "pi1", "--certificates",
               *(word for host in hosts for word in ("--tls", host)))  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "ends on" not in made.stderr
    # As they would be in their last month.
    ca.write_text(openssl("x509", "-in", ca, "-signkey", tls / "ca.key", "-days", 30))
    csr, names = tmp_path / "csr", tmp_path / "names"
    csr.write_text(certificates.make_request(tls / "server.key"))
    names.write_text("subjectAltName=DNS:broker.example,IP:127.0.0.1\n")
    server.write_text(
        openssl("x509", "-req", "-in", csr, "-CA", ca, "-CAkey", tls / "ca.key", "-days", 30,
                "-set_serial", 7, "-extfile", names)
    )  # fmt: skip
    late = acl(folder)
    assert late.exit_code == 0
    assert "tls/ca.pem ends on" in late.stderr
    assert "tls/server.pem ends on" in late.stderr
    keys = [path.read_bytes() for path in (tls / "ca.key", tls / "server.key")]
    former = tmp_path / "former.pem"  # what the devices have
    former.write_bytes(ca.read_bytes())
    renewed = acl(folder, "--renew-certificates")
    assert renewed.exit_code == 0, renewed.output
    assert "ends on" not in renewed.stderr
    assert [path.read_bytes() for path in (tls / "ca.key", tls / "server.key")] == keys
    assert certificates.hosts(server) == hosts
    in_nine_years = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=9 * 365)
    assert min(certificates.ends(ca), certificates.ends(server)) > in_nine_years
    for anchor in (former, ca):
        for signed in (server, folder / "secrets/pi1.pem"):
            assert "OK" in openssl("verify", "-CAfile", anchor, signed)


def test_there_must_be_certificates_to_renew(tmp_path: Path) -> None:
    assert acl(tmp_path / "accounts", "--fleet", "home").exit_code == 0
    done = acl(tmp_path / "accounts", "--renew-certificates")
    assert isinstance(done.exception, InputFault)
    assert "no authority and server certificate" in done.exception.what

"""`edge-pack broker-acl`, typed wrongly and typed again."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from edge_contract.errors import InputFault
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

"""Passwords from files, and the sign of life that health checks look for."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_contract import broker_url
from edge_contract.errors import InputFault
from edge_fleet import cli, opening, options
from edge_fleet.store.sql import SqlStore


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a password, as both variables name it."""
    path = tmp_path / "secret"
    path.write_text("p@ss/w:rd\n")
    monkeypatch.setenv("EDGE_FLEET_DB_PASSWORD_FILE", str(path))
    monkeypatch.setenv("EDGE_FLEET_PASSWORD_FILE", str(path))
    monkeypatch.delenv("EDGE_FLEET_PASSWORD", raising=False)
    return path


@pytest.mark.parametrize(
    ("db", "found"),
    [
        ("postgresql://edge@db/fleet", "postgresql://edge:p%40ss%2Fw%3Ard@db/fleet"),
        ("postgresql://edge@/fleet?host=/x", "postgresql://edge:p%40ss%2Fw%3Ard@/fleet?host=/x"),
        ("postgresql://edge:own@db/fleet", "postgresql://edge:own@db/fleet"),
        ("postgresql://db/fleet", "postgresql://db/fleet"),
        ("sqlite:///a@b.db", "sqlite:///a@b.db"),
        ("", ""),
    ],
)
def test_the_databases_password_goes_where_one_is_missing(
    secret: Path, db: str, found: str
) -> None:
    assert opening.with_password(db) == found
    import sqlalchemy

    if "%40" in found:
        assert sqlalchemy.make_url(found).password == "p@ss/w:rd"


def test_the_brokers_password_comes_from_the_file_too(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = broker_url.parse("mqtt://plant.server@broker")
    assert options.with_password(named).password == "p@ss/w:rd"
    assert options.with_password(broker_url.parse("mqtt://broker")).password == ""
    monkeypatch.setenv("EDGE_FLEET_PASSWORD", "first")
    assert options.with_password(named).password == "first"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * 5000])
def test_a_file_that_holds_no_password_is_named(secret: Path, content: bytes | None) -> None:
    secret.unlink()
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(InputFault, match="EDGE_FLEET_DB_PASSWORD_FILE names"):
        opening.with_password("postgresql://edge@db/fleet")


def test_a_collector_lives_as_long_as_it_leaves_signs(
    store: SqlStore, db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alive(*words: str) -> int:
        return CliRunner().invoke(cli.app, ["alive", "--db", db, *words]).exit_code

    store.claim("plant")
    now = options.now_ms()
    assert alive() == 1
    store.put_settings({"collector-0": str(now), "collector-1": str(now - 120_000)})
    assert (alive(), alive("--ordinal", "1")) == (0, 1)
    assert alive("--ordinal", "1", "--within-s", "1000") == 0
    monkeypatch.setenv("EDGE_FLEET_ORDINAL", "1")
    assert alive() == 1

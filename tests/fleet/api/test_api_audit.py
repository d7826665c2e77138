"""Whoever changes something, over HTTP or by a command, is in the audit with what was changed."""

import json
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent))

from api_kit import EVIL, Client

from edge_fleet.cli import app
from edge_fleet.store import sql
from edge_fleet.store.sql import SqlStore


def run(*words: str, db: str) -> Result:
    return CliRunner().invoke(app, [*words, "--db", db])


def entries(db: str, *words: str) -> list[tuple[str, str, str]]:
    result = run("audit", "--json", *words, db=db)
    assert result.exit_code == 0, result.output
    return [(e["actor"], e["action"], e["subject"]) for e in json.loads(result.output)]


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LOGNAME", "ann")
    return "ann"


def test_commands_and_requests_are_in_one_audit(
    client: Client, filled: SqlStore, db: str, user: str
) -> None:
    operator, admin = client("operator"), client("admin")
    alarms = operator.get("/api/v1/alarms").json()["items"]
    first = alarms[0]["id"]
    operator.post(f"/api/v1/alarms/{first}/acknowledge", json={"comment": "looking"})
    operator.post(f"/api/v1/alarms/{first}/comments", json={"comment": EVIL})
    assert run("resolve", str(first), "--comment", "new sensor", db=db).exit_code == 0
    made = json.loads(run("api-tokens", "create", "night", "--json", db=db).output)["id"]
    assert run("api-tokens", "revoke", made, db=db).exit_code == 0
    other = json.loads(run("api-tokens", "create", "day", "--json", db=db).output)["id"]
    assert admin.post(f"/api/v1/tokens/{other}/revoke").status_code == 200
    assert run("compact", db=db).exit_code == 0
    assert run("compact", "--dry-run", db=db).exit_code == 0
    about = f"alarm {first}"
    assert entries(db) == [
        (user, "store.compact", "store"),
        ("admin-1", "token.revoke", f"token {other}"),
        (user, "token.create", f"token {other}"),
        (user, "token.revoke", f"token {made}"),
        (user, "token.create", f"token {made}"),
        (user, "alarm.resolve", about),
        ("operator-1", "alarm.comment", about),
        ("operator-1", "alarm.acknowledge", about),
    ]
    assert entries(db, "--actor", "admin-1") == [("admin-1", "token.revoke", f"token {other}")]
    assert len(entries(db, "--action", "token")) == 4
    assert len(entries(db, "--subject", about, "--limit", "2")) == 2
    table = run("audit", db=db).output
    assert "new sensor" in table
    assert not set(table) & set("\x1b\u202e\u2028"), "words of others steer no terminal"


def test_a_change_that_did_not_happen_is_not_told(
    client: Client, filled: SqlStore, db: str
) -> None:
    assert run("resolve", "999", db=db).exit_code != 0
    assert run("api-tokens", "revoke", "0" * 12, db=db).exit_code != 0
    assert client("operator").post("/api/v1/alarms/999/acknowledge").status_code == 404
    assert entries(db) == []


def test_verify_says_whether_it_was_altered(filled: SqlStore, db: str) -> None:
    for name in ("a", "b", "c"):
        run("api-tokens", "create", name, db=db)
    found = json.loads(run("audit", "--verify", "--json", db=db).output)
    assert (found["entries"], found["faults"]) == (3, [])
    run("api-tokens", "create", "d", db=db)
    assert run("audit", "--verify", "--head", found["head"], db=db).exit_code == 0
    gone = run("audit", "--verify", "--head", "ab" * 32, db=db)
    assert gone.exit_code == 1
    assert "the end was cut off" in gone.output
    engine = sa.create_engine(sql._parse(db))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TRIGGER audit_no_update"))
        connection.execute(sa.text("UPDATE audit SET actor = 'eve' WHERE id = 2"))
    engine.dispose()
    altered = run("audit", "--verify", db=db)
    assert altered.exit_code == 1
    assert "entry 2 does not follow the one before it" in altered.output


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--head", "ab" * 32], "--head needs --verify"),
        (["--verify", "--head", "x"], "is not a SHA-256"),
    ],
)
def test_a_mistake_is_said(words: list[str], fault: str, filled: SqlStore, db: str) -> None:
    result = run("audit", *words, db=db)
    assert result.exit_code != 0
    assert fault in f"{result.output} {result.exception}"


def test_the_audit_over_http_is_that_of_the_command_page_by_page(
    client: Client, filled: SqlStore, db: str, user: str
) -> None:
    for name in ("a", "b", "c"):
        assert run("api-tokens", "create", name, db=db).exit_code == 0
    operator, admin = client("operator"), client("admin")
    first = operator.get("/api/v1/alarms").json()["items"][0]["id"]
    operator.post(f"/api/v1/alarms/{first}/comments", json={"comment": EVIL})
    told = json.loads(run("audit", "--json", db=db).output)
    paged, cursor, pages = [], "", 0
    while cursor is not None:
        page = admin.get("/api/v1/audit", params={"limit": 3, "cursor": cursor}).json()
        paged, cursor, pages = paged + page["items"], page["next"], pages + 1
    assert paged == told
    assert (len(paged), pages) == (4, 2)
    assert EVIL in paged[0]["detail"]

    def found(**params: str) -> list[str]:
        answer = admin.get("/api/v1/audit", params=params)
        assert answer.status_code == 200, answer.text
        return [one["action"] for one in answer.json()["items"]]

    assert found(actor=user) == ["token.create"] * 3
    assert found(action="alarm") == ["alarm.comment"]
    assert found(action="alarm", actor=user) == []
    assert found(subject=f"alarm {first}") == ["alarm.comment"]


def test_the_audit_is_for_admins_and_its_cursors_are_its_own(client: Client) -> None:
    for role, status in (("", 401), ("viewer", 403), ("operator", 403), ("admin", 200)):
        assert client(role).get("/api/v1/audit").status_code == status
    admin = client("admin")
    foreign = admin.get("/api/v1/devices", params={"limit": 1}).json()["next"]
    for params in ({"cursor": foreign}, {"cursor": "x"}, {"limit": 0}, {"actor": "a\nb"}):
        answer = admin.get("/api/v1/audit", params=params)
        assert answer.status_code in (400, 422)
        assert answer.headers["content-type"] == "application/problem+json"
    described = admin.get("/openapi.json").json()["paths"]["/api/v1/audit"]["get"]
    assert {one["name"] for one in described["parameters"]} == {
        "actor", "action", "subject", "limit", "cursor",
    }  # fmt: skip

"""Devices over HTTP by what they are and do, each with what it is to follow."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from api_kit import Client

from edge_contract import messages
from edge_fleet.api import resources
from edge_fleet.options import now_ms
from edge_fleet.store.rollouts import Wish
from edge_fleet.store.sql import SqlStore


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("site=lyon and alive", ["pi-1", "pi-3"]),
        ("not alive", ["pi-4"]),
        ("version in (1.0, 1.3)", ["pi-0", "pi-3"]),
        ("version>=1.3 and boiler_is=nothing or state=offline", ["pi-4"]),
        ("alarms>0", ["pi-2"]),
        ("follows=behind", ["pi-1"]),
        ("device=nobody", []),
    ],
)
def test_a_question_over_http_finds_what_the_command_finds(
    where: str, names: list[str], client: Client, filled: SqlStore
) -> None:
    wanted = messages.encode(messages.Desired(revision=3, models={"boiler": "2.0"}))
    with filled.transaction() as tx:
        tx.put_wishes([Wish("pi-1", 3, now_ms(), wanted)])
    viewer = client("viewer")
    answer = viewer.get("/api/v1/devices", params={"where": where})
    assert answer.status_code == 200, answer.text
    assert [one["device"] for one in answer.json()["items"]] == names
    paged, cursor = [], ""
    while cursor is not None:
        page = viewer.get(
            "/api/v1/devices", params={"where": where, "limit": 1, "cursor": cursor}
        ).json()
        assert len(page["items"]) <= 1
        paged += [one["device"] for one in page["items"]]
        cursor = page["next"]
    assert paged == names
    one = viewer.get("/api/v1/devices/pi-1").json()
    assert (one["follows"], one["wanted_revision"], one["revision"]) == ("behind", 3, 0)


def test_a_question_that_fits_few_of_many_is_answered_in_parts(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "ASKED_AT_ONCE", 2)
    monkeypatch.setattr(resources, "ASKED_MAX", 2)
    viewer = client("viewer")
    found, pages, cursor = [], 0, ""
    while cursor is not None:
        params = {"where": "state=offline", "cursor": cursor}
        page = viewer.get("/api/v1/devices", params=params).json()
        found += [one["device"] for one in page["items"]]
        cursor, pages = page["next"], pages + 1
    assert found == ["pi-4"]
    assert pages == 3


@pytest.mark.parametrize("where", ["site=", "last_seen<soon", "a=b or " * 300, "x" * 2100, "a\n=b"])
def test_a_wrong_question_is_a_problem_and_no_fault_of_the_server(
    where: str, client: Client
) -> None:
    answer = client("viewer").get("/api/v1/devices", params={"where": where})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_figures_count_devices_by_how_they_follow(client: Client, filled: SqlStore) -> None:
    wanted = messages.encode(messages.Desired(revision=1, models={"boiler": "2.0"}))
    with filled.transaction() as tx:
        tx.put_wishes([Wish("pi-1", 1, now_ms(), wanted)])
    text = client("viewer").get("/metrics").text
    for follows, count in {"in-step": 4, "behind": 1, "refusing": 0, "unknown": 0}.items():
        assert f'edge_fleet_devices_following{{follows="{follows}"}} {count}.0' in text

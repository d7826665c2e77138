"""Rollouts over HTTP: ordered, watched and steered, each thing once, each by somebody named."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from api_kit import Client, token
from fleet_kit import FLEET

sys.path.insert(0, str(Path(__file__).parents[1] / "rollouts"))

from rollout_store import TOPICS, Fleet

from edge_contract import broker_url, messages
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_fleet.api import cursors, feed, server
from edge_fleet.broker import BrokerThread
from edge_fleet.options import now_ms
from edge_fleet.rollouts import words
from edge_fleet.rollouts.publication import Channels
from edge_fleet.store.sql import SqlStore

ORDER = {"version": "pump@2.0", "waves": "1,50%,100%", "unchecked": True}


@pytest.fixture
def fleet(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    made = Fleet(store, 8)
    made.now_ms = now_ms()
    made.live([])
    return made


@pytest.fixture
def filled(store: SqlStore, fleet: Fleet) -> SqlStore:
    """In place of the store that other tests of the service fill."""
    return store


def turn(fleet: Fleet, rounds: int = 1) -> None:
    for _ in range(rounds):
        run = fleet.run()
        run.step()
        fleet.live(run.pending())


def test_a_rollout_is_ordered_watched_and_steered(client: Client, fleet: Fleet) -> None:
    operator, viewer = client("operator"), client("viewer")
    begun = operator.post("/api/v1/rollouts", json=ORDER)
    assert begun.status_code == 200, begun.text
    assert (begun.json()["id"], begun.json()["phase"]) == (1, "running")
    turn(fleet)
    found = viewer.get("/api/v1/rollouts/1").json()
    assert [(each["number"], each["stage"], each["size"]) for each in found["each"]] == [
        (1, "at-hand", 1), (2, "to-come", 4), (3, "to-come", 8),
    ]  # fmt: skip
    assert found["each"][0]["devices"] == {"installed": 1}
    [gate] = [each for each in found["gates"] if each["gate"] == "installed"]
    assert (gate["verdict"], gate["value"], gate["limit"], gate["sample"]) == (
        "holds", 1.0, 0.9, 1,
    )  # fmt: skip
    paused = operator.post("/api/v1/rollouts/1/pause", json={"comment": "line 3 stands"})
    assert paused.json()["phase"] == "paused"
    again = operator.post("/api/v1/rollouts/1/pause")
    assert (again.status_code, again.headers["content-type"]) == (409, "application/problem+json")
    assert "it is paused, expected running" in again.json()["detail"]
    operator.post("/api/v1/rollouts/1/resume").raise_for_status()
    turn(fleet, 20)
    listed = viewer.get("/api/v1/rollouts").json()["items"]
    assert [(one["id"], one["phase"], one["members"], one["asked"]) for one in listed] == [
        (1, "finished", 8, 8)
    ]
    operator.post("/api/v1/rollouts/1/rollback").raise_for_status()
    turn(fleet, 5)
    assert viewer.get("/api/v1/rollouts/1").json()["phase"] == "rolled-back"
    with fleet.store.reading() as tx:
        told = [(one.actor, one.action) for one in reversed(tx.audits_before((), 100))]
        why = [one.detail for one in tx.audits_before((), 9, action="rollout.pause")]
    assert [one for one in told if one[0] == "operator-1"] == [
        ("operator-1", f"rollout.{word}") for word in ("start", "pause", "resume", "rollback")
    ]
    assert why == ["paused by hand; line 3 stands"]


def test_an_order_sent_again_begins_one_rollout(client: Client, fleet: Fleet) -> None:
    operator = client("operator")
    key = {"Idempotency-Key": "night-1"}
    first = operator.post("/api/v1/rollouts", json=ORDER, headers=key)
    second = operator.post("/api/v1/rollouts", json=ORDER, headers=key)
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.content == first.content
    assert second.headers["idempotent-replayed"] == "true"
    other = operator.post("/api/v1/rollouts", json={**ORDER, "waves": "100%"}, headers=key)
    assert other.status_code == 422
    assert len(fleet.rollouts()) == 1


@pytest.mark.parametrize(
    ("order", "status", "said"),
    [
        ({}, 400, "the order names no model"),
        ({"select": "site=oslo"}, 409, "matches none of 8 devices"),
        ({"select": "site="}, 400, "wrong at character 6"),
        ({"waves": "5%,1%"}, 400, "do not rise"),
        ({"policy": "pray"}, 400, "Invalid enum value 'pray'"),
        ({"gates": {"errors": {"limit": 7}}}, 400, "gates.errors.limit"),
        ({"speed": 9}, 400, "unknown field `speed`"),
        ({"fleet": "other"}, 409, "of fleet 'test', not 'other'"),
        ({"unchecked": False}, 409, "knows no broker"),
    ],
)
def test_each_mistake_is_a_problem_with_advice_and_nothing_begins(
    client: Client, fleet: Fleet, order: dict[str, object], status: int, said: str
) -> None:
    body = {**ORDER, **order} if order else {}
    answer = client("operator").post("/api/v1/rollouts", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (
        status, "application/problem+json",
    )  # fmt: skip
    assert said in answer.json()["detail"]
    assert fleet.rollouts() == []


def test_an_overlap_is_a_conflict(client: Client, fleet: Fleet) -> None:
    operator = client("operator")
    operator.post("/api/v1/rollouts", json=ORDER).raise_for_status()
    second = operator.post("/api/v1/rollouts", json={**ORDER, "version": "pump@3.0"})
    assert second.status_code == 409
    assert "another rollout of pump holds 8 of the 8" in second.json()["detail"]
    assert len(fleet.rollouts()) == 1


def test_who_only_reads_tries_an_order_out_and_begins_none(client: Client, fleet: Fleet) -> None:
    viewer = client("viewer")
    found = viewer.post("/api/v1/rollouts/preview", json=ORDER).json()
    assert (found["selected"], found["live"], found["sizes"]) == (8, 8, [1, 4, 8])
    assert [(each["hw"], each["site"], each["devices"]) for each in found["represented"]] == [
        ("aarch64", "lyon", 8)
    ]
    none = viewer.post("/api/v1/rollouts/preview", json={**ORDER, "select": "site=oslo"}).json()
    assert (none["selected"], none["sizes"]) == (0, [0, 0, 0])
    for path in ("", "/1/pause"):
        assert viewer.post(f"/api/v1/rollouts{path}", json=ORDER).status_code == 403
    assert fleet.rollouts() == []
    client("operator").post("/api/v1/rollouts", json=ORDER).raise_for_status()
    turn(fleet)
    assert list(fleet.rollouts()[0].members) == found["canaries"], "those that were foretold"


def test_pages_of_rollouts_and_of_devices_hold_each_once(client: Client, fleet: Fleet) -> None:
    operator, viewer = client("operator"), client("viewer")
    for n in range(5):
        operator.post("/api/v1/rollouts", json={**ORDER, "waves": "100%"}).raise_for_status()
        turn(fleet, 4)
        operator.post(f"/api/v1/rollouts/{n + 1}/rollback").raise_for_status()
        turn(fleet, 4)
    seen, cursor = [], ""
    while cursor is not None:
        page = viewer.get("/api/v1/rollouts", params={"limit": 2, "cursor": cursor}).json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next"]
    assert seen == [5, 4, 3, 2, 1]
    running = viewer.get("/api/v1/rollouts", params={"state": "running", "model": "pump"}).json()
    assert running["items"] == []
    names, cursor = [], ""
    path = "/api/v1/rollouts/5/devices"
    while cursor is not None:
        page = viewer.get(path, params={"limit": 3, "cursor": cursor}).json()
        names += [one["device"] for one in page["items"]]
        assert {one["state"] for one in page["items"]} == {"back"}
        cursor = page["next"]
    assert names == sorted(fleet.heard)
    assert viewer.get(path, params={"state": "installed"}).json() == {"items": [], "next": None}
    assert viewer.get(path, params={"wave": 2}).json()["items"] == []
    for bad in ("/api/v1/rollouts/9", "/api/v1/rollouts/9/devices"):
        assert viewer.get(bad).status_code == 404
    assert operator.post("/api/v1/rollouts/9/abort").status_code == 404
    assert operator.post("/api/v1/rollouts/1/dance").status_code == 422


def test_a_version_is_looked_up_on_the_broker_before_it_begins(fleet: Fleet) -> None:
    with BrokerThread() as broker, ExitStack() as stack:
        link = LinkConfig(broker_url.parse(broker.url), "api")
        listen = server.Listen("127.0.0.1", 0, per_minute=100_000)
        channels = Channels(link, TOPICS)
        url = stack.enter_context(server.running(fleet.store, listen, channels))
        headers = {"Authorization": f"Bearer {token(fleet.store, 'operator')}"}
        asking = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=60))
        publisher = Link(LinkConfig(broker_url.parse(broker.url), "publisher"))
        publisher.start(60)
        stack.callback(publisher.stop)
        old, new = (messages.release("pump", v, v[0] * 64) for v in ("1.0", "2.0"))
        publish(publisher, messages.Track(stable=old, candidate=new))
        order = {"version": "pump@2.0", "waves": "100%"}
        absent = asking.post("/api/v1/rollouts", json={**order, "version": "pump@7.0"})
        assert absent.status_code == 409
        assert "no channel of fleet test names pump 7.0" in absent.json()["detail"]
        begun = asking.post("/api/v1/rollouts", json=order)
        assert (begun.status_code, begun.json()["digest"]) == (200, "2" * 64)
        turn(fleet, 5)
        early = asking.post("/api/v1/rollouts/1/release")
        assert early.status_code == 409
        assert "no channel names pump 2.0 as its stable version" in early.json()["detail"]
        publish(publisher, messages.Track(stable=new))
        assert asking.post("/api/v1/rollouts/1/release").json()["phase"] == "released"
    turn(fleet, 3)
    assert {d.models["pump"] for d in fleet.heard.values()} == {"stable"}


def publish(link: Link, track: messages.Track) -> None:
    pointer = messages.Pointer(fleet=FLEET, channel="stable", models={"pump": track})
    topic = TOPICS.target(f"fleet/{FLEET}/{'a' * 64}.stable.json")
    link.publish(topic, messages.encode(pointer), retain=True).wait(60)


def test_the_stream_tells_each_change_of_a_rollout_once_and_goes_on_where_it_was(
    client: Client, fleet: Fleet, filled: SqlStore
) -> None:
    client("operator").post("/api/v1/rollouts", json=ORDER).raise_for_status()
    beginning = feed.Position((0, "", 0, 0), (0, 0), (0, 0))
    late = fleet.now_ms + 10 * feed.SETTLE_MS
    with filled.reading() as tx:
        [begun] = [told for told in feed.read(tx, beginning, late) if told.kind == "rollout"]
        assert feed.read(tx, feed.parse(begun.after.text()), late) == []
    assert json.loads(begun.data)["phase"] == "running"
    fleet.now_ms = late
    words.say(filled, 1, "pause", words.Saying("ann", late))
    with filled.reading() as tx:
        [paused] = feed.read(tx, begun.after, late + feed.SETTLE_MS)
        assert feed.read(tx, begun.after, late) == [], "what has not settled waits"
    assert (paused.kind, json.loads(paused.data)["phase"]) == ("rollout", "paused")
    former = cursors.encode("position", (*begun.after.event, 0, 0, 0, 0))
    assert feed.parse(former).rollout == (begun.after.event[0], 0), "of a client of before"

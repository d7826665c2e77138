"""Over a real socket: who may what, pages, writes that happen once, and problems as JSON."""

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
import pytest
from api_kit import EVIL, Client, token
from fleet_kit import until
from starlette.exceptions import HTTPException

from edge_fleet.api import server, service
from edge_fleet.dashboard import files
from edge_fleet.options import now_ms
from edge_fleet.store.sql import SqlStore


def items(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """All of a list, page by page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(100):
        page = client.get(path, params={**params, "cursor": cursor}).raise_for_status().json()
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            return found
    raise AssertionError("the list does not end")


def is_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = response.json()
    assert said["status"] == status
    assert said["type"] == "about:blank"
    assert said["title"]
    assert said["detail"]
    return said


READS = [
    "status", "devices", "devices/pi-2", "events", "alarms", "drift", "quality", "bundles",
    "triggers/history",
]  # fmt: skip
WRITES = ["alarms/1/acknowledge", "alarms/1/comments", "alarms/1/resolve"]


def test_each_path_wants_its_role(client: Client) -> None:
    roles = {role: client(role) for role in ("", "viewer", "operator", "admin")}
    for path in READS:
        assert roles["viewer"].get(f"/api/v1/{path}").status_code == 200, path
        said = is_problem(roles[""].get(f"/api/v1/{path}"), 401)
        assert "api-tokens create" in said["detail"]
    for path in WRITES:
        is_problem(roles[""].post(f"/api/v1/{path}"), 401)
        is_problem(roles["viewer"].post(f"/api/v1/{path}"), 403)
    for role, status in (("viewer", 403), ("operator", 403), ("admin", 200)):
        assert roles[role].get("/api/v1/tokens").status_code == status
    assert roles["viewer"].get("/metrics").status_code == 200
    is_problem(roles[""].get("/metrics"), 401)
    assert roles[""].get("/health").json() == {"status": "ok"}


def test_what_is_answered_is_what_is_described(client: Client) -> None:
    reader = client("admin")
    described = reader.get("/openapi.json").json()
    for path in ["status", "devices", "events", "alarms", "drift", "quality", "bundles", "tokens"]:
        content = described["paths"][f"/api/v1/{path}"]["get"]["responses"]["200"]["content"]
        schema = {**content["application/json"]["schema"], "components": described["components"]}
        answer = reader.get(f"/api/v1/{path}").raise_for_status().json()
        jsonschema.Draft202012Validator(schema).validate(answer)
        assert answer, path


def test_devices_come_in_pages_and_by_what_they_are(client: Client) -> None:
    reader = client("viewer")

    def names(**filters: Any) -> list[str]:
        return [each["device"] for each in items(reader, "/api/v1/devices", **filters)]

    everyone = [f"pi-{n}" for n in range(5)]
    for limit in (1, 2, 5, 500):
        assert names(limit=limit) == everyone
    assert names(state="offline") == ["pi-4"]
    assert names(state="online", limit=2) == everyone[:4]
    assert names(label="site:lyon") == ["pi-1", "pi-3"]
    assert names(label=["site:lyon", "site:nice"]) == []
    assert names(model="boiler") == everyone
    assert names(model="pump") == []
    assert names(version="1.3") == ["pi-3"]
    assert names(model="pump", version="1.3") == []
    is_problem(reader.get("/api/v1/devices", params={"version": EVIL}), 422)
    one = reader.get("/api/v1/devices/pi-2").json()
    assert one["models"][0]["open_alarms"] >= 1
    is_problem(reader.get("/api/v1/devices/nobody"), 404)


def test_words_of_a_device_stay_data(client: Client) -> None:
    response = client("viewer").get("/api/v1/devices/pi-0")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["cache-control"] == "no-store"
    assert response.json()["agent"] == EVIL
    events = items(client("viewer"), "/api/v1/events")
    assert max(len(each["detail"]) for each in events) <= 2001, "shortened"


def test_events_and_alarms_come_newest_first_each_once(client: Client) -> None:
    reader = client("viewer")
    whole = reader.get("/api/v1/events").json()
    assert len(whole["items"]) == 20
    assert whole["next"] is None
    for limit in (1, 3, 19, 20):
        assert items(reader, "/api/v1/events", limit=limit) == whole["items"]
    times = [each["received"] for each in whole["items"]]
    assert times == sorted(times, reverse=True)
    assert {each["device"] for each in items(reader, "/api/v1/events", device="pi-1")} == {"pi-1"}
    assert {each["kind"] for each in items(reader, "/api/v1/events", kind="update")} == {"update"}
    alarms = items(reader, "/api/v1/alarms", limit=1)
    assert alarms
    assert "pi-2" in {each["device"] for each in alarms}
    assert len({each["id"] for each in alarms}) == len(alarms)
    assert items(reader, "/api/v1/alarms", state="resolved") == []


def test_an_alarm_is_acknowledged_commented_on_and_resolved_with_who_and_what(
    client: Client,
) -> None:
    operator = client("operator")
    [alarm, *_] = items(operator, "/api/v1/alarms", device="pi-2")
    path = f"/api/v1/alarms/{alarm['id']}"
    assert alarm["acknowledged"] is None
    seen = operator.post(f"{path}/acknowledge").raise_for_status().json()
    assert seen["acknowledged"]
    operator.post(f"{path}/comments", json={"comment": EVIL}).raise_for_status()
    closed = operator.post(f"{path}/resolve", json={"comment": "sensor replaced"}).json()
    assert closed == {"resolved": [alarm["id"]]}
    after = operator.get(path).json()
    assert after["resolved"]
    assert after["comment"] == "sensor replaced"
    assert [(n["kind"], n["author"], n["text"]) for n in after["notes"]] == [
        ("acknowledged", "operator-1", ""),
        ("comment", "operator-1", EVIL),
        ("resolved", "operator-1", "sensor replaced"),
    ]
    is_problem(operator.post(f"{path}/resolve"), 409)
    is_problem(operator.post("/api/v1/alarms/999999/resolve"), 404)
    assert operator.get(path).json() == after, "what was refused changed nothing"


def test_a_request_sent_again_is_answered_again_and_done_once(client: Client) -> None:
    operator, other = client("operator"), client("operator")
    [alarm, *_] = items(operator, "/api/v1/alarms", device="pi-2")
    path = f"/api/v1/alarms/{alarm['id']}"
    key = {"Idempotency-Key": "night-1"}
    said = {"comment": "on my way"}
    first = operator.post(f"{path}/comments", json=said, headers=key)
    again = operator.post(f"{path}/comments", json=said, headers=key)
    assert first.content == again.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    is_problem(operator.post(f"{path}/comments", json={"comment": "else"}, headers=key), 422)
    is_problem(operator.post(f"{path}/resolve", json=said, headers=key), 422)
    assert len(operator.get(path).json()["notes"]) == 1
    other.post(f"{path}/comments", json=said, headers=key).raise_for_status()
    assert len(operator.get(path).json()["notes"]) == 2, "another's key is another's"
    closing = {"Idempotency-Key": "night-2"}
    closed = operator.post(f"{path}/resolve", headers=closing)
    assert closed.status_code == 200
    assert operator.post(f"{path}/resolve", headers=closing).content == closed.content


def test_wrong_questions_are_refused_as_problems(client: Client) -> None:
    admin = client("admin")
    for status, path in [
        (422, "devices?limit=0"), (422, "devices?limit=501"), (422, "devices?state=dead"),
        (400, "devices?label=site"), (400, "devices?cursor=zzz"), (400, "events?cursor=zzz"),
        (422, "alarms/0"), (422, "alarms/99999999999999999999"), (422, "alarms/x"),
        (422, "devices?model=a%00b"), (422, "devices/a%00b"), (422, "quality?hours=nan"),
        (422, "quality?hours=0"), (422, "devices?stat=online"), (404, "nothing"),
        (404, "alarms/123456"),
        (400, "alarms?cursor=" + "A" * 1000), (422, "alarms?cursor=" + "A" * 1001),
    ]:  # fmt: skip
        is_problem(admin.get(f"/api/v1/{path}"), status)
    is_problem(admin.delete("/api/v1/devices"), 405)
    is_problem(admin.get("/api/v1/events/stream", headers={"Last-Event-ID": "zzz"}), 400)
    for body, status in [
        (b"{", 400), (b'{"comment": 3}', 400), (b'{"else": 1}', 400), (b"\xff", 400),
        (b"[" * 60_000, 400), (b'{"comment": ""}', 400), (b"x" * 70_000, 413),
        (json.dumps({"comment": "x" * 2001}).encode(), 400),
    ]:  # fmt: skip
        is_problem(admin.post("/api/v1/alarms/1/comments", content=body), status)
    key = {"Idempotency-Key": "x" * 256}
    is_problem(admin.post("/api/v1/alarms/1/acknowledge", headers=key), 422)


def test_a_token_is_void_when_it_is_revoked_or_has_expired(
    client: Client, filled: SqlStore
) -> None:
    viewer, admin = client("viewer"), client("admin")
    nobody = client("")
    listed = admin.get("/api/v1/tokens").json()
    assert "sha256" not in json.dumps(listed)
    assert [each["state"] for each in listed] == ["valid"] * 2
    [id] = [each["id"] for each in listed if each["role"] == "viewer"]
    assert viewer.get("/api/v1/status").status_code == 200
    assert admin.post(f"/api/v1/tokens/{id}/revoke").json()["state"] == "revoked"
    is_problem(viewer.get("/api/v1/status"), 401)
    is_problem(admin.post(f"/api/v1/tokens/{id}/revoke"), 404)
    expired = token(filled, "admin", expires_ms=now_ms() - 1)
    for said in (f"Bearer {expired}", "Bearer x", "Basic YTpi", "Bearer", f"bearer  {expired}"):
        is_problem(nobody.get("/api/v1/status", headers={"Authorization": said}), 401)


def test_who_asks_too_often_is_told_when_to_come_back(filled: SqlStore) -> None:
    text = token(filled, "viewer")
    slow = server.Listen("127.0.0.1", 0, per_minute=6)
    with server.running(filled, slow) as url, httpx.Client(base_url=url, timeout=60) as client:
        for n in itertools.count():
            answer = client.get("/api/v1/bundles", headers={"Authorization": f"Bearer {text}"})
            if answer.status_code == 429:
                break
            assert answer.status_code == 200
            assert n < 5000, "no limit"
        is_problem(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_page_is_many_files_and_costs_little(filled: SqlStore) -> None:
    slow = server.Listen("127.0.0.1", 0, per_minute=60)
    with server.running(filled, slow) as url, httpx.Client(base_url=url, timeout=60) as client:
        for name in ("", *files.read()):
            assert client.get(f"/dashboard/{name}").status_code == 200
        assert client.get("/health").status_code == 200


def test_guessing_tokens_costs_more_than_asking(filled: SqlStore) -> None:
    slow = server.Listen("127.0.0.1", 0, per_minute=0.1)  # a request in ten minutes
    with server.running(filled, slow) as url, httpx.Client(base_url=url, timeout=60) as client:
        guess = {"Authorization": "Bearer edgefleet_000000000000_" + "A" * 43}
        first = client.get("/api/v1/bundles", headers=guess)
        second = client.get("/api/v1/bundles", headers=guess)
        assert first.status_code == 401
        is_problem(second, 429)


def test_only_a_few_wait_for_a_long_question_to_be_answered(store: SqlStore) -> None:
    """The others' worker threads are free at once."""
    ours = service.Service(store, now_ms, time.monotonic)
    busy: list[int] = []
    answered: list[int] = []

    def ask(number: int) -> None:
        try:
            with ours.heavy():
                answered.append(number)
        except HTTPException as error:
            assert error.headers and "Retry-After" in error.headers
            busy.append(error.status_code)

    with ThreadPoolExecutor(45) as pool:
        with ours.heavy():
            asked = [pool.submit(ask, number) for number in range(45)]
            until(lambda: len(busy) == 45 - (service.HEAVY_MAX - 1), "the others are sent away", 60)
            assert set(busy) == {503} and not answered
        for each in asked:
            each.result()
    assert len(answered) == service.HEAVY_MAX - 1
    with ours.heavy():
        pass


def test_faults_of_the_store_tell_nothing_of_it(client: Client, filled: SqlStore) -> None:
    viewer = client("viewer")
    with filled.transaction() as tx:
        tx._connection.exec_driver_sql("ALTER TABLE detectors RENAME TO hidden")
    said = is_problem(viewer.get("/api/v1/bundles"), 503)
    assert "detectors" not in json.dumps(said)
    assert ".db" not in json.dumps(said)


@pytest.mark.parametrize(
    ("listen", "match"),
    [
        (server.Listen("0.0.0.0", 0), "travel in the clear"),
        (server.Listen("example.org", 0), "travel in the clear"),
        (server.Listen("127.0.0.1", 0, cert_file=server.Path("x.pem")), "belong together"),
    ],
)
def test_it_does_not_listen_in_the_clear_or_half_set_up(
    listen: server.Listen, match: str, filled: SqlStore
) -> None:
    from edge_contract.errors import InputFault

    with pytest.raises(InputFault, match=match), server.running(filled, listen):
        pass


@pytest.mark.parametrize("text", ["", "8090", ":8090", "h:", "h:x", "h:65536", "h:-1", "h:²"])
def test_an_address_is_host_and_port(text: str) -> None:
    from edge_contract.errors import InputFault

    with pytest.raises(InputFault, match="HOST:PORT"):
        server.parse(text)
    assert server.parse("[::1]:80") == ("::1", 80)

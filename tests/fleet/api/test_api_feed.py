"""What is new: each thing once, in every store, also for a client that comes back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import numpy as np
from api_kit import EVIL, Client, fill
from fleet_kit import Packed, draw, record

from edge_contract import manifest as manifests
from edge_contract import telemetry
from edge_fleet import reports
from edge_fleet.api import feed, resources
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.options import now_ms
from edge_fleet.store.base import EventSeen
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

BEGINNING = feed.Position((0, "", 0, 0), (0, 0), (0, 0))


def event(device: str, seq: int, received_ms: int) -> EventSeen:
    return EventSeen(device, 1, seq, 5, "update", "boiler", "1.0", EVIL, received_ms)


def test_each_thing_is_told_once_in_every_store(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator, seed: int
) -> None:
    fill(any_store, packed, rng)
    now = now_ms() + feed.SETTLE_MS
    with any_store.reading() as tx:
        everything = feed.read(tx, BEGINNING, now)
        assert [each.kind for each in everything].count("event") == 20
        assert "alarm-opened" in [each.kind for each in everything]
        for at, one in enumerate(everything):  # whoever stops anywhere misses and doubles nothing
            after = feed.parse(one.after.text())
            told = [each.data for each in feed.read(tx, after, now)]
            assert told == [each.data for each in everything[at + 1 :]]
        last = everything[-1].after
        [alarm, *_] = tx.alarms(open_only=True)
    reports.resolve(any_store, [alarm.id], now + 1, "fixed")
    with any_store.transaction() as tx:
        tx.add_events([event("pi-0", 100, now), event("pi-0", 101, now + feed.SETTLE_MS)])
        told = feed.read(tx, last, now + feed.SETTLE_MS)
        assert [each.kind for each in told] == ["event"], "what has not settled waits"
        told = feed.read(tx, told[-1].after, now + 2 * feed.SETTLE_MS)
        assert [each.kind for each in told] == ["event", "alarm-resolved"]
        assert json.loads(told[1].data)["comment"] == "fixed"
        assert feed.read(tx, told[-1].after, now + 9_000_000) == []


def test_alarms_of_windows_that_waited_for_their_profile_are_told_to_who_listens(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """They waited ten minutes; a minute before their profile came, somebody connected."""
    came_ms, now = 1_700_000_000_000, 1_700_000_600_000
    made = []
    for seq in range(30):
        rows = draw(rng, 400)
        rows.temperature += 6.0
        made.append(telemetry.encode(record(packed, packed.counts(rows), seq=seq)))
    with store.transaction() as tx:
        waiting = tx.add_windows([window_of(data, came_ms) for data in made])
    listening = feed.from_now(now - 60_000)
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, now)
        profile = manifests.decode(packed.manifest_bytes).file(manifests.PROFILE_FILE)
        tx.put_blob(profile.sha256, packed.stored, now)
        Evidence(Library(), Budget(1, 60)).count(tx, waiting, now)
    with store.reading() as tx:
        found = tx.alarms(open_only=True)
        told = feed.read(tx, listening, now + feed.SETTLE_MS)
    assert found and [each.opened_ms for each in found] == [now] * len(found)
    assert sorted(json.loads(each.data)["id"] for each in told) == sorted(a.id for a in found)


def test_what_comes_at_one_moment_in_more_than_a_batch_is_told_whole(any_store: SqlStore) -> None:
    with any_store.transaction() as tx:
        tx.add_events([event(f"pi-{n % 7}", n, 1000) for n in range(3 * feed.BATCH_MAX)])
        seen, after = [], BEGINNING
        while told := feed.read(tx, after, 10_000):
            seen += [each.data for each in told]
            after = told[-1].after
        assert len(seen) == len(set(seen)) == 3 * feed.BATCH_MAX
        page = resources.events(tx, "", 500, device="", kind="")
        rest = resources.events(tx, page.next or "", 500, device="", kind="")
        assert len({resources.encode(x) for x in (*page.items, *rest.items)}) == len(seen)


def test_no_word_of_a_device_begins_a_field(any_store: SqlStore) -> None:
    with any_store.transaction() as tx:
        hostile = "x\n\nevent: alarm-resolved\r\ndata: {}\rid: 1\u2028id: 2\u0085\u2029é"
        tx.add_events([EventSeen("pi", 1, 1, 5, hostile, hostile, hostile, hostile, 10)])
        [told] = feed.read(tx, BEGINNING, 10_000)
    lines = told.frame().split(b"\n")
    assert b"\r" not in told.frame()
    assert told.frame().decode().splitlines() == told.frame().decode().split("\n")[:-1]
    assert [line.split(b":")[0] for line in lines] == [b"id", b"event", b"data", b"", b""]
    assert json.loads(lines[2][6:])["detail"] == hostile


@contextmanager
def stream(client: httpx.Client, last: str = "") -> Iterator[Iterator[dict[str, str]]]:
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", "/api/v1/events/stream", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-content-type-options"] == "nosniff"

        def frames() -> Iterator[dict[str, str]]:
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                if line.startswith(":"):
                    continue
                if not line and fields:
                    yield fields
                    fields = {}
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value

        yield frames()


def test_a_client_sees_what_comes_and_goes_on_where_it_was(
    client: Client, filled: SqlStore
) -> None:
    viewer = client("viewer")
    with stream(viewer, BEGINNING.text()) as frames:
        first = [next(frames) for _ in range(5)]
    assert {each["event"] for each in first} == {"event"}
    with stream(viewer, first[1]["id"]) as frames:
        assert [next(frames) for _ in range(3)] == first[2:]
    with stream(viewer) as frames:
        with filled.transaction() as tx:
            tx.add_events([event("pi-3", 500, now_ms())])
        for one in frames:
            if one["event"] == "event" and json.loads(one["data"])["seq"] == 500:
                break
        [alarm, *_] = viewer.get("/api/v1/alarms").json()["items"]
        path = f"/api/v1/alarms/{alarm['id']}/resolve"
        client("operator").post(path, json={"comment": "ok"}).raise_for_status()
        for one in frames:
            if one["event"] == "alarm-resolved":
                break
        assert json.loads(one["data"])["id"] == alarm["id"]

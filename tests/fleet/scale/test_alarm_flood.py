"""All devices alarm at once, over a real broker: nothing is lost, and pages answer meanwhile.

    EDGE_FLOOD_DEVICES=10000 pytest tests/fleet/scale/test_alarm_flood.py -s

sends ten thousand alarms, and says how long they took; without it, as in CI, fewer.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from fleet_kit import FLEET, Packed, Publisher, draw, fault_kinds, record, until

sys.path.insert(0, str(Path(__file__).parent))  # `serve_kit` is beside the tests

from serve_kit import Server

from edge_contract import broker_url, messages, telemetry
from edge_contract.ports.mqtt import Link, LinkConfig, Ticket
from edge_contract.topics import Topics
from edge_contract.trigger import EVIDENCE_MAX_BYTES
from edge_fleet.api import tokens
from edge_fleet.broker import MosquittoConfig, MosquittoProcess, find_mosquitto
from edge_fleet.options import now_ms
from edge_fleet.store.sql import SqlStore, open_store

DEVICES = int(os.environ.get("EDGE_FLOOD_DEVICES", "1200"))
ROWS = 600
SHAPES = 50
"""So many different windows; what differs in each record is the device."""
AHEAD = 500
PAGE_MAX_BYTES = 500_000
WAIT_S = 1800.0
TRIGGERS = """
every_s = 1
[triggers.tell]
when = { cooldown_s = 0 }
command = { run = ["tee", "--append", "told"] }
"""
PAGES = ("overview", "alarms", "events", "devices", "drift", "status")

pytestmark = pytest.mark.skipif(
    find_mosquitto() is None, reason="no mosquitto (Debian: apt-get install mosquitto)"
)


@pytest.mark.slow
def test_every_alarm_is_kept_while_pages_answer_and_triggers_stay_few(
    any_db: str, tmp_path: Path, packed: Packed, rng: np.random.Generator
) -> None:
    store = open_store(any_db, create=True)
    reader = viewer(store)
    (tmp_path / "triggers.toml").write_text(TRIGGERS)
    with MosquittoProcess(MosquittoConfig(directory=tmp_path / "broker")) as broker:
        publisher = Publisher(broker.url)
        publisher.bundle(packed)
        server = Server(
            tmp_path / "serve.log",
            ("--broker", broker.url, "--db", any_db, "--window-s", "60", "--http", "127.0.0.1:0",
             "--http-rate", "100000", "--triggers", tmp_path / "triggers.toml"),
        )  # fmt: skip
        try:
            server.says("collecting fleet")
            url = server.said().split("serving ")[1].split()[0]
            publisher.record(record(packed, packed.counts(draw(rng, ROWS)), device="first"))
            until(lambda: counted(store) == 1, "the profile is known")
            with httpx.Client(
                base_url=url, headers={"Authorization": f"Bearer {reader}"}, timeout=60
            ) as client:
                began = time.monotonic()
                asked = flood(broker.url, packed, rng, lambda: look(client))
                sent_s = time.monotonic() - began
                while counted(store) < DEVICES + 1:
                    asked += [look(client)]
                    assert time.monotonic() - began < WAIT_S, server.said()[-3000:]
                    time.sleep(0.1)
                print(f"sent in {sent_s:.1f} s, kept in {time.monotonic() - began:.1f} s;", end=" ")
                print(f"{len(asked)} looks, the longest {max(asked):.2f} s")
                check(store, client)
                told(store, tmp_path / "told")
            server.stop()
        finally:
            server.kill()
        publisher.close()
    store.close()


def flood(
    url: str, packed: Packed, rng: np.random.Generator, every: Callable[[], float]
) -> list[float]:
    """A record that crosses at once and an event of each device; pages are asked meanwhile."""
    topics = Topics(FLEET)
    link = Link(LinkConfig(broker_url.parse(url), client_id="flood"))
    link.start(30)
    shapes = []
    for _ in range(SHAPES):
        rows = draw(rng, ROWS)
        rows.temperature += 6.0
        shapes.append(packed.counts(rows))
    waiting: list[Ticket] = []
    asked = []
    at_ms = now_ms()
    for at in range(DEVICES):
        name = f"pi-{at:05}"
        one = record(packed, shapes[at % SHAPES], device=name, start_ms=at_ms - 60_000)
        event = messages.Event(boot=1, seq=1, at_ms=at_ms, kind="update", model="boiler")
        waiting += [
            link.publish(topics.telemetry(name), telemetry.encode(one)),
            link.publish(topics.events(name), messages.encode(event)),
        ]
        if len(waiting) >= AHEAD:
            asked.append(every())
            for ticket in waiting:
                ticket.wait(120)
            waiting = []
    for ticket in waiting:
        ticket.wait(120)
    link.stop()
    return asked


def look(client: httpx.Client) -> float:
    """Every page and the figures are answered, each of a bounded size; the longest took so long."""
    longest = 0.0
    for path in (*(f"/api/v1/{page}" for page in PAGES), "/metrics", "/"):
        began = time.monotonic()
        answer = client.get(path, follow_redirects=True)
        longest = max(longest, time.monotonic() - began)
        assert answer.status_code == 200, (path, answer.text[:300])
        assert len(answer.content) < PAGE_MAX_BYTES, path
    return longest


def check(store: SqlStore, client: httpx.Client) -> None:
    """Each record is kept and counted once, each event is kept, each device has its alarm.

    Whether the fleet has an event of its own depends on where a window's slots fall: who is behind
    a crossing is looked up once a slot, and here no device speaks twice.
    """
    with store.reading() as tx:
        totals = tx.totals()
        alarms = tx.alarms(open_only=True)
        detectors = tx.all_detectors()
    until(lambda: events(store) == DEVICES, "each event is kept")
    assert (totals.windows, totals.pending, totals.refused) == (DEVICES + 1, 0, 0)
    assert sum(one.windows for one in detectors) == DEVICES + 1
    own = [one.device for one in alarms if one.scope == "device" and one.feature == "temperature"]
    assert len(own) == len(set(own)) == DEVICES
    loose = [one.device for one in alarms if one.parent is None and one.scope == "device"]
    print(f"{len(alarms)} alarms, {len(loose)} of them under no event;", end=" ")
    assert fault_kinds(store) == {}
    page = client.get("/api/v1/alarms", params={"limit": 500}).json()
    assert len(page["items"]) == 500 and page["next"]


def told(store: SqlStore, output: Path) -> None:
    """Each alarm that stands for itself was told once, in firings that are few and bounded."""

    def left() -> int:
        with store.reading() as tx:
            named = {one for firing in tx.firings("tell") for one in firing.alarms}
            own = {one.id for one in tx.alarms(open_only=True) if one.parent is None}
            done = all(firing.state == "done" for firing in tx.firings("tell"))
        return len(own - named) + (not done)

    until(lambda: left() == 0, "triggers have told all")
    with store.reading() as tx:
        firings = tx.firings("tell")
    named = [one for firing in firings for one in firing.alarms]
    assert len(named) == len(set(named))
    assert max(len(firing.evidence) for firing in firings) <= EVIDENCE_MAX_BYTES
    written = output.read_bytes()
    assert all(firing.evidence in written for firing in firings)  # at least once each
    print(f"{len(firings)} firings, {len(written)} bytes")


def viewer(store: SqlStore) -> str:
    """A token that may look."""
    made, text = tokens.mint("looker", "viewer", now_ms(), None, os.urandom)
    with store.transaction() as tx:
        assert tx.put_api_token(made)
    return text


def counted(store: SqlStore) -> int:
    """Windows that are kept and counted."""
    with store.reading() as tx:
        found = tx.totals()
    return int(found.windows - found.pending)


def events(store: SqlStore) -> int:
    """Events that are kept."""
    with store.reading() as tx:
        return len(tx.events(limit=2 * DEVICES))

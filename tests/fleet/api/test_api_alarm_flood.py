"""Ten thousand alarms in a minute: pages, figures and the feed stay of a bounded size."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from api_kit import Client

from edge_fleet.api import feed
from edge_fleet.drift import explain
from edge_fleet.options import now_ms
from edge_fleet.store.base import Alarm
from edge_fleet.store.sql import SqlStore

COUNT = 10_000
PAGE_MAX_BYTES = 500_000


@pytest.mark.slow
def test_each_answer_stays_small_and_none_is_lost(client: Client, filled: SqlStore) -> None:
    with filled.transaction() as tx:
        former = tx.alarms(open_only=True)
        example, at_ms = former[0], now_ms() - 10_000
        assert explain.decode(example.explanation).text
        for number in range(COUNT):
            values = {
                **vars(example),
                "device": f"d{number:05}",
                "opened_ms": at_ms + number // 200,
            }
            tx.add_alarm(Alarm(**{**values, "id": 0, "parent": None}))
    viewer = client("viewer")
    seen: list[int] = []
    cursor = ""
    while cursor is not None:
        answer = viewer.get("/api/v1/alarms", params={"limit": 500, "cursor": cursor})
        assert answer.status_code == 200
        page = answer.json()
        seen += [one["id"] for one in page["items"]]
        assert len(page["items"]) <= 500
        cursor = page["next"]
    assert len(seen) == len(set(seen)) == COUNT + len(former)
    assert len(viewer.get("/api/v1/alarms").content) < PAGE_MAX_BYTES
    figures = viewer.get("/metrics").text
    devices = COUNT + sum(one.scope == "device" for one in former)
    assert f'edge_fleet_alarms_open{{scope="device"}} {float(devices)}' in figures
    assert len(figures) < PAGE_MAX_BYTES, "no series a device"
    told, after = 0, feed.from_now(at_ms)
    with filled.reading() as tx:
        while some := feed.read(tx, after, now_ms()):
            assert len(some) <= 3 * feed.BATCH_MAX
            told += sum(one.kind == "alarm-opened" for one in some)
            after = some[-1].after
    assert told >= COUNT

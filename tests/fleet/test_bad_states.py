"""Devices with a wrong clock, with too much to say, and a store that takes no more."""

import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fleet_kit import FLEET, Packed, draw, record
from typer.testing import CliRunner

from edge_contract import messages, telemetry
from edge_contract.topics import Topics
from edge_fleet import intake
from edge_fleet.api import problems
from edge_fleet.cli import app
from edge_fleet.liveness import lease_s, liveness
from edge_fleet.rollouts import gates
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.state import Member, Seen
from edge_fleet.store.base import Device, Fault, ReportSeen, Window
from edge_fleet.store.faults import Full
from edge_fleet.store.sql import SqlStore

TOPICS = Topics(FLEET)
HOUR = 3_600_000
NOW = 1_700_000_000_000
HARDWARE = messages.Hardware(
    machine="aarch64", cpus=4, ram_bytes=1, system="Linux", python="3.11", onnxruntime="1.20"
)


def reported(**values: object) -> dict[str, object]:
    one = messages.Reported(boot=1, at_ms=NOW, agent="1", hardware=HARDWARE)
    return {**msgspec.to_builtins(one), **values}


@pytest.mark.parametrize(
    "values",
    [
        {"labels": {f"l{n}": "x" for n in range(65)}},
        {"labels": {"site": "x" * 201}},
        {"labels": {"a b": "x"}},
        {"agent": "x" * 201},
        {"models": {f"m{n}": {"phase": "idle"} for n in range(257)}},
        {"models": {"m": {"phase": "idle", "active": "v" * 201}}},
        {"models": {"m": {"phase": "idle", "reason": "r" * 70_000}}},
        {"at_ms": -1},
        {"revision": 2**60},
        {"room": {"free_bytes": -1}},
        {"channel": "c" * 201},
    ],
)
def test_what_is_too_much_is_refused_whole_and_counted(
    values: dict[str, object], store: SqlStore
) -> None:
    good = intake.read(
        TOPICS, TOPICS.reported("pi"), msgspec.json.encode(reported()), retained=False, now_ms=NOW
    )
    assert isinstance(good, ReportSeen)
    data = msgspec.json.encode(reported(**values))
    found = intake.read(TOPICS, TOPICS.reported("pi"), data, retained=False, now_ms=NOW)
    assert isinstance(found, Fault)
    assert (found.device, found.kind) == ("pi", "bad-reported")
    with store.transaction() as tx:
        tx.add_faults([found])
        assert len(tx.faults()[0].detail) <= 500
        assert tx.devices() == [], "no device comes to be by what is refused"


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_device_an_hour_off_lives_by_our_clock_and_its_windows_count(
    hours: int, packed: Packed, rng: np.random.Generator, store: SqlStore
) -> None:
    start_ms = NOW + hours * HOUR
    one = record(packed, packed.counts(draw(rng, 20)), start_ms=start_ms)
    window = intake.read(
        TOPICS, TOPICS.telemetry("pi-1"), telemetry.encode(one), retained=False, now_ms=NOW
    )
    assert isinstance(window, Window)
    told = intake.clock_fault(window)
    assert (told is not None and told.kind == "clock-ahead") is (hours > 0)
    data = msgspec.json.encode(reported(at_ms=start_ms))
    report = intake.read(TOPICS, TOPICS.reported("pi-1"), data, retained=False, now_ms=NOW)
    assert isinstance(report, ReportSeen)
    with store.transaction() as tx:
        assert len(tx.add_windows([window])) == 1
        tx.report(report)
        assert tx.clocks()["pi-1"].ahead_ms == hours * HOUR
        [device] = tx.devices()
    assert device.seen_ms == NOW, "heard of when it came, whatever its clock says"


def test_our_own_clock_may_jump_and_nobody_is_lost_by_that() -> None:
    device = Device("pi", online=True, seen_ms=NOW)
    lease_ms = int(lease_s(60.0) * 1000)
    assert liveness(device, NOW - HOUR, 60.0) == "online", "back: it was heard of in the future"
    assert liveness(device, NOW + lease_ms, 60.0) == "online"
    assert liveness(device, NOW + HOUR, 60.0) == "silent", "ahead: until it is heard of again"
    order = orders.made(fleet=FLEET, model="pump", version="2.0")
    member = Member(0, asked_ms=NOW)
    seen = Seen(traits={}, heard_ms=NOW, active="1.0", phase="committed")
    assert gates.standing(order, member, seen, NOW - HOUR) == "asked", "no deadline runs backward"
    assert gates.standing(order, member, seen, NOW + 1000) == "asked"


def full(store: SqlStore, db: str) -> None:
    """The file may grow no more: SQLite then answers as on a full disk."""
    engine = store._engine
    sqlalchemy_event = pytest.importorskip("sqlalchemy").event

    def bound(connection: sqlite3.Connection, *_: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    sqlalchemy_event.listen(engine, "connect", bound)
    engine.dispose()


def test_a_store_that_is_full_is_our_fault_and_is_still_read(
    store: SqlStore, db: str, tmp_path: Path
) -> None:
    store.claim(FLEET)
    full(store, db)
    with pytest.raises(Full, match="full") as caught, store.transaction() as tx:
        for number in range(200):
            tx.add_faults([Fault(f"d{number}", "kind", "x" * 400, NOW)])
    assert "Make room on its disk" in caught.value.advice
    assert problems.of_error(caught.value).status == 507
    with store.reading() as tx:
        assert tx.faults() == [], "all of it or none"
    result = CliRunner().invoke(app, ["devices", "--db", db])
    assert result.exit_code == 0, "what is there can be read"

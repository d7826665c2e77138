"""Against real brokers: every record once, whatever is lost, doubled or killed in between."""

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fleet_kit import (
    FLEET,
    Packed,
    Publisher,
    collecting,
    draw,
    fault_kinds,
    pack,
    record,
    settled,
    totals,
    until,
)

from edge_contract import broker_url, messages, telemetry
from edge_contract.errors import InputFault, PeerFault
from edge_fleet import reports
from edge_fleet.broker import BrokerConfig, BrokerThread, Direction, Double
from edge_fleet.collector import Collector, CollectorConfig, now_ms
from edge_fleet.store.sql import SqlStore, open_store


def quiet(packed: Packed, rng: np.random.Generator, **where: Any) -> telemetry.Record:
    return record(packed, packed.counts(draw(rng, 50)), **where)


def test_windows_become_evidence_and_one_alarm_names_device_and_feature(
    *, any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed,
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    publisher.bundle(packed)
    begin_ms = now_ms() - 40 * 60_000
    with collecting(any_broker.url, store):
        for seq in range(40):
            for device in ("pi-1", "pi-2"):
                rows = draw(rng, 60)
                if device == "pi-2" and seq >= 20:
                    rows.temperature += 2.0
                publisher.record(
                    record(packed, packed.counts(rows), device=device, seq=seq,
                           start_ms=begin_ms + seq * 60_000)
                )  # fmt: skip
        until(settled(store, 80), "all windows counted")
    found = reports.drift(store, now_ms())
    [alarm] = found.alarms
    assert (alarm.device, alarm.model, alarm.version) == ("pi-2", "boiler", "1.0")
    assert (alarm.feature, alarm.kind) == ("temperature", "mean-up")
    assert alarm.since in [reports.instant(begin_ms + at * 60_000) for at in range(18, 23)]
    assert alarm.evidence >= alarm.threshold
    assert [text for text in caplog.messages if text.startswith("drift: ")] == [
        f"drift: pi-2 temperature: {alarm.what}"
    ]
    own = [level for level in found.levels if level.scope == "device"]
    assert own[0].device == "pi-2"
    assert own[0].feature == "temperature"
    assert own[0].alarm == alarm.id
    assert sum(level.windows for level in own) == 2 * 4 * 40
    assert sum(level.windows for level in found.levels) == 2 * 2 * 4 * 40, "the fleet counts too"


def test_evidence_is_the_same_however_records_arrive(
    any_broker: Any, publisher: Publisher, tmp_path: Path, packed: Packed,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Doubled and grouped in any way; what counts is the order of (boot, seq) in a device."""
    publisher.bundle(packed)
    many = [
        quiet(packed, rng, device=f"pi-{i % 3}", boot=1 + i // 30, seq=i % 30) for i in range(60)
    ]
    levels = []
    for name, order in (("plain", many), ("doubled", [r for one in many for r in (one, one)])):
        store = open_store(f"sqlite:///{tmp_path}/{name}.db", create=True)
        with collecting(any_broker.url, store):
            publisher.records(order)
            until(settled(store, 60), "all windows counted")
        found = reports.drift(store, 0).levels
        levels.append({(x.device, x.feature): x.evidence for x in found if x.scope == "device"})
        assert fault_kinds(store) == {}
        store.close()
    assert levels[0] == levels[1]
    assert len(levels[0]) == 12


def test_late_and_reordered_records_all_count(
    any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    publisher.bundle(packed)
    many = [quiet(packed, rng, seq=i) for i in range(40)]
    rng.shuffle(many)  # type: ignore[arg-type]
    with collecting(any_broker.url, store):
        for some in (many[:13], many[13:14], many[14:]):
            publisher.records(some)
        until(settled(store, 40), "all windows counted")
    [detector] = _detectors(store)
    assert (detector.windows, detector.rows, detector.seq) == (40, 2000, 39)


def _detectors(store: SqlStore) -> Any:
    with store.reading() as tx:
        return tx.all_detectors()


def test_bad_records_are_counted_and_never_stop_the_good_ones(
    *, any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed,
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    publisher.bundle(packed)
    good = quiet(packed, rng, seq=1)
    wrong_sum = msgspec.structs.replace(quiet(packed, rng, seq=2), rows=51)
    short = quiet(packed, rng, seq=3)
    short = msgspec.structs.replace(short, counts=short.counts[:-1])
    ahead = quiet(packed, rng, seq=4, start_ms=now_ms(), end_ms=now_ms() + 10**8)
    reused = quiet(packed, rng, seq=1)
    payload = telemetry.encode(good)
    with collecting(any_broker.url, store), caplog.at_level(logging.WARNING):
        for length in range(0, len(payload), 5):
            publisher.payload("pi-1", payload[:length])
        publisher.record(good)
        publisher.record(good, device="pi-2")
        for one in (wrong_sum, short, ahead, reused):
            publisher.record(one)
        publisher.raw(publisher.topics.status("pi-1"), b"{")
        publisher.record(quiet(packed, rng, seq=9))
        until(lambda: totals(store).windows == 5, "five kept")
        until(lambda: ("pi-1", "reused-key") in fault_kinds(store), "the last fault")
        until(settled(store, 5), "all counted or refused")
    assert fault_kinds(store) == {
        ("pi-1", "bad-telemetry"): len(range(0, len(payload), 5)),
        ("pi-1", "bad-counts"): 2,
        ("pi-1", "bad-status"): 1,
        ("pi-1", "clock-ahead"): 1,
        ("pi-1", "reused-key"): 1,
        ("pi-2", "wrong-device"): 1,
    }
    assert totals(store).refused == 2
    [detector] = _detectors(store)
    assert detector.windows == 3
    logged = [message for message in caplog.messages if message.startswith("bad-telemetry")]
    assert len(logged) == 1


def test_poison_is_acknowledged_and_does_not_come_again(
    any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    with collecting(any_broker.url, store):
        publisher.payload("pi-1", b"poison")
        until(lambda: fault_kinds(store) == {("pi-1", "bad-telemetry"): 1}, "counted")
    with collecting(any_broker.url, store):
        publisher.record(quiet(packed, rng))
        until(settled(store, 1, pending=1), "the next one")
    assert fault_kinds(store) == {("pi-1", "bad-telemetry"): 1}


def test_windows_of_an_unknown_profile_wait_and_count_once_it_is_known(
    any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    with collecting(any_broker.url, store):
        publisher.records([quiet(packed, rng, seq=i) for i in range(5)])
        until(settled(store, 5, pending=5), "kept")
    [unknown] = reports.status(store, now_ms()).unknown_profiles
    assert (unknown.bundle, unknown.windows, unknown.devices) == (packed.digest, 5, 1)
    assert _detectors(store) == []
    publisher.bundle(packed)
    with collecting(any_broker.url, store):  # asks again at its start
        until(settled(store, 5), "counted")
        publisher.record(quiet(packed, rng, seq=5))
        until(settled(store, 6), "counted at once")
    [detector] = _detectors(store)
    assert (detector.windows, detector.rows, detector.seq) == (6, 300, 5)
    assert reports.status(store, now_ms()).unknown_profiles == ()


def test_two_bundles_of_one_device_are_never_merged(
    any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    second = pack(rng, version="2.0")
    publisher.bundle(packed)
    publisher.bundle(second)
    with collecting(any_broker.url, store):
        for seq in range(6):
            publisher.record(quiet(packed if seq < 4 else second, rng, seq=seq))
        until(settled(store, 6), "counted")
    assert {(d.bundle, d.version, d.windows) for d in _detectors(store)} == {
        (packed.digest, "1.0", 4),
        (second.digest, "2.0", 2),
    }
    [device] = reports.devices(store, now_ms())
    [model] = device.models
    assert (model.version, model.windows) == ("2.0", 6)
    levels = reports.drift(store, now_ms()).levels
    assert {level.version for level in levels if level.scope == "device"} == {"2.0"}


def test_an_alarm_is_raised_once_and_again_only_after_it_was_resolved(
    any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    publisher.bundle(packed)
    sequence = itertools.count()

    def shifted(windows: int) -> None:
        for _ in range(windows):
            rows = draw(rng, 60)
            rows.temperature += 3.0
            counts = packed.counts(rows)
            publisher.record(record(packed, counts, seq=next(sequence), start_ms=now_ms()))

    with collecting(any_broker.url, store):
        shifted(10)
        until(settled(store, 10), "counted")
        [first] = reports.drift(store, now_ms()).alarms
        assert reports.resolve(store, [first.id], now_ms(), "valve replaced") == [first.id]
        assert reports.drift(store, now_ms()).alarms == ()
        shifted(10)
        until(settled(store, 20), "counted")
        [second] = reports.drift(store, now_ms()).alarms
    assert second.id != first.id
    both = reports.drift(store, now_ms(), closed=True).alarms
    assert [(a.id, a.comment) for a in both] == [(second.id, ""), (first.id, "valve replaced")]
    with pytest.raises(InputFault, match=f"not an open alarm: {first.id}"):
        reports.resolve(store, [second.id, first.id], now_ms(), "")
    assert len(reports.drift(store, now_ms()).alarms) == 1


def test_birth_death_report_and_event_are_kept(
    any_broker: Any, publisher: Publisher, store: SqlStore,
) -> None:  # fmt: skip
    topics = publisher.topics
    hardware = messages.Hardware(
        machine="aarch64", cpus=4, ram_bytes=1, system="Linux", python="3.11", onnxruntime="1.20"
    )
    report = messages.Reported(
        boot=2, at_ms=now_ms(), agent="agent", hardware=hardware, freshness="verified",
        labels={"site": "lyon"},
        models={"boiler": messages.ModelReport(phase="trial", active="1.0", digest="a" * 64)},
    )  # fmt: skip
    birth = messages.Status(online=True, boot=2, agent="edge-agent 1")
    publisher.message(topics.status("early"), birth, retain=True)
    with collecting(any_broker.url, store):
        publisher.message(topics.status("pi-1"), birth, retain=True)
        publisher.message(topics.reported("pi-1"), report, retain=True)
        publisher.message(
            topics.events("pi-1"), messages.Event(boot=2, seq=1, at_ms=5, kind="activated")
        )
        until(lambda: len(reports.devices(store, now_ms())) == 2, "both devices")
        until(lambda: _events(store), "the event")
        early, pi = reports.devices(store, now_ms())
        assert (early.device, early.state, early.last_seen) == ("early", "silent", None)
        assert (pi.state, pi.boot, pi.machine) == ("online", 2, "aarch64")
        assert pi.labels == {"site": "lyon"}
        assert [(m.model, m.version, m.phase) for m in pi.models] == [("boiler", "1.0", "trial")]
        hours = now_ms() + 3_600_000
        assert reports.devices(store, hours)[1].state == "silent"
        publisher.message(topics.status("pi-1"), replace_online(birth), retain=True)
        until(lambda: reports.devices(store, now_ms())[1].state == "offline", "its last will")
    assert [(e.device, e.kind) for e in _events(store)] == [("pi-1", "activated")]


def replace_online(status: messages.Status) -> messages.Status:
    return msgspec.structs.replace(status, online=False)


def _events(store: SqlStore) -> Any:
    with store.reading() as tx:
        return tx.events(10)


def test_a_collector_off_line_misses_nothing(
    any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    publisher.bundle(packed)
    with collecting(any_broker.url, store):
        publisher.record(quiet(packed, rng, seq=0))
        until(settled(store, 1), "the first")
    publisher.records([quiet(packed, rng, seq=i) for i in range(1, 300)])
    with collecting(any_broker.url, store):
        until(settled(store, 300), "what the broker kept meanwhile")


def test_a_broker_that_doubles_everything_changes_nothing(
    store: SqlStore, packed: Packed, rng: np.random.Generator,
) -> None:  # fmt: skip
    with BrokerThread(BrokerConfig()) as broker:
        publisher = Publisher(broker.url)
        publisher.bundle(packed)
        broker.add_tap(Double(direction=Direction.OUTBOUND))
        with collecting(broker.url, store):
            publisher.records([quiet(packed, rng, seq=i) for i in range(200)])
            until(settled(store, 200), "counted")
        publisher.close()
    [detector] = _detectors(store)
    assert (detector.windows, detector.rows) == (200, 10_000)
    assert fault_kinds(store) == {}


def test_a_second_collector_and_another_fleet_are_refused(
    any_broker: Any, db: str, store: SqlStore,
) -> None:  # fmt: skip
    with collecting(any_broker.url, store):
        other = open_store(db, create=True)
        with pytest.raises(InputFault, match="already works"), collecting(any_broker.url, other):
            pass
        config = CollectorConfig(broker_url.parse(any_broker.url), "elsewhere")
        with pytest.raises(InputFault, match="belongs to fleet"):
            Collector(config, other).run(threading.Event())
        other.close()


def test_a_broker_that_goes_and_comes_back_is_said_once_each_time_and_an_own_stop_never(
    store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[str]:
        return [each.getMessage() for each in caplog.records if "the broker" in each.getMessage()]

    caplog.set_level(logging.WARNING, "edge_fleet.collector")
    with BrokerThread(BrokerConfig()) as broker, collecting(broker.url, store):
        for loss in (1, 2):
            broker.kill()
            until(lambda loss=loss: len(said()) == 2 * loss - 1, "the loss is said")
            broker.start()
            until(lambda loss=loss: len(said()) == 2 * loss, "the return is said")
    gone = "the broker is gone: devices keep what they count until it is back"
    assert said()[:4] == [gone, "the broker is back"] * 2
    assert [said()[4:], caplog.records[-1].levelname] == [[], "WARNING"]


def test_no_broker_is_said_within_seconds(store: SqlStore) -> None:
    config = CollectorConfig(broker_url.parse("mqtt://127.0.0.1:1"), FLEET, connect_s=0.5)
    with pytest.raises(PeerFault, match="no connection to mqtt://127"):
        Collector(config, store).run(threading.Event())


Serve = Callable[[str, str], "subprocess.Popen[str]"]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a real ``edge-fleet serve`` and waits until it is subscribed; none outlives a test."""
    running: list[subprocess.Popen[str]] = []

    def start(url: str, db: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", "from edge_fleet.cli import main; main()", "serve", "--fleet",
             FLEET, "--broker", url, "--db", db, "--window-s", "60"],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("collecting fleet test from mqtt://127.0.0.1"), line
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_killed_again_and_again_every_record_counts_exactly_once(
    *, serve: Serve, any_broker: Any, publisher: Publisher, db: str, packed: Packed,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """SIGKILL in mid-stream, three times; then evidence and rows are as if nothing happened."""
    publisher.bundle(packed)
    devices, each = 5, 160
    many = [
        quiet(packed, rng, device=f"pi-{d}", seq=seq) for seq in range(each) for d in range(devices)
    ]
    part = len(many) // 4
    process = serve(any_broker.url, db)
    store = open_store(db, create=False)
    for turn in range(4):
        sender = threading.Thread(
            target=publisher.records, args=(many[turn * part : (turn + 1) * part],)
        )
        sender.start()
        if turn < 3:
            least = turn * part + 30
            until(lambda least=least: totals(store).windows >= least, "part of it", 30)
            process.kill()
            process.wait()
        sender.join(60)
        if turn < 3:
            process = serve(any_broker.url, db)
    until(settled(store, len(many)), "all of it", 30)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    with store.reading() as tx:
        assert {d.device: (d.windows, d.rows) for d in tx.devices()} == {
            f"pi-{d}": (each, 50 * each) for d in range(devices)
        }
    assert {d.device: (d.windows, d.rows) for d in _detectors(store)} == {
        f"pi-{d}": (each, 50 * each) for d in range(devices)
    }
    assert fault_kinds(store) == {}
    store.close()


def test_a_store_that_fails_for_a_while_loses_nothing(
    *, any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed,
    rng: np.random.Generator, db: str, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Another process holds the database; nothing is acknowledged until it lets go."""
    import sqlite3

    publisher.bundle(packed)
    with store._connect(reading=False) as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    with collecting(any_broker.url, store), caplog.at_level(logging.WARNING):
        publisher.record(quiet(packed, rng, seq=0))
        until(settled(store, 1), "the first")
        other = sqlite3.connect(db.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        publisher.records([quiet(packed, rng, seq=i) for i in range(1, 20)])
        until(lambda: any("is locked" in text for text in caplog.messages), "a failed commit")
        assert totals(store).windows == 1
        other.execute("ROLLBACK")
        other.close()
        until(settled(store, 20), "the rest")
    [detector] = _detectors(store)
    assert detector.windows == 20


def test_the_lock_is_free_after_a_kill(any_broker: Any, db: str, serve: Serve) -> None:
    process = serve(any_broker.url, db)
    process.kill()
    process.wait()
    again = serve(any_broker.url, db)
    again.send_signal(signal.SIGINT)
    assert again.wait(120) == 0

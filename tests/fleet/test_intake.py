"""Whatever a device sends becomes an item or a counted fault, and nothing else."""

from typing import Any

import numpy as np
import pytest
from fleet_kit import Packed, draw, record
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edge_contract import messages, telemetry
from edge_contract.topics import Topics
from edge_fleet import intake
from edge_fleet.store.base import EventSeen, Fault, ReportSeen, StatusSeen, Window

TOPICS = Topics("test")
NOW = 1_800_000_000_000


def read(topic: str, payload: bytes, *, retained: bool = False) -> intake.Item:
    return intake.read(TOPICS, topic, payload, retained=retained, now_ms=NOW)


@pytest.fixture
def payload(packed: Packed, rng: np.random.Generator) -> bytes:
    return telemetry.encode(record(packed, packed.counts(draw(rng, 50))))


def test_a_record_is_a_window(packed: Packed, payload: bytes) -> None:
    window = read(TOPICS.telemetry("pi-1"), payload)
    assert isinstance(window, Window)
    assert (window.key, window.rows, window.bundle) == (("pi-1", 1, 1), 50, packed.digest)
    assert window.record == payload
    assert window.received_ms == NOW


def test_a_record_cut_at_any_length_is_a_fault(payload: bytes) -> None:
    for length in range(len(payload)):
        found = read(TOPICS.telemetry("pi-1"), payload[:length])
        assert isinstance(found, Fault), length
        assert (found.device, found.kind) == ("pi-1", "bad-telemetry")


def test_a_device_that_speaks_for_another_is_a_fault_of_its_own(payload: bytes) -> None:
    found = read(TOPICS.telemetry("pi-2"), payload)
    assert isinstance(found, Fault)
    assert (found.device, found.kind) == ("pi-2", "wrong-device")


def test_more_rows_than_a_device_can_make_are_a_fault(packed: Packed) -> None:
    counts = np.zeros(packed.profile.cells, dtype=np.int64)
    for start in packed.profile.offsets():
        counts[start] = 2**37
    found = read(TOPICS.telemetry("pi-1"), telemetry.encode(record(packed, counts)))
    assert isinstance(found, Fault)


@pytest.mark.parametrize(
    "changes",
    [
        {"refused": 2**53},
        {"failed": 2**53},
        {"latency": telemetry.pack_counts([2**53] * telemetry.LATENCY_BUCKETS)},
        {"latency": telemetry.pack_counts([2**31] * telemetry.LATENCY_BUCKETS)},
    ],
)
def test_more_of_anything_that_is_added_up_than_a_device_has_is_a_fault(
    changes: dict[str, Any], packed: Packed, rng: np.random.Generator
) -> None:
    sane = record(packed, packed.counts(draw(rng, 50)))
    found = read(TOPICS.telemetry("pi-1"), telemetry.encode(replace(sane, **changes)))
    assert isinstance(found, Fault)
    assert (found.device, found.kind) == ("pi-1", "too-many-rows")


def test_status_report_and_event_are_read() -> None:
    hardware = messages.Hardware(
        machine="aarch64", cpus=4, ram_bytes=1, system="Linux", python="3.11", onnxruntime="1.20"
    )
    reported = messages.Reported(boot=1, at_ms=1, agent="a", hardware=hardware)
    event = messages.Event(boot=1, seq=2, at_ms=3, kind="update", detail="x\0y")
    status = messages.Status(online=True, boot=7, agent="agent\0 1")
    assert read(TOPICS.status("pi-1"), messages.encode(status), retained=True) == StatusSeen(
        "pi-1", True, 7, "agent 1", NOW, retained=True
    )
    assert read(TOPICS.reported("pi-1"), messages.encode(reported)) == ReportSeen(
        "pi-1", messages.encode(reported), NOW, retained=False, at_ms=1
    )
    assert read(TOPICS.events("pi-1"), messages.encode(event)) == EventSeen(
        "pi-1", 1, 2, 3, "update", "", "", "xy", NOW
    )


@pytest.mark.parametrize("topic", ["", "a", "edge/1/test", "edge/1/test/t/00/pi-1",
                                   "edge/1/other/d/pi-1/status", "edge/1/test/d/pi 1/status",
                                   "edge/1/test/d/pi-1/cmd"])  # fmt: skip
def test_a_topic_of_nobody_is_a_fault(topic: str) -> None:
    assert isinstance(read(topic, b"{}"), Fault)


@given(
    kind=st.sampled_from(["telemetry", "status", "reported", "events"]),
    junk=st.binary(max_size=300) | st.text(max_size=100).map(str.encode),
)
def test_junk_never_raises(kind: str, junk: bytes) -> None:
    assert isinstance(read(getattr(TOPICS, kind)("pi-1"), junk), Fault)


def test_only_a_clock_far_ahead_is_a_fault(packed: Packed) -> None:
    counts = np.zeros(packed.profile.cells, dtype=np.int64)
    for ahead_ms, faulty in ((-(10**9), False), (1000, False), (3_600_001, True), (10**12, True)):
        one = record(packed, counts, start_ms=NOW - 10**10, end_ms=NOW + ahead_ms)
        window = read(TOPICS.telemetry("pi-1"), telemetry.encode(one))
        assert isinstance(window, Window)
        assert (intake.clock_fault(window) is not None) == faulty

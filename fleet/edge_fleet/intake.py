"""What a message from a device says, or why it is not believed. Pure.

Guards: nothing reaches the store that was not decoded whole; the device that a topic names (which
the broker's rights protect) is the one that the record names. A bad message becomes a ``Fault``
that is counted and acknowledged: it must never come again and never stop the collector.
"""

from __future__ import annotations

from edge_contract import aside, messages, telemetry
from edge_contract.errors import InputFault
from edge_contract.topics import Topics
from edge_fleet.store.base import (
    AsideKind,
    AsideSeen,
    EventSeen,
    Fault,
    ReportSeen,
    StatusSeen,
    Window,
)
from edge_fleet.windows import window_from

Item = Window | AsideSeen | StatusSeen | ReportSeen | EventSeen | Fault

FUTURE_MS = 3_600_000
"""A window that ends so far ahead of our clock: one of the two clocks is wrong."""
ROWS_MAX = 2**36
"""No device makes, refuses or times so many predictions in a window; sums over a fleet stay within
64 bits."""
ROWS_PER_S_MAX = 10_000_000
"""More than any device answers: a bare linear model in batches does a million or two a second."""
LENGTH_LEAST_S = 60.0
"""A clock that was set while a window ran may show it shorter than it was."""


def read(topics: Topics, topic: str, payload: bytes, *, retained: bool, now_ms: int) -> Item:
    """The item in one message. Never raises for what a device sent."""
    try:
        address = topics.parse(topic)
    except InputFault as error:
        return Fault("", "topic", error.what, now_ms)
    device = address.device
    try:
        match address.kind:
            case "telemetry" if aside.is_aside(payload):
                return _aside(device, payload, now_ms)
            case "telemetry":
                return _window(device, payload, now_ms)
            case "status":
                status = messages.decode(payload, messages.Status)
                return StatusSeen(
                    device,
                    status.online,
                    status.boot,
                    _plain(status.agent),
                    now_ms,
                    retained,
                    _plain(status.run),
                    _plain(status.machine),
                )
            case "reported":
                reported = messages.decode(payload, messages.Reported)
                return ReportSeen(device, payload, now_ms, retained, reported.at_ms)
            case "ev":
                event = messages.decode(payload, messages.Event)
                return EventSeen(
                    device,
                    event.boot,
                    event.seq,
                    event.at_ms,
                    event.kind,
                    _plain(event.model),
                    _plain(event.version),
                    _plain(event.detail),
                    now_ms,
                )
    except InputFault as error:
        return Fault(device, f"bad-{address.kind}", error.what, now_ms)
    return Fault(device, "topic", f"nothing of ours on {topic}", now_ms)


def sender(topics: Topics, topic: str) -> str:
    """Whose topic it is; "" where it is nobody's."""
    try:
        return topics.parse(topic).device
    except InputFault:
        return ""


def _window(device: str, payload: bytes, now_ms: int) -> Window | Fault:
    record = telemetry.decode(payload)
    timed = int(telemetry.latency_of(record).sum())
    window = window_from(record, payload, now_ms)
    if window.device != device:
        detail = f"a record of {window.device!r} on the topic of {device!r}"
        return Fault(device, "wrong-device", detail, now_ms)
    length_s = max((window.end_ms - window.start_ms) / 1000, LENGTH_LEAST_S)
    if window.rows > min(ROWS_MAX, ROWS_PER_S_MAX * length_s):
        detail = f"{window.rows} rows in {length_s:.0f} s: more than any device answers"
        return Fault(device, "too-many-rows", detail, now_ms)
    if (most := max(window.refused, window.failed, timed)) > ROWS_MAX:
        detail = f"{most} rows refused, failed or timed: more than any device has"
        return Fault(device, "too-many-rows", detail, now_ms)
    return window


def _aside(device: str, payload: bytes, now_ms: int) -> AsideSeen | Fault:
    record = aside.decode(payload)
    if record.device != device:
        detail = f"a record of {record.device!r} on the topic of {device!r}"
        return Fault(device, "wrong-device", detail, now_ms)
    if (most := _most(record)) > ROWS_MAX:
        return Fault(device, "bad-telemetry", f"a record of {most} rows", now_ms)
    kind = AsideKind.SHADOW if isinstance(record, aside.Shadow) else AsideKind.LABELLED
    return AsideSeen(device, record.boot, record.seq, kind, record.bundle.hex(), now_ms, payload)


def _most(record: aside.Aside) -> int:
    """The largest figure in it."""
    if isinstance(record, aside.Shadow):
        timed = telemetry.unpack_counts(record.latency, telemetry.LATENCY_BUCKETS)
        return max(record.rows, record.refused, record.failed, record.skipped, int(timed.sum()))
    counts = aside.counts_of(record)
    return max(  # the sum of counts that are too large may not fit 64 bits
        int(counts.max(initial=0)), int(counts.sum()), record.repeated, record.contradicted,
        record.late, record.unknown, record.refused,
    )  # fmt: skip


def _plain(text: str) -> str:
    """Without NUL, which PostgreSQL's text cannot hold."""
    return text.replace("\0", "")


def clock_fault(window: Window) -> Fault | None:
    """A window from the future is kept (order is by boot and sequence) and its clock reported."""
    ahead_ms = window.end_ms - window.received_ms
    if ahead_ms <= FUTURE_MS:
        return None
    detail = f"its clock is {ahead_ms / 3_600_000:.1f} h ahead"
    return Fault(window.device, "clock-ahead", detail, window.received_ms)

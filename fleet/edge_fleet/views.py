"""The shapes of what the fleet reports: to a terminal, as JSON, later to a page.

Times are ISO 8601 in UTC; None stands for what is not known.
"""

from __future__ import annotations

from msgspec import Struct

from edge_fleet.drift.budget import Part, Scope
from edge_fleet.drift.explain import CellChange, DeviceShare
from edge_fleet.liveness import Liveness


class UnknownBundle(Struct, frozen=True):
    """A bundle whose profile the fleet does not have."""

    bundle: str
    model: str
    version: str
    windows: int
    devices: int


class FaultReport(Struct, frozen=True):
    """What a device sent and should not have."""

    device: str
    kind: str
    count: int
    last: str
    detail: str


class Status(Struct, frozen=True):
    """The fleet at a glance. Times are ISO 8601 in UTC, None where there is none.

    Attributes:
        streams, threshold: detectors' monitors, and log10 of the alarm threshold for them.
        lag_s: the longest time from the end of a window to its arrival, over devices online.
        notes: what a person should know, such as windows shorter than declared.
    """

    fleet: str
    collecting: bool
    devices: int
    online: int
    silent: int
    offline: int
    windows: int
    rows: int
    pending_windows: int
    refused_windows: int
    dropped_records: int
    open_alarms: int
    faults: int
    last_heard: str | None
    lag_s: float | None
    streams: int
    threshold: float
    false_alarms_per_month: float
    window_s: float
    unknown_profiles: tuple[UnknownBundle, ...]
    recent_faults: tuple[FaultReport, ...]
    notes: tuple[str, ...]


class ModelOnDevice(Struct, frozen=True):
    """One model of a device; ``phase`` is "" when the device has not reported it."""

    model: str
    version: str
    phase: str
    rows: int
    windows: int
    open_alarms: int


class DeviceReport(Struct, frozen=True):
    """One device."""

    device: str
    state: Liveness
    boot: int
    agent: str
    machine: str
    freshness: str
    labels: dict[str, str]
    rows: int
    windows: int
    dropped: int
    last_seen: str | None
    models: tuple[ModelOnDevice, ...]


class AlarmReport(Struct, frozen=True):
    """One alarm. ``evidence`` and ``threshold`` are log10; ``evidence`` now, where known.

    Attributes:
        scope, device: of one device, or of a group, which ``device`` then names.
        parent: the open event of a group under which it is listed; None: it speaks for itself.
        under: how many open alarms are listed under it.
        members, moved, devices: of a group: how many devices, those whose rows speak for the
            change, and the clearest of them.
        q_now: ``Level.q`` of its evidence now.
        bars: shares of rows before and after, cell by cell, in order of values.
    """

    id: int
    device: str
    model: str
    version: str
    source: str
    feature: str
    kind: str
    what: str
    since: str
    opened: str
    evidence: float
    threshold: float
    evidence_now: float | None
    rows: int
    cells: tuple[CellChange, ...]
    resolved: str | None
    comment: str
    scope: Scope = "device"
    parent: int | None = None
    under: int = 0
    members: int = 0
    moved: int = 0
    devices: tuple[DeviceShare, ...] = ()
    q_now: float | None = None
    bars: tuple[CellChange, ...] = ()


class Level(Struct, frozen=True):
    """The evidence on one monitor now, as log10, beside the threshold.

    ``q``: the least share of false findings, among all monitors of the fleet, at which it is one.
    """

    device: str
    model: str
    version: str
    source: str
    feature: str
    evidence: float
    threshold: float
    windows: int
    rows: int
    alarm: int | None
    scope: Scope = "device"
    q: float = 1.0


class Drift(Struct, frozen=True):
    """Alarms, newest first, and current levels, strongest first.

    ``threshold``: of a device; ``thresholds``: of each scope, which share the promise.
    """

    alarms: tuple[AlarmReport, ...]
    levels: tuple[Level, ...]
    threshold: float
    thresholds: dict[Part, float] = {}

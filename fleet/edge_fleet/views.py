"""The shapes of what the fleet reports: to a terminal, as JSON, later to a page.

Times are ISO 8601 in UTC; None stands for what is not known.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from edge_fleet.drift.budget import Part, Scope
from edge_fleet.drift.explain import CellChange, DeviceShare
from edge_fleet.following import Follows
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


class Figures(Struct, frozen=True, kw_only=True):
    """The fleet counted. Times are ISO 8601 in UTC, None where there is none."""

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


class Status(Figures, frozen=True, kw_only=True):
    """The fleet at a glance. Times are ISO 8601 in UTC, None where there is none.

    Attributes:
        streams, threshold: detectors' monitors, and log10 of the alarm threshold for them.
        lag_s: the longest time from the end of a window to its arrival, over devices online.
        notes: what a person should know, such as windows shorter than declared.
    """

    lag_s: float | None
    streams: int
    threshold: float
    false_alarms_per_month: float
    window_s: float
    unknown_profiles: tuple[UnknownBundle, ...]
    recent_faults: tuple[FaultReport, ...]
    notes: tuple[str, ...]


class ModelOnDevice(Struct, frozen=True):
    """One model of a device; ``phase`` is "" when the device has not reported it.

    Attributes:
        wanted: version, or ``stable`` or ``candidate``: what the channel says. follows, said: how
            the device stands to that, and why; "" where it does not report the model.
        digest: of the bundle that it says it runs. signed: a channel of the fleet named that
            bundle; None: not known.
    """

    model: str
    version: str
    phase: str
    rows: int
    windows: int
    open_alarms: int
    wanted: str = ""
    follows: Follows | Literal[""] = ""
    said: str = ""
    digest: str = ""
    signed: bool | None = None


class Inventory(Struct, frozen=True, kw_only=True):
    """What a device said of its machine; None and "": it did not say.

    Attributes:
        synchronised: a time service keeps its clock. clock_offset_s: how far that was ahead of the
            server's when a report came, network and all.
        disk_free_bytes, disk_total_bytes: where it keeps its models and records.
        spool_bytes, spool_max_bytes: of records that wait there, and how many may.
        temperature_c: of its hottest zone. signs: what slows it down, in words.
        reported: when the report came that says all this.
    """

    system: str = ""
    python: str = ""
    onnxruntime: str = ""
    cpus: int | None = None
    ram_bytes: int | None = None
    synchronised: bool | None = None
    clock_offset_s: float | None = None
    disk_free_bytes: int | None = None
    disk_total_bytes: int | None = None
    spool_bytes: int | None = None
    spool_max_bytes: int | None = None
    temperature_c: float | None = None
    signs: tuple[str, ...] = ()
    reported: str | None = None


class DeviceReport(Struct, frozen=True):
    """One device.

    Attributes:
        seen_ms: when it was last heard of, in milliseconds; 0 for never.
        follows, said: how it stands to what it is to follow (``following``), and why.
        wanted_revision, revision: of its newest wish, 0 for none; that it says it has heard.
        channel: that it says it follows.
    """

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
    seen_ms: int = 0
    follows: Follows = "unknown"
    said: str = ""
    wanted_revision: int = 0
    revision: int = 0
    channel: str = ""
    inventory: Inventory = Inventory()


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

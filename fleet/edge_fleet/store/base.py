"""What the fleet keeps, whatever keeps it.

Guards: evidence and the windows it came from are stored in one transaction, and a window is
counted once, by (device, boot, seq). A store never decides; it keeps and finds.

``Store`` is the port. ``edge_fleet.store.sql`` is its one implementation, for SQLite and
PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from edge_contract.errors import InputFault
from edge_fleet.drift.budget import Scope
from edge_fleet.store.api import ApiPort
from edge_fleet.store.audit import AuditPort
from edge_fleet.store.firings import FiringsPort
from edge_fleet.store.groups import Groups
from edge_fleet.store.retention import RetentionPort
from edge_fleet.store.rollouts import RolloutsPort
from edge_fleet.store.rollups import Kept, Key, RollupPort
from edge_fleet.store.sharing import SharingPort
from edge_fleet.store.states import StatesPort
from edge_fleet.store.trends import TrendsPort


class Counted(IntEnum):
    """What became of a window."""

    PENDING = 0
    """Its profile is not known yet."""
    YES = 1
    """Part of its device's evidence."""
    REFUSED = 2
    """Its counts do not fit its profile."""


@dataclass(frozen=True)
class Window:
    """One telemetry record. ``bundle`` in hex; ``record``: its bytes as they came."""

    device: str
    boot: int
    seq: int
    bundle: str
    model: str
    version: str
    start_ms: int
    end_ms: int
    synchronised: bool
    rows: int
    refused: int
    failed: int
    dropped: int
    received_ms: int
    record: bytes = field(repr=False)

    @property
    def key(self) -> Key:
        """Its identity."""
        return self.device, self.boot, self.seq


@dataclass(frozen=True)
class StatusSeen:
    """A birth or a last will. ``retained``: the broker kept it, so it says nothing of now.

    ``run``, ``machine``: of the agent's start and of its hardware; "" from an older agent.
    """

    device: str
    online: bool
    boot: int
    agent: str
    received_ms: int
    retained: bool
    run: str = ""
    machine: str = ""


@dataclass(frozen=True)
class ReportSeen:
    """A device's report of itself, as JSON. ``at_ms``: when, by its own clock; 0: unknown."""

    device: str
    reported: bytes
    received_ms: int
    retained: bool
    at_ms: int = 0


@dataclass(frozen=True)
class EventSeen:
    """Something happened on a device."""

    device: str
    boot: int
    seq: int
    at_ms: int
    kind: str
    model: str
    version: str
    detail: str
    received_ms: int


@dataclass(frozen=True)
class Fault:
    """Something that a device (or "" for nobody known) sent and should not have."""

    device: str
    kind: str
    detail: str
    received_ms: int


class AsideKind(IntEnum):
    """What a record beside the windows is of: see ``edge_contract.aside``."""

    SHADOW = 2
    LABELLED = 3


@dataclass(frozen=True)
class AsideSeen:
    """A record beside the windows; ``bundle`` in hex, ``record``: its bytes as they came."""

    device: str
    boot: int
    seq: int
    kind: AsideKind
    bundle: str
    received_ms: int
    record: bytes = field(repr=False)


@dataclass(frozen=True)
class Detector:
    """The evidence on one bundle of one device.

    Attributes:
        state: see ``edge_fleet.evidence``. monitors: how many streams it is.
        boot, seq: the last window counted.
    """

    device: str
    bundle: str
    model: str
    version: str
    state: bytes = field(repr=False)
    monitors: int = 0
    windows: int = 0
    rows: int = 0
    boot: int = 0
    seq: int = 0
    updated_ms: int = 0


@dataclass(frozen=True)
class Alarm:
    """One crossing of the threshold.

    Attributes:
        monitor: index in the profile; ``source`` and ``feature`` name it.
        since_ms: when the change most likely began.
        log_evidence, log_threshold: natural logarithms, at the crossing.
        explanation: see ``drift.explain``.
        resolved_ms: when a person closed it; None while open.
        scope: of a device, or of a group, whose name then stands in ``device``.
        parent: the group's alarm that it is listed under.
    """

    device: str
    model: str
    version: str
    bundle: str
    monitor: int
    source: str
    feature: str
    opened_ms: int
    since_ms: int
    log_evidence: float
    log_threshold: float
    explanation: bytes = field(repr=False)
    resolved_ms: int | None = None
    comment: str = ""
    scope: Scope = "device"
    parent: int | None = None
    id: int = 0


@dataclass(frozen=True)
class Device:
    """What is known of one device. Times in milliseconds, 0 for never."""

    device: str
    online: bool = False
    boot: int = 0
    agent: str = ""
    status_ms: int = 0
    reported: bytes = field(default=b"", repr=False)
    reported_ms: int = 0
    seen_ms: int = 0
    windows: int = 0
    rows: int = 0
    dropped: int = 0
    lag_ms: int = 0
    window_ms: int = 0


@dataclass(frozen=True)
class FaultCount:
    """How often a device sent something it should not have."""

    device: str
    kind: str
    count: int
    first_ms: int
    last_ms: int
    detail: str


@dataclass(frozen=True)
class Unknown:
    """A bundle that windows name and whose profile is not known."""

    bundle: str
    model: str
    version: str
    windows: int
    devices: int


@dataclass(frozen=True)
class Totals:
    """Figures over the whole store."""

    devices: int
    windows: int
    rows: int
    pending: int
    refused: int
    open_alarms: int
    faults: int
    newest_ms: int


class Transaction(
    ApiPort,
    AuditPort,
    FiringsPort,
    Groups,
    RetentionPort,
    RolloutsPort,
    RollupPort,
    SharingPort,
    StatesPort,
    TrendsPort,
    Protocol,
):
    """All of it is kept at the end of the ``with`` block, or none of it."""

    def add_windows(
        self, windows: Sequence[Window], counted: Collection[str] = (), beside: Collection[str] = ()
    ) -> list[Window]:
        """Keep windows not kept before, nor part of a sum; return these.

        Two with one key: the first is kept. ``counted``: bundles whose windows are kept as counted
        at once, since the caller counts them in this transaction. ``beside``: other devices that
        this transaction writes of; they are held together with those of the windows (see
        ``hold_devices``), so that who only keeps windows need not hold any.
        """
        ...

    def same_record(self, window: Window) -> bool:
        """The window kept by itself under this key holds the same bytes."""
        ...

    def mark(self, keys: Iterable[Key], counted: Counted) -> None:
        """Say what became of windows."""
        ...

    def pending(self, bundle: str, limit: int) -> list[Window]:
        """Windows of ``bundle`` not counted yet, in order of key."""
        ...

    def waiting(self, bundle: str) -> int:
        """How many windows of ``bundle`` are not counted yet."""
        ...

    def pending_bundles(self, limit: int) -> list[Unknown]:
        """Bundles that pending windows name, the one that came last first."""
        ...

    def history(self, device: str, bundle: str, until: tuple[int, int], limit: int) -> list[Kept]:
        """What was counted last, up to and with (boot, seq) ``until``, in order."""
        ...

    def counted_since(
        self, bundle: str, since_ms: int, at_once: int, devices: Sequence[str] = ()
    ) -> Iterator[list[Kept]]:
        """What is counted of ``bundle`` and came at or after ``since_ms``, so many at once.

        Of ``devices`` alone, where there are any: a thousand at most.
        """
        ...

    def records(self, *, device: str = "", since_ms: int = 0) -> Iterator[Window]:
        """Windows that are kept by themselves, the one that came last first; "": of every."""
        ...

    def status(self, seen: StatusSeen) -> None:
        """Note a birth, or a last will of the boot that lives."""
        ...

    def report(self, seen: ReportSeen) -> None:
        """Keep a device's newest report."""
        ...

    def add_events(self, events: Sequence[EventSeen]) -> None:
        """Keep events not kept before."""
        ...

    def add_asides(self, asides: Sequence[AsideSeen]) -> list[AsideSeen]:
        """Keep records beside the windows, not kept before; return these."""
        ...

    def asides(self, kind: AsideKind, since_ms: int = 0) -> Iterator[AsideSeen]:
        """Those that came at or after ``since_ms``, by device, boot and sequence number."""
        ...

    def add_faults(self, faults: Sequence[Fault]) -> None:
        """Count faults."""
        ...

    def detectors(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Detector]:
        """Detectors by (device, bundle)."""
        ...

    def put_detectors(self, detectors: Sequence[Detector]) -> None:
        """Keep detectors, new or changed."""
        ...

    def all_detectors(self) -> list[Detector]:
        """Every detector, by device and model, the one of the newest window last."""
        ...

    def streams(self, since_ms: int) -> int:
        """Monitors of detectors updated at or after ``since_ms``."""
        ...

    def add_alarm(self, alarm: Alarm) -> int:
        """Keep an alarm; returns its id."""
        ...

    def resolved(self, ids: Iterable[int]) -> set[int]:
        """Which of these alarms are resolved, or gone."""
        ...

    def resolve(self, ids: Sequence[int], now_ms: int, comment: str) -> list[int]:
        """Close open alarms; returns the ids that were open."""
        ...

    def alarms(self, *, open_only: bool) -> list[Alarm]:
        """Alarms, newest first."""
        ...

    def open_events(self, bundle: str, monitor: int) -> list[Alarm]:
        """Open alarms of groups on one monitor: few, however many devices raise one."""
        ...

    def devices(self) -> list[Device]:
        """Every device, by name."""
        ...

    def faults(self) -> list[FaultCount]:
        """Faults by device and kind."""
        ...

    def events(self, limit: int) -> list[EventSeen]:
        """The newest events."""
        ...

    def totals(self) -> Totals:
        """Figures over the whole store."""
        ...

    def put_blob(self, sha256: str, data: bytes, now_ms: int) -> None:
        """Keep content-addressed bytes."""
        ...

    def blob(self, sha256: str) -> bytes | None:
        """Content-addressed bytes, or None."""
        ...


class AlreadyCompacting(InputFault):
    """Another one merges windows of this store."""


class Store(Protocol):
    """Where the fleet's data are. Every method raises MachineFault when the store cannot."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Read and write."""
        ...

    def reading(self) -> AbstractContextManager[Transaction]:
        """Read one consistent state."""
        ...

    def lock(self, ordinal: int) -> AbstractContextManager[Callable[[], None]]:
        """Be the one collector of this ordinal. Raises InputFault when another one is.

        What it gives raises MachineFault once another one may be: call it now and then.
        """
        ...

    def compacting(self) -> AbstractContextManager[None]:
        """Be the one that merges windows. Raises AlreadyCompacting when another one is."""
        ...

    def claim(self, fleet: str) -> None:
        """Make this the store of ``fleet``. Raises InputFault when it is another fleet's."""
        ...

    def settings(self) -> dict[str, str]:
        """What the collector was last started with."""
        ...

    def put_settings(self, settings: dict[str, str]) -> None:
        """Keep what the collector was started with, for reports."""
        ...

    def close(self) -> None:
        """Let go of all connections."""
        ...

"""What the doctor looked at, as plain values; gatherers make them, ``checks`` judges them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class BrokerFacts(msgspec.Struct, frozen=True):
    """A broker as this server's account sees it.

    Attributes:
        url: without a password. error: why it was not reached; "" when it was.
        offered: what its CONNACK said, by the names of MQTT 5, 3.2.2.3.
        unreadable: filters of a collector that were refused. unwritable: topics of the fleet.
        forgeable: topics of the publisher that this account may write.
        anonymous: somebody without a name was let in; None: not tried.
        status: devices whose status it retains. desired: of how many asked it retains one.
        desired_missing: devices that are to run something and of which it retains no `desired`.
        certificate_ms: when the server's certificate ends; 0: no TLS.
        expiries: TUF role to when its retained metadata ends, milliseconds since 1970 UTC.
    """

    url: str
    error: str = ""
    offered: Mapping[str, Any] = {}
    unreadable: tuple[str, ...] = ()
    unwritable: tuple[str, ...] = ()
    forgeable: tuple[str, ...] = ()
    anonymous: bool | None = None
    status: int = 0
    desired: int = 0
    desired_missing: tuple[str, ...] = ()
    certificate_ms: int = 0
    expiries: Mapping[str, int] = {}


class StoreFacts(msgspec.Struct, frozen=True):
    """The store and the machine it lies on.

    Attributes:
        kind: ``sqlite`` or ``postgresql``. version: of its schema; None: it holds no fleet.
        error, advice: why it cannot be looked at and what to do; "" when it can.
        damage: what SQLite's check said; "": nothing.
        fsync_ms: the median of a few; 0: not measured. free_bytes: -1 where not known.
        settings: PostgreSQL's, by name. server: its version as a number, such as 150004.
        ahead_ms: how far the server's clock is ahead of ours.
    """

    url: str
    kind: str = ""
    error: str = ""
    advice: str = ""
    version: int | None = None
    damage: str = ""
    size_bytes: int = 0
    free_bytes: int = -1
    fsync_ms: float = 0.0
    journal: str = ""
    missing_indexes: tuple[str, ...] = ()
    server: int = 0
    settings: Mapping[str, str] = {}
    ahead_ms: float | None = None


class FleetFacts(msgspec.Struct, frozen=True):
    """What the store knows of the fleet. Times in milliseconds since 1970 UTC.

    Attributes:
        statuses: devices that ever had a status. beats: ordinal to its last sign of life.
        lag_s: the largest lag of a device on line. dropped: records that devices had no room for.
        clocks: devices whose clock is ahead. twins: names that two agents use.
        tokens: name to when it ends, of those that are good.
    """

    fleet: str = ""
    devices: int = 0
    statuses: int = 0
    beats: Mapping[str, int] = {}
    lag_s: float | None = None
    dropped: int = 0
    pending: int = 0
    refused: int = 0
    clocks: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()
    tokens: Mapping[str, int] = {}


class HttpFacts(msgspec.Struct, frozen=True):
    """The HTTP service: ``ahead_ms``: its clock before ours, by its `Date` header, to a second."""

    url: str
    error: str = ""
    ahead_ms: float | None = None
    certificate_ms: int = 0


class MachineFacts(msgspec.Struct, frozen=True):
    """This machine. ``synchronised``: the kernel's clock is disciplined; None: it does not say."""

    synchronised: bool | None = None
    certificates: Mapping[str, int] = {}


class Facts(msgspec.Struct, frozen=True):
    """All of it; what was not looked at is None."""

    now_ms: int
    store: StoreFacts
    machine: MachineFacts
    broker: BrokerFacts | None = None
    fleet: FleetFacts | None = None
    http: HttpFacts | None = None

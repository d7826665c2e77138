"""What the HTTP service needs of the store: its part of the port.

Guards: a token is kept as its SHA-256, never itself; a write and the answer to it are kept in one
transaction, so that the same request sent again is answered and not repeated.

A page begins after a key, in the order that its method names; () is the beginning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from edge_fleet.store.overview import OverviewPort

if TYPE_CHECKING:
    from edge_fleet.store.base import Alarm, Device, EventSeen
    from edge_fleet.store.firings import Firing

Role = Literal["viewer", "operator", "admin"]
NoteKind = Literal["acknowledged", "comment", "resolved"]
Key = tuple[int | str, ...]
"""Values of the columns that a page is ordered by."""


@dataclass(frozen=True)
class ApiToken:
    """A token of the HTTP service. Times in milliseconds; ``expires_ms`` None: never."""

    id: str
    name: str
    role: Role
    sha256: bytes = field(repr=False)
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None


@dataclass(frozen=True)
class Note:
    """What a person said of an alarm. ``author``: name of the token."""

    alarm: int
    kind: NoteKind
    author: str
    text: str
    at_ms: int
    id: int = 0


@dataclass(frozen=True)
class Write:
    """A write that was done, by token and idempotency key.

    Attributes:
        request: SHA-256 of method, path and body. status, body: the answer.
    """

    token: str
    key: str
    request: bytes = field(repr=False)
    status: int
    body: bytes = field(repr=False)
    at_ms: int


@dataclass(frozen=True)
class Counting:
    """What one bundle of one device has counted, without the evidence. ``seq``: the last."""

    device: str
    bundle: str
    model: str
    version: str
    windows: int
    rows: int
    boot: int
    seq: int


@dataclass(frozen=True)
class BundleTotals:
    """What was counted of one bundle over all devices."""

    bundle: str
    model: str
    version: str
    devices: int
    windows: int
    rows: int
    updated_ms: int


class ApiPort(OverviewPort, Protocol):
    """This part of ``base.Transaction``."""

    def put_api_token(self, token: ApiToken) -> bool:
        """Keep a new token; False where its id is taken."""
        ...

    def api_tokens(self) -> list[ApiToken]:
        """Every token, the oldest first."""
        ...

    def api_token(self, id: str) -> ApiToken | None:
        """One token."""
        ...

    def revoke_api_token(self, id: str, now_ms: int) -> bool:
        """Make a token void; False where there is none that is not."""
        ...

    def write_of(self, token: str, key: str) -> Write | None:
        """The write that was done under this key."""
        ...

    def put_write(self, write: Write, *, forget_before_ms: int) -> bool:
        """Keep a write and drop those from before; False where its key is taken."""
        ...

    def add_note(self, note: Note) -> None:
        """Keep a note."""
        ...

    def notes(self, alarms: Iterable[int]) -> list[Note]:
        """Notes on these alarms, in the order in which they came."""
        ...

    def devices_after(self, device: str, limit: int) -> list[Device]:
        """Devices by name."""
        ...

    def devices_named(self, names: Sequence[str]) -> list[Device]:
        """Those of these devices that are known, by name."""
        ...

    def countings(self, devices: Sequence[str]) -> list[Counting]:
        """What these devices counted; of each device and model the newest window last."""
        ...

    def all_countings(self) -> list[Counting]:
        """The same of every device."""
        ...

    def alarms_after(
        self, after: Key, limit: int, *, state: str = "all", device: str = "", model: str = ""
    ) -> list[Alarm]:
        """Alarms, newest first, by (opened_ms, id); ``state``: open, resolved or all."""
        ...

    def alarm(self, id: int) -> Alarm | None:
        """One alarm."""
        ...

    def alarms_on(self, devices: Sequence[str]) -> list[Alarm]:
        """Open alarms of these devices."""
        ...

    def open_under(self, alarms: Sequence[int]) -> Counter[int]:
        """How many open alarms are listed under each of these."""
        ...

    def open_by_scope(self) -> dict[str, int]:
        """How many alarms are open of devices, cohorts and the fleet."""
        ...

    def events_before(
        self, before: Key, limit: int, *, device: str = "", kind: str = ""
    ) -> list[EventSeen]:
        """Events, newest first, by (received_ms, device, boot, seq)."""
        ...

    def firings_before(self, before: Key, limit: int, *, trigger: str = "") -> list[Firing]:
        """Firings, newest first, by (at_ms, key)."""
        ...

    def bundles(self) -> list[BundleTotals]:
        """Every bundle of which windows were counted, the one counted last first."""
        ...

    def new_events(self, after: Key, until_ms: int, limit: int) -> list[EventSeen]:
        """Events that came up to ``until_ms``, oldest first; ordered as ``events_before``."""
        ...

    def new_alarms(self, after: Key, until_ms: int, limit: int) -> list[Alarm]:
        """Alarms opened up to ``until_ms``, oldest first, by (opened_ms, id)."""
        ...

    def new_resolved(self, after: Key, until_ms: int, limit: int) -> list[Alarm]:
        """Alarms resolved up to ``until_ms``, oldest first, by (resolved_ms, id)."""
        ...

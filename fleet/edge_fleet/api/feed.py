"""What is new in the fleet, as server-sent events: WHATWG HTML, section 9.2.

Guards: a client that comes back with ``Last-Event-ID`` goes on where it was, and gets each thing
once. A position is four keys, each in its database's own order: of devices' events, of alarms
opened, of alarms resolved, of rollouts changed. What a device worded is JSON on one line
and cannot begin a field.
"""

from __future__ import annotations

from msgspec import Struct, structs

from edge_contract.errors import InputFault
from edge_fleet.api import cursors, resources, rollouts
from edge_fleet.reports import instant
from edge_fleet.store.base import Alarm, Transaction

SETTLE_MS = 2000
"""How long a thing that came is waited with: what came first may be committed second."""
BATCH_MAX = 200
_PARTS = "position"
_TYPES = (int, str, int, int, int, int, int, int, int, int)
_FORMER_TYPES = _TYPES[:-2]
"""Before rollouts were told."""
HEARTBEAT = b": still here\n\n"


class Position(Struct, frozen=True):
    """The last thing of each kind that was told."""

    event: tuple[int, str, int, int]
    opened: tuple[int, int]
    resolved: tuple[int, int]
    rollout: tuple[int, int] = (0, 0)

    def text(self) -> str:
        """As ``Last-Event-ID``."""
        return cursors.encode(_PARTS, (*self.event, *self.opened, *self.resolved, *self.rollout))


class Told(Struct, frozen=True):
    """One thing: what kind, as JSON, and where the stream is after it."""

    kind: str
    data: bytes
    after: Position

    def frame(self) -> bytes:
        """On the wire."""
        head = f"id: {self.after.text()}\nevent: {self.kind}\ndata: ".encode()
        return head + _one_line(self.data) + b"\n\n"


class AlarmChange(Struct, frozen=True):
    """An alarm that opened or was resolved; the rest is at /api/v1/alarms/ID."""

    id: int
    device: str
    scope: str
    model: str
    version: str
    feature: str
    opened: str | None
    resolved: str | None
    comment: str


def from_now(now_ms: int) -> Position:
    """A stream that begins with what comes after ``now_ms``; sure to be told, if perhaps twice."""
    at = now_ms - SETTLE_MS
    return Position((at, "", 0, 0), (at, 0), (at, 0), (at, 0))


def parse(text: str) -> Position:
    """Of a ``Last-Event-ID``. Raises InputFault."""
    try:
        key = cursors.decode(text, _PARTS, _TYPES)
    except InputFault:
        key = cursors.decode(text, _PARTS, _FORMER_TYPES)
        key = (*key, key[0], 0)  # rollouts from when the last event came
    if not key:
        raise InputFault("Last-Event-ID is empty")
    at, device, *rest = key
    boot, seq, *pairs = (int(each) for each in rest)
    opened, resolved, rollout = zip(pairs[::2], pairs[1::2], strict=True)
    return Position((int(at), str(device), boot, seq), opened, resolved, rollout)


def read(tx: Transaction, after: Position, now_ms: int) -> list[Told]:
    """What came since, at most ``4 * BATCH_MAX`` things."""
    until = now_ms - SETTLE_MS
    told: list[Told] = []
    for event in tx.new_events(after.event, until, BATCH_MAX):
        after = structs.replace(after, event=resources.key_of(event))
        told.append(Told("event", resources.encode(resources.event_view(event)), after))
    for alarm in tx.new_alarms(after.opened, until, BATCH_MAX):
        after = structs.replace(after, opened=(alarm.opened_ms, alarm.id))
        told.append(Told("alarm-opened", _change(alarm), after))
    for alarm in tx.new_resolved(after.resolved, until, BATCH_MAX):
        after = structs.replace(after, resolved=(alarm.resolved_ms or 0, alarm.id))
        told.append(Told("alarm-resolved", _change(alarm), after))
    for row in tx.new_rollouts(after.rollout, until, BATCH_MAX):
        after = structs.replace(after, rollout=(row.updated_ms, row.id))
        told.append(Told("rollout", rollouts.told(row), after))
    return told


def _one_line(data: bytes) -> bytes:
    """JSON that is one line to all: Python's clients end lines at these three as well."""
    for each in ("\u0085", "\u2028", "\u2029"):
        data = data.replace(each.encode(), b"\\u%04x" % ord(each))
    return data


def _change(alarm: Alarm) -> bytes:
    return resources.encode(
        AlarmChange(
            id=alarm.id,
            device=alarm.device,
            scope=alarm.scope,
            model=alarm.model,
            version=alarm.version,
            feature=alarm.feature,
            opened=instant(alarm.opened_ms),
            resolved=instant(alarm.resolved_ms),
            comment=alarm.comment,
        )
    )

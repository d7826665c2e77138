"""What the HTTP service gives: a transaction and a question in, plain values out.

Guards: a page costs what its items cost, not what the fleet does; only a filter on devices looks at
a line of each (13 us a device), however few fit it. What a device worded is shortened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from edge_fleet.api import cursors, tokens
from edge_fleet.api.inventory import Line, lines
from edge_fleet.device_reports import states_of
from edge_fleet.drift.budget import Budget
from edge_fleet.liveness import Liveness, liveness
from edge_fleet.reports import alarm_report, device_report, instant
from edge_fleet.rollouts import selector
from edge_fleet.store.api import ApiToken, Counting, Key, Note, NoteKind, Role
from edge_fleet.store.base import Alarm, Device, EventSeen, Transaction
from edge_fleet.store.firings import Firing
from edge_fleet.traits import traits
from edge_fleet.views import AlarmReport, DeviceReport

T = TypeVar("T")

LIMIT_MAX = 500
ASKED_AT_ONCE = 500
ASKED_MAX = 5000
TEXT_MAX_CHARS = 2000


class Page(Struct, Generic[T], frozen=True):
    """Some of a list. ``next``: cursor of the page after it; None where the list ends here."""

    items: tuple[T, ...]
    next: str | None = None


class DeviceFilter(Struct, frozen=True):
    """Devices that fit all that is given.

    ``labels``: each as name and value. ``search``, ``machine``: parts of the name and of what the
    hardware is called, in any case. ``where``: see ``rollouts.selector``.
    """

    state: str = ""
    model: str = ""
    version: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    search: str = ""
    machine: str = ""
    where: str = ""

    def fits(self, line: Line, state: Liveness) -> bool:
        """Each thing but ``where`` holds; model and version of the same model."""
        runs = not (self.model or self.version) or any(
            self.model in ("", model) and self.version in ("", version)
            for model, version in line.running.items()
        )
        labelled = all(line.labels.get(name) == value for name, value in self.labels)
        named = self.search.lower() in line.device.lower()
        built = self.machine.lower() in line.machine.lower()
        return runs and labelled and named and built and self.state in ("", state)


class NoteView(Struct, frozen=True):
    """What a person did about an alarm. ``author``: the name of the token."""

    kind: NoteKind
    author: str
    text: str
    at: str


class AlarmView(AlarmReport, frozen=True, kw_only=True):
    """An alarm with what persons said of it. ``acknowledged``: when first, None for not yet."""

    acknowledged: str | None = None
    notes: tuple[NoteView, ...] = ()


class EventView(Struct, frozen=True):
    """Something that happened on a device; ``at`` by its clock, ``received`` by this server's."""

    device: str
    boot: int
    seq: int
    kind: str
    model: str
    version: str
    detail: str
    at: str | None
    received: str | None


class BundleView(Struct, frozen=True):
    """One version of a model: how much was counted of it. ``waiting``: its profile is unknown."""

    bundle: str
    model: str
    version: str
    devices: int
    windows: int
    rows: int
    last_counted: str | None
    waiting: bool = False


class FiringView(Struct, frozen=True):
    """One time that a trigger's conditions held, and what came of it."""

    key: str
    trigger: str
    number: int
    model: str
    version: str
    bundle: str
    alarms: tuple[int, ...]
    rows: int
    state: str
    attempts: int
    detail: str
    at: str | None
    next: str | None
    done: str | None


class TokenView(Struct, frozen=True):
    """A token, without its secret, which nobody has but its holder."""

    id: str
    name: str
    role: Role
    state: str
    created: str | None
    expires: str | None


def devices(
    tx: Transaction, cursor: str, limit: int, *, wanted: DeviceFilter, now_ms: int, budget: Budget
) -> Page[DeviceReport]:
    """Devices by name that fit ``wanted``. Raises InputFault for a cursor and for ``where``."""
    key = cursors.decode(cursor, "devices", (str,))
    after = str(key[0]) if key else ""
    meant = selector.parse(wanted.where, moving=True)
    if wanted == DeviceFilter():
        some = tx.devices_after(after, limit + 1)
    else:
        fitting = (
            line.device
            for line in lines(tx, after)
            if wanted.fits(line, liveness(line, now_ms, budget.window_s))
        )
        if wanted.where.strip():
            return _asked(
                tx, fitting, lambda one: meant(traits(one, now_ms)), limit, now_ms=now_ms,
                budget=budget,
            )  # fmt: skip
        names = list(islice(fitting, limit + 1))
        known = {one.device: one for one in tx.devices_named(names)}
        some = [known[name] for name in names]  # in the database's order, not in Python's
    found = list(_described(tx, some[:limit], now_ms, budget))
    following = cursors.encode("devices", (found[-1].device,)) if len(some) > limit else None
    return Page(tuple(found), following)


def _asked(
    tx: Transaction, fitting: Iterator[str], meant: Callable[[DeviceReport], bool], limit: int, *,
    now_ms: int, budget: Budget,
) -> Page[DeviceReport]:  # fmt: skip
    """Of the devices in ``fitting`` those that are meant, which takes describing each.

    Of many that are not meant at most ``ASKED_MAX`` are looked at: such a page is not full.
    """
    found: list[DeviceReport] = []
    last, looked = "", 0
    while some := list(islice(fitting, ASKED_AT_ONCE)):
        known = {one.device: one for one in tx.devices_named(some)}
        for one in _described(tx, [known[name] for name in some], now_ms, budget):
            if len(found) == limit:  # there is one more device
                return Page(tuple(found), cursors.encode("devices", (last,)))
            last = one.device
            if meant(one):
                found.append(one)
        looked += len(some)
        if looked >= ASKED_MAX:
            return Page(tuple(found), cursors.encode("devices", (last,)))
    return Page(tuple(found))


def next_of(kind: str, found: Sequence[T], limit: int, key: Callable[[T], Key]) -> str | None:
    """The cursor of the page after this one, where one more than ``limit`` was found."""
    return cursors.encode(kind, key(found[limit - 1])) if len(found) > limit else None


def device(tx: Transaction, name: str, now_ms: int, budget: Budget) -> DeviceReport | None:
    """One device; None for one never heard of."""
    return next(iter(_described(tx, tx.devices_named([name]), now_ms, budget)), None)


def _described(
    tx: Transaction, some: Sequence[Device], now_ms: int, budget: Budget
) -> Iterable[DeviceReport]:
    names = [one.device for one in some]
    counted: dict[str, list[Counting]] = {}
    for each in tx.countings(names):
        counted.setdefault(each.device, []).append(each)
    opened: dict[str, list[Alarm]] = {}
    for alarm in tx.alarms_on(names):
        opened.setdefault(alarm.device, []).append(alarm)
    states = states_of(tx, names)
    for one in some:
        counts, alarms = counted.get(one.device, []), opened.get(one.device, [])
        yield device_report(one, counts, alarms, now_ms, budget, states=states)


def alarms(
    tx: Transaction, cursor: str, limit: int, *, state: str, device: str, model: str
) -> Page[AlarmView]:
    """Alarms, newest first. Raises InputFault for a cursor."""
    key = cursors.decode(cursor, "alarms", (int, int))
    found = tx.alarms_after(key, limit + 1, state=state, device=device, model=model)
    following = next_of("alarms", found, limit, lambda one: (one.opened_ms, one.id))
    return Page(_alarm_views(tx, found[:limit]), following)


def alarm(tx: Transaction, id: int) -> AlarmView | None:
    """One alarm with its notes."""
    found = tx.alarm(id)
    return None if found is None else _alarm_views(tx, [found])[0]


def _alarm_views(tx: Transaction, some: Sequence[Alarm]) -> tuple[AlarmView, ...]:
    notes: dict[int, list[Note]] = {}
    for note in tx.notes(one.id for one in some):
        notes.setdefault(note.alarm, []).append(note)
    closed = tx.resolved(one.parent for one in some if one.parent is not None)
    under = tx.open_under([one.id for one in some])
    return tuple(_alarm_view(one, notes.get(one.id, []), closed, under) for one in some)


def _alarm_view(
    one: Alarm, notes: Sequence[Note], closed: set[int], under: Counter[int]
) -> AlarmView:
    report = alarm_report(one, {})
    values = {name: getattr(report, name) for name in report.__struct_fields__}
    values |= {"parent": None if one.parent in closed else one.parent, "under": under[one.id]}
    seen = [instant(note.at_ms) for note in notes if note.kind == "acknowledged"]
    said = tuple(
        NoteView(note.kind, note.author, note.text, instant(note.at_ms) or "") for note in notes
    )
    return AlarmView(**values, acknowledged=seen[0] if seen else None, notes=said)


def events(tx: Transaction, cursor: str, limit: int, *, device: str, kind: str) -> Page[EventView]:
    """Events of devices, newest first. Raises InputFault for a cursor."""
    key = cursors.decode(cursor, "events", (int, str, int, int))
    found = tx.events_before(key, limit + 1, device=device, kind=kind)
    following = next_of("events", found, limit, key_of)
    return Page(tuple(map(event_view, found[:limit])), following)


def key_of(event: EventSeen) -> tuple[int, str, int, int]:
    """What events are ordered by."""
    return event.received_ms, event.device, event.boot, event.seq


def event_view(event: EventSeen) -> EventView:
    """One event."""
    return EventView(
        device=event.device,
        boot=event.boot,
        seq=event.seq,
        kind=event.kind,
        model=event.model,
        version=event.version,
        detail=event.detail,
        at=instant(event.at_ms),
        received=instant(event.received_ms),
    )


def firings(tx: Transaction, cursor: str, limit: int, *, trigger: str) -> Page[FiringView]:
    """What triggers set off, newest first. Raises InputFault for a cursor."""
    key = cursors.decode(cursor, "firings", (int, str))
    found = tx.firings_before(key, limit + 1, trigger=trigger)
    following = next_of("firings", found, limit, lambda one: (one.at_ms, one.key))
    return Page(tuple(map(_firing_view, found[:limit])), following)


def _firing_view(one: Firing) -> FiringView:
    return FiringView(
        key=one.key,
        trigger=one.trigger,
        number=one.number,
        model=one.model,
        version=one.version,
        bundle=one.bundle,
        alarms=one.alarms,
        rows=one.rows,
        state=one.state,
        attempts=one.attempts,
        detail=one.detail,
        at=instant(one.at_ms),
        next=instant(one.next_ms),
        done=instant(one.done_ms),
    )


def bundles(tx: Transaction) -> tuple[BundleView, ...]:
    """Versions that were counted, the one counted last first; then those that wait."""
    known = [
        BundleView(b.bundle, b.model, b.version, b.devices, b.windows, b.rows,
                   instant(b.updated_ms))
        for b in tx.bundles()
    ]  # fmt: skip
    waiting = [
        BundleView(u.bundle, u.model, u.version, u.devices, u.windows, 0, None, waiting=True)
        for u in tx.pending_bundles(LIMIT_MAX)
    ]
    return (*known, *waiting)


def token_view(token: ApiToken, now_ms: int) -> TokenView:
    """A token as it may be shown."""
    state, created = tokens.state(token, now_ms), instant(token.created_ms)
    return TokenView(token.id, token.name, token.role, state, created, instant(token.expires_ms))


def encode(value: object) -> bytes:
    """As JSON, each text shortened to what a person reads."""
    return msgspec.json.encode(_shortened(msgspec.to_builtins(value)))


def _shortened(value: object) -> object:
    match value:
        case str():
            return value if len(value) <= TEXT_MAX_CHARS else value[:TEXT_MAX_CHARS] + "…"
        case dict():
            return {_shortened(key): _shortened(each) for key, each in value.items()}
        case list() | tuple():
            return [_shortened(each) for each in value]
    return value

"""What the HTTP service keeps and asks, in SQL; see ``store.api`` for the promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Select,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from edge_fleet.store import tables
from edge_fleet.store.api import ApiToken, BundleTotals, Counting, Key, Note, Write
from edge_fleet.store.base import Alarm, Device, EventSeen
from edge_fleet.store.firing_rows import firing_of, firings
from edge_fleet.store.firings import Firing
from edge_fleet.store.overview_rows import OverviewRows
from edge_fleet.store.tables import Serial, alarms, detectors, devices, events, metadata

_IN_MAX = 400

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=True),
    Column("revoked_ms", BigInteger, nullable=True),
)

api_writes = Table(
    "api_writes",
    metadata,
    Column("token", String(16), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request", LargeBinary(32), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("at_ms", BigInteger, nullable=False, index=True),
)

alarm_notes = Table(
    "alarm_notes",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("alarm", BigInteger, nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("author", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

alarms_opened = Index("alarms_opened", alarms.c.opened_ms, alarms.c.id)

_EVENT_KEY = (events.c.received_ms, events.c.device, events.c.boot, events.c.seq)
_OPENED_KEY = (alarms.c.opened_ms, alarms.c.id)
_RESOLVED_KEY = (alarms.c.resolved_ms, alarms.c.id)
_FIRING_KEY = (firings.c.at_ms, firings.c.key)


def create(connection: Connection) -> None:
    """The tables, and an index of alarms, in a store that lacks them."""
    metadata.create_all(connection, tables=[api_tokens, api_writes, alarm_notes])
    alarms_opened.create(connection)


class ApiRows(OverviewRows):
    """This part of ``transaction.SqlTransaction``."""

    _connection: Connection
    _insert: Any

    # -- tokens and writes -----------------------------------------------------------------

    def put_api_token(self, token: ApiToken) -> bool:
        statement = self._insert(api_tokens).values(vars(token)).on_conflict_do_nothing()
        made = self._connection.execute(statement.returning(api_tokens.c.id))
        return made.scalar_one_or_none() is not None

    def api_tokens(self) -> list[ApiToken]:
        order = (api_tokens.c.created_ms, api_tokens.c.id)
        return [
            _token(row._mapping)
            for row in self._connection.execute(select(api_tokens).order_by(*order))
        ]

    def api_token(self, id: str) -> ApiToken | None:
        found = self._connection.execute(
            select(api_tokens).where(api_tokens.c.id == id)
        ).one_or_none()
        return None if found is None else _token(found._mapping)

    def revoke_api_token(self, id: str, now_ms: int) -> bool:
        revoked = self._connection.execute(
            update(api_tokens)
            .where(api_tokens.c.id == id, api_tokens.c.revoked_ms.is_(None))
            .values(revoked_ms=now_ms)
            .returning(api_tokens.c.id)
        )
        return revoked.scalar_one_or_none() is not None

    def write_of(self, token: str, key: str) -> Write | None:
        row = self._connection.execute(
            select(api_writes).where(api_writes.c.token == token, api_writes.c.key == key)
        ).one_or_none()
        if row is None:
            return None
        return Write(**{**row._mapping, "request": bytes(row.request), "body": bytes(row.body)})

    def put_write(self, write: Write, *, forget_before_ms: int) -> bool:
        self._connection.execute(delete(api_writes).where(api_writes.c.at_ms < forget_before_ms))
        statement = self._insert(api_writes).values(vars(write)).on_conflict_do_nothing()
        made = self._connection.execute(statement.returning(api_writes.c.key))
        return made.scalar_one_or_none() is not None

    def add_note(self, note: Note) -> None:
        values = {**vars(note), "text": note.text.replace("\0", "")}
        del values["id"]
        self._connection.execute(insert(alarm_notes).values(values))

    def notes(self, alarms: Iterable[int]) -> list[Note]:
        found: list[Note] = []
        for some in _parts(sorted(set(alarms))):
            rows = self._connection.execute(
                select(alarm_notes).where(alarm_notes.c.alarm.in_(some)).order_by(alarm_notes.c.id)
            )
            found += [Note(**row._mapping) for row in rows]
        return found

    # -- pages -----------------------------------------------------------------------------

    def devices_after(self, device: str, limit: int) -> list[Device]:
        return self._devices(select(devices).where(devices.c.device > device).limit(limit))

    def devices_named(self, names: Sequence[str]) -> list[Device]:
        found: list[Device] = []
        for some in _parts(sorted(set(names))):
            found += self._devices(select(devices).where(devices.c.device.in_(some)))
        return found

    def _devices(self, statement: Select[Any]) -> list[Device]:
        """Of all their columns, which stand in the order of a Device's fields: by name they would
        take twice as long, a tenth of a second for 10,000 devices."""
        found = self._connection.execute(statement.order_by(devices.c.device))
        return [Device(*row) for row in found.all()]

    def countings(self, devices: Sequence[str]) -> list[Counting]:
        found: list[Counting] = []
        for some in _parts(list(devices)):
            found += self._countings(_counting().where(detectors.c.device.in_(some)))
        return found

    def all_countings(self) -> list[Counting]:
        return self._countings(_counting())

    def _countings(self, statement: Select[Any]) -> list[Counting]:
        order = (detectors.c.device, detectors.c.model, detectors.c.boot, detectors.c.seq)
        return [
            Counting(**{**row._mapping, "bundle": bytes(row.bundle).hex()})
            for row in self._connection.execute(statement.order_by(*order))
        ]

    def alarms_after(
        self, after: Key, limit: int, *, state: str = "all", device: str = "", model: str = ""
    ) -> list[Alarm]:
        statement = _page(select(alarms), _OPENED_KEY, after, newest_first=True)
        if state != "all":
            opened = alarms.c.resolved_ms.is_(None)
            statement = statement.where(opened if state == "open" else ~opened)
        if device:
            statement = statement.where(alarms.c.device == device)
        if model:
            statement = statement.where(alarms.c.model == model)
        return self._alarms(statement.limit(limit))

    def alarm(self, id: int) -> Alarm | None:
        found = self._alarms(select(alarms).where(alarms.c.id == id))
        return found[0] if found else None

    def alarms_on(self, devices: Sequence[str]) -> list[Alarm]:
        found: list[Alarm] = []
        for some in _parts(list(devices)):
            of_them = alarms.c.device.in_(some)
            found += self._alarms(select(alarms).where(of_them, alarms.c.resolved_ms.is_(None)))
        return found

    def open_under(self, alarms: Sequence[int]) -> Counter[int]:
        found: Counter[int] = Counter()
        of = tables.alarms.c
        for some in _parts(sorted(set(alarms))):
            rows = self._connection.execute(
                select(of.parent, func.count())
                .where(of.parent.in_(some), of.resolved_ms.is_(None))
                .group_by(of.parent)
            )
            found.update({int(parent): int(count) for parent, count in rows})
        return found

    def open_by_scope(self) -> dict[str, int]:
        rows = self._connection.execute(
            select(alarms.c.scope, func.count())
            .where(alarms.c.resolved_ms.is_(None))
            .group_by(alarms.c.scope)
        )
        return {scope: int(count) for scope, count in rows}

    def events_before(
        self, before: Key, limit: int, *, device: str = "", kind: str = ""
    ) -> list[EventSeen]:
        statement = _page(select(events), _EVENT_KEY, before, newest_first=True)
        if device:
            statement = statement.where(events.c.device == device)
        if kind:
            statement = statement.where(events.c.kind == kind)
        return self._events(statement.limit(limit))

    def firings_before(self, before: Key, limit: int, *, trigger: str = "") -> list[Firing]:
        statement = _page(select(firings), _FIRING_KEY, before, newest_first=True)
        if trigger:
            statement = statement.where(firings.c.trigger == trigger)
        return [firing_of(row) for row in self._connection.execute(statement.limit(limit))]

    def bundles(self) -> list[BundleTotals]:
        newest = func.max(detectors.c.updated_ms)
        rows = self._connection.execute(
            select(
                detectors.c.bundle, func.min(detectors.c.model), func.min(detectors.c.version),
                func.count(), func.sum(detectors.c.windows), func.sum(detectors.c.rows), newest,
            )
            .group_by(detectors.c.bundle)
            .order_by(newest.desc(), detectors.c.bundle)
        )  # fmt: skip
        return [
            BundleTotals(bytes(row[0]).hex(), row[1], row[2], *(int(each) for each in row[3:]))
            for row in rows
        ]

    # -- what is new -----------------------------------------------------------------------

    def new_events(self, after: Key, until_ms: int, limit: int) -> list[EventSeen]:
        statement = _page(select(events), _EVENT_KEY, after, newest_first=False)
        return self._events(statement.where(events.c.received_ms <= until_ms).limit(limit))

    def new_alarms(self, after: Key, until_ms: int, limit: int) -> list[Alarm]:
        statement = _page(select(alarms), _OPENED_KEY, after, newest_first=False)
        return self._alarms(statement.where(alarms.c.opened_ms <= until_ms).limit(limit))

    def new_resolved(self, after: Key, until_ms: int, limit: int) -> list[Alarm]:
        statement = _page(select(alarms), _RESOLVED_KEY, after, newest_first=False)
        return self._alarms(statement.where(alarms.c.resolved_ms <= until_ms).limit(limit))

    def _events(self, statement: Select[Any]) -> list[EventSeen]:
        return [EventSeen(**row._mapping) for row in self._connection.execute(statement)]

    def _alarms(self, statement: Select[Any]) -> list[Alarm]:
        return [
            Alarm(**{**row._mapping, "bundle": bytes(row.bundle).hex(),
                     "explanation": bytes(row.explanation)})
            for row in self._connection.execute(statement)
        ]  # fmt: skip


def _page(
    statement: Select[Any], columns: Sequence[Column[Any]], key: Key, *, newest_first: bool
) -> Select[Any]:
    """In the order of ``columns``, what comes after ``key``; both by the database's own order."""
    if key:
        place, here = tuple_(*columns), tuple_(*map(literal, key))
        statement = statement.where(place < here if newest_first else place > here)
    return statement.order_by(*(each.desc() if newest_first else each for each in columns))


def _counting() -> Select[Any]:
    return select(
        detectors.c.device, detectors.c.bundle, detectors.c.model, detectors.c.version,
        detectors.c.windows, detectors.c.rows, detectors.c.boot, detectors.c.seq,
    )  # fmt: skip


def _token(values: Any) -> ApiToken:
    return ApiToken(**{**values, "sha256": bytes(values["sha256"])})


def _parts(values: list[Any]) -> Iterable[list[Any]]:
    for at in range(0, len(values), _IN_MAX):
        yield values[at : at + _IN_MAX]

"""What a transaction of the SQL store can do; see ``base.Transaction`` for the promises.

The statements are the same for SQLite and PostgreSQL: both know ``ON CONFLICT`` and
``RETURNING``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    and_,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from edge_fleet.store.api_rows import ApiRows
from edge_fleet.store.audit_rows import AuditRows
from edge_fleet.store.base import (
    Alarm,
    AsideKind,
    AsideSeen,
    Counted,
    Detector,
    Device,
    EventSeen,
    Fault,
    FaultCount,
    ReportSeen,
    StatusSeen,
    Totals,
    Unknown,
    Window,
)
from edge_fleet.store.copying import (
    SEEN,
    copied,
    devices_from_arrays,
    find_detectors,
    marked,
    put_detectors,
)
from edge_fleet.store.firing_rows import FiringRows
from edge_fleet.store.group_rows import GroupRows
from edge_fleet.store.retention_rows import RetentionRows
from edge_fleet.store.rollout_rows import RolloutRows
from edge_fleet.store.rollups import Kept, Key
from edge_fleet.store.sharing_rows import SharingRows
from edge_fleet.store.state_rows import StateRows
from edge_fleet.store.states import ClockSeen
from edge_fleet.store.tables import (
    alarms,
    asides,
    blobs,
    detectors,
    devices,
    events,
    faults,
    not_counted,
    sums,
    windows,
)
from edge_fleet.store.trend_rows import TrendRows
from edge_fleet.windows import window_of

DETAIL_MAX_CHARS = 500
_IN_MAX = 400
"""Values in one statement; SQLite takes 32,766, an older one 999."""
_ROWS_AT_ONCE = 500


class SqlTransaction(
    ApiRows,
    AuditRows,
    FiringRows,
    GroupRows,
    RetentionRows,
    RolloutRows,
    SharingRows,
    StateRows,
    TrendRows,
):
    """One open transaction on ``connection``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        self._insert: Any = dialect.insert

    # -- windows ---------------------------------------------------------------------------

    def add_windows(
        self, new: Sequence[Window], counted: Collection[str] = (), beside: Collection[str] = ()
    ) -> list[Window]:
        fresh = self._keep_windows(new, counted) if new else []
        if beside:
            self.hold_devices({*beside, *(window.device for window in fresh)})
        self._count_devices(fresh)
        return fresh

    def _keep_windows(self, new: Sequence[Window], counted: Collection[str]) -> list[Window]:
        by_key: dict[Key, Window] = {}
        for window in new:
            by_key.setdefault(window.key, window)
        given = [
            (one, int(Counted.YES if one.bundle in counted else Counted.PENDING))
            for one in by_key.values()
        ]
        if self._connection.dialect.name == "postgresql":
            kept = copied(self._connection, given)
        else:
            kept = self._inserted(given)
        kept -= self._take_back(kept)
        return [window for key, window in by_key.items() if key in kept]

    def _inserted(self, given: Sequence[tuple[Window, int]]) -> set[Key]:
        statement = (
            self._insert(windows)
            .on_conflict_do_nothing()
            .returning(windows.c.device, windows.c.boot, windows.c.seq)
        )
        rows = [
            {
                "device": window.device,
                "boot": window.boot,
                "seq": window.seq,
                "bundle": bytes.fromhex(window.bundle),
                "counted": counted,
                "received_ms": window.received_ms,
                "record": window.record,
            }
            for window, counted in given
        ]
        return {
            (row.device, row.boot, row.seq) for row in self._connection.execute(statement, rows)
        }

    def _take_back(self, kept: set[Key]) -> set[Key]:
        """Delete those whose window is a part of a sum; returns their keys.

        Only now, after the insertion: in PostgreSQL that waited for whoever was taking a window
        of the same key out, whose range can be seen from here on.
        """
        rolled = self.rolled(kept)
        for some in _parts(sorted(rolled)):
            key = tuple_(windows.c.device, windows.c.boot, windows.c.seq)
            self._connection.execute(delete(windows).where(key.in_(some)))
        return rolled

    def _count_devices(self, fresh: Sequence[Window]) -> None:
        by_device: dict[str, list[Window]] = {}
        for window in fresh:
            by_device.setdefault(window.device, []).append(window)
        rows: list[dict[str, Any]] = []
        for device, seen in sorted(by_device.items()):  # the order in which all take hold of rows
            last = max(seen, key=lambda window: (window.boot, window.seq))
            rows.append(
                {
                    "device": device,
                    "seen_ms": max(window.received_ms for window in seen),
                    "windows": len(seen),
                    "rows": sum(window.rows for window in seen),
                    "dropped": last.dropped,
                    "lag_ms": last.received_ms - last.end_ms if last.synchronised else 0,
                    "window_ms": last.end_ms - last.start_ms,
                }
            )
        if not rows:
            return
        statement: Any = self._insert(devices)
        values: Any = rows
        if self._connection.dialect.name == "postgresql":
            statement, values = devices_from_arrays(), {n: [row[n] for row in rows] for n in SEEN}
        new, old = statement.excluded, devices.c
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[old.device],
                set_={
                    "seen_ms": new.seen_ms,
                    "windows": old.windows + new.windows,
                    "rows": old.rows + new.rows,
                    "dropped": new.dropped,
                    "lag_ms": new.lag_ms,
                    "window_ms": new.window_ms,
                },
            ),
            values,
        )

    def same_record(self, window: Window) -> bool:
        kept = self._connection.execute(
            select(windows.c.record).where(_key_is(window.key))
        ).scalar_one_or_none()
        return kept is not None and bytes(kept) == window.record

    def mark(self, keys: Iterable[Key], counted: Counted) -> None:
        wanted = list(keys)
        if wanted and self._connection.dialect.name == "postgresql":
            marked(self._connection, wanted, int(counted))
            return
        for some in _parts(wanted):
            key = tuple_(windows.c.device, windows.c.boot, windows.c.seq)
            self._connection.execute(
                update(windows).where(key.in_(some)).values(counted=int(counted))
            )

    def pending(self, bundle: str, limit: int) -> list[Window]:
        order = (windows.c.device, windows.c.boot, windows.c.seq)
        return self._windows(
            select(windows)
            .where(
                not_counted,
                windows.c.counted == Counted.PENDING,
                windows.c.bundle == bytes.fromhex(bundle),
            )
            .order_by(*order)
            .limit(limit)
        )

    def waiting(self, bundle: str) -> int:
        return int(
            self._connection.execute(
                select(func.count()).where(
                    not_counted,
                    windows.c.counted == Counted.PENDING,
                    windows.c.bundle == bytes.fromhex(bundle),
                )
            ).scalar_one()
        )

    def pending_bundles(self, limit: int) -> list[Unknown]:
        found = self._connection.execute(
            select(
                windows.c.bundle,
                func.count(),
                func.count(windows.c.device.distinct()),
                func.max(windows.c.received_ms),
            )
            .where(not_counted, windows.c.counted == Counted.PENDING)
            .group_by(windows.c.bundle)
            .order_by(func.max(windows.c.received_ms).desc())
            .limit(limit)
        ).all()
        return [self._unknown(bytes(row[0]).hex(), row[1], row[2]) for row in found]

    def _unknown(self, bundle: str, count: int, device_count: int) -> Unknown:
        example = self.pending(bundle, 1)[0]
        return Unknown(bundle, example.model, example.version, count, device_count)

    def history(self, device: str, bundle: str, until: tuple[int, int], limit: int) -> list[Kept]:
        of_bundle = bytes.fromhex(bundle)

        def up_to(table: Any) -> Any:
            key = tuple_(table.c.boot, table.c.seq)
            same = and_(table.c.device == device, table.c.bundle == of_bundle)
            return and_(same, key <= tuple_(*map(literal, until)))

        alone = select(
            windows.c.boot, windows.c.seq, windows.c.received_ms, literal(1).label("windows"),
            windows.c.record,
        ).where(up_to(windows), windows.c.counted == Counted.YES)  # fmt: skip
        merged = select(
            sums.c.boot, sums.c.seq, sums.c.received_ms, sums.c.windows, sums.c.record
        ).where(up_to(sums))
        both = union_all(alone, merged)  # in one statement: see ``counted_since``
        newest = both.order_by(text("boot DESC"), text("seq DESC")).limit(limit)
        found = [
            Kept(device, row.received_ms, row.windows, bytes(row.record))
            for row in self._connection.execute(newest)
        ]
        return found[::-1]

    def counted_since(
        self, bundle: str, since_ms: int, at_once: int, devices: Sequence[str] = ()
    ) -> Iterator[list[Kept]]:
        of_bundle = bytes.fromhex(bundle)
        alone = select(
            windows.c.device, windows.c.received_ms, literal(1).label("windows"), windows.c.record
        ).where(
            windows.c.bundle == of_bundle,
            windows.c.counted == Counted.YES,
            windows.c.received_ms >= since_ms,
        )
        merged = select(sums.c.device, sums.c.received_ms, sums.c.windows, sums.c.record).where(
            sums.c.bundle == of_bundle, sums.c.received_ms >= since_ms
        )
        if devices:
            alone = alone.where(windows.c.device.in_(devices))
            merged = merged.where(sums.c.device.in_(devices))
        # One statement sees one state: no window by itself and again in an hour made meanwhile.
        both = union_all(alone, merged).execution_options(yield_per=at_once)
        for rows in self._connection.execute(both).partitions():
            yield [
                Kept(row.device, row.received_ms, row.windows, bytes(row.record)) for row in rows
            ]

    def records(self, *, device: str = "", since_ms: int = 0) -> Iterator[Window]:
        found = select(windows.c.record, windows.c.received_ms)
        if device:
            found = found.where(windows.c.device == device)
        newest = found.where(windows.c.received_ms >= since_ms).order_by(
            windows.c.received_ms.desc(), windows.c.boot.desc(), windows.c.seq.desc()
        )
        for row in self._connection.execute(newest.execution_options(yield_per=1_000)):
            yield window_of(bytes(row.record), row.received_ms)

    def _windows(self, statement: Select[Any]) -> list[Window]:
        return [
            window_of(bytes(row.record), row.received_ms)
            for row in self._connection.execute(statement)
        ]

    # -- devices ---------------------------------------------------------------------------

    def status(self, seen: StatusSeen) -> None:
        known = self._device(seen.device)
        if not seen.online and known is not None and known.boot != seen.boot:
            return  # the last will of a boot that is over
        seen_ms = 0 if seen.retained else seen.received_ms
        self._put_device(
            seen.device,
            {"online": seen.online, "boot": seen.boot, "agent": seen.agent,
             "status_ms": seen.received_ms},
            seen_ms if seen.online else 0,
        )  # fmt: skip

    def report(self, seen: ReportSeen) -> None:
        self._put_device(
            seen.device,
            {"reported": seen.reported, "reported_ms": seen.received_ms},
            0 if seen.retained else seen.received_ms,
        )
        if seen.at_ms and not seen.retained:
            ahead_ms = seen.at_ms - seen.received_ms
            self.note_clock(ClockSeen(seen.device, ahead_ms, seen.received_ms))

    def _device(self, device: str) -> Row[Any] | None:
        return self._connection.execute(
            select(devices).where(devices.c.device == device)
        ).one_or_none()

    def _put_device(self, device: str, values: dict[str, Any], seen_ms: int) -> None:
        if seen_ms:
            values = {**values, "seen_ms": seen_ms}
        self._connection.execute(
            self._insert(devices)
            .values(device=device, **values)
            .on_conflict_do_update(index_elements=[devices.c.device], set_=values)
        )

    def devices(self) -> list[Device]:
        return self._devices(select(devices))

    # -- events and faults -----------------------------------------------------------------

    def add_events(self, new: Sequence[EventSeen]) -> None:
        if not new:
            return
        self._connection.execute(
            self._insert(events).on_conflict_do_nothing(), [vars(event) for event in new]
        )
        latest = {event.device: event.received_ms for event in new}
        for device, received_ms in latest.items():
            self._put_device(device, {}, received_ms)

    def events(self, limit: int) -> list[EventSeen]:
        found = self._connection.execute(
            select(events).order_by(events.c.received_ms.desc(), events.c.seq.desc()).limit(limit)
        )
        return [EventSeen(**row._mapping) for row in found]

    # -- records beside the windows --------------------------------------------------------

    def add_asides(self, new: Sequence[AsideSeen]) -> list[AsideSeen]:
        if not new:
            return []
        by_key: dict[Key, AsideSeen] = {}
        for each in new:
            by_key.setdefault((each.device, each.boot, each.seq), each)
        rows = [{**vars(each), "bundle": bytes.fromhex(each.bundle)} for each in by_key.values()]
        statement = (
            self._insert(asides)
            .on_conflict_do_nothing()
            .returning(asides.c.device, asides.c.boot, asides.c.seq)
        )
        kept: set[Key] = {tuple(row) for row in self._connection.execute(statement, rows)}
        kept -= self._take_asides_back(kept)
        latest = {each.device: each.received_ms for each in new}
        for device, received_ms in latest.items():
            self._put_device(device, {}, received_ms)
        return [each for key, each in by_key.items() if key in kept]

    def asides(self, kind: AsideKind, since_ms: int = 0) -> Iterator[AsideSeen]:
        found = self._connection.execute(
            select(asides)
            .where(asides.c.kind == int(kind), asides.c.received_ms >= since_ms)
            .order_by(asides.c.device, asides.c.boot, asides.c.seq)
        )
        for row in found:
            values = {**row._mapping, "kind": AsideKind(row.kind)}
            values |= {"bundle": bytes(row.bundle).hex(), "record": bytes(row.record)}
            yield AsideSeen(**values)

    def add_faults(self, new: Sequence[Fault]) -> None:
        if not new:
            return
        counts = Counter((fault.device, fault.kind) for fault in new)
        newest = {(fault.device, fault.kind): fault for fault in new}
        rows = [
            {
                "device": device,
                "kind": kind,
                "count": counts[device, kind],
                "first_ms": fault.received_ms,
                "last_ms": fault.received_ms,
                "detail": fault.detail.replace("\0", "")[:DETAIL_MAX_CHARS],
            }
            for (device, kind), fault in sorted(newest.items(), key=lambda item: item[0])
        ]
        statement = self._insert(faults)
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[faults.c.device, faults.c.kind],
                set_={
                    "count": faults.c["count"] + statement.excluded["count"],
                    "last_ms": statement.excluded.last_ms,
                    "detail": statement.excluded.detail,
                },
            ),
            rows,
        )

    def faults(self) -> list[FaultCount]:
        found = self._connection.execute(select(faults).order_by(faults.c.device, faults.c.kind))
        return [FaultCount(**row._mapping) for row in found]

    # -- evidence --------------------------------------------------------------------------

    def detectors(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Detector]:
        found: list[Row[Any]] = []
        wanted = [(device, bytes.fromhex(bundle)) for device, bundle in keys]
        if wanted and self._connection.dialect.name == "postgresql":
            found = find_detectors(self._connection, wanted)
            wanted = []
        for some in _parts(wanted):
            key = tuple_(detectors.c.device, detectors.c.bundle)
            found += self._connection.execute(select(detectors).where(key.in_(some)))
        return {(one.device, one.bundle): one for one in map(_detector, found)}

    def put_detectors(self, changed: Sequence[Detector]) -> None:
        if not changed:
            return
        if self._connection.dialect.name == "postgresql":
            put_detectors(self._connection, changed)
            return
        rows = [{**vars(one), "bundle": bytes.fromhex(one.bundle)} for one in changed]
        statement = self._insert(detectors)
        fresh = ("state", "monitors", "windows", "rows", "boot", "seq", "updated_ms")
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[detectors.c.device, detectors.c.bundle],
                set_={name: statement.excluded[name] for name in fresh},
            ),
            rows,
        )

    def all_detectors(self) -> list[Detector]:
        order = (detectors.c.device, detectors.c.model, detectors.c.boot, detectors.c.seq)
        return [
            _detector(row) for row in self._connection.execute(select(detectors).order_by(*order))
        ]

    def streams(self, since_ms: int) -> int:
        total = self._connection.execute(
            select(func.sum(detectors.c.monitors)).where(detectors.c.updated_ms >= since_ms)
        ).scalar_one()
        return int(total or 0)

    def add_alarm(self, alarm: Alarm) -> int:
        values = {**vars(alarm), "bundle": bytes.fromhex(alarm.bundle)}
        del values["id"]
        return int(
            self._connection.execute(
                insert(alarms).values(values).returning(alarms.c.id)
            ).scalar_one()
        )

    def resolved(self, ids: Iterable[int]) -> set[int]:
        asked = set(ids)
        still_open: set[int] = set()
        for some in _parts(sorted(asked)):
            still_open |= set(
                self._connection.execute(
                    select(alarms.c.id).where(alarms.c.id.in_(some), alarms.c.resolved_ms.is_(None))
                ).scalars()
            )
        return asked - still_open

    def resolve(self, ids: Sequence[int], now_ms: int, comment: str) -> list[int]:
        closed: list[int] = []
        comment = comment.replace("\0", "")  # which PostgreSQL's text cannot hold
        for some in _parts(sorted(set(ids))):
            closed += self._connection.execute(
                update(alarms)
                .where(alarms.c.id.in_(some), alarms.c.resolved_ms.is_(None))
                .values(resolved_ms=now_ms, comment=comment)
                .returning(alarms.c.id)
            ).scalars()
        return sorted(closed)

    def alarms(self, *, open_only: bool) -> list[Alarm]:
        statement = select(alarms).order_by(alarms.c.opened_ms.desc(), alarms.c.id.desc())
        if open_only:
            statement = statement.where(alarms.c.resolved_ms.is_(None))
        return self._alarms(statement)

    def open_events(self, bundle: str, monitor: int) -> list[Alarm]:
        return self._alarms(
            select(alarms).where(
                alarms.c.resolved_ms.is_(None),
                alarms.c.scope != "device",
                alarms.c.bundle == bytes.fromhex(bundle),
                alarms.c.monitor == monitor,
            )
        )

    def _alarms(self, statement: Select[Any]) -> list[Alarm]:
        return [
            Alarm(**{**row._mapping, "bundle": bytes(row.bundle).hex(),
                     "explanation": bytes(row.explanation)})
            for row in self._connection.execute(statement)
        ]  # fmt: skip

    # -- the whole -------------------------------------------------------------------------

    def totals(self) -> Totals:
        def one(statement: Select[Any]) -> int:
            return int(self._connection.execute(statement).scalar_one() or 0)

        def counted(as_what: Counted) -> Select[Any]:
            return (
                select(func.count())
                .select_from(windows)
                .where(not_counted, windows.c.counted == as_what)
            )

        sums = func.sum(devices.c.windows), func.sum(devices.c.rows), func.max(devices.c.seen_ms)
        known = self._connection.execute(select(func.count(), *sums).select_from(devices)).one()
        return Totals(
            devices=known[0],
            windows=int(known[1] or 0),
            rows=int(known[2] or 0),
            newest_ms=int(known[3] or 0),
            pending=one(counted(Counted.PENDING)),
            refused=one(counted(Counted.REFUSED)),
            open_alarms=one(
                select(func.count()).select_from(alarms).where(alarms.c.resolved_ms.is_(None))
            ),
            faults=one(select(func.sum(faults.c["count"]))),
        )

    def put_blob(self, sha256: str, data: bytes, now_ms: int) -> None:
        self._connection.execute(
            self._insert(blobs)
            .values(sha256=bytes.fromhex(sha256), data=data, stored_ms=now_ms)
            .on_conflict_do_nothing()
        )

    def blob(self, sha256: str) -> bytes | None:
        data = self._connection.execute(
            select(blobs.c.data).where(blobs.c.sha256 == bytes.fromhex(sha256))
        ).scalar_one_or_none()
        return None if data is None else bytes(data)


def _detector(row: Row[Any]) -> Detector:
    detector = Detector(**{**row._mapping, "bundle": bytes(row.bundle).hex()})
    return replace(detector, state=bytes(row.state))


def _key_is(key: Key) -> Any:
    device, boot, seq = key
    return and_(windows.c.device == device, windows.c.boot == boot, windows.c.seq == seq)


def _parts(values: list[Any]) -> Iterable[list[Any]]:
    for at in range(0, len(values), _IN_MAX):
        yield values[at : at + _IN_MAX]

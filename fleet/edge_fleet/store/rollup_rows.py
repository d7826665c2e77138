"""Hours and days in SQL; see ``store.rollups`` for the promises.

The keys of windows that were taken out are kept as ranges of sequence numbers: a device that
misses none takes one row a boot, however long it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, func, literal, select, tuple_

from edge_contract.errors import MachineFault
from edge_fleet.store import copying
from edge_fleet.store.rollups import Kept, Key, Old, Span, Sum
from edge_fleet.store.tables import asides, detectors, not_counted, rolled, sums, windows

HIGHEST = -1
"""``first`` of the row whose ``last`` is the highest number of its boot: windows above it, nearly
all that ever come, are known to be new by one look."""
_IN_MAX = 400
_REFUSED = 2
_COUNTED = 1

_Range = tuple[int, int]


class RollupRows:
    """This part of ``transaction.SqlTransaction``."""

    _connection: Connection
    _insert: Any

    def bundles_counted(self) -> list[str]:
        found = self._connection.execute(select(detectors.c.bundle).distinct()).scalars()
        return sorted(bytes(bundle).hex() for bundle in found)

    def old_windows(self, bundle: str, before_ms: int) -> Old:
        where = _counted_windows(bundle, 0, before_ms)
        return self._old(
            where,
            func.sum(func.length(windows.c.record)),
            (windows.c.device, windows.c.received_ms // literal(Span.HOUR.ms)),
        )

    def old_hours(self, bundle: str, before_ms: int) -> Old:
        return self._old(
            _hours_in(bundle, 0, before_ms),
            func.sum(func.length(sums.c.record)),
            (sums.c.device, sums.c.start_ms // literal(Span.DAY.ms)),
        )

    def _old(self, where: Any, size: Any, group: tuple[Any, ...]) -> Old:
        rows, size_bytes = self._connection.execute(select(func.count(), size).where(where)).one()
        groups = select(*group).where(where).distinct().subquery()
        made = self._connection.execute(select(func.count()).select_from(groups)).scalar_one()
        return Old(int(rows), int(size_bytes or 0), int(made))

    def oldest_window(self, bundle: str, before_ms: int) -> int | None:
        return self._first(
            select(windows.c.received_ms)
            .where(_counted_windows(bundle, 0, before_ms))
            .order_by(windows.c.received_ms)
        )

    def oldest_hour(self, bundle: str, before_ms: int) -> int | None:
        return self._first(
            select(sums.c.start_ms).where(_hours_in(bundle, 0, before_ms)).order_by(sums.c.start_ms)
        )

    def _first(self, statement: Select[Any]) -> int | None:
        found = self._connection.execute(statement.limit(1)).scalar_one_or_none()
        return None if found is None else int(found)

    def window_keys(self, bundle: str, from_ms: int, to_ms: int, limit: int) -> list[Key]:
        key = (windows.c.device, windows.c.boot, windows.c.seq)
        found = self._connection.execute(
            select(*key).where(_counted_windows(bundle, from_ms, to_ms)).order_by(*key).limit(limit)
        )
        return [(row.device, row.boot, row.seq) for row in found]

    def windows_at(self, keys: Sequence[Key]) -> list[Kept]:
        found: list[Kept] = []
        for some in _parts(list(keys)):
            key = tuple_(windows.c.device, windows.c.boot, windows.c.seq)
            for row in self._connection.execute(select(windows).where(key.in_(some))):
                found.append(Kept(row.device, row.received_ms, 1, bytes(row.record)))
        return found

    def hours(self, bundle: str, from_ms: int, to_ms: int, limit: int) -> list[Sum]:
        found = self._connection.execute(
            select(sums)
            .where(_hours_in(bundle, from_ms, to_ms))
            .order_by(sums.c.device, sums.c.start_ms)
            .limit(limit)
        )
        return [_sum(row) for row in found]

    def sums_at(self, bundle: str, span: Span, start_ms: int, devices: Sequence[str]) -> list[Sum]:
        found: list[Sum] = []
        for some in _parts(sorted(set(devices))):
            statement = select(sums).where(
                sums.c.device.in_(some),
                sums.c.bundle == bytes.fromhex(bundle),
                sums.c.span == int(span),
                sums.c.start_ms == start_ms,
            )
            found += [_sum(row) for row in self._connection.execute(statement)]
        return found

    def put_sums(self, new: Sequence[Sum]) -> None:
        if not new:
            return
        rows = [
            {**vars(one), "bundle": bytes.fromhex(one.bundle), "span": int(one.span)} for one in new
        ]
        statement = self._insert(sums)
        grown = ("boot", "seq", "received_ms", "windows", "record")
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=list(sums.primary_key),
                set_={name: statement.excluded[name] for name in grown},
            ),
            rows,
        )

    def roll_windows(self, keys: Sequence[Key]) -> None:
        self._delete(windows, (windows.c.device, windows.c.boot, windows.c.seq), list(keys))
        self._remember_all(keys)

    def _remember_all(self, keys: Sequence[Key]) -> None:
        """Add keys that were taken out to the ranges of their boots."""
        by_boot: dict[tuple[str, int], list[int]] = {}
        for device, boot, seq in keys:
            by_boot.setdefault((device, boot), []).append(seq)
        for (device, boot), seqs in by_boot.items():
            self._remember(device, boot, sorted(seqs))

    def _remember(self, device: str, boot: int, seqs: list[int]) -> None:
        """Add ``seqs`` to the ranges of a boot, grown together where they touch."""
        whose = and_(rolled.c.device == device, rolled.c.boot == boot)
        touching = and_(rolled.c.first <= seqs[-1] + 1, rolled.c.last >= seqs[0] - 1)
        near = and_(whose, rolled.c.first >= 0, touching)
        kept = self._connection.execute(select(rolled.c.first, rolled.c.last).where(near)).all()
        ranges = [(row.first, row.last) for row in kept] + [(seq, seq) for seq in seqs]
        gaps = len(seqs) <= seqs[-1] - seqs[0]
        between = self._aside_seqs(device, boot, seqs[0], seqs[-1]) if gaps else []
        self._connection.execute(delete(rolled).where(near))
        self._connection.execute(
            self._insert(rolled),
            [
                {"device": device, "boot": boot, "first": first, "last": last}
                for first, last in _grown(ranges, between)
            ],
        )
        values = {"device": device, "boot": boot, "first": HIGHEST, "last": seqs[-1]}
        statement = self._insert(rolled).values(values)
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=list(rolled.primary_key),
                set_={"last": statement.excluded.last},
                where=rolled.c.last < statement.excluded.last,
            )
        )

    def _aside_seqs(self, device: str, boot: int, first: int, last: int) -> list[int]:
        """Numbers that no window can have: records beside the windows have them."""
        found = self._connection.execute(
            select(asides.c.seq).where(
                asides.c.device == device, asides.c.boot == boot, asides.c.seq.between(first, last)
            )
        )
        return [int(seq) for seq in found.scalars()]

    def drop_hours(self, hours: Sequence[Sum]) -> None:
        key = (sums.c.device, sums.c.bundle, sums.c.model, sums.c.span, sums.c.start_ms)
        self._delete(
            sums,
            key,
            [(s.device, bytes.fromhex(s.bundle), s.model, int(s.span), s.start_ms) for s in hours],
        )

    def _delete(self, table: Any, columns: tuple[Any, ...], keys: list[Any]) -> None:
        gone = 0
        for some in _parts(keys):
            statement = delete(table).where(tuple_(*columns).in_(some))
            gone += self._connection.execute(statement).rowcount
        if gone != len(keys):
            raise MachineFault(
                f"{len(keys) - gone} of {len(keys)} rows of {table.name} were gone already",
                advice="Something else changes this database; nothing was merged. Run it again.",
            )

    def old_refused(self, before_ms: int, limit: int) -> list[Key]:
        key = (windows.c.device, windows.c.boot, windows.c.seq)
        found = self._connection.execute(
            select(*key)
            .where(not_counted, windows.c.counted == _REFUSED, windows.c.received_ms < before_ms)
            .order_by(*key)
            .limit(limit)
        )
        return [(row.device, row.boot, row.seq) for row in found]

    def rolled(self, keys: Iterable[Key]) -> set[Key]:
        wanted = list(keys)
        highest = self._highest(sorted({(device, boot) for device, boot, _ in wanted}))
        return {
            (device, boot, seq)
            for device, boot, seq in wanted
            if seq <= highest.get((device, boot), -1) and self._is_rolled(device, boot, seq)
        }

    def _highest(self, boots: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        if boots and self._connection.dialect.name == "postgresql":
            return copying.highest(self._connection, boots, HIGHEST)
        found: dict[tuple[str, int], int] = {}
        for some in _parts(boots):
            statement = select(rolled).where(
                tuple_(rolled.c.device, rolled.c.boot).in_(some), rolled.c.first == HIGHEST
            )
            for row in self._connection.execute(statement):
                found[row.device, row.boot] = row.last
        return found

    def _is_rolled(self, device: str, boot: int, seq: int) -> bool:
        last = self._connection.execute(
            select(rolled.c.last)
            .where(rolled.c.device == device, rolled.c.boot == boot, rolled.c.first.between(0, seq))
            .order_by(rolled.c.first.desc())
            .limit(1)
        ).scalar_one_or_none()
        return last is not None and last >= seq


def _counted_windows(bundle: str, from_ms: int, to_ms: int) -> Any:
    return and_(
        windows.c.bundle == bytes.fromhex(bundle),
        windows.c.counted == _COUNTED,
        windows.c.received_ms >= from_ms,
        windows.c.received_ms < to_ms,
    )


def _hours_in(bundle: str, from_ms: int, to_ms: int) -> Any:
    return and_(
        sums.c.bundle == bytes.fromhex(bundle),
        sums.c.span == int(Span.HOUR),
        sums.c.start_ms >= from_ms,
        sums.c.start_ms < to_ms,
    )


def _grown(ranges: Iterable[_Range], between: Iterable[int]) -> list[_Range]:
    """Ranges that touch made one; ``between`` fills gaps and is never a range of its own."""
    filled = set(between)
    grown: list[_Range] = []
    for first, last in sorted(ranges):
        if grown and all(seq in filled for seq in range(grown[-1][1] + 1, first)):
            grown[-1] = (grown[-1][0], max(grown[-1][1], last))
        else:
            grown.append((first, last))
    return grown


def _sum(row: Row[Any]) -> Sum:
    values = {**row._mapping, "bundle": bytes(row.bundle).hex(), "record": bytes(row.record)}
    return Sum(**{**values, "span": Span(row.span)})


def _parts(values: list[Any]) -> Iterable[list[Any]]:
    for at in range(0, len(values), _IN_MAX):
        yield values[at : at + _IN_MAX]

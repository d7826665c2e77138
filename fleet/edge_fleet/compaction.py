"""Old windows become hours, old hours days, and old events go: what a store of years is made of.

Guards: nothing is merged over devices, models or bundles; a window is taken out in the transaction
that puts its counts into a sum, so that whatever kills this, each is in the store once; a window
whose profile is unknown is never merged, and goes when windows by themselves do; a record of labels
or of a shadow that was taken out is remembered by its key, so that it is never bet on again;
transactions are short and leave as much time between them as they take, so that a collector on the
same database goes on. There is no place to resume from: what is still old is found anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from msgspec import Struct

from edge_contract.errors import EdgeError, InputFault
from edge_fleet import kept, merging
from edge_fleet.kept import Batch
from edge_fleet.library import Known, Library
from edge_fleet.store.base import AlreadyCompacting, Counted, Store, Transaction
from edge_fleet.store.rollups import Kept, Key, Span, Sum

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
KEYS_MAX = 100_000
"""Keys held in memory at once: 20 MB."""
AT_ONCE = 500
"""Keys taken out in one transaction."""
FIRST_S, EVERY_S = 60.0, 3600.0
TURN_S = 0.3
"""At most so long between two transactions, however long the last one took."""


@dataclass(frozen=True)
class Retention:
    """How long what is kept, in milliseconds; None: for ever. Days are never taken out.

    Attributes:
        raw_ms: windows by themselves, the bytes of refused ones, and windows whose profile never
            came. hours_ms: hours.
        events_ms: events. asides_ms: records of labels and of shadows.
    """

    raw_ms: int | None = 14 * DAY_MS
    hours_ms: int | None = 90 * DAY_MS
    events_ms: int | None = 366 * DAY_MS
    asides_ms: int | None = 366 * DAY_MS

    def raw_before(self, now_ms: int) -> int:
        """Windows that came before are old: a whole hour at a time."""
        return 0 if self.raw_ms is None else Span.HOUR.start_ms(now_ms - self.raw_ms)

    def hours_before(self, now_ms: int) -> int:
        """Hours that began before are old: a whole day at a time."""
        return 0 if self.hours_ms is None else Span.DAY.start_ms(now_ms - self.hours_ms)

    def events_before(self, now_ms: int) -> int:
        """Events that came before are taken out."""
        return 0 if self.events_ms is None else now_ms - self.events_ms

    def asides_before(self, now_ms: int) -> int:
        """Records of labels and of shadows that came before are taken out."""
        return 0 if self.asides_ms is None else now_ms - self.asides_ms


class Compacted(Struct, frozen=True):
    """What was, or would be, merged.

    Attributes:
        windows, hours: taken out. into_hours, into_days: sums that they went into.
        refused: windows that never fitted their profile, whose bytes were dropped.
        damaged: windows that cannot be read any more, or not be added, and count as refused.
        size_bytes: of the windows and hours that were taken out.
        events, asides: taken out; ``asides``: records of labels and of shadows.
        unknown: windows whose profile never came, taken out.
    """

    windows: int = 0
    into_hours: int = 0
    hours: int = 0
    into_days: int = 0
    refused: int = 0
    damaged: int = 0
    size_bytes: int = 0
    events: int = 0
    asides: int = 0
    unknown: int = 0

    def plus(self, other: Compacted) -> Compacted:
        """Both together."""
        return Compacted(*(getattr(self, n) + getattr(other, n) for n in self.__struct_fields__))


def plan(store: Store, retention: Retention, now_ms: int) -> Compacted:
    """What ``compact`` would find to do; a day may take up hours that do not exist yet."""
    total = Compacted()
    with store.reading() as tx:
        for bundle in tx.bundles_counted():
            windows = tx.old_windows(bundle, retention.raw_before(now_ms))
            hours = tx.old_hours(bundle, retention.hours_before(now_ms))
            total = total.plus(
                Compacted(
                    windows=windows.rows,
                    into_hours=windows.sums,
                    hours=hours.rows,
                    into_days=hours.sums,
                    size_bytes=windows.size_bytes + hours.size_bytes,
                )
            )
        refused = tx.old_refused(retention.raw_before(now_ms), KEYS_MAX)
        events = tx.old_events(retention.events_before(now_ms), KEYS_MAX)
        asides = tx.old_asides(retention.asides_before(now_ms), KEYS_MAX)
        unknown = _old_unknown(tx, Library(), retention.raw_before(now_ms), KEYS_MAX)
    return total.plus(
        Compacted(
            refused=len(refused), events=len(events), asides=len(asides), unknown=len(unknown)
        )
    )


def compact(
    store: Store,
    retention: Retention,
    now_ms: int,
    *,
    pause: Callable[[float], bool],
    on_step: Callable[[Compacted], None] = lambda _: None,
) -> Compacted:
    """Merge what is old, step by step.

    Args:
        pause: waits for so many seconds; True ends it here, between two transactions.
        on_step: told what each transaction did.

    Raises:
        AlreadyCompacting: another one does it.
        MachineFault: the store failed; the steps before stand.
    """
    total = Compacted()
    with store.compacting():
        for step in _steps(store, retention, now_ms):
            began_s = time.monotonic()
            done = step()
            total = total.plus(done)
            on_step(done)
            if pause(min(time.monotonic() - began_s, TURN_S)):
                break
    return total


def keep_compact(
    store: Store,
    retention: Retention,
    stop: threading.Event,
    *,
    clock_ms: Callable[[], int],
    first_s: float = FIRST_S,
    every_s: float = EVERY_S,
) -> None:
    """Compact again and again until ``stop`` is set; what fails is tried at the next turn."""
    pause_s = first_s
    while not stop.wait(pause_s):
        pause_s = every_s
        try:
            done = compact(store, retention, clock_ms(), pause=stop.wait)
        except AlreadyCompacting as error:
            log.info("%s", error.what)
        except EdgeError as error:
            log.warning("%s; windows stay as they are; again in %.0f s", error.what, every_s)
        except Exception:  # else this thread ends, and the store grows unseen
            log.exception("compaction failed; windows stay as they are; again in %.0f s", every_s)
        else:
            log.info(
                "merged %d windows into hours, %d hours into days; took out %d events and %d"
                " records of labels and shadows",
                done.windows, done.hours, done.events, done.asides,
            )  # fmt: skip
            if done.unknown:
                log.warning(
                    "took out %d windows whose profile never came: publish a bundle on this"
                    " fleet's broker, or `edge-fleet fetch` it, before its windows are old",
                    done.unknown,
                )


Step = Callable[[], Compacted]


def _steps(store: Store, retention: Retention, now_ms: int) -> Iterator[Step]:
    library = Library()
    with store.reading() as tx:
        found = [library.find(tx, bundle) for bundle in tx.bundles_counted()]
    for known in filter(None, found):
        yield from _window_steps(store, known, retention.raw_before(now_ms))
        yield from _hour_steps(store, known, retention.hours_before(now_ms))
    raw, events, asides = (
        before(now_ms)
        for before in (retention.raw_before, retention.events_before, retention.asides_before)
    )
    yield from _steps_out(store, lambda tx: tx.old_refused(raw, AT_ONCE), _drop_refused)
    yield from _steps_out(store, lambda tx: tx.old_events(events, AT_ONCE), _drop_events)
    yield from _steps_out(store, lambda tx: tx.old_asides(asides, AT_ONCE), _drop_asides)
    yield from _steps_out(store, lambda tx: _old_unknown(tx, library, raw, AT_ONCE), _drop_unknown)


def _window_steps(store: Store, known: Known, before_ms: int) -> Iterator[Step]:
    while True:
        with store.reading() as tx:
            oldest_ms = tx.oldest_window(known.bundle, before_ms)
            if oldest_ms is None:
                return
            start_ms = Span.HOUR.start_ms(oldest_ms)
            end_ms = start_ms + Span.HOUR.ms
            keys = tx.window_keys(known.bundle, start_ms, end_ms, KEYS_MAX)
        for some in _parts(keys, kept.at_once(known)):
            yield lambda some=some, start_ms=start_ms: _roll(store, known, some, start_ms)  # type: ignore[misc]


def _hour_steps(store: Store, known: Known, before_ms: int) -> Iterator[Step]:
    while True:
        with store.reading() as tx:
            oldest_ms = tx.oldest_hour(known.bundle, before_ms)
            if oldest_ms is None:
                return
            start_ms = Span.DAY.start_ms(oldest_ms)
            end_ms = start_ms + Span.DAY.ms
            hours = tx.hours(known.bundle, start_ms, end_ms, kept.at_once(known))
        yield lambda hours=hours, start_ms=start_ms: _roll_hours(store, known, hours, start_ms)  # type: ignore[misc]


def _steps_out(
    store: Store, old: Callable[[Transaction], list[Key]],
    drop: Callable[[Transaction, list[Key]], Compacted],
) -> Iterator[Step]:  # fmt: skip
    """One transaction after the other, until nothing is old any more."""

    def step(keys: list[Key]) -> Compacted:
        with store.transaction() as tx:
            return drop(tx, keys)

    while True:
        with store.reading() as tx:
            keys = old(tx)
        if not keys:
            return
        yield lambda keys=keys: step(keys)  # type: ignore[misc]


def _roll(store: Store, known: Known, keys: Sequence[Key], start_ms: int) -> Compacted:
    """Windows of one hour into their sums; reading and adding happen outside the writing."""
    with store.reading() as tx:
        windows = tx.windows_at(keys)
        there = tx.sums_at(known.bundle, Span.HOUR, start_ms, [device for device, _, _ in keys])
    some = kept.batch(known, kept.sound(known, windows))
    sums, new, apart = _summed(known, Span.HOUR, start_ms, some, there)
    good = {(r.device, r.boot, r.seq) for r in some.records if (r.device, r.model) not in apart}
    damaged = sorted(set(keys) - good)
    with store.transaction() as tx:
        tx.mark(damaged, Counted.REFUSED)
        tx.put_sums(sums)
        tx.roll_windows(sorted(good))
    for device, boot, seq in damaged:
        log.warning("the record of %r, boot %d seq %d, cannot be read or added", device, boot, seq)
    return Compacted(
        windows=len(good), into_hours=new, damaged=len(damaged), size_bytes=_size(some)
    )


def _roll_hours(store: Store, known: Known, hours: Sequence[Sum], start_ms: int) -> Compacted:
    devices = [hour.device for hour in hours]
    with store.reading() as tx:
        there = tx.sums_at(known.bundle, Span.DAY, start_ms, devices)
    some = kept.batch(known, [_kept(hour) for hour in hours])
    sums, new, apart = _summed(known, Span.DAY, start_ms, some, there)
    with store.transaction() as tx:
        tx.put_sums(sums)
        tx.drop_hours(hours)
    lost = [hour for hour in hours if hour.place in apart]
    for hour in lost:
        log.warning("an hour of %r cannot be added to its day: it is left out", hour.device)
    return Compacted(
        hours=len(hours) - len(lost), into_days=new, size_bytes=_size(some),
        damaged=sum(hour.windows for hour in lost),
    )  # fmt: skip


def _drop_refused(tx: Transaction, keys: list[Key]) -> Compacted:
    tx.roll_windows(keys)
    return Compacted(refused=len(keys))


def _drop_events(tx: Transaction, keys: list[Key]) -> Compacted:
    tx.drop_events(keys)
    return Compacted(events=len(keys))


def _drop_asides(tx: Transaction, keys: list[Key]) -> Compacted:
    tx.drop_asides(keys)
    return Compacted(asides=len(keys))


def _old_unknown(tx: Transaction, library: Library, before_ms: int, limit: int) -> list[Key]:
    known = [bundle for bundle in tx.waiting_bundles() if library.find(tx, bundle)]
    return tx.old_waiting(known, before_ms, limit)


def _drop_unknown(tx: Transaction, keys: list[Key]) -> Compacted:
    return Compacted(unknown=tx.drop_waiting(keys))


def _summed(
    known: Known, span: Span, start_ms: int, some: Batch, there: Sequence[Sum]
) -> tuple[list[Sum], int, set[tuple[str, str]]]:
    """``some``, and what is ``there`` already, by device and model; and how many sums are new.

    The last: of whom nothing could be added, for no record says so many rows; what is there stays.
    """
    members: dict[tuple[str, str], list[int]] = {}
    for at, record in enumerate(some.records):
        members.setdefault((record.device, record.model), []).append(at)
    grown = [one for one in there if one.place in members]
    everything = some
    if grown:
        everything = kept.batch(known, [*some.kept, *map(_kept, grown)])
    for at, one in enumerate(grown, start=len(some.kept)):
        members[one.place].append(at)
    sums, apart = [], set()
    for place, whose in members.items():
        try:
            sums.append(_sum(known, span, start_ms, everything, whose))
        except InputFault:
            apart.add(place)
    return sums, len({one.place for one in sums} - {one.place for one in grown}), apart


def _sum(known: Known, span: Span, start_ms: int, some: Batch, members: Sequence[int]) -> Sum:
    record = merging.merged(
        [some.records[at] for at in members],
        some.counts[members],
        [some.times_ms[at] for at in members],
        known.reference,
    )
    return Sum(
        device=record.device,
        bundle=known.bundle,
        model=record.model,
        span=span,
        start_ms=start_ms,
        boot=record.boot,
        seq=record.seq,
        received_ms=max(some.kept[at].received_ms for at in members),
        windows=sum(some.kept[at].windows for at in members),
        record=merging.encode(record),
    )


def _kept(one: Sum) -> Kept:
    return Kept(one.device, one.received_ms, one.windows, one.record)


def _size(some: Batch) -> int:
    return sum(len(one.record) for one in some.kept)


def _parts(keys: Sequence[Key], size: int) -> Iterator[Sequence[Key]]:
    for at in range(0, len(keys), size):
        yield keys[at : at + size]

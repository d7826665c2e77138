"""Events and records of labels go when they are old, and roll-up loses nothing that is counted."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from fleet_kit import Packed, draw, record
from msgspec.structs import replace
from typer.testing import CliRunner

from edge_contract import aside, manifest, telemetry
from edge_contract.errors import InputFault
from edge_contract.telemetry import Record, Resources, pack_counts
from edge_fleet import compaction, kept
from edge_fleet.cli import app
from edge_fleet.commands.compact import retention_of
from edge_fleet.compaction import Compacted, Retention
from edge_fleet.drift.budget import Budget
from edge_fleet.error_watch import ErrorWatch
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.store.base import AsideKind, AsideSeen, EventSeen
from edge_fleet.store.rollups import Span
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

HOUR, DAY = Span.HOUR.ms, Span.DAY.ms
START = 19_000 * DAY
RETENTION = Retention(2 * DAY, 10 * DAY, events_ms=30 * DAY, asides_ms=20 * DAY)


def compact(store: SqlStore, now_ms: int, retention: Retention = RETENTION) -> Compacted:
    return compaction.compact(store, retention, now_ms, pause=lambda _: False)


def learn(store: SqlStore, packed: Packed) -> None:
    entry = manifest.decode(packed.manifest_bytes).file(manifest.PROFILE_FILE)
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, 0)
        tx.put_blob(entry.sha256, packed.stored, 0)


# -- events, labels and shadows ----------------------------------------------------------------


def event(seq: int, at_ms: int) -> EventSeen:
    return EventSeen("pi-1", 1, seq, at_ms, "committed", "boiler", "1.0", "", at_ms)


def labels(packed: Packed, seq: int, at_ms: int, kind: AsideKind) -> AsideSeen:
    monitor = packed.profile.monitors[3]
    bins = len(monitor.edges) - 1
    counts = np.zeros((2, monitor.labels, bins), dtype=np.int64)
    counts[1, 1, -1] = 5
    made = aside.Labelled(
        device="pi-1", boot=1, seq=seq, model="boiler", version="1.0",
        bundle=bytes.fromhex(packed.digest), start_ms=at_ms, end_ms=at_ms, synchronised=True,
        kind="label", labels=monitor.labels, bins=bins, unit=1.0,
        counts=pack_counts(counts.reshape(-1)),
    )  # fmt: skip
    return AsideSeen("pi-1", 1, seq, kind, packed.digest, at_ms, aside.encode(made))


def left(store: SqlStore) -> tuple[list[int], list[int]]:
    """Numbers of the events, and of the records beside the windows, that are kept."""
    with store.reading() as tx:
        beside = [each.seq for kind in AsideKind for each in tx.asides(kind)]
        return sorted(e.seq for e in tx.events(10_000)), sorted(beside)


def test_events_labels_and_shadows_go_when_they_are_old(
    any_store: SqlStore, packed: Packed
) -> None:
    """One a day for 40 days; the numbers of events are their own."""
    kinds = list(AsideKind)
    with any_store.transaction() as tx:
        tx.add_events([event(day, START + day * DAY) for day in range(40)])
        tx.add_asides([labels(packed, day, START + day * DAY, kinds[day % 2]) for day in range(40)])
    now = START + 40 * DAY
    planned, done = compaction.plan(any_store, RETENTION, now), compact(any_store, now)
    assert (done.events, done.asides) == (planned.events, planned.asides) == (10, 20)
    assert left(any_store) == (list(range(10, 40)), list(range(20, 40)))
    assert compact(any_store, now) == Compacted()
    assert compact(any_store, now + 10_000 * DAY, Retention(None, None, None, None)) == Compacted()


def test_more_than_one_transaction_holds(store: SqlStore, packed: Packed) -> None:
    count = compaction.AT_ONCE + 7
    with store.transaction() as tx:
        tx.add_events([event(seq, START) for seq in range(count)])
        tx.add_asides([labels(packed, seq, START, AsideKind.LABELLED) for seq in range(count)])
    steps: list[Compacted] = []
    done = compaction.compact(
        store, RETENTION, START + 99 * DAY, pause=lambda _: False, on_step=steps.append
    )
    assert (done.events, done.asides, len(steps)) == (count, count, 4)
    assert left(store) == ([], [])


def test_labels_that_come_again_after_that_are_not_bet_on_again(
    any_store: SqlStore, packed: Packed
) -> None:
    learn(any_store, packed)
    seen = [labels(packed, seq, START, AsideKind.LABELLED) for seq in (1, 2, 5)]

    def come(some: list[AsideSeen]) -> list[int]:
        with any_store.transaction() as tx:
            fresh = tx.add_asides(some)
            ErrorWatch(Library(), Budget()).count(tx, fresh, START)
        return [each.seq for each in fresh]

    assert come(seen) == [1, 2, 5]
    compact(any_store, START + 30 * DAY)
    assert come(seen) == []
    other = labels(packed, 3, START, AsideKind.LABELLED)
    assert come([*seen, other]) == [3], "a number between them that never came is new"
    assert left(any_store)[1] == [3]


def test_windows_beside_labels_that_went_are_known_all_the_same(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """Even numbers are windows, odd ones labels, which are kept shorter than the windows."""
    learn(any_store, packed)
    made = [record(packed, packed.counts(draw(rng, 9)), seq=seq) for seq in range(0, 12, 2)]
    with any_store.transaction() as tx:
        fresh = tx.add_windows([window_of(telemetry.encode(one), START) for one in made])
        Evidence(Library(), Budget()).count(tx, fresh, START)
        tx.add_asides([labels(packed, seq, START, AsideKind.LABELLED) for seq in range(1, 12, 2)])
    compact(any_store, START + 5 * DAY, Retention(30 * DAY, None, None, DAY))
    assert left(any_store)[1] == []
    compact(any_store, START + 50 * DAY)
    with any_store.transaction() as tx:
        again = tx.add_windows([window_of(telemetry.encode(one), START) for one in made])
        assert again == []
        assert tx.add_asides([labels(packed, 3, START, AsideKind.LABELLED)]) == []
        later = record(packed, packed.counts(draw(rng, 9)), seq=12)
        assert len(tx.add_windows([window_of(telemetry.encode(later), START)])) == 1


def test_compact_takes_them_out_as_it_is_told(db: str, store: SqlStore, packed: Packed) -> None:
    with store.transaction() as tx:
        tx.add_events([event(seq, START) for seq in range(3)])
        tx.add_asides([labels(packed, 1, START, AsideKind.SHADOW)])
    run = CliRunner().invoke(app, ["compact", "--db", db, "--dry-run", "--keep-asides", "forever"])
    assert "3 events and 0 records of labels and shadows" in run.output, run.output
    store.put_settings({"keep_events": "forever", "keep_asides": "1d"})
    done = CliRunner().invoke(app, ["compact", "--db", db, "--json"])
    found = json.loads(done.output)
    assert (found["events"], found["asides"]) == (0, 1), "as serve was told"
    assert left(store) == ([0, 1, 2], [])


def test_a_time_that_is_none_is_refused() -> None:
    assert retention_of("14d", "90d", "36h", "forever").events_ms == 36 * HOUR
    for option, words in (("--keep-events", ("x", "1d")), ("--keep-asides", ("1d", "x"))):
        with pytest.raises(InputFault, match=option):
            retention_of("14d", "90d", *words)


# -- what roll-up keeps ------------------------------------------------------------------------


def windows(packed: Packed, rng: np.random.Generator) -> list[tuple[int, Record]]:
    """Two devices, two days, windows with faults of every kind and the machine's state."""
    made = []
    for day in range(2):
        for device in ("pi-1", "pi-2"):
            for seq, at in enumerate(np.sort(rng.integers(0, DAY, 20)).tolist()):
                at_ms = START + day * DAY + at
                errors = tuple(rng.integers(0, 4, int(rng.integers(0, 8))).tolist())
                one = replace(
                    record(
                        packed, packed.counts(draw(rng, int(rng.integers(1, 30)))), device=device,
                        boot=day, seq=seq, start_ms=at_ms - 60_000,
                    ),
                    refused=sum(errors), failed=int(rng.integers(0, 3)), errors=errors,
                    latency=pack_counts(rng.integers(0, 5, telemetry.LATENCY_BUCKETS).tolist()),
                    quality=tuple({(int(rng.integers(0, 6)), int(rng.integers(1, 4)))}),
                    resources=Resources(*rng.integers(1, 90, 5).tolist(), int(rng.integers(0, 9))),
                )  # fmt: skip
                made.append((at_ms, one))
    return made


def sums(store: SqlStore, packed: Packed) -> dict[str, object]:
    """What all that is kept says together, by device."""
    with store.reading() as tx:
        known = Library().find(tx, packed.digest)
        assert known is not None
        every = [
            (one, record)
            for some in kept.batches(tx, known, 0)
            for one, record in zip(some.kept, some.records, strict=True)
        ]
    counts: Counter[tuple[str, str, int]] = Counter()
    findings: set[tuple[str, tuple[int, int]]] = set()
    newest: dict[str, tuple[tuple[int, int], Resources | None]] = {}
    for one, said in every:
        counts[said.device, "windows", 0] += one.windows
        for name in ("rows", "refused", "failed"):
            counts[said.device, name, 0] += getattr(said, name)
        for code, count in enumerate(said.errors):
            counts[said.device, "error", code] += count
        for bucket, count in enumerate(telemetry.latency_of(said).tolist()):
            counts[said.device, "latency", bucket] += count
        findings |= {(said.device, finding) for finding in said.quality}
        last = ((said.boot, said.seq), said.resources)
        newest[said.device] = max(newest.get(said.device, last), last, key=lambda each: each[0])
    return {"counts": +counts, "findings": findings, "machine": newest}


def states(store: SqlStore, packed: Packed, span: Span) -> dict[tuple[str, int], Resources | None]:
    """The machine's state of each hour or day, by device and beginning."""
    with store.reading() as tx:
        known = Library().find(tx, packed.digest)
        assert known is not None
        found = [
            one
            for start in range(START, START + 4 * DAY, span.ms)
            for one in tx.sums_at(packed.digest, span, start, ["pi-1", "pi-2"])
        ]
        return {
            (one.device, one.start_ms): compaction.merging.decode(one.record).resources
            for one in found
        }


def test_hours_and_days_keep_sums_of_errors_findings_and_the_last_state(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    made = windows(packed, rng)
    learn(any_store, packed)
    with any_store.transaction() as tx:
        fresh = tx.add_windows([window_of(telemetry.encode(one), at) for at, one in made])
        Evidence(Library(), Budget()).count(tx, fresh, START)
    before = sums(any_store, packed)
    counts = before["counts"]
    assert isinstance(counts, Counter)
    assert counts["pi-1", "windows", 0] == 40
    assert counts["pi-2", "error", 0] == sum(
        one.errors[0] for _, one in made if one.device == "pi-2" and one.errors
    )
    for span, now in ((Span.HOUR, START + 6 * DAY), (Span.DAY, START + 40 * DAY)):
        compact(any_store, now)
        assert sums(any_store, packed) == before
        last = {
            (one.device, span.start_ms(at)): one.resources for at, one in made
        }  # in order of time, so that the last one stands
        assert states(any_store, packed, span) == last
    with any_store.reading() as tx:
        assert not tx.hours(packed.digest, 0, 2**60, 10)

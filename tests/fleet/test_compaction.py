"""Hours and days say what their windows said, and a window is in the store once."""

import hashlib
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from fleet_kit import Packed, draw, pack, record

from edge_contract import moments, telemetry
from edge_contract.errors import InputFault, MachineFault
from edge_contract.moments import Moments
from edge_contract.residuals import Residuals
from edge_contract.telemetry import Record
from edge_fleet import compaction, kept, merging
from edge_fleet.compaction import Compacted, Retention
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Known, Library
from edge_fleet.store.base import AsideKind, AsideSeen
from edge_fleet.store.rollups import Span
from edge_fleet.store.sql import SqlStore, open_store
from edge_fleet.windows import window_of

HOUR, DAY = Span.HOUR.ms, Span.DAY.ms
START = 19_000 * DAY
RETENTION = Retention(raw_ms=2 * DAY, hours_ms=10 * DAY)


def put(store: SqlStore, packed: Packed, made: list[tuple[int, Record]]) -> None:
    """Keep and count records, each with the time at which it came."""
    from edge_contract import manifest

    profile = manifest.decode(packed.manifest_bytes).file("profile.json").sha256
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, 0)
        tx.put_blob(profile, packed.stored, 0)
        new = tx.add_windows([window_of(telemetry.encode(one), at_ms) for at_ms, one in made])
        Evidence(Library(), Budget()).count(tx, new, START)


def week(
    packed: Packed, rng: np.random.Generator, *, devices: int = 3, days: int = 3, per_day: int = 30
) -> list[tuple[int, Record]]:
    """Windows over some days, a boot a day; in moments that differ from device to device."""
    made = []
    for day in range(days):
        for device in range(devices):
            arrivals = np.sort(rng.integers(0, DAY, per_day))
            for seq, at in enumerate(arrivals.tolist()):
                at_ms = START + day * DAY + at
                one = record(
                    packed, packed.counts(draw(rng, int(rng.integers(1, 60)))),
                    device=f"pi-{device}", boot=day, seq=seq, start_ms=at_ms - 60_000,
                )  # fmt: skip
                made.append((at_ms, one))
    return made


def go_on(_seconds: float) -> bool:
    return False


def compact(store: SqlStore, now_ms: int, retention: Retention = RETENTION) -> Compacted:
    return compaction.compact(store, retention, now_ms, pause=go_on)


def known_of(store: SqlStore, packed: Packed) -> Known:
    with store.reading() as tx:
        known = Library().find(tx, packed.digest)
    assert known
    return known


def counted(store: SqlStore, packed: Packed, since_ms: int = 0) -> dict[str, list[int]]:
    with store.reading() as tx:
        sums = kept.by_device(tx, known_of(store, packed), since_ms)
    return {device: counts.tolist() for device, counts in sums.items()}


def spans(store: SqlStore, packed: Packed) -> dict[str, int]:
    """How many windows, hours and days the store has."""
    with store.reading() as tx:
        hours = tx.hours(packed.digest, 0, 2**60, 10**6)
        both = [one for some in tx.counted_since(packed.digest, 0, 500) for one in some]
        days = [
            one
            for start in range(START, START + 20 * DAY, DAY)
            for one in tx.sums_at(packed.digest, Span.DAY, start, [h.device for h in both])
        ]
    return {
        "windows": len(both) - len(hours) - len(days), "hours": len(hours), "days": len(days)
    }  # fmt: skip


def test_every_reader_sees_the_same_before_and_after(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    made = week(packed, rng)
    put(any_store, packed, made)
    before = counted(any_store, packed)
    for now in (START + 2 * DAY, START + 3 * DAY + 7 * HOUR, START + 12 * DAY, START + 40 * DAY):
        compact(any_store, now)
        assert counted(any_store, packed) == before
        with any_store.reading() as tx:
            assert tx.totals().windows == len(made)
            some = [k for part in tx.counted_since(packed.digest, 0, 7) for k in part]
            assert sum(one.windows for one in some) == len(made)
    assert spans(any_store, packed) == {"windows": 0, "hours": 0, "days": 9}


def test_what_is_young_is_kept_by_itself(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    made = week(packed, rng, devices=2, days=4)
    put(store, packed, made)
    now = START + 4 * DAY + HOUR // 3
    planned = compaction.plan(store, RETENTION, now)
    done = compact(store, now)
    border = now - RETENTION.raw_ms - (now - RETENTION.raw_ms) % HOUR  # type: ignore[operator]
    old = [(at, one) for at, one in made if at < border]
    hours = {(one.device, at // HOUR) for at, one in old}
    assert (planned.windows, planned.into_hours) == (len(old), len(hours))
    assert (done.windows, done.into_hours, done.size_bytes) == (
        planned.windows, planned.into_hours, planned.size_bytes,
    )  # fmt: skip
    assert spans(store, packed) == {
        "windows": len(made) - len(old), "hours": len(hours), "days": 0
    }  # fmt: skip
    assert compact(store, now) == Compacted(), "there is nothing left to do"
    since = START + 3 * DAY
    mine = [one for at, one in made if at >= since]
    expected = sum(one.rows for one in mine)
    reader = counted(store, packed, since)
    size = packed.profile.monitors[0].cells
    assert sum(sum(counts[:size]) for counts in reader.values()) == expected


def test_kept_for_ever_means_untouched(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    put(store, packed, week(packed, rng, devices=1, days=1))
    assert compact(store, START + 10**9 * 1000, Retention(None, None)) == Compacted()
    compact(store, START + 10**9 * 1000, Retention(0, None))
    assert spans(store, packed)["days"] == 0
    assert spans(store, packed)["hours"] > 0


def test_two_bundles_never_meet(store: SqlStore, packed: Packed, rng: np.random.Generator) -> None:
    second = pack(rng, version="2.0")
    first = week(packed, rng, devices=1, days=1, per_day=20)
    both = [
        (at, one if at_number % 2 else record(second, second.counts(draw(rng, 9)), seq=one.seq,
                                              boot=one.boot, device=one.device))
        for at_number, (at, one) in enumerate(first)
    ]  # fmt: skip
    for bundle in (packed, second):
        mine = [(at, one) for at, one in both if one.bundle.hex() == bundle.digest]
        put(store, bundle, mine)
    before = counted(store, packed), counted(store, second)
    compact(store, START + 40 * DAY)
    assert (counted(store, packed), counted(store, second)) == before
    assert spans(store, packed)["days"] == spans(store, second)["days"] == 1


def test_two_models_of_one_bundle_never_meet(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    made = [
        (at, msgspec.structs.replace(one, model="boiler" if one.seq % 2 else "kettle"))
        for at, one in week(packed, rng, devices=1, days=1, per_day=10)
    ]
    put(store, packed, made)
    compact(store, START + 40 * DAY)
    with store.reading() as tx:
        days = tx.sums_at(packed.digest, Span.DAY, START, ["pi-0"])
    assert [(day.model, day.windows) for day in days] == [("boiler", 5), ("kettle", 5)]


def test_a_window_that_comes_again_years_later_is_not_counted_again(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    made = week(packed, rng, devices=2, days=2)
    put(any_store, packed, made)
    before = counted(any_store, packed)
    for now in (START + 3 * DAY, START + 40 * DAY):
        compact(any_store, now)
        put(any_store, packed, [(now, one) for _, one in made])
        assert counted(any_store, packed) == before
        with any_store.reading() as tx:
            assert (tx.totals().windows, tx.totals().pending) == (len(made), 0)
    late = record(packed, packed.counts(draw(rng, 5)), device="pi-0", boot=0, seq=30)
    put(any_store, packed, [(START + 41 * DAY, late)])
    assert counted(any_store, packed) != before, "one that never came before is new"
    compact(any_store, START + 90 * DAY)
    with any_store.reading() as tx:
        assert tx.rolled([("pi-0", 0, 30), ("pi-0", 0, 31), ("pi-0", 9, 0)]) == {("pi-0", 0, 30)}


def ranges(store: SqlStore) -> list[tuple[str, int, int, int]]:
    with store._connect(reading=True) as connection:
        found = connection.exec_driver_sql(
            "SELECT device, boot, first, last FROM rolled WHERE first >= 0"
            " ORDER BY device, boot, first"
        )
        return [tuple(row) for row in found]  # type: ignore[misc]


def test_remembered_keys_take_a_row_a_boot(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """Merged in any order; numbers that records beside the windows took leave no gap."""
    made = week(packed, rng, devices=1, days=1, per_day=40)
    put(any_store, packed, [each for each in made if each[1].seq % 4])
    with any_store.transaction() as tx:
        tx.add_asides(
            [
                AsideSeen("pi-0", 0, seq, AsideKind.SHADOW, packed.digest, START, b"x")
                for seq in range(0, 40, 4)
            ]
        )
        keys = [("pi-0", 0, seq) for seq in range(1, 40) if seq % 4]
        inner = keys[1:-1]
        rng.shuffle(inner)  # type: ignore[arg-type]
        for key in inner[:14]:
            tx.roll_windows([key])
        assert tx.rolled(keys) == set(inner[:14])
        tx.roll_windows([keys[0], *sorted(inner[14:]), keys[-1]])
        assert tx.rolled([*keys, ("pi-0", 0, 40), ("pi-0", 1, 1)]) == set(keys)
    assert ranges(any_store) == [("pi-0", 0, 1, 39)]


@pytest.mark.parametrize("filled", [True, False])
def test_a_whole_boot_is_one_range(
    store: SqlStore, packed: Packed, rng: np.random.Generator, filled: bool
) -> None:
    made = week(packed, rng, devices=1, days=1, per_day=60)
    put(store, packed, [(at, one) for at, one in made if filled or one.seq != 30])
    compact(store, START + 40 * DAY)
    whole = [("pi-0", 0, 0, 59)]
    assert ranges(store) == (whole if filled else [("pi-0", 0, 0, 29), ("pi-0", 0, 31, 59)])


def test_refused_windows_go_and_waiting_ones_when_they_are_old(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    put(any_store, packed, week(packed, rng, devices=1, days=1, per_day=5))
    unknown = pack(rng, version="unknown")
    wrong = msgspec.structs.replace(
        record(packed, packed.counts(draw(rng, 5)), boot=7, seq=1), rows=6
    )
    put(any_store, packed, [(START, wrong)])
    with any_store.transaction() as tx:
        waiting = record(unknown, unknown.counts(draw(rng, 5)), boot=7, seq=2)
        tx.add_windows([window_of(telemetry.encode(waiting), START + 30 * DAY)])
        never = [unknown_window(rng, packed, seq) for seq in range(3)]
        tx.add_windows([window_of(telemetry.encode(one), START) for one in never])
    planned = compaction.plan(any_store, RETENTION, START + 31 * DAY)
    done = compact(any_store, START + 31 * DAY)
    assert (planned.refused, done.refused) == (1, 1)
    assert (planned.unknown, done.unknown) == (3, 3)
    with any_store.reading() as tx:
        assert (tx.totals().refused, tx.totals().pending) == (0, 1)
        assert tx.rolled([wrong_key(wrong)]) == {wrong_key(wrong)}
    put(any_store, unknown, [])
    with any_store.transaction() as tx:
        pending = tx.pending(unknown.digest, 9)
        Evidence(Library(), Budget()).count(tx, pending, START)
    assert list(counted(any_store, unknown)) == ["pi-1"], "counted when its bundle came"


def test_waiting_windows_of_a_known_bundle_are_never_taken_out(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """Whoever counts them is slow, or away; one that names a blob which is none waits in vain."""
    put(any_store, packed, [])
    file = hashlib.sha256(packed.stored).digest()
    with any_store.transaction() as tx:
        tx.put_blob(file.hex(), packed.stored, 0)
        late = record(packed, packed.counts(draw(rng, 5)))
        odd = msgspec.structs.replace(late, device="odd", bundle=file)
        tx.add_windows([window_of(telemetry.encode(one), START) for one in (late, odd)])
    assert compact(any_store, START + 40 * DAY) == Compacted(unknown=1)
    with any_store.reading() as tx:
        assert [one.device for one in tx.pending(packed.digest, 9)] == ["pi-1"]
        assert tx.totals().pending == 1
        key = (late.device, late.boot, late.seq)
    with any_store.transaction() as tx:
        assert tx.drop_waiting([key, ("none", 1, 1)]) == 1
        assert tx.rolled([key]) == set()


def unknown_window(rng: np.random.Generator, packed: Packed, seq: int) -> Record:
    one = record(packed, packed.counts(draw(rng, 5)), device="odd", seq=seq)
    return msgspec.structs.replace(one, bundle=rng.bytes(32))


def wrong_key(one: Record) -> tuple[str, int, int]:
    return one.device, one.boot, one.seq


def test_it_stops_between_two_transactions_and_goes_on_from_there(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """Cut after step k, for all k: what is left is found anew, and nothing is lost or doubled."""
    made = week(packed, rng, devices=2, days=1, per_day=12)
    put(any_store, packed, made)
    before = counted(any_store, packed)
    for _ in range(200):
        steps: list[Compacted] = []
        compaction.compact(
            any_store, RETENTION, START + 40 * DAY, pause=lambda _: True, on_step=steps.append
        )
        assert counted(any_store, packed) == before
        if not steps:
            break
    assert not steps
    assert spans(any_store, packed) == {"windows": 0, "hours": 0, "days": 2}


def test_one_at_a_time(any_db: str, any_store: SqlStore) -> None:
    other = open_store(any_db, create=True)
    with any_store.compacting(), pytest.raises(InputFault, match="being compacted already"):
        compact(other, START)
    with any_store.lock(0):
        assert compact(other, START) == Compacted(), "a collector is no hindrance"
    other.close()


def test_a_window_that_another_took_meanwhile_changes_nothing(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    put(any_store, packed, week(packed, rng, devices=1, days=1, per_day=4))
    before = counted(any_store, packed)
    gone = pytest.raises(MachineFault, match="1 of 2 rows of windows were gone already")
    with gone, any_store.transaction() as tx:
        tx.roll_windows([("pi-0", 0, 1), ("pi-0", 0, 99)])
    assert counted(any_store, packed) == before
    assert ranges(any_store) == []


def test_a_damaged_record_is_refused_and_stops_nothing(
    store: SqlStore, packed: Packed, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    made = week(packed, rng, devices=1, days=1, per_day=6)
    put(store, packed, made)
    with store._connect(reading=False) as connection:
        connection.exec_driver_sql("UPDATE windows SET record = x'99' WHERE seq = 3")
    done = compact(store, START + 3 * DAY + 1)
    assert (done.windows, done.damaged) == (5, 1)
    assert "seq 3, cannot be read" in caplog.text
    total = sum(one.rows for _, one in made if one.seq != 3)
    size = packed.profile.monitors[0].cells
    assert sum(counted(store, packed)["pi-0"][:size]) == total


@pytest.mark.parametrize("span", [Span.HOUR, Span.DAY])
def test_what_cannot_be_added_stops_nothing(
    span: Span, store: SqlStore, packed: Packed, rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """More rows than a record says: of a device that lies, and only its windows are lost."""
    offsets, most = list(packed.profile.offsets()), telemetry.COUNT_MAX
    many = np.zeros(packed.profile.cells, dtype=np.int64)
    many[offsets] = most
    good = [(START + at, record(packed, packed.counts(draw(rng, 9)), seq=at)) for at in range(3)]
    lies = [
        (START + at * span.ms // 24, record(packed, many, device="liar", seq=at)) for at in range(3)
    ]
    put(store, packed, good + lies)
    done = compact(store, START + 40 * DAY)
    assert (done.windows, done.damaged) == ((3, 3) if span is Span.HOUR else (6, 3))
    assert "'liar'" in caplog.text
    assert spans(store, packed) == {"windows": 0, "hours": 0, "days": 1}
    assert list(counted(store, packed)) == ["pi-1"]
    assert compact(store, START + 41 * DAY) == Compacted()


def test_figures_beside_the_rows_end_at_what_a_record_says(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    most = telemetry.COUNT_MAX
    sane = record(packed, packed.counts(draw(rng, 9)))
    lie = msgspec.structs.replace(
        sane, refused=most, failed=most, errors=(most, most),
        latency=telemetry.pack_counts([most] * telemetry.LATENCY_BUCKETS),
    )  # fmt: skip
    put(store, packed, [(START, msgspec.structs.replace(lie, seq=seq)) for seq in range(3)])
    compact(store, START + 40 * DAY)
    with store.reading() as tx:
        [[day]] = tx.counted_since(packed.digest, 0, 9)
    found = telemetry.decode(day.record)
    assert (found.rows, found.refused, found.failed) == (27, most, most)
    assert found.errors == (most, most)
    assert telemetry.latency_of(found).tolist() == [most] * telemetry.LATENCY_BUCKETS


class Turns(threading.Event):
    """Set after so many turns; nobody waits."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self._turns = turns

    def wait(self, timeout: float | None = None) -> bool:
        if timeout == compaction.EVERY_S:
            self._turns -= 1
        return self._turns <= 0


def test_only_another_one_at_work_is_no_warning(
    any_db: str, any_store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def turn(some: Any) -> list[tuple[str, str]]:
        caplog.clear()
        compaction.keep_compact(some, RETENTION, Turns(1), clock_ms=lambda: START)
        return [(one.levelname, one.getMessage()) for one in caplog.records]

    other = open_store(any_db, create=False)
    with other.compacting():
        [(level, text)] = turn(any_store)
    other.close()
    assert level == "INFO" and "being compacted already" in text

    class Failing:
        def __init__(self, error: Exception) -> None:
            self._error = error

        def compacting(self) -> Any:
            raise self._error

    [(level, text)] = turn(Failing(InputFault("a count is out of range")))
    assert level == "WARNING" and text.startswith("a count is out of range")
    [(level, text)] = turn(Failing(OverflowError("too large")))
    assert level == "ERROR" and text.startswith("compaction failed")


@pytest.fixture
def residuals(packed: Packed) -> Residuals:
    return Residuals(packed.profile)


def test_the_sum_of_records_says_what_they_said(
    packed: Packed, residuals: Residuals, rng: np.random.Generator
) -> None:
    profile = packed.profile
    values, records, vectors = [], [], []
    for seq in range(5):
        rows = draw(rng, int(rng.integers(20, 200)))
        counts = packed.counts(rows)
        said = [
            Moments(float(x.mean()), float(x.std()), 1 + seq)
            for x in (rows.temperature, rows.level)
        ]
        records.append(
            msgspec.structs.replace(
                record(packed, counts, seq=seq),
                moments=moments.write(profile, counts, said),
                refused=seq,
                failed=1,
                errors=(0, seq, 1),
                quality=((seq % 2, 1), (5, 0)),
                latency=telemetry.pack_counts([0] * seq + [7] + [0] * (47 - seq)),
                resources=telemetry.Resources(temperature_c=40 + seq),
                dropped=seq,
                version=f"{seq}",
            )
        )
        vectors.append(counts)
        values.append(rows)
    order = rng.permutation(5).tolist()
    times = [(1000 * seq, 1000 * seq + 500) for seq in range(5)]
    total = merging.merged(
        [records[i] for i in order], np.stack([vectors[i] for i in order]),
        [times[i] for i in order], residuals,
    )  # fmt: skip
    assert (telemetry.counts_of(total, residuals) == np.sum(vectors, axis=0)).all()
    assert total.rows == sum(len(rows.level) for rows in values)
    assert (total.refused, total.failed, total.errors) == (10, 5, (0, 10, 5))
    assert telemetry.latency_of(total).tolist() == [7] * 5 + [0] * 43
    assert (total.start_ms, total.end_ms, total.boot, total.seq) == (0, 4500, 1, 4)
    assert (total.version, total.dropped) == ("4", 4)
    assert total.quality == ((5, 0), (0, 1), (1, 1))
    assert total.resources == telemetry.Resources(temperature_c=44)
    pooled = telemetry.moments_of(total, residuals)
    for one, name in zip(pooled, ("temperature", "level"), strict=True):
        together = np.concatenate([getattr(rows, name) for rows in values])
        error = together.std() / np.sqrt(len(together))
        assert one is not None
        assert abs(one.mean - together.mean()) <= 1.01 * error
        assert abs(one.std - together.std()) <= 1.5 * error
        assert one.run == 4  # the power of two below 5
    assert merging.decode(merging.encode(total)) == total


def test_moments_that_one_lacks_are_said_of_none(
    packed: Packed, residuals: Residuals, rng: np.random.Generator
) -> None:
    counts = packed.counts(draw(rng, 20))
    said = moments.write(packed.profile, counts, [Moments(20.0, 2.0, 1), Moments(2.0, 1.0, 1)])
    one = msgspec.structs.replace(record(packed, counts, seq=1), moments=said)
    empty = record(packed, np.zeros_like(counts), seq=2)
    for other, kept_some in ((empty, True), (record(packed, counts, seq=3), False)):
        two = np.stack([counts, telemetry.counts_of(other, residuals)])
        assert bool(merging.merged([one, other], two, [(0, 1)] * 2, residuals).moments) == kept_some
    broken = msgspec.structs.replace(one, moments=b"\xff", latency=b"\xff", seq=9)
    total = merging.merged([one, broken], np.stack([counts, counts]), [(0, 1)] * 2, residuals)
    assert (total.moments, telemetry.latency_of(total).sum()) == (b"", 0)


def test_records_of_others_are_never_added(
    packed: Packed, residuals: Residuals, rng: np.random.Generator
) -> None:
    counts = packed.counts(draw(rng, 20))
    one = record(packed, counts)
    for other in ({"device": "pi-2"}, {"bundle": b"\1" * 32}, {"model": "kettle"}):
        with pytest.raises(ValueError, match="different devices"):
            merging.merged(
                [one, msgspec.structs.replace(one, **other)], np.stack([counts] * 2), [(0, 1)] * 2,
                residuals,
            )  # fmt: skip


KILLED = """
import sys
from edge_fleet import compaction
from edge_fleet.store.sql import open_store
store = open_store(sys.argv[1], create=True)
retention = compaction.Retention(0, 0)
left = int(sys.argv[3])
def step(done):
    global left
    left -= 1
from edge_fleet.store.transaction import SqlTransaction
real = SqlTransaction.roll_windows, SqlTransaction.drop_hours
def stop_in(method):
    def within(self, keys):
        method(self, keys)
        if left == 0:
            print("within", flush=True)
            sys.stdin.read()
    return within
SqlTransaction.roll_windows, SqlTransaction.drop_hours = map(stop_in, real)
compaction.compact(store, retention, int(sys.argv[2]), pause=lambda _: False, on_step=step)
print("done", flush=True)
"""


@pytest.fixture
def killed_at(any_db: str) -> Iterator[Any]:
    """Runs a compaction and kills it inside its transaction k; False when it has fewer."""
    running: list[subprocess.Popen[bytes]] = []

    def run(k: int) -> bool:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, any_db, str(START + 90 * DAY), str(k)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line in (b"within\n", b"done\n")
        process.send_signal(signal.SIGKILL)
        process.wait()
        return line == b"within\n"

    yield run
    for process in running:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.mark.slow
def test_killed_inside_any_transaction_each_window_is_there_once(
    any_db: str, any_store: SqlStore, killed_at: Any, packed: Packed, rng: np.random.Generator
) -> None:
    made = week(packed, rng, devices=1, days=1, per_day=5)
    put(any_store, packed, made)
    before = counted(any_store, packed)
    kills = 0
    while killed_at(0 if kills % 2 else 1):
        kills += 1
        assert counted(any_store, packed) == before
        put(any_store, packed, [(START + DAY, one) for _, one in made])
        assert counted(any_store, packed) == before
        assert kills < 30
        if kills % 2 == 0:
            compaction.compact(any_store, Retention(0, 0), START + 90 * DAY, pause=lambda _: True)
    compact(any_store, START + 90 * DAY, Retention(0, 0))
    assert counted(any_store, packed) == before
    assert spans(any_store, packed)["days"] == 1


def test_a_sum_grows_over_several_transactions(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """More windows in an hour, and more hours in a day, than one transaction takes."""
    size = kept.BATCH_MAX
    made = [
        (START + 9 * HOUR, record(packed, packed.counts(draw(rng, 5)), seq=seq))
        for seq in range(2 * size + 50)
    ]
    put(any_store, packed, made)
    before = counted(any_store, packed)
    steps: list[Compacted] = []
    for retention in (Retention(0, None), Retention(0, 0)):
        compaction.compact(
            any_store, retention, START + 40 * DAY, pause=go_on, on_step=steps.append
        )
        assert counted(any_store, packed) == before
    assert [(step.windows, step.into_hours) for step in steps[:3]] == [
        (size, 1),
        (size, 0),
        (50, 0),
    ]
    late = record(packed, packed.counts(draw(rng, 5)), seq=9999)
    put(any_store, packed, [(START + 10 * HOUR, late)])
    before = counted(any_store, packed)
    done = compact(any_store, START + 40 * DAY, Retention(0, 0))
    assert (done.windows, done.hours, done.into_days) == (1, 1, 0), "into the day that is there"
    assert counted(any_store, packed) == before
    with any_store.reading() as tx:
        [day] = tx.sums_at(packed.digest, Span.DAY, START, ["pi-1"])
    assert (day.windows, day.seq) == (2 * size + 51, 9999)

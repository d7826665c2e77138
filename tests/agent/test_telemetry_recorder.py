"""Windows become records: by time, by count, at a swap; no record mixes two versions."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from edge_agent import Model
from edge_agent.live import Live
from edge_agent.steps import Tell
from edge_agent.telemetry import Recorder, Spool
from edge_agent.telemetry.recorder import Instant
from edge_contract import bundle as bundles
from edge_contract import telemetry
from edge_contract.errors import InputFault, MachineFault
from edge_contract.profile import Monitor, Profile
from edge_contract.residuals import Residuals
from edge_contract.telemetry import Record, Resources

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}
BORN_MS = 1_700_000_000_000


def at(seconds: float, *, wall_ms: int | None = None) -> Instant:
    """``seconds`` after the start by both clocks, unless the wall clock says otherwise."""
    return Instant(
        BORN_MS + int(1000 * seconds) if wall_ms is None else wall_ms, 50.0 + seconds, True
    )


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def kicks() -> list[int]:
    return []


@pytest.fixture
def recorder(spool: Spool, kicks: list[int]) -> Recorder:
    return Recorder(
        spool, device="pi-1", boot=4, window_s=60, window_rows=1000,
        on_record=lambda: kicks.append(1),
    )  # fmt: skip


@pytest.fixture
def make(tiny_bundle):
    def build(version: str = "1.0", *, name: str = "pump", seed: int = 7) -> Model:
        return Model.from_bundle(bundles.read(tiny_bundle(version, name=name, seed=seed)))

    return build


def records(spool: Spool) -> list[Record]:
    return [telemetry.decode(data) for _, data in spool.pending()]


def test_a_window_ends_by_time_and_says_what_it_counted(recorder, spool, make, kicks) -> None:
    model, live = make(), Live("pump")
    recorder.swap(live, model, at(0))
    for _ in range(10):
        live.predict(ROW)
    with pytest.raises(InputFault):
        live.predict({"temp": 1})
    recorder.tick(at(59.9))
    assert records(spool) == []
    recorder.tick(at(60))
    (record,) = records(spool)
    assert (record.device, record.boot, record.seq) == ("pi-1", 4, 0)
    assert (record.model, record.version) == ("pump", "1.0")
    assert record.bundle.hex() == model.digest
    assert (record.rows, record.refused, record.failed) == (10, 1, 0)
    assert (record.start_ms, record.end_ms) == (BORN_MS, BORN_MS + 60_000)
    assert record.synchronised
    assert telemetry.counts_of(record, Residuals(model.profile)).sum() == 10 * len(
        model.profile.monitors
    )
    assert telemetry.latency_of(record).sum() == 10
    assert kicks == [1]


def test_a_window_ends_by_count(recorder, spool, make) -> None:
    live = Live("pump")
    recorder.swap(live, make(), at(0))
    live.predict(np.zeros((999, 4)))
    recorder.tick(at(1))
    assert records(spool) == []
    live.predict(ROW)
    recorder.tick(at(2))
    assert [record.rows for record in records(spool)] == [1000]


def test_a_quiet_window_makes_no_record_and_the_next_begins_after_it(recorder, spool, make) -> None:
    live = Live("pump")
    recorder.swap(live, make(), at(0))
    recorder.tick(at(60))
    recorder.tick(at(120))
    live.predict(ROW)
    recorder.tick(at(180))
    (record,) = records(spool)
    assert (record.seq, record.start_ms) == (0, BORN_MS + 120_000)


def test_the_wall_clock_may_jump_and_windows_keep_their_length(recorder, spool, make) -> None:
    """A Pi wakes up in 1970, and hears the time an hour later."""
    live = Live("pump")
    recorder.swap(live, make(), at(0, wall_ms=5_000))
    live.predict(ROW)
    recorder.tick(at(60, wall_ms=BORN_MS))
    live.predict(ROW)
    recorder.tick(at(120, wall_ms=1_000))
    first, second = records(spool)
    assert (first.start_ms, first.end_ms) == (BORN_MS - 60_000, BORN_MS)
    assert (second.start_ms, second.end_ms) == (0, 1_000)


def test_a_swap_ends_the_window_and_versions_never_mix(recorder, spool, make) -> None:
    live = Live("pump")
    old, new = make("1.0"), make("2.0", seed=8)
    recorder.swap(live, old, at(0))
    live.predict([ROW] * 3)
    assert recorder.totals("pump").answered == 3
    assert recorder.swap(live, new, at(10)) is old
    assert [(record.version, record.rows) for record in records(spool)] == [("1.0", 3)]
    assert recorder.totals("pump").answered == 0
    live.predict([ROW] * 2)
    recorder.tick(at(70))
    assert [(r.seq, r.version, r.rows) for r in records(spool)] == [(0, "1.0", 3), (1, "2.0", 2)]
    assert {r.bundle.hex() for r in records(spool)} == {old.digest, new.digest}


def test_a_request_that_outlives_the_swap_is_counted_for_its_own_version(
    recorder, spool, make
) -> None:
    live = Live("pump")
    recorder.swap(live, make("1.0"), at(0))
    entered, go = threading.Event(), threading.Event()

    def slow_request() -> None:
        with live.use() as model:
            entered.set()
            go.wait(60)
            model.predict(ROW)

    thread = threading.Thread(target=slow_request)
    thread.start()
    assert entered.wait(60)
    live.predict(ROW)
    recorder.swap(live, make("2.0", seed=8), at(10))
    live.predict(ROW)
    go.set()
    thread.join()
    recorder.tick(at(11))
    recorder.flush(at(12))
    assert [(r.version, r.rows) for r in records(spool)] == [("1.0", 1), ("1.0", 1), ("2.0", 1)]
    assert [r.seq for r in records(spool)] == [0, 1, 2]
    recorder.tick(at(100))
    assert recorder._leaving == []


def test_a_swap_to_a_broken_model_changes_nothing(recorder, spool, make) -> None:
    live, broken = Live("pump"), make("2.0")
    recorder.swap(live, make("1.0"), at(0))
    broken.close()
    with pytest.raises(MachineFault):
        recorder.swap(live, broken, at(1))
    live.predict(ROW)
    recorder.flush(at(2))
    assert [(r.version, r.rows) for r in records(spool)] == [("1.0", 1)]


@pytest.mark.parametrize("act", ["swap", "put_beside"])
def test_while_a_model_warms_up_windows_end_as_ever(recorder, spool, make, act) -> None:
    class Slow(Model):
        """Comes back once a window of another model has ended."""

        def probe(self) -> None:
            ticking = threading.Thread(target=recorder.tick, args=(at(60),), daemon=True)
            ticking.start()
            ticking.join(60)
            if ticking.is_alive():
                raise MachineFault("the recorder waits for this model")
            super().probe()

    live = Live("pump")
    recorder.swap(live, make(), at(0))
    live.predict(ROW)
    slow = make("2.0", seed=8)
    slow.__class__ = Slow
    getattr(recorder, act)(live, slow, at(60))
    (record,) = records(spool)
    assert (record.version, record.rows) == ("1.0", 1)
    assert live.predict(ROW, "2.0")


def test_models_have_windows_of_their_own_and_one_sequence(recorder, spool, make) -> None:
    pump, fan = Live("pump"), Live("fan")
    recorder.swap(pump, make(), at(0))
    recorder.swap(fan, make(name="fan"), at(30))
    pump.predict(ROW)
    fan.predict([ROW] * 2)
    recorder.tick(at(60))
    assert [(r.seq, r.model, r.rows) for r in records(spool)] == [(0, "pump", 1)]
    recorder.tick(at(90))
    assert [(r.seq, r.model, r.rows) for r in records(spool)][1:] == [(1, "fan", 2)]
    recorder.swap(fan, None, at(91))
    assert recorder.totals("fan").answered == 0


def test_totals_outlive_windows_and_tell_failures(recorder, make) -> None:
    live = Live("pump")
    recorder.swap(live, make(), at(0))
    live.predict([ROW] * 5)
    recorder.tick(at(60))
    live.predict(ROW)
    with pytest.raises(InputFault):
        live.predict([ROW, {}])
    totals = recorder.totals("pump")
    assert (totals.answered, totals.refused, totals.failed) == (6, 2, 0)


def test_what_the_spool_dropped_is_told_in_the_next_record(make, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=2 * 4096)
    recorder = Recorder(spool, device="pi-1", boot=1, window_s=1)
    live = Live("pump")
    recorder.swap(live, make(), at(0))
    for second in range(1, 6):
        live.predict(ROW)
        recorder.tick(at(second))
    assert [(r.seq, r.dropped) for r in records(spool)] == [(3, 1), (4, 2)]
    assert recorder.dropped == 3


def test_a_disk_that_refuses_costs_records_and_no_prediction(make, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    recorder = Recorder(spool, device="pi-1", boot=1, window_s=1)
    live = Live("pump")
    recorder.swap(live, make(), at(0))
    (tmp_path / "spool").rmdir()
    (tmp_path / "spool").write_bytes(b"in the way")
    live.predict(ROW)
    recorder.tick(at(1))
    assert recorder.dropped == 1
    assert live.predict(ROW).label in ("bad", "good")
    (tmp_path / "spool").unlink()
    recorder.tick(at(2))
    assert [(r.seq, r.rows, r.dropped) for r in records(spool)] == [(1, 1, 1)]


def test_windows_under_load_and_swaps_add_up(make, spool) -> None:
    recorder = Recorder(spool, device="pi-1", boot=1, window_s=1)
    live = Live("pump")
    recorder.swap(live, make("0"), at(0))
    stop = threading.Event()
    asked = [0] * 4

    def work(i: int) -> None:
        while not stop.is_set():
            live.predict(ROW)
            asked[i] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for second in range(1, 60):
        if second % 3 == 0:
            recorder.swap(live, make(str(second), seed=7 + second % 2), at(second))
        else:
            recorder.tick(at(second))
        stop.wait(0.005)
    stop.set()
    for thread in threads:
        thread.join()
    recorder.flush(at(61))
    found = records(spool)
    assert sum(record.rows for record in found) == sum(asked) > 0
    assert [record.seq for record in found] == list(range(len(found)))
    profiles = {}
    for record in found:
        model = make(record.version, seed=7 + int(record.version) % 2)
        assert record.bundle.hex() == model.digest
        profiles[record.version] = model.profile
        telemetry.counts_of(record, Residuals(model.profile))


# -- what a record says beside its counts ----------------------------------------------------


class Told:
    """Who is told of faults of the input."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    def __call__(self, model: str, tell: Tell) -> None:
        self.events.append((model, tell.kind, tell.detail))

    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.events]


def test_a_record_has_moments_reasons_and_the_machine(spool, make) -> None:
    looks: list[float] = []

    def meter(now_s: float) -> Resources:
        looks.append(now_s)
        return Resources(cpu_percent=7)

    recorder = Recorder(spool, device="pi-1", boot=4, window_s=60, meter=meter)
    model, live = make(), Live("pump")
    recorder.swap(live, model, at(0))
    rows = np.random.default_rng(3).normal(size=(500, 4))
    live.predict(rows[:200])
    for row in rows[200:]:
        live.predict(row.tolist())
    for wrong in ({"temp": 1.0}, {**ROW, "hum": None}, {**ROW, "rpm": "fast"}, {**ROW, "x": 1}):
        with pytest.raises(InputFault):
            live.predict(wrong)
    recorder.tick(at(60))
    (record,) = records(spool)
    assert record.resources == Resources(cpu_percent=7)
    assert looks == [110.0]
    assert telemetry.errors_of(record) == {"missing": 2, "value": 1, "unknown": 1}
    seen = telemetry.moments_of(record, Residuals(model.profile))
    assert len(seen) == 4
    for at_, moment in enumerate(seen):
        assert moment.mean == pytest.approx(rows[:, at_].mean(), abs=0.6 / np.sqrt(500))
        assert moment.std == pytest.approx(rows[:, at_].std(), abs=0.6 / np.sqrt(1000))
        assert moment.run == 1


def test_a_fault_is_told_before_its_window_ends_once_and_its_end(spool, make) -> None:
    told = Told()
    recorder = Recorder(spool, device="pi-1", boot=4, window_s=300, on_quality=told)
    live = Live("pump")
    recorder.swap(live, make(), at(0))
    rng = np.random.default_rng(5)

    def serve(start_s: float, rows: np.ndarray) -> None:
        live.predict(rows)
        recorder.tick(at(start_s + 31))

    serve(0, rng.normal(size=(300, 4)))
    assert told.events == []
    broken = rng.normal(size=(300, 4))
    broken[::10, 1] = -999.0
    serve(31, broken)
    ((model, kind, detail),) = told.events
    assert (model, kind) == ("pump", "quality-fault")
    assert detail == "sentinel: hum (-999 in 30 of 600 rows)"
    assert recorder.quality == {"pump": (detail,)}
    serve(62, rng.normal(size=(300, 4)))
    recorder.tick(at(300))
    (record,) = records(spool)
    assert telemetry.quality_of(record, make().profile) == (("sentinel", "hum"),)
    for each in range(1, 5):
        live.predict(rng.normal(size=(2_000, 4)))
        recorder.tick(at(300 * (each + 1)))
    assert told.kinds() == ["quality-fault", "quality-restored"]
    assert recorder.quality == {}
    assert [bool(each.quality) for each in records(spool)[2:]] == [False] * 3


def test_a_fault_ends_with_the_version_and_is_none_of_what_is_beside(spool, make) -> None:
    told = Told()
    recorder = Recorder(spool, device="pi-1", boot=4, window_s=60, on_quality=told)
    live, beside = Live("pump"), make("2.0", seed=8)
    recorder.swap(live, make(), at(0))
    recorder.put_beside(live, beside, at(0))
    beside.predict(np.full((2_000, 4), 77.0))
    recorder.tick(at(40))
    assert told.events == []
    live.predict(np.full((2_000, 4), 77.0))
    recorder.tick(at(80))
    begun = len(told.events)
    assert begun >= 1
    assert set(told.kinds()) == {"quality-fault"}
    recorder.swap(live, make("3.0", seed=9), at(90))
    assert told.kinds()[begun:] == ["quality-restored"] * begun
    assert told.events[-1][2].endswith("1.0 answers no more")


def test_rows_that_are_refused_are_a_fault_of_the_input(spool, make) -> None:
    told = Told()
    recorder = Recorder(spool, device="pi-1", boot=4, window_s=60, on_quality=told)
    live = Live("pump")
    recorder.swap(live, make(), at(0))
    for _ in range(80):
        with pytest.raises(InputFault):
            live.predict({**ROW, "hum": float("nan")})
    recorder.tick(at(31))
    assert told.events == [("pump", "quality-fault", "refused: 80 of 80 rows (missing)")]


def test_a_clock_that_stands_still_is_told_of_the_device(spool, make) -> None:
    told = Told()
    recorder = Recorder(spool, device="pi-1", boot=4, window_s=30, on_quality=told)
    live = Live("pump")
    recorder.swap(live, make(), at(0))
    for seconds in (0, 30, 61, 92):
        live.predict(ROW)
        recorder.tick(at(seconds, wall_ms=BORN_MS))
    assert told.events == [("", "quality-fault", "stale-clock: the device's clock stands still")]
    assert recorder.quality == {"": ("the device's clock stands still",)}
    assert records(spool)[-1].quality == ((telemetry.QUALITY_CODES.index("stale-clock"), 0),)
    recorder.tick(at(200))
    recorder.tick(at(300))
    assert told.kinds() == ["quality-fault", "quality-restored"]


def test_a_window_too_wide_for_a_record_leaves_without_its_counts(spool, make) -> None:
    """10,000 features: what else there is to say of the window still comes home."""
    model = make()
    wide = tuple(
        Monitor(
            name=f"n{i}", kind="quantile", source="output", std=1.0,
            edges=tuple(np.linspace(-3, 3, 33).tolist()), counts=(10,) * 32 + (0,) * 5,
        )
        for i in range(10_000)
    )  # fmt: skip
    model.profile = Profile(rows=320, monitors=wide)
    recorder, live = Recorder(spool, device="pi-1", boot=4, window_s=60), Live("pump")
    recorder.swap(live, model, at(0))
    live.predict(np.random.default_rng(1).normal(size=(20, 4)))
    recorder.tick(at(60))
    (record,) = records(spool)
    assert (record.rows, record.coding, record.counts) == (20, telemetry.CODING_NONE, b"")
    assert recorder.dropped == 0
    with pytest.raises(InputFault, match="left the counts"):
        telemetry.counts_of(record, Residuals(model.profile))
    with pytest.raises(InputFault, match="left the counts"):
        telemetry.counts_of_many([record], Residuals(model.profile))

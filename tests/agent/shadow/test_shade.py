"""A candidate in the shadow: compared by an oracle, never heard, never in the way."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from edge_agent import Model
from edge_agent.shade import FAILURES_MAX, NICE, STALLS_MAX, Runner, Shade
from edge_agent.tap import Tap, watch
from edge_agent.telemetry import Window
from edge_agent.telemetry.recorder import Instant
from edge_contract import aside, telemetry
from edge_contract import bundle as bundles
from edge_contract.aside import Shadow
from edge_contract.errors import MachineFault
from edge_contract.manifest import MODEL_FILE, Tensor

NOW = Instant(1_700_000_000_000, 50.0, True)
ROWS = np.random.default_rng(11).normal(size=(200, 4))
ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}
NAMES = tuple(ROW)
DEADLINE_S = 60.0


def wait_for(ready: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.005)


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner(queue_max=1000)
    made.start()
    yield made
    assert made.stop(DEADLINE_S)


def load(data: bytes) -> Model:
    model = Model.from_bundle(bundles.read(data))
    model.observer = Window(model.manifest, model.profile)
    return model


def pair(
    live: Model, candidate: Model, runner: Runner, *, share: float = 1.0, seed: int = 3
) -> Shade:
    shade = Shade(
        live, candidate, runner, share=share, tolerance=0.1, rng=random.Random(seed), now=NOW
    )
    watch(live, shade)
    return shade


def drained(runner: Runner) -> None:
    """Everything offered so far has run."""
    done = threading.Event()
    runner.later(done.set)
    assert done.wait(DEADLINE_S)


def counted(shade: Shade, runner: Runner) -> Shadow:
    drained(runner)
    record = shade.record(NOW)
    assert record is not None
    numbered = replace(record, device="pi1")
    assert aside.decode(aside.encode(numbered)) == numbered, "the figures go together"
    return record


def test_agreement_scores_and_differences_are_those_of_an_oracle(runner, tiny_bundle) -> None:
    live, candidate = load(tiny_bundle("1.0")), load(tiny_bundle("2.0", seed=8))
    shade = pair(live, candidate, runner)
    for row in ROWS:
        live.predict(dict(zip(NAMES, row.tolist(), strict=True)))
    record = counted(shade, runner)
    ours, theirs = (
        [model.predict([row])[0] for row in ROWS.tolist()]  # a row at a time: sums differ by a bit
        for model in (load(tiny_bundle("1.0")), load(tiny_bundle("2.0", seed=8)))
    )
    agreed = sum(a.label == b.label for a, b in zip(ours, theirs, strict=True))
    assert 0 < agreed < len(ROWS), "the two models differ somewhere"
    assert (record.rows, record.agreed, record.differed) == (200, agreed, 200 - agreed)
    expected = [0] * aside.DIFFERENCE_BUCKETS
    for a, b in zip(ours, theirs, strict=True):
        expected[
            aside.difference_bucket(abs(a.probabilities["good"] - b.probabilities["good"]))
        ] += 1
    assert aside.differences_of(record).tolist() == expected
    assert (record.version, record.live_version) == ("2.0", "1.0")
    assert record.bundle.hex() == candidate.digest
    assert record.live_bundle.hex() == live.digest
    cells = telemetry.unpack_counts(record.counts, candidate.profile.cells)
    assert cells.sum() == 200 * len(candidate.profile.monitors), "against its own profile"


def test_many_rows_of_one_call_are_compared_each(runner, tiny_bundle) -> None:
    live, candidate = load(tiny_bundle("1.0")), load(tiny_bundle("1.1"))
    shade = pair(live, candidate, runner)
    live.predict(ROWS)
    record = counted(shade, runner)
    assert (record.rows, record.agreed, record.differed) == (200, 200, 0)
    assert aside.differences_of(record)[0] == 200
    for latency in (record.latency, record.live_latency):
        assert telemetry.unpack_counts(latency, telemetry.LATENCY_BUCKETS).sum() == 1, "one call"


def test_values_of_a_regression_agree_within_the_tolerance(runner, regression_bundle) -> None:
    live, candidate = load(regression_bundle("1.0")), load(regression_bundle("1.1"))
    shade = pair(live, candidate, runner)
    live.predict(ROWS)
    record = counted(shade, runner)
    assert (record.agreed, record.differed) == (200, 0)
    assert record.unit == pytest.approx(live.profile.monitors[-1].std)


def test_missing_numbers_and_categories_reach_the_candidate_as_they_were(
    runner, mixed_bundle
) -> None:
    live, candidate = (load(mixed_bundle(v, missing="allow")) for v in ("1.0", "1.1"))
    shade = pair(live, candidate, runner)
    for temp, site in ((None, "lyon"), (1.0, "paris"), (0.5, "elsewhere")):
        live.predict({"temp": temp, "hum": 0.0, "site": site})
    record = counted(shade, runner)
    assert (record.rows, record.agreed, record.refused) == (3, 3, 0)
    assert aside.differences_of(record)[0] == 3, "the same rows, the same scores"


def test_values_that_differ_are_counted_in_deviations_of_the_reference(
    runner, regression_bundle, odd_bundle
) -> None:
    live, candidate = load(regression_bundle("1.0")), load(odd_bundle("looping"))
    shade = pair(live, candidate, runner)
    rows = np.abs(ROWS[:50]).tolist()
    for row in rows:
        live.predict([row])
    record = counted(shade, runner)
    ours, theirs = load(regression_bundle("1.0")), load(odd_bundle("looping"))
    expected, agreed = [0] * aside.DIFFERENCE_BUCKETS, 0
    for row in rows:
        apart = abs(ours.predict([row])[0].value - theirs.predict([row])[0].value) / record.unit
        expected[aside.difference_bucket(apart)] += 1
        agreed += apart <= 0.1
    assert record.unit == aside.unit_of(live.profile) != 1.0
    assert aside.differences_of(record).tolist() == expected
    assert (record.agreed, record.differed) == (agreed, 50 - agreed)


def whole(data: bytes, seal: Callable[..., bytes]) -> Model:
    """The same model, whose one tensor is passed whole: no row can be made anew of its counts."""
    sealed = bundles.read(data)
    return load(
        seal(
            sealed.file(MODEL_FILE), version=sealed.manifest.version, features=(),
            inputs=(Tensor(name="X", dtype="float32", shape=(None, 4)),),
            outputs=sealed.manifest.outputs, profile=None,
            golden_inputs={"X": ROWS[:4].astype(np.float32)},
        )
    )  # fmt: skip


def test_tensors_are_copied_before_their_caller_may_alter_them(
    runner, tiny_bundle, seal_bundle
) -> None:
    live, candidate = (whole(tiny_bundle(version), seal_bundle) for version in ("1.0", "1.1"))
    shade = pair(live, candidate, runner)
    hold = threading.Event()
    runner.later(lambda: hold.wait(DEADLINE_S))
    tensor = ROWS[:20].astype(np.float32)
    live.predict({"X": tensor})
    tensor[:] = -tensor
    hold.set()
    record = counted(shade, runner)
    assert (record.rows, record.differed) == (20, 0)


def test_a_share_is_a_share_of_the_calls(runner, tiny_bundle) -> None:
    live, candidate = load(tiny_bundle("1.0")), load(tiny_bundle("1.1"))
    shade = pair(live, candidate, runner, share=0.25, seed=20)
    for _ in range(2000):
        live.predict(ROW)
    record = counted(shade, runner)
    # Binomial, n = 2000, p = 0.25: five deviations are 97.
    assert abs(record.rows + record.skipped - 500) < 97


def test_the_shadow_runs_at_the_lowest_priority_and_nobody_else_does(runner, tiny_bundle) -> None:
    drained(runner)
    assert runner.nice == NICE
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < NICE


def test_what_finds_no_room_is_skipped_and_counted_and_the_request_goes_on(tiny_bundle) -> None:
    live, candidate = load(tiny_bundle("1.0")), load(tiny_bundle("1.1"))
    full = Runner(queue_max=5)  # its thread does not run: nothing leaves the queue
    shade = pair(live, candidate, full)
    answers = [live.predict(ROW).label for _ in range(50)]
    assert len(answers) == 50
    record = shade.record(NOW)
    assert record is not None
    assert (record.skipped, record.rows) == (45, 0)


def test_waiting_calls_are_bounded_in_bytes_too(tiny_bundle) -> None:
    live, candidate = load(tiny_bundle("1.0")), load(tiny_bundle("1.1"))
    shade = pair(live, candidate, Runner(queue_max=1000))
    rows = np.zeros((10_000, 4))  # 320 kB a call
    batch = live._read(rows)
    for _ in range(60):
        shade.offer(batch, [0] * 10_000, [0.5] * 10_000, 1000)
    record = shade.record(NOW)
    assert record is not None
    assert record.skipped == (60 - 8 * 1024**2 // rows.nbytes) * 10_000


def test_a_candidate_that_fails_is_counted_then_ended_and_the_live_one_answers(
    runner, tiny_bundle
) -> None:
    live, candidate = load(tiny_bundle("1.0")), load(tiny_bundle("2.0"))
    shade = pair(live, candidate, runner)
    candidate.close()  # every run of it fails from here on
    expected = load(tiny_bundle("1.0")).predict(ROW).label
    for _ in range(FAILURES_MAX + 10):
        assert live.predict(ROW).label == expected
    record = counted(shade, runner)
    assert (record.rows, record.failed) == (0, FAILURES_MAX)
    assert f"failed {FAILURES_MAX} times in a row" in shade.ended
    assert live.predict(ROW).label == expected
    drained(runner)
    assert shade.record(NOW) is None, "it is shown nothing more"


def test_a_candidate_that_wants_other_features_is_counted_as_refusing(
    runner, tiny_bundle, mixed_bundle
) -> None:
    live, candidate = load(tiny_bundle("1.0")), load(mixed_bundle())
    shade = pair(live, candidate, runner)
    live.predict(ROW)
    record = counted(shade, runner)
    assert (record.rows, record.refused, record.failed) == (0, 1, 0)


def test_a_candidate_that_never_returns_is_interrupted_then_ended(runner, odd_bundle) -> None:
    live, candidate = load(odd_bundle("looping")), load(odd_bundle("looping", version="2.0"))
    shade = pair(live, candidate, runner, share=0.0)
    slow = {**ROW, "temp": 1e9}
    shade.share = 1.0
    fake_live = load(odd_bundle("looping"))
    batch = fake_live._read(slow)  # the live one is not asked: it would loop as well
    for _ in range(STALLS_MAX):
        shade.offer(batch, [-1], [0.0], 1000)
    begin = time.monotonic()
    while not shade.ended:
        assert time.monotonic() - begin < DEADLINE_S
        shade.check(time.monotonic(), 0.05)
        time.sleep(0.01)
    assert "longer than 0.05 s" in shade.ended
    drained(runner)


def test_the_live_version_is_counted_the_same_with_a_shadow_and_without(
    runner, tiny_bundle
) -> None:
    alone, beside = load(tiny_bundle("1.0")), load(tiny_bundle("1.0"))
    shade = pair(beside, load(tiny_bundle("2.0", seed=8)), runner)
    for row in ROWS.tolist():
        assert alone.predict(row) == beside.predict(row)
    windows = [
        model.observer.window if isinstance(model.observer, Tap) else model.observer
        for model in (alone, beside)
    ]
    first, second = (window.close() for window in windows)
    assert first.rows == second.rows == 200
    assert (first.cells == second.cells).all()
    watch(beside, None)
    beside.predict(ROW)
    assert counted(shade, runner).rows == 200, "what is no longer watched is not shown"


def test_counts_belong_to_one_period_each(runner, tiny_bundle) -> None:
    live, candidate = load(tiny_bundle("1.0")), load(tiny_bundle("1.1"))
    shade = pair(live, candidate, runner)
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            live.predict(ROW)

    asking = threading.Thread(target=ask)
    asking.start()
    total = 0
    for _ in range(30):
        record = shade.record(NOW)
        if record is not None:
            aside.decode(aside.encode(replace(record, device="pi1")))
            assert record.agreed == record.rows
            total += record.rows + record.skipped
        time.sleep(0.005)
    stop.set()
    asking.join()
    drained(runner)
    last = shade.record(NOW)
    total += last.rows + last.skipped if last else 0
    observer = live.observer
    assert isinstance(observer, Tap)
    assert total == observer.window.totals.answered


def test_a_closed_candidate_raises_for_nobody_else(tiny_bundle) -> None:
    candidate = load(tiny_bundle("2.0"))
    candidate.close()
    with pytest.raises(MachineFault):
        candidate.predict(ROW)


def test_a_candidate_that_never_ran_gives_its_memory_back(tiny_bundle) -> None:
    """No shade was made with it, so that no thread had begun."""
    fresh, candidate = Runner(), load(tiny_bundle("2.0"))
    fresh.later(candidate.close)
    done = threading.Event()
    fresh.later(done.set)
    assert done.wait(60)
    with pytest.raises(MachineFault):
        candidate.predict(ROW)
    assert fresh.stop(60)

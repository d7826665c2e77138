"""Swapping the live model: no request fails, each is answered by one version, memory returns."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import pytest

from edge_agent import Model
from edge_agent.live import Live, warm_up
from edge_contract import bundle as bundles
from edge_contract.errors import MachineFault

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}


@pytest.fixture
def make(tiny_bundle):
    def build(version: str, seed: int = 7) -> Model:
        return Model.from_bundle(bundles.read(tiny_bundle(version, seed=seed)))

    return build


def test_a_name_without_a_model_says_so() -> None:
    live = Live("pump")
    assert live.model is None
    with pytest.raises(MachineFault, match="'pump' is not installed"):
        live.predict(ROW)


def test_a_swap_returns_the_old_model_closed(make) -> None:
    old, new = make("1.0"), make("2.0", seed=8)
    live = Live("pump", old)
    left: list[Model] = []
    assert live.swap(new, on_left=left.append) is old
    assert live.model is new
    assert left == [old]
    assert live.predict(ROW) == new.predict(ROW)
    with pytest.raises(MachineFault, match="closed"):
        old.predict(ROW)


def test_a_request_under_way_keeps_the_old_model_open(make) -> None:
    old, new = make("1.0"), make("2.0", seed=8)
    live = Live("pump", old)
    left: list[Model] = []
    with live.use() as first, live.use() as second:
        live.swap(new, on_left=left.append)
        assert first is second is old
        assert old.predict(ROW) != new.predict(ROW)
        assert left == []
        with live.use() as third:
            assert third is new
    assert left == [old]


def test_the_seat_can_be_emptied_and_filled_again(make) -> None:
    model = make("1.0")
    live = Live("pump", model)
    assert live.swap(None) is model
    assert live.model is None
    assert live.swap(make("2.0")) is None
    assert live.predict(ROW).label in ("bad", "good")


def test_a_model_that_cannot_answer_its_golden_inputs_does_not_take_over(make) -> None:
    old, broken = make("1.0"), make("2.0")
    live = Live("pump", old)
    broken.close()
    with pytest.raises(MachineFault):
        live.swap(broken)
    assert live.model is old
    assert live.predict(ROW) == old.predict(ROW)


def test_warming_up_is_neither_counted_nor_judged(make, tiny_bundle) -> None:
    spoilt = Model.from_bundle(bundles.read(tiny_bundle(golden_shift=0.1)))
    assert warm_up(spoilt) > 0


def test_swaps_under_load_fail_no_request_and_mix_no_versions(make) -> None:
    versions = [make(str(i), seed=7 + i % 2) for i in range(40)]
    expected = {seed: make("x", seed=seed).predict(ROW) for seed in (7, 8)}
    live = Live("pump", versions[0])
    left: list[Model] = []
    stop = threading.Event()
    faults: list[object] = []
    answered = [0] * 4

    def work(i: int) -> None:
        while not stop.is_set():
            try:
                if live.predict(ROW) not in expected.values():
                    faults.append("an answer of no version")
                answered[i] += 1
            except Exception as error:  # noqa: BLE001 - any error at all is the finding
                faults.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for model in versions[1:]:
        before = sum(answered)
        live.swap(model, on_left=left.append)
        deadline = time.monotonic() + 10
        while sum(answered) < before + 20 and time.monotonic() < deadline:
            stop.wait(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert sum(answered) > 700
    assert len(left) == 39
    assert {id(model) for model in left} == {id(model) for model in versions[:-1]}


def test_the_memory_of_replaced_models_comes_back(make) -> None:
    def resident_kb() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4

    live = Live("pump", make("0"))
    for i in range(20):
        live.swap(make(str(i)))
    gc.collect()
    before = resident_kb()
    for i in range(150):
        live.swap(make(str(i)))
    gc.collect()
    assert resident_kb() - before < 6_000, "150 models of about 70 kB each were kept"

"""The loop and the workers: in order, on time, and never ended by a bug in what they run."""

import threading
import time

import pytest

from edge_agent.loop import Loop
from edge_agent.worker import Worker
from edge_contract.errors import InputFault, MachineFault


@pytest.fixture
def loop():
    running = Loop("test-loop")
    running.start()
    yield running
    running.stop()


def test_what_is_posted_runs_in_order_in_one_thread(loop: Loop) -> None:
    seen: list[tuple[int, int]] = []
    for i in range(100):
        loop.post(lambda i=i: seen.append((i, threading.get_ident())))
    assert loop.ask(lambda: len(seen)) == 100
    assert [i for i, _ in seen] == list(range(100))
    assert len({ident for _, ident in seen}) == 1


def test_timers_run_when_due_and_not_when_cancelled(loop: Loop) -> None:
    seen: list[str] = []
    done = threading.Event()
    begin = time.monotonic()
    loop.later(0.05, done.set)
    loop.later(0.02, lambda: seen.append("second"))
    loop.later(0.01, lambda: seen.append("first"))
    cancelled = loop.later(0.015, lambda: seen.append("never"))
    cancelled.cancel()
    cancelled.cancel()
    assert done.wait(60)
    assert time.monotonic() - begin >= 0.05
    assert seen == ["first", "second"]


def test_a_fault_or_a_bug_in_one_call_does_not_end_the_loop(loop: Loop, caplog) -> None:
    def fault() -> None:
        raise InputFault("bad input")

    loop.post(fault)
    loop.post(lambda: 1 / 0)
    assert loop.ask(lambda: 42) == 42
    assert "bad input" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(InputFault):
        loop.ask(fault)


def test_what_runs_every_period_goes_on_whatever_one_of_it_raises(loop: Loop, caplog) -> None:
    runs, enough = [0, 0], threading.Event()

    def failing() -> None:
        runs[0] += 1
        raise InputFault("bad input" if runs[0] != 3 else "other input")

    def well() -> None:
        runs[1] += 1
        if runs[1] == 5:
            enough.set()

    loop.every(0.001, failing, well)
    assert enough.wait(60)
    assert runs[0] >= runs[1] >= 5
    said = [record.getMessage() for record in caplog.records]
    assert said == ["bad input", "other input", "bad input"], "an error is said when it is news"


def test_a_loop_that_ended_takes_nothing_more() -> None:
    loop = Loop("test-loop")
    loop.start()
    seen: list[int] = []
    loop.later(60, lambda: seen.append(1))
    loop.post(lambda: seen.append(2))
    loop.stop()
    assert seen == [2]
    loop.post(lambda: seen.append(3))
    with pytest.raises(MachineFault, match="has stopped"):
        loop.ask(lambda: 1)
    assert seen == [2]


def test_a_worker_works_in_order_survives_bugs_and_stops(caplog) -> None:
    worker = Worker("test-worker")
    seen: list[int] = []
    worker.submit(lambda: 1 / 0)
    for i in range(10):
        worker.submit(lambda i=i: seen.append(i))
    worker.drain()
    assert seen == list(range(10))
    assert "ZeroDivisionError" in caplog.text
    hold = threading.Event()
    begun = threading.Event()
    worker.submit(lambda: (begun.set(), hold.wait(60)))
    worker.submit(lambda: seen.append(99))
    assert begun.wait(60)
    assert not worker.stop(0.01)  # what is under way is not waited for any longer
    hold.set()
    assert worker.stop(60)
    worker.submit(lambda: seen.append(99))
    assert seen == list(range(10))

"""What misbehaves is condemned in a process of its own, with evidence, and harms nobody else."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from odd_bundles import with_budget

from edge_agent import hardware, slot
from edge_agent.report import failure_lines
from edge_agent.selftest import Limits, Report, prove
from edge_contract import messages
from edge_contract.manifest import Runtime
from edge_contract.messages import Event, Failure

LIMITS = Limits(timeout_s=60, runs=8)


def verdict(folder: Path, limits: Limits = LIMITS) -> tuple[Report, Limits]:
    """The report, under the stricter of ``limits`` and the manifest's."""
    both = limits.within(slot.verify(folder, folder.name).runtime)
    return prove(folder, both, threading.Event()), both


def test_an_endless_loop_is_ended_and_condemned(odd_bundle, lay_slot) -> None:
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    others = set(children.read_text().split())
    report, _ = verdict(lay_slot(odd_bundle("looping", golden_temp=1e18)), Limits(timeout_s=4))
    assert report.findings == ("no result within 4 s",)
    assert report.ended == "no result within 4 s"
    assert set(children.read_text().split()) <= others


def test_a_model_that_crashes_the_runtime_takes_only_the_child_down(odd_bundle, lay_slot) -> None:
    report, _ = verdict(lay_slot(odd_bundle("crashing")))
    assert report.findings == ("the test process was killed: SIGSEGV",)


def test_a_model_that_eats_more_memory_than_there_is_is_stopped_at_its_fence(
    odd_bundle, lay_slot
) -> None:
    """As much again as is free: without a fence the kernel would go looking for a victim."""
    elements = 2 * hardware.available_bytes() // 4
    report, _ = verdict(lay_slot(odd_bundle("greedy", golden_temp=float(elements))))
    assert not report.passed
    assert str(report) == "not enough memory to run the model"


def test_a_model_that_eats_more_than_its_budget_allows_is_stopped_at_its_fence(
    odd_bundle, lay_slot
) -> None:
    """400 MB where the manifest allows 8: it does not get them, though they are free."""
    bundle = with_budget(odd_bundle("greedy", golden_temp=1e8), ram_bytes_max=8_000_000)
    report, _ = verdict(lay_slot(bundle))
    assert not report.passed
    assert str(report) == "not enough memory to run the model"
    unlimited, _ = verdict(lay_slot(odd_bundle("greedy", golden_temp=1e8)))
    assert "memory" not in str(unlimited)


@pytest.mark.parametrize(
    ("settings", "budget", "limit"),
    [
        ({}, {"latency_ms_max": 1e-6}, 1e-6),
        ({"latency_max_ms": 1e-6}, {}, 1e-6),
        ({"latency_max_ms": 1e-6}, {"latency_ms_max": 60_000.0}, 1e-6),
        ({"latency_max_ms": 60_000.0}, {"latency_ms_max": 1e-6}, 1e-6),
    ],
)
def test_slower_than_the_stricter_of_manifest_and_settings_is_condemned(
    settings, budget, limit, tiny_bundle, lay_slot
) -> None:
    folder = lay_slot(with_budget(tiny_bundle(), **budget))
    report, both = verdict(folder, Limits(timeout_s=60, runs=8, **settings))
    assert not report.passed
    assert "p99 latency" in str(report)
    seen = report.seen(both)
    assert seen.latency_limit_ms == limit
    assert seen.latency_p99_ms >= seen.latency_p50_ms > limit


def test_more_memory_than_the_manifest_allows_is_condemned_with_both_figures(
    tiny_bundle, lay_slot
) -> None:
    report, both = verdict(lay_slot(with_budget(tiny_bundle(), ram_bytes_max=1000)))
    assert "bytes of memory are over 1000" in str(report)
    seen = report.seen(both)
    assert (seen.ram_limit_bytes, seen.ram_bytes) == (1000, report.ram_bytes)


def test_generous_budgets_are_kept(tiny_bundle, lay_slot) -> None:
    bundle = with_budget(tiny_bundle(), ram_bytes_max=2**30, latency_ms_max=60_000)
    report, _ = verdict(lay_slot(bundle))
    assert report.passed, report


def test_a_model_that_answers_nan_is_condemned_though_its_golden_samples_say_nan(
    odd_bundle, lay_slot
) -> None:
    report, _ = verdict(lay_slot(odd_bundle("nan")))
    assert not report.passed
    assert "no golden sample is answered: the model answered" in str(report)


def test_the_stricter_limit_is_taken_of_each_and_0_is_none() -> None:
    limits = Limits(latency_max_ms=5, ram_bytes_max=0)
    budget = Runtime(
        ir=8, opsets={}, ops=(), onnxruntime="1.18", ram_bytes=0, ram_bytes_max=7, latency_ms_max=9
    )
    both = limits.within(budget)
    assert (both.latency_max_ms, both.ram_bytes_max) == (5, 7)
    assert (both.timeout_s, both.runs) == (limits.timeout_s, limits.runs)


def test_which_golden_rows_are_off_by_how_much_is_in_the_evidence(tiny_bundle, lay_slot) -> None:
    report, both = verdict(lay_slot(tiny_bundle(golden_shift=0.01)))
    (off,) = report.golden
    assert (off.output, off.wrong, off.values) == ("probabilities", 32, 32)
    assert off.rows == tuple(range(8))
    assert off.worst == pytest.approx(0.01, rel=0.01)
    assert off.allowed is not None and off.allowed < 1e-4
    failure = Failure(
        version="2.0", digest="a" * 64, reason=str(report)[:300], findings=report.seen(both)
    )
    said = "\n".join(failure_lines(failure))
    assert "golden output probabilities: 32 of 32 values off in rows 0, 1, 2" in said
    assert "by up to 0.01" in said
    event = Event(boot=1, seq=1, at_ms=1, kind="x", findings=report.seen(both))
    assert messages.decode(messages.encode(event), Event) == event


def test_a_runs_figures_are_taken_again_when_the_machine_was_busy(lay_slot, tiny_bundle) -> None:
    """A clock that is slow in the first round only: the second one counts."""
    from edge_agent import selftest

    calls = 0

    def clock() -> int:
        nonlocal calls
        calls += 1
        step = 10**9 if calls < 10 else 1000
        return calls * step if calls < 10 else 10**10 + calls * step

    folder = lay_slot(tiny_bundle())
    assert selftest.examine(folder, 4, clock, latency_max_ms=1.0).latency_p99_ms < 1.0
    calls = 0
    assert selftest.examine(folder, 4, clock).latency_p99_ms > 1.0


def test_the_fence_is_there_before_the_model_is(lay_slot, tiny_bundle) -> None:
    """Read from the child's own limits, while it runs."""
    import subprocess
    import sys

    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "edge_agent.selftest", str(lay_slot(tiny_bundle())),
         "--runs", "100000000", "--ram-bytes-max", "1000000"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        limit = "unlimited"
        while limit == "unlimited" and time.monotonic() < deadline:
            lines = Path(f"/proc/{child.pid}/limits").read_text().splitlines()
            limit = next(line for line in lines if line.startswith("Max data size")).split()[3]
        assert limit != "unlimited"
        assert int(limit) < 2**31
    finally:
        child.kill()
        child.wait()

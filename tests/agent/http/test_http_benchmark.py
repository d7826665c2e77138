"""What the serving benchmark makes of its figures: ratios within a turn, goals, the table."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Any]:
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location("serving_benchmark", f"{folder}/serving.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(folder)


def server(one: list[float], many: list[float]) -> dict[str, Any]:
    """One server's figures in three turns, where they are judged; ten times that elsewhere."""
    paced = {1: one, 16: [10 * us for us in many]}
    saturated = {1: [10 * us for us in one], 16: many}
    return {"us": {"paced": paced, "saturated": saturated}, "pss_mb": 41.2, "start_s": 0.84}


FOUND = {
    "edge-pack": server([50, 100, 40], [40, 80, 40]),
    "nothing": server([10, 50, 10], [10, 10, 10]),
    "bare": server([40, 50, 20], [20, 20, 20]),
    "MLServer": server([1500, 2000, 1200], [700, 1500, 600]),
}


def test_a_ratio_is_taken_within_a_turn(benchmark: Any) -> None:
    assert benchmark.times_ours(FOUND, "MLServer", 1) == 30  # not 1500 / 50 of all turns' medians
    assert benchmark.times_ours(FOUND, "MLServer", 16) == 17.5
    assert benchmark.times_ours(FOUND, "edge-pack", 1) == 1


def test_each_goal_stands_with_what_was_measured(benchmark: Any) -> None:
    assert benchmark.goals(FOUND) == {
        "MLServer over ours, 1 connections, at least": [30, 20, True],
        "ours over nothing, 1 connections, at most": [4, 4, True],
        "ours over bare, 1 connections, at most": [2, 1.5, False],
        "MLServer over ours, 16 connections, at least": [17.5, 20, False],
        "ours over nothing, 16 connections, at most": [4, 4, True],
        "ours over bare, 16 connections, at most": [2, 1.5, False],
    }


def test_the_table_has_a_line_for_every_server(benchmark: Any) -> None:
    lines = benchmark.markdown(FOUND).splitlines()
    assert lines[2:] == [
        "| edge-pack | **50** / 400 | 500 / **40** | 1 / 1 | 41 MB | 0.8 s |",
        "| a server that does nothing | **10** / 100 | 100 / **10** "
        "| 0.25 / 0.25 | 41 MB | 0.8 s |",
        "| the bare session in that server, unchecked | **40** / 200 | 400 / **20** "
        "| 0.5 / 0.5 | 41 MB | 0.8 s |",
        "| MLServer | **1,500** / 7,000 | 15,000 / **700** | 30 / 18 | 41 MB | 0.8 s |",
    ]

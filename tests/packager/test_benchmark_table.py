"""The README's table of models is what the packager's benchmark prints, model by model."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SIZE = r"[\d,]+\.\d kB, \d+"
ROW = re.compile(rf"\| [^|]+( \| ({SIZE}|-|fails)){{3}}( \| (\d+\.\d\d|-)){{2}} \|")


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Any]:
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location("packager_benchmark", f"{folder}/packager.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(folder)


def _lines(benchmark: Any, text: str) -> list[str]:
    _, begin, rest = text.partition(benchmark.BEGIN)
    table, end, _ = rest.partition(benchmark.END)
    assert begin and end
    lines: list[str] = table.strip().splitlines()
    return lines


def test_the_readme_has_a_row_for_every_model_in_the_form_that_is_printed(benchmark: Any) -> None:
    lines = _lines(benchmark, benchmark.README.read_text(encoding="utf-8"))
    assert lines[:2] == benchmark.HEADER.splitlines()
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    assert names == [case.name for case in benchmark.cases(quick=False)]
    assert all(ROW.fullmatch(line) for line in lines[2:]), lines
    assert len(lines) <= 16 and max(map(len, lines)) <= 100


def _figures(benchmark: Any, **changed: Any) -> dict[str, Any]:
    none = benchmark.Figure(why="no operator that it quantizes")
    done = benchmark.Figure(bytes=2000, rss_bytes=400, rounds_us=(10.0, 30.0, 11.0), flips=3)
    ours = benchmark.Figure(bytes=500, rss_bytes=300, rounds_us=(5.0, 60.0, 5.5), flips=0)
    engines = {"stock": done, "ort dynamic": none, "ort static": none, "edge-pack": ours}
    return {**engines, **changed}


def test_a_row_says_what_fails_and_what_is_not_for_the_model(benchmark: Any) -> None:
    fails = benchmark.Figure(why="TypeError", fails=True)
    better = benchmark.Figure(bytes=900, rounds_us=(1.0,), flips=1)
    worse = benchmark.Figure(bytes=100, rounds_us=(1.0,), flips=2)
    found = {
        "plain": _figures(benchmark),
        "stock fails": _figures(benchmark, stock=fails),
        "quantized": _figures(benchmark, **{"ort dynamic": worse, "ort static": better}),
        "one fails": _figures(benchmark, **{"ort dynamic": fails}),
    }
    header, rows = benchmark.HEADER.splitlines(), benchmark.markdown(found).splitlines()
    assert rows == [
        *header,
        "| plain | 2.0 kB, 3 | - | 0.5 kB, 0 | 0.50 | 0.75 |",
        "| stock fails | fails | - | 0.5 kB, 0 | - | - |",
        "| quantized | 2.0 kB, 3 | 0.9 kB, 1 | 0.5 kB, 0 | 0.50 | 0.75 |",
        "| one fails | 2.0 kB, 3 | fails | 0.5 kB, 0 | 0.50 | 0.75 |",
    ]
    assert all(ROW.fullmatch(row) for row in rows[2:])


def test_goals_are_no_flips_and_no_byte_above_stock(benchmark: Any) -> None:
    large = benchmark.Figure(bytes=2001, rounds_us=(1.0,), flips=1)
    goals = benchmark.goals(
        {"good": _figures(benchmark), "bad": _figures(benchmark, **{"edge-pack": large})}
    )
    assert {name: met for name, (_, _, met) in goals.items()} == {
        "good flips": True, "good bytes": True, "bad flips": False, "bad bytes": False,
        "median bytes": False,
    }  # fmt: skip


def test_the_table_replaces_what_lies_between_its_markers(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "README.md"
    monkeypatch.setattr(benchmark, "README", page)
    page.write_text(f"before\n{benchmark.BEGIN}\nold\n{benchmark.END}\nafter\n")
    benchmark.write_readme("| new \\1 |")
    expected = f"before\n{benchmark.BEGIN}\n| new \\1 |\n{benchmark.END}\nafter\n"
    assert page.read_text() == expected
    page.write_text("no markers")
    with pytest.raises(ValueError, match="0 places"):
        benchmark.write_readme("x")

"""The search from the command line: its options, the table it prints, the recipe it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import pytest
from typer.testing import CliRunner

from edge_pack import memory
from edge_pack.cli import app
from edge_pack.compress import storage


@pytest.fixture
def options(digits_mlp: Any, digits: Any, tmp_path: Path) -> list[str]:
    """Model, rows and budgets of a build whose bundle is ``a.edgepack``."""
    frame, target = digits
    joblib.dump(digits_mlp, tmp_path / "m.joblib")
    frame.join(target).to_csv(tmp_path / "rows.csv", index=False)
    return [
        str(tmp_path / "m.joblib"), "--data", str(tmp_path / "rows.csv"), "--target", "digit",
        "--name", "m", "--version", "1",
    ]  # fmt: skip


def _call(*words: str) -> Any:
    return CliRunner().invoke(app, ["build", *words], env={"COLUMNS": "200"})


def test_a_search_prints_its_table_and_a_recipe_builds_the_same(
    options: list[str], tmp_path: Path
) -> None:
    out, other = tmp_path / "a.edgepack", tmp_path / "b.edgepack"
    budget = ["--max-flips", "2%", "--max-metric-drop", "1%", "--runtime", ">=1.17"]
    found = _call(*options, *budget, "--optimize", "balanced", "--batch", "16", "-o", str(out))
    assert found.exit_code == 0, found.output
    head = next(line for line in found.stdout.splitlines() if line.startswith("candidate"))
    for name in ("bytes", "ratio", "flips", "accuracy", "p50 b1", "p50 b16", "memory", "verdict"):
        assert name in head
    assert found.stdout.count("<- chosen") == 1 and "over budget" in found.stdout
    measured = json.loads((tmp_path / "a.measured.json").read_text())
    assert measured["search"]["optimize"] == "balanced"
    followed = json.loads((tmp_path / "a.recipe.json").read_text())
    assert (followed["max_flips"], followed["runtime"]) == (0.02, ">=1.17")

    again = _call(*options, "--recipe", str(tmp_path / "a.recipe.json"), "--no-measure",
                  "-o", str(other), "--json")  # fmt: skip
    assert again.exit_code == 0, again.output
    assert other.read_bytes() == out.read_bytes()
    said = json.loads(again.stdout)
    assert said["search"] is None and said["manifest"]["compression"]["mode"] == followed["mode"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--quantize", "int3"], "--quantize 'int3' is unknown"),
        (["--optimize", "speed"], "--optimize 'speed' is unknown"),
        (["--max-metric-drop", "much"], "--max-metric-drop 'much' is not a share"),
        (["--recipe", "none.json"], "none.json"),
    ],
)
def test_a_wrong_option_is_named(options: list[str], words: list[str], said: str) -> None:
    found = _call(*options, *words, "-o", "x.edgepack")
    assert said in str(found.exception)


def test_memory_is_that_of_the_weights_as_they_are_at_run_time(make: Any) -> None:
    proto = make("matmul")
    plain = memory.estimate(proto)
    for store in (storage.int8_storage, storage.int4_storage, storage.fp16_storage):
        stored = memory.estimate(store(proto)[0])
        assert plain < 1.01 * stored and stored < 1.01 * plain
